//! Scans: exact prefixes, one revision over all pages.

use bytes::Bytes;
use muster_state::{Error, Key, Keyspace, Op, Scan, Txn};

use crate::{Store, delete, key, names, put};

fn below(prefix: &str) -> Scan {
    Scan { prefix: prefix.to_owned(), ..Scan::default() }
}

pub(crate) async fn prefixes_do_not_collide(store: Store) {
    store.commit(["job-1", "job-1/a", "job-1/b", "job-10/a", "job-2/a"].map(|name| put(name, "")).to_vec()).await;
    let found = async |prefix: &str| {
        let page = store.state.get_from_prefix(Keyspace::JobPlans, prefix).await.unwrap();
        let scanned = store.state.scan(Keyspace::JobPlans, below(prefix)).await.unwrap();
        assert_eq!(page.entries, scanned.entries);
        names(&page.entries).join(" ")
    };
    assert_eq!(found("job-1/").await, "job-1/a job-1/b");
    assert_eq!(found("job-1").await, "job-1 job-1/a job-1/b job-10/a");
    assert_eq!(found("job-3").await, "");
    assert_eq!(found("").await, "job-1 job-1/a job-1/b job-10/a job-2/a");
}

pub(crate) async fn keyspaces_do_not_see_each_other(store: Store) {
    // Names that look like parts of other stored keys.
    let ops = Keyspace::ALL
        .iter()
        .flat_map(|&keyspace| {
            ["x", "/x", "events/x", "../meta/x"].map(|name| Op::Put {
                key: Key::new(keyspace, name),
                value: Bytes::from_static(keyspace.name().as_bytes()),
                session: None,
            })
        })
        .collect();
    store.commit(ops).await;
    for keyspace in Keyspace::ALL {
        let page = store.state.get_from_prefix(keyspace, "").await.unwrap();
        assert_eq!(names(&page.entries), ["../meta/x", "/x", "events/x", "x"]);
        assert!(page.entries.iter().all(|entry| entry.value == keyspace.name()));
    }
}

pub(crate) async fn pages_stay_at_one_revision_while_writes_go_on(store: Store) {
    let all: Vec<String> = (0..10).map(|i| format!("k{i}")).collect();
    store.commit(all.iter().map(|name| put(name, "old")).collect()).await;
    let mut scan = Scan { limit: 3, ..below("k") };
    let mut seen = Vec::new();
    let mut revision = None;
    loop {
        let page = store.state.scan(Keyspace::JobPlans, scan.clone()).await.unwrap();
        assert!(page.entries.len() <= 3);
        assert_eq!(*revision.get_or_insert(page.revision), page.revision);
        assert!(page.entries.iter().all(|entry| entry.value == "old"));
        seen.extend(page.entries.into_iter().map(|entry| entry.name));
        scan = Scan { at: Some(page.revision), after: page.next, ..scan };
        if scan.after.is_none() {
            break;
        }
        // Behind the scan, before it, and new.
        store.commit(vec![put("k0", "new"), put("k9", "new"), delete("k8"), put("k55", "new")]).await;
    }
    assert_eq!(seen, all);
    let exact = store.state.scan(Keyspace::JobPlans, Scan { limit: 10, ..below("k") }).await.unwrap();
    assert_eq!(names(&exact.entries), ["k0", "k1", "k2", "k3", "k4", "k5", "k55", "k6", "k7", "k9"]);
    assert_eq!(exact.next, None, "there is no page after the last one");
    let behind = Scan { after: Some("z".to_owned()), ..below("k") };
    let page = store.state.scan(Keyspace::JobPlans, behind).await.unwrap();
    assert!(page.entries.is_empty() && page.next.is_none() && page.revision > 0);
    let before = Scan { after: Some("a".to_owned()), limit: 1, ..below("k") };
    assert_eq!(names(&store.state.scan(Keyspace::JobPlans, before).await.unwrap().entries), ["k0"]);
}

pub(crate) async fn a_scan_under_a_compaction_says_so(store: Store) {
    store.commit(["a", "b", "c"].map(|name| put(name, "old")).to_vec()).await;
    let first = store.state.scan(Keyspace::JobPlans, Scan { limit: 1, ..below("") }).await.unwrap();
    store.commit(vec![put("b", "new")]).await;
    let newest = store.commit(vec![put("c", "new")]).await;
    store.state.compact(newest).await.unwrap();
    store.state.compact(newest).await.expect("what is compacted already is no error");
    store.state.compact(1).await.expect("nor is what was compacted long ago");
    let second = Scan { limit: 1, at: Some(first.revision), after: first.next, ..below("") };
    match store.state.scan(Keyspace::JobPlans, second).await {
        Err(Error::Compacted { asked, oldest }) => assert_eq!((asked, oldest), (first.revision, newest)),
        other => panic!("history is gone: {other:?}"),
    }
    let now = store.state.scan(Keyspace::JobPlans, Scan { at: Some(newest), ..below("") }).await.unwrap();
    let values: Vec<&[u8]> = now.entries.iter().map(|entry| entry.value.as_ref()).collect();
    assert_eq!(values, [b"old".as_ref(), b"new", b"new"], "the present is whole");
}

pub(crate) async fn names_come_without_values(store: Store) {
    let revision = store.commit(vec![put("a", "1"), put("b", "2")]).await;
    let page = store.state.scan_keys(Keyspace::JobPlans, Scan { limit: 1, ..below("") }).await.unwrap();
    assert_eq!((names(&page.entries), page.next.as_deref()), (vec!["a"], Some("a")));
    assert!(page.entries[0].value.is_empty());
    assert_eq!(page.entries[0].mod_revision, revision);
}

pub(crate) async fn many_keys_are_read_at_one_revision(store: Store) {
    let all: Vec<String> = (0..300).map(|i| format!("k{i:03}")).collect();
    for part in all.chunks(100) {
        store.commit(part.iter().map(|name| put(name, name)).collect()).await;
    }
    store.commit(vec![delete("k123")]).await;
    let keys: Vec<Key> = all.iter().map(|name| key(name)).collect();
    let (revision, found) = store.state.get_many(&keys).await.unwrap();
    assert!(revision > 0);
    assert_eq!(found.len(), 300);
    for (name, entry) in all.iter().zip(&found) {
        assert_eq!(entry.as_ref().map(|entry| &entry.value[..]), (name != "k123").then_some(name.as_bytes()));
    }
    assert_eq!(store.state.get_many(&[]).await.unwrap(), (revision, vec![]));
    // Writers keep two keys equal; a reader never sees them differ.
    let state = store.other.clone();
    let writer = tokio::spawn(async move {
        for i in 0..50 {
            let value = i.to_string();
            state.put_txn(Txn { ops: vec![put("k000", &value), put("k299", &value)], ..Txn::default() }).await.unwrap();
        }
    });
    while !writer.is_finished() {
        let (_, found) = store.state.get_many(&keys).await.unwrap();
        let value = |place: usize| found[place].as_ref().map(|entry| (entry.value.clone(), entry.mod_revision));
        if value(0).unwrap().1 > revision {
            assert_eq!(value(0), value(299));
        }
        // A store in memory answers at once: without this the writer might never come to run.
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

pub(crate) async fn a_revision_that_is_not_there_yet_is_an_error(store: Store) {
    let revision = store.commit(vec![put("a", "")]).await;
    let scan = Scan { at: Some(revision + 100), ..below("") };
    let error = store.state.scan(Keyspace::JobPlans, scan).await.unwrap_err();
    assert!(matches!(&error, Error::Fatal(why) if why.contains("backup")), "{error:?}");
}
