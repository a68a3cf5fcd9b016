//! Calls that are one guarded transaction on every store: what the trait's put, delete and mv do unless a backend knows
//! better.

use bytes::Bytes;

use crate::{Error, Guard, Key, Op, Revision, StateBackend, Txn, TxnOutcome};

/// A value moves: the source is as it was read, the target is absent.
pub(crate) fn transaction(from: Key, from_revision: Revision, to: Key, value: Bytes, mut guards: Vec<Guard>) -> Txn {
    guards.push(Guard::AtRevision(from.clone(), from_revision));
    guards.push(Guard::Absent(to.clone()));
    let read_on_failure = vec![from.clone(), to.clone()];
    Txn { guards, ops: vec![Op::Put { key: to, value, session: None }, Op::Delete(from)], read_on_failure }
}

/// An unconditional write.
pub(crate) async fn put(backend: &(impl StateBackend + ?Sized), key: Key, value: Bytes) -> Result<Revision, Error> {
    let ops = vec![Op::Put { key, value, session: None }];
    match backend.put_txn(Txn { ops, ..Txn::default() }).await? {
        TxnOutcome::Committed(revision) => Ok(revision),
        TxnOutcome::Refused { .. } => Err(Error::Fatal("a transaction without guards was refused".to_owned())),
    }
}

/// A deletion that knows whether there was something: guarded by presence, it makes a revision only then.
pub(crate) async fn delete(backend: &(impl StateBackend + ?Sized), key: &Key) -> Result<bool, Error> {
    let txn = Txn { guards: vec![Guard::Present(key.clone())], ops: vec![Op::Delete(key.clone())], ..Txn::default() };
    Ok(matches!(backend.put_txn(txn).await?, TxnOutcome::Committed(_)))
}
