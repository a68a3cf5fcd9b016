//! The one place where names and transactions are judged before they reach a store.
//!
//! Every backend calls [`check_txn`] (and [`check_name`] where there is no transaction) first, so that what one store
//! would refuse is refused by all, by name, before anything is sent: a transaction that works in memory works on etcd.

use std::collections::BTreeSet;

use crate::{Error, Guard, Key, Op, Scan, SessionId, TXN_BYTES_MAX, TXN_OPS_MAX, Txn, VALUE_BYTES_MAX};

/// Longest name of a key, in bytes. 128 guards and 128 operations on such names still fit into the half MiB that
/// [`TXN_BYTES_MAX`] leaves to framing.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest name of a cluster, in bytes: it is part of every stored key.
pub const CLUSTER_BYTES_MAX: usize = 63;

/// A cluster's name: it becomes a component of every stored key.
pub(crate) fn check_cluster(cluster: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if cluster.is_empty() || cluster.len() > CLUSTER_BYTES_MAX || !cluster.chars().all(fits) || cluster.starts_with('-')
    {
        return Err(Error::Fatal(format!(
            "cluster name '{}' is not usable: give 1 to {CLUSTER_BYTES_MAX} characters of a-z, 0-9 and '-', not \
             beginning with '-'",
            shown(cluster)
        )));
    }
    Ok(())
}

/// A key's name: not empty, not too long, printable.
pub(crate) fn check_name(key: &Key) -> Result<(), Error> {
    if key.name.is_empty() {
        return Err(Error::Fatal(format!("a key of {} has an empty name", key.keyspace.name())));
    }
    check_prefix(&key.name)
}

/// What a scan or a watch selects by; may be empty.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), Error> {
    if prefix.len() > NAME_BYTES_MAX {
        return Err(too_large("the name of a key", prefix.len(), "NAME_BYTES_MAX", NAME_BYTES_MAX));
    }
    if prefix.chars().any(char::is_control) {
        return Err(Error::Fatal(format!("the key name '{}' has a control character in it", shown(prefix))));
    }
    Ok(())
}

/// Both names of a scan.
pub(crate) fn check_scan(scan: &Scan) -> Result<(), Error> {
    check_prefix(&scan.prefix)?;
    scan.after.as_deref().map_or(Ok(()), check_prefix)
}

/// A session's name becomes a component of keys (of locks, for instance), so it has no '/'.
pub(crate) fn check_session(id: &SessionId) -> Result<(), Error> {
    if id.0.is_empty() || id.0.contains('/') {
        return Err(Error::Fatal(format!("session id '{}' is not usable: empty, or with '/' in it", shown(&id.0))));
    }
    check_prefix(&id.0)
}

/// Everything that can be said of a transaction without asking the store.
pub(crate) fn check_txn(txn: &Txn) -> Result<(), Error> {
    for (what, size) in [
        ("the list of guards of a transaction", txn.guards.len()),
        ("the list of operations of a transaction", txn.ops.len()),
        ("the list of keys to read when a guard fails", txn.read_on_failure.len()),
    ] {
        if size > TXN_OPS_MAX {
            return Err(too_large(what, size, "TXN_OPS_MAX", TXN_OPS_MAX));
        }
    }
    let mut bytes = 0;
    for guard in &txn.guards {
        bytes += check_guard(guard)?;
    }
    for key in &txn.read_on_failure {
        check_name(key)?;
        bytes += key.name.len();
    }
    for op in &txn.ops {
        bytes += check_op(op)?;
    }
    if bytes > TXN_BYTES_MAX {
        return Err(too_large("a transaction", bytes, "TXN_BYTES_MAX", TXN_BYTES_MAX));
    }
    check_written_once(&txn.ops)
}

fn check_guard(guard: &Guard) -> Result<usize, Error> {
    match guard {
        Guard::Absent(key) | Guard::Present(key) | Guard::AtRevision(key, _) => {
            check_name(key)?;
            Ok(key.name.len())
        }
        Guard::SessionAlive(id) | Guard::SessionGone(id) => {
            check_session(id)?;
            Ok(id.0.len())
        }
        Guard::NothingNewer { prefix, .. } => {
            check_prefix(prefix)?;
            Ok(prefix.len())
        }
    }
}

fn check_op(op: &Op) -> Result<usize, Error> {
    match op {
        Op::Put { key, value, session } => {
            check_name(key)?;
            if let Some(id) = session {
                check_session(id)?;
            }
            check_value(value.len())?;
            Ok(key.name.len() + value.len())
        }
        Op::Delete(key) => {
            check_name(key)?;
            Ok(key.name.len())
        }
        Op::DeleteRange { from, to, .. } => {
            check_prefix(from)?;
            check_prefix(to)?;
            Ok(from.len() + to.len())
        }
    }
}

/// The size of one value.
pub(crate) fn check_value(bytes: usize) -> Result<(), Error> {
    if bytes > VALUE_BYTES_MAX {
        return Err(too_large("a value", bytes, "VALUE_BYTES_MAX", VALUE_BYTES_MAX));
    }
    Ok(())
}

