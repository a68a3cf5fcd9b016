//! Transactions: all or nothing, guards, limits, and outcomes that nobody saw.

use bytes::Bytes;
use muster_state::faults::{Fault, Faulty, Operation};
use muster_state::{
    Error, Guard, Key, Keyspace, Op, SessionId, StateBackend, TXN_OPS_MAX, Txn, TxnOutcome, VALUE_BYTES_MAX,
};

use crate::{Store, delete, key, names, put};

pub(crate) async fn absent_and_empty_differ(store: Store) {
    assert_eq!(store.get("a").await, None);
    let revision = store.state.put(key("a"), Bytes::new()).await.unwrap();
    let entry = store.get("a").await.unwrap();
    assert_eq!((entry.value.len(), entry.create_revision, entry.mod_revision), (0, revision, revision));
    assert_eq!(entry.name, "a", "without any prefix");
    assert!(store.state.delete(&key("a")).await.unwrap());
    assert!(!store.state.delete(&key("a")).await.unwrap(), "there was nothing any more");
    assert_eq!(store.get("a").await, None);
}

pub(crate) async fn what_one_transaction_puts_has_one_revision(store: Store) {
    let before = store.commit(vec![put("a", "0")]).await;
    let revision = store.commit(vec![put("a", "1"), put("b", "1")]).await;
    let (a, b) = (store.get("a").await.unwrap(), store.get("b").await.unwrap());
    assert_eq!((a.mod_revision, b.mod_revision), (revision, revision));
    assert_eq!((a.create_revision, b.create_revision), (before, revision));
    assert!(store.state.revision().await.unwrap() >= revision);
}

pub(crate) async fn every_guard_holds_when_it_should_and_only_then(store: Store) {
    let revision = store.commit(vec![put("there", "")]).await;
    let session = store.session("s").await;
    let gone = SessionId("nobody".to_owned());
    for (guard, expected) in [
        (Guard::Absent(key("away")), true),
        (Guard::Absent(key("there")), false),
        (Guard::Present(key("there")), true),
        (Guard::Present(key("away")), false),
        (Guard::AtRevision(key("there"), revision), true),
        (Guard::AtRevision(key("there"), revision - 1), false),
        (Guard::AtRevision(key("there"), revision + 1), false),
        (Guard::AtRevision(key("away"), revision), false),
        (Guard::AtRevision(key("away"), 0), true),
        (Guard::SessionAlive(session.id().clone()), true),
        (Guard::SessionAlive(gone.clone()), false),
        (Guard::SessionGone(session.id().clone()), false),
        (Guard::SessionGone(gone), true),
    ] {
        assert_eq!(store.holds(guard.clone()).await, expected, "{guard:?}");
    }
}

pub(crate) async fn a_refused_transaction_writes_nothing_and_reads_what_was_asked(store: Store) {
    let revision = store.commit(vec![put("a", "1"), put("b", "2")]).await;
    let txn = Txn {
        guards: vec![Guard::Present(key("a")), Guard::Absent(key("b"))],
        ops: vec![put("a", "9"), put("c", "9"), delete("b")],
        read_on_failure: vec![key("c"), key("b"), key("a")],
    };
    let TxnOutcome::Refused { revision: at, read } = store.state.put_txn(txn).await.unwrap() else {
        panic!("one guard does not hold");
    };
    assert!(at >= revision);
    assert_eq!(read.len(), 3);
    assert_eq!(read[0], None);
    assert_eq!(read[1], store.get("b").await);
    assert_eq!(read[2], store.get("a").await);
    assert_eq!(read[2].as_ref().unwrap().value, "1", "nothing was written");
}

pub(crate) async fn nothing_newer_looks_at_its_prefix_only(store: Store) {
    let first = store.commit(vec![put("job-1/a", "")]).await;
    let second = store.commit(vec![put("job-10/a", "")]).await;
    let newer =
        |prefix: &str, than| Guard::NothingNewer { keyspace: Keyspace::JobPlans, prefix: prefix.to_owned(), than };
    assert!(store.holds(newer("job-1/", first)).await);
    assert!(!store.holds(newer("job-1/", first - 1)).await);
    assert!(!store.holds(newer("job-1", first)).await, "without the '/', job-10 is below it too");
    assert!(store.holds(newer("", second)).await);
    assert!(!store.holds(newer("", first)).await);
    assert!(store.holds(newer("nothing/", 0)).await);
    assert!(store.holds(newer("", u64::MAX)).await);
    store.commit(vec![delete("job-10/a")]).await;
    assert!(store.holds(newer("", first)).await, "deletions are not seen");
}

