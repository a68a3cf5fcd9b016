//! What only the core can show: what it keeps, and what it forgets.

use bytes::Bytes;

use super::*;

fn put(name: &str, value: &'static str) -> Txn {
    let key = Key::new(Keyspace::Meta, name);
    Txn { ops: vec![Op::Put { key, value: Bytes::from(value), session: None }], ..Txn::default() }
}

fn delete(name: &str) -> Txn {
    Txn { ops: vec![Op::Delete(Key::new(Keyspace::Meta, name))], ..Txn::default() }
}

fn core(txns: Vec<Txn>) -> Core {
    let mut core = Core::new();
    for txn in txns {
        core.apply(txn).unwrap();
    }
    core.publish();
    core
}

#[test]
fn compaction_keeps_what_shows_and_says_what_it_dropped() {
    // Revisions 2..=6: a=1, a=2, b=1, delete b, a=3.
    let mut core = core(vec![put("a", "1"), put("a", "2"), put("b", "1"), delete("b"), put("a", "3")]);
    assert_eq!(core.compact(4).unwrap(), [(2, 0)], "a=2 still shows at 4");
    assert_eq!(core.compact(6).unwrap(), [(4, 0), (5, 0)], "a deletion does not show");
    assert_eq!(core.oldest(), 6);
    assert_eq!(core.compact(7).unwrap(), [(3, 0)]);
    assert_eq!(core.compact(5).unwrap(), [], "compacted before");
    assert!(matches!(core.compact(8), Err(Error::Fatal(_))), "that is not there yet");
    assert!(core.histories(Keyspace::Meta).get("b").is_none());
    assert_eq!(core.get(&Key::new(Keyspace::Meta, "a")).unwrap().value, "3");
}

#[test]
fn what_is_not_published_is_judged_by_guards_and_seen_by_nobody() {
    let mut core = core(vec![put("a", "1")]);
    core.apply(put("a", "2")).unwrap();
    let a = Key::new(Keyspace::Meta, "a");
    assert_eq!(core.get(&a).unwrap().value, "1");
    assert!(core.holds(&Guard::AtRevision(a.clone(), 3)));
    assert_eq!(core.changes(Keyspace::Meta, "", 3).unwrap(), (vec![], 3));
    assert_eq!(core.publish(), 3);
    assert_eq!(core.get(&a).unwrap().value, "2");
    assert_eq!(core.changes(Keyspace::Meta, "", 3).unwrap().0.len(), 1);
}

#[test]
fn what_was_written_can_be_restored_from_its_versions() {
    let mut first = core(vec![put("a", "1"), put("b", "1"), put("a", "2"), delete("b")]);
    first.compact(3).unwrap();
    let mut stored: Vec<(Keyspace, String, Version)> = first
        .keyspaces
        .iter()
        .zip(Keyspace::ALL)
        .flat_map(|(histories, keyspace)| {
            histories.iter().flat_map(move |(name, versions)| {
                versions.iter().map(move |version| (keyspace, name.to_string(), version.clone()))
            })
        })
        .collect();
    stored.sort_by_key(|(_, _, version)| (version.revision, version.place));
    let mut second = Core::new();
    second.set_bounds(first.oldest(), first.head());
    for (keyspace, name, version) in stored {
        second.restore(keyspace, &name, version);
    }
    second.finish_restore().unwrap();
    assert_eq!(first.changes(Keyspace::Meta, "", 3).unwrap(), second.changes(Keyspace::Meta, "", 3).unwrap());
    assert_eq!(first.get_from_prefix(Keyspace::Meta, ""), second.get_from_prefix(Keyspace::Meta, ""));
    assert!(matches!(second.changes(Keyspace::Meta, "", 2), Err(Error::Compacted { asked: 2, oldest: 3 })));
}