/// etcd refuses a transaction that puts one key twice, or puts what it also deletes. Two deletions of one key are one.
fn check_written_once(ops: &[Op]) -> Result<(), Error> {
    let mut put = BTreeSet::new();
    for op in ops {
        if let Op::Put { key, .. } = op
            && !put.insert((key.keyspace, key.name.as_str()))
        {
            return Err(twice(key));
        }
    }
    for op in ops {
        let hit = match op {
            Op::Put { .. } => None,
            Op::Delete(key) => put.get(&(key.keyspace, key.name.as_str())),
            Op::DeleteRange { keyspace, from, to } if from < to => {
                put.range((*keyspace, from.as_str())..(*keyspace, to.as_str())).next()
            }
            Op::DeleteRange { .. } => None,
        };
        if let Some((keyspace, name)) = hit {
            return Err(twice(&Key::new(*keyspace, *name)));
        }
    }
    Ok(())
}

fn twice(key: &Key) -> Error {
    Error::Fatal(format!(
        "a transaction writes {}/{} twice: put each key in one operation",
        key.keyspace.name(),
        key.name
    ))
}

fn too_large(what: &'static str, size: usize, limit_name: &'static str, limit: usize) -> Error {
    Error::TooLarge { what, size, limit_name, limit }
}

/// What a message shows of text that may be anything.
fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Keyspace;

    fn put(name: &str, value: Vec<u8>) -> Op {
        Op::Put { key: Key::new(Keyspace::Meta, name), value: Bytes::from(value), session: None }
    }

    fn limit_of(txn: &Txn) -> &'static str {
        match check_txn(txn) {
            Err(Error::TooLarge { limit_name, .. }) => limit_name,
            other => panic!("not refused for its size: {other:?}"),
        }
    }

    #[test]
    fn sizes_are_refused_by_name_and_the_limit_itself_is_allowed() {
        let many = |count: usize| (0..count).map(|i| put(&i.to_string(), vec![])).collect::<Vec<_>>();
        assert!(check_txn(&Txn { ops: many(TXN_OPS_MAX), ..Txn::default() }).is_ok());
        assert_eq!(limit_of(&Txn { ops: many(TXN_OPS_MAX + 1), ..Txn::default() }), "TXN_OPS_MAX");
        let keys = |count: usize| (0..count).map(|i| Key::new(Keyspace::Meta, i.to_string())).collect::<Vec<_>>();
        let guards = keys(TXN_OPS_MAX + 1).into_iter().map(Guard::Absent).collect();
        assert_eq!(limit_of(&Txn { guards, ..Txn::default() }), "TXN_OPS_MAX");
        assert_eq!(limit_of(&Txn { read_on_failure: keys(TXN_OPS_MAX + 1), ..Txn::default() }), "TXN_OPS_MAX");
        assert!(check_txn(&Txn { ops: vec![put("a", vec![0; VALUE_BYTES_MAX])], ..Txn::default() }).is_ok());
        assert_eq!(
            limit_of(&Txn { ops: vec![put("a", vec![0; VALUE_BYTES_MAX + 1])], ..Txn::default() }),
            "VALUE_BYTES_MAX"
        );
        let five = (0..5).map(|i| put(&i.to_string(), vec![0; VALUE_BYTES_MAX])).collect();
        assert_eq!(limit_of(&Txn { ops: five, ..Txn::default() }), "TXN_BYTES_MAX");
        assert_eq!(
            limit_of(&Txn { ops: vec![put(&"n".repeat(NAME_BYTES_MAX + 1), vec![])], ..Txn::default() }),
            "NAME_BYTES_MAX"
        );
    }

    #[test]
    fn a_key_is_put_once_and_not_deleted_too() {
        let delete = |name: &str| Op::Delete(Key::new(Keyspace::Meta, name));
        let range =
            |from: &str, to: &str| Op::DeleteRange { keyspace: Keyspace::Meta, from: from.into(), to: to.into() };
        let check = |ops: Vec<Op>| check_txn(&Txn { ops, ..Txn::default() });
        assert!(matches!(check(vec![put("a", vec![]), put("a", vec![])]), Err(Error::Fatal(_))));
        assert!(matches!(check(vec![put("a", vec![]), delete("a")]), Err(Error::Fatal(_))));
        assert!(matches!(check(vec![range("a", "c"), put("b", vec![])]), Err(Error::Fatal(_))));
        assert!(check(vec![range("a", "b"), put("b", vec![])]).is_ok());
        assert!(check(vec![range("b", "a"), put("a", vec![])]).is_ok(), "an empty range deletes nothing");
        assert!(check(vec![delete("a"), delete("a"), range("a", "b")]).is_ok());
    }

    #[test]
    fn names_that_would_leave_their_place_are_refused() {
        assert!(check_cluster("prod-1").is_ok());
        for bad in ["", "a/b", "Prod", "-a", "a\0b", &"c".repeat(CLUSTER_BYTES_MAX + 1)] {
            assert!(check_cluster(bad).is_err(), "{bad:?}");
        }
        assert!(check_name(&Key::new(Keyspace::Meta, "")).is_err());
        assert!(check_name(&Key::new(Keyspace::Meta, "a\nb")).is_err());
        assert!(check_session(&SessionId("a/b".into())).is_err());
    }
}