pub(crate) async fn mv_takes_the_place_of_nothing(store: Store) {
    let (from, to) = (Key::new(Keyspace::ActiveJobs, "j"), Key::new(Keyspace::CompletedJobs, "j"));
    let first = store.state.put(from.clone(), Bytes::from_static(b"1")).await.unwrap();
    let second = store.state.put(from.clone(), Bytes::from_static(b"2")).await.unwrap();
    let mv = |at, guards| store.state.mv(from.clone(), at, to.clone(), Bytes::from_static(b"3"), guards);
    let TxnOutcome::Refused { read, .. } = mv(first, vec![]).await.unwrap() else { panic!("the source has changed") };
    assert_eq!((read[0].as_ref().unwrap().mod_revision, &read[1]), (second, &None), "source and target, in that order");
    assert!(matches!(mv(second, vec![Guard::Present(key("x"))]).await.unwrap(), TxnOutcome::Refused { .. }));
    let TxnOutcome::Committed(revision) = mv(second, vec![]).await.unwrap() else { panic!("all guards hold") };
    assert_eq!(store.state.get(&from).await.unwrap(), None);
    let moved = store.state.get(&to).await.unwrap().unwrap();
    assert_eq!((moved.value.as_ref(), moved.mod_revision), (b"3".as_ref(), revision));
    let again = store.state.put(from.clone(), Bytes::new()).await.unwrap();
    assert!(matches!(mv(again, vec![]).await.unwrap(), TxnOutcome::Refused { .. }), "the target is taken");
}

pub(crate) async fn ranges_are_deleted_up_to_their_end(store: Store) {
    store.commit(["a/1", "a/2", "a/3", "a0", "b"].map(|name| put(name, "")).to_vec()).await;
    let range = |from: &str, to: &str| Op::DeleteRange {
        keyspace: Keyspace::JobPlans,
        from: from.to_owned(),
        to: to.to_owned(),
    };
    store.commit(vec![range("b", "a"), range("x", "z")]).await;
    let left = |page: muster_state::Page| names(&page.entries).join(" ");
    let all = async || left(store.state.get_from_prefix(Keyspace::JobPlans, "").await.unwrap());
    assert_eq!(all().await, "a/1 a/2 a/3 a0 b", "an empty range deletes nothing");
    store.commit(vec![range("a/1", "a/3")]).await;
    assert_eq!(all().await, "a/3 a0 b");
    store.commit(vec![range("a/", "a0"), range("a/", "b")]).await;
    assert_eq!(all().await, "b", "ranges may overlap");
    let elsewhere = Key::new(Keyspace::JobStages, "a/1");
    store.state.put(elsewhere.clone(), Bytes::new()).await.unwrap();
    store.commit(vec![range("", "zzz")]).await;
    assert_eq!(all().await, "");
    assert!(store.state.get(&elsewhere).await.unwrap().is_some(), "another keyspace");
}

pub(crate) async fn limits_are_refused_by_name(store: Store) {
    let limit = async |ops: Vec<Op>| match store.state.put_txn(Txn { ops, ..Txn::default() }).await {
        Err(Error::TooLarge { limit_name, .. }) => limit_name,
        other => panic!("not refused: {other:?}"),
    };
    let many = |count: usize| (0..count).map(|i| put(&format!("k{i}"), "")).collect::<Vec<_>>();
    assert_eq!(limit(many(TXN_OPS_MAX + 1)).await, "TXN_OPS_MAX");
    let large = |name: &str, bytes| Op::Put { key: key(name), value: Bytes::from(vec![7; bytes]), session: None };
    assert_eq!(limit(vec![large("a", VALUE_BYTES_MAX + 1)]).await, "VALUE_BYTES_MAX");
    let five = ["a", "b", "c", "d", "e"].map(|name| large(name, VALUE_BYTES_MAX)).to_vec();
    assert_eq!(limit(five).await, "TXN_BYTES_MAX");
    let over = store.state.put(key("a"), Bytes::from(vec![7; VALUE_BYTES_MAX + 1])).await;
    assert!(matches!(over, Err(Error::TooLarge { .. })));
    for twice in [vec![put("a", ""), put("a", "")], vec![put("a", ""), delete("a")]] {
        assert!(matches!(store.state.put_txn(Txn { ops: twice, ..Txn::default() }).await, Err(Error::Fatal(_))));
    }
    assert_eq!(store.get("a").await, None, "nothing of all that was written");
    // What is within the limits is taken: the most operations, and the largest transaction.
    let guards = (0..TXN_OPS_MAX).map(|i| Guard::Absent(key(&format!("k{i}")))).collect();
    let most = Txn { guards, ops: many(TXN_OPS_MAX), read_on_failure: vec![key("a"); TXN_OPS_MAX] };
    assert!(matches!(store.state.put_txn(most).await.unwrap(), TxnOutcome::Committed(_)));
    let bytes = VALUE_BYTES_MAX - 8;
    store.commit(["a", "b", "c", "d"].map(|name| large(name, bytes)).to_vec()).await;
    assert_eq!(store.get("d").await.unwrap().value.len(), bytes);
}

