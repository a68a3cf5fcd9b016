//! The store, with each transaction counted and timed, whoever sends it. Changes nothing of what it is asked and answers.
//!
//! Takeovers are counted here and not where they are decided: what was committed is what has happened.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use muster_graph::ids::JobId;
use muster_state::{
    Entry, Error, Guard, Key, Keyspace, Lock, Op, Page, Revision, Scan, Session, SessionId, StateBackend, StoreStatus,
    Txn, TxnOutcome, WatchStream,
};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub(crate) struct Metered {
    inner: Arc<dyn StateBackend>,
    metrics: Arc<Metrics>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn StateBackend>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

/// The jobs that a transaction takes over: it writes owners over others, whose session it compares to be gone.
fn taken_over(txn: &Txn) -> Vec<JobId> {
    if !txn.guards.iter().any(|guard| matches!(guard, Guard::SessionGone(_))) {
        return Vec::new();
    }
    let written = txn.ops.iter().filter_map(|op| match op {
        Op::Put { key, .. } if key.keyspace == Keyspace::JobOwners => Some(key),
        _ => None,
    });
    let over_another =
        |key: &&Key| txn.guards.iter().any(|guard| matches!(guard, Guard::AtRevision(at, _) if at == *key));
    written.filter(over_another).filter_map(|key| key.name.parse().ok()).collect()
}

#[async_trait]
impl StateBackend for Metered {
    async fn put_txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        let jobs = taken_over(&txn);
        let sent = Instant::now();
        let answer = self.inner.put_txn(txn).await;
        let outcome = match &answer {
            Ok(TxnOutcome::Committed(_)) => "committed",
            Ok(TxnOutcome::Refused { .. }) => "refused",
            Err(Error::Unknown(_)) => "unknown",
            Err(_) => "failed",
        };
        self.metrics.transaction(outcome, sent.elapsed());
        match &answer {
            Ok(TxnOutcome::Committed(_)) => jobs.into_iter().for_each(|job| self.metrics.taken_over(job)),
            Err(Error::Unknown(why)) => tracing::warn!(why, "transaction with unknown outcome"),
            _ => {}
        }
        answer
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<(Revision, Vec<Option<Entry>>), Error> {
        self.inner.get_many(keys).await
    }

    async fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Result<Page, Error> {
        self.inner.get_from_prefix(keyspace, prefix).await
    }

    async fn scan(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        self.inner.scan(keyspace, scan).await
    }

    async fn scan_keys(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        self.inner.scan_keys(keyspace, scan).await
    }

    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        self.inner.watch(keyspace, prefix, from).await
    }

    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error> {
        self.inner.open_session(id, ttl, value).await
    }

    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
        self.inner.lock(name, session).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.inner.revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        self.inner.status().await
    }

    async fn defragment(&self, member: u64) -> Result<(), Error> {
        self.inner.defragment(member).await
    }

    async fn disarm_no_space(&self, member: u64) -> Result<(), Error> {
        self.inner.disarm_no_space(member).await
    }
}

#[cfg(test)]
mod tests {
    use muster_state::Memory;
    use muster_state::faults::{Fault, Faulty, Operation};
    use muster_state::keys;

    use super::*;

    fn claim(job: JobId, guards: Vec<Guard>) -> Txn {
        let op = Op::Put { key: keys::owner(job), value: Bytes::from_static(b"me"), session: None };
        Txn { guards, ops: vec![op], read_on_failure: Vec::new() }
    }

    #[tokio::test]
    async fn a_takeover_is_one_when_it_is_committed() {
        let faulty = Faulty::new(Arc::new(Memory::new()));
        let metrics = Arc::new(Metrics::new());
        let store = Metered::new(Arc::new(faulty.clone()), Arc::clone(&metrics));
        let (first, second) = (JobId(1), JobId(2));
        let fresh = vec![Guard::Absent(keys::owner(first))];
        let TxnOutcome::Committed(token) = store.put_txn(claim(first, fresh)).await.unwrap() else { panic!("absent") };
        assert_eq!(metrics.takeovers.get(), 0, "nobody had it");
        let gone = || Guard::SessionGone(SessionId("old".to_owned()));
        let stale = vec![Guard::AtRevision(keys::owner(first), token + 1), gone()];
        assert!(matches!(store.put_txn(claim(first, stale)).await.unwrap(), TxnOutcome::Refused { .. }));
        assert_eq!(metrics.takeovers.get(), 0, "it was refused");
        faulty.inject(Keyspace::JobOwners, Operation::Write, Fault::UnknownNotDone, 1);
        let right = || vec![Guard::AtRevision(keys::owner(first), token), gone()];
        assert!(matches!(store.put_txn(claim(first, right())).await, Err(Error::Unknown(_))));
        store.put_txn(claim(first, right())).await.unwrap();
        assert_eq!(metrics.takeovers.get(), 1);
        store.put_txn(claim(second, vec![Guard::Absent(keys::owner(second)), gone()])).await.unwrap();
        assert_eq!(metrics.takeovers.get(), 1, "the second was nobody's");
        let text = metrics.text(Duration::ZERO, 0);
        for (outcome, count) in [("committed", 3), ("refused", 1), ("unknown", 1), ("failed", 0)] {
            let line = format!("muster_store_transactions_total{{outcome=\"{outcome}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