pub(crate) async fn a_transaction_that_changes_nothing_makes_no_revision(store: Store) {
    let revision = store.commit(vec![put("a", "")]).await;
    assert_eq!(store.commit(vec![]).await, revision);
    assert_eq!(store.commit(vec![delete("nothing")]).await, revision);
    let guarded = Txn { guards: vec![Guard::Present(key("a"))], ..Txn::default() };
    assert_eq!(store.state.put_txn(guarded).await.unwrap(), TxnOutcome::Committed(revision));
    let refused = Txn { guards: vec![Guard::Absent(key("a"))], read_on_failure: vec![key("a")], ..Txn::default() };
    let TxnOutcome::Refused { read, .. } = store.state.put_txn(refused).await.unwrap() else { panic!("it is there") };
    assert_eq!(read, [store.get("a").await]);
    assert_eq!(store.commit(vec![put("b", "")]).await, revision + 1, "the next write is the next revision");
}

/// An owner's writes: each names the one before it.
fn commit_after(previous: (&str, u64), name: &str, id: &str) -> Txn {
    Txn {
        guards: vec![Guard::AtRevision(key(previous.0), previous.1), Guard::Absent(key(name))],
        ops: vec![put(name, id)],
        read_on_failure: vec![key(name), key(previous.0)],
    }
}

pub(crate) async fn a_delayed_transaction_of_the_same_owner_is_refused(store: Store) {
    let first = store.commit(vec![put("delta-1", "one")]).await;
    // Sent, not answered, and still on its way. Its owner reloads, and goes on with something else.
    let delayed = commit_after(("delta-1", first), "delta-2", "delayed");
    let other = commit_after(("delta-1", first), "delta-2", "other");
    let TxnOutcome::Committed(second) = store.state.put_txn(other).await.unwrap() else { panic!("all guards hold") };
    store.commit(vec![delete("delta-1")]).await;
    let TxnOutcome::Refused { read, .. } = store.other.put_txn(delayed).await.unwrap() else {
        panic!("the late one must not land on top of its successor");
    };
    assert_eq!(
        read[0].as_ref().map(|entry| (entry.value.as_ref(), entry.mod_revision)),
        Some((b"other".as_ref(), second))
    );
    assert_eq!(store.get("delta-2").await.unwrap().value, "other");
}

pub(crate) async fn an_identical_transaction_sent_again_tells_that_it_had_landed(store: Store) {
    let first = store.commit(vec![put("delta-1", "one")]).await;
    let txn = commit_after(("delta-1", first), "delta-2", "mine");
    let TxnOutcome::Committed(revision) = store.state.put_txn(txn.clone()).await.unwrap() else { panic!("it holds") };
    let TxnOutcome::Refused { read, .. } = store.state.put_txn(txn).await.unwrap() else { panic!("it was done") };
    let landed = read[0].as_ref().unwrap();
    assert_eq!((landed.value.as_ref(), landed.mod_revision), (b"mine".as_ref(), revision));
}

pub(crate) async fn concurrent_writers_lose_no_update(store: Store) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 25;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let state = if writer % 2 == 0 { store.state.clone() } else { store.other.clone() };
        writers.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let old = state.get(&key("counter")).await.unwrap();
                let (revision, value) = old.map_or((0, 0), |entry| {
                    (entry.mod_revision, std::str::from_utf8(&entry.value).unwrap().parse::<u64>().unwrap())
                });
                let txn = Txn {
                    guards: vec![Guard::AtRevision(key("counter"), revision)],
                    ops: vec![put("counter", &(value + 1).to_string())],
                    ..Txn::default()
                };
                done += u64::from(matches!(state.put_txn(txn).await.unwrap(), TxnOutcome::Committed(_)));
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(store.get("counter").await.unwrap().value, (WRITERS * EACH).to_string());
}

pub(crate) async fn an_injected_unknown_outcome_is_settled_by_sending_again(store: Store) {
    for (fault, had_landed) in [(Fault::UnknownDone, true), (Fault::UnknownNotDone, false)] {
        let faulty = Faulty::new(store.state.clone());
        let injected = faulty.inject(Keyspace::JobPlans, Operation::Write, fault, 1);
        let name = format!("delta-{had_landed}");
        let first = store.commit(vec![put("delta-0", "")]).await;
        let txn = commit_after(("delta-0", first), &name, "mine");
        assert!(matches!(faulty.put_txn(txn.clone()).await, Err(Error::Unknown(_))));
        assert_eq!(injected.fired(), 1);
        match faulty.put_txn(txn).await.unwrap() {
            TxnOutcome::Committed(_) => assert!(!had_landed),
            TxnOutcome::Refused { read, .. } => {
                assert!(had_landed);
                assert_eq!(read[0].as_ref().unwrap().value, "mine");
            }
        }
        assert_eq!(store.get(&name).await.unwrap().value, "mine", "settled either way");
        assert_eq!(injected.fired(), 1, "it strikes as often as it was told to");
    }
}
