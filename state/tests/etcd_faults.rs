//! What only a real etcd can do to its clients: fall silent, die, take a lease away, change its leader, run full.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use muster_state::testing::{self, eventually, soon};
use muster_state::{
    Change, Error, Etcd, EtcdOptions, Guard, Key, Keyspace, Op, SessionId, StateBackend, Txn, TxnOutcome, keys,
};

fn key(name: &str) -> Key {
    Key::new(Keyspace::JobDeltas, name)
}

fn once(name: &str, value: &str) -> Txn {
    Txn {
        guards: vec![Guard::Absent(key(name))],
        ops: vec![Op::Put { key: key(name), value: Bytes::copy_from_slice(value.as_bytes()), session: None }],
        read_on_failure: vec![key(name)],
    }
}

/// Quick to lose patience.
fn impatient(endpoints: &[String]) -> Etcd {
    let options = EtcdOptions::new(endpoints).unwrap();
    Etcd::new(EtcdOptions { call_timeout: Duration::from_millis(700), ..options }, "test").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_etcd_leaves_outcomes_unknown_and_takes_sessions() {
    let mut etcd = testing::Etcd::start().await.unwrap();
    let store = impatient(&etcd.endpoints());
    let session = store.open_session(SessionId("s".into()), Duration::from_secs(2), Bytes::new()).await.unwrap();
    let from = store.revision().await.unwrap() + 1;
    let mut watch = store.watch(Keyspace::JobDeltas, "", from).await.unwrap();
    store.put_txn(once("before", "x")).await.unwrap();
    soon("a change before the fault", watch.next()).await.unwrap().unwrap();

    etcd.pause().unwrap();
    let txn = once("during", "mine");
    assert!(matches!(store.put_txn(txn.clone()).await, Err(Error::Unknown(_))), "it was sent, and not answered");
    assert!(matches!(store.get(&key("before")).await, Err(Error::Unavailable(_))), "a read has no outcome");
    soon("the session to be lost", session.lost()).await;
    assert_eq!(session.slack(), Duration::ZERO);
    assert!(etcd.is_paused(), "the fault lasted until here");
    etcd.resume().unwrap();

    // The identical transaction settles it, whichever way it went.
    let settled = eventually("etcd to answer again", async || store.put_txn(txn.clone()).await.ok()).await;
    if let TxnOutcome::Refused { read, .. } = settled {
        assert_eq!(read[0].as_ref().unwrap().value, "mine");
    }
    assert_eq!(store.get(&key("during")).await.unwrap().unwrap().value, "mine");
    // The watch has lost nothing and says nothing twice.
    store.put_txn(once("after", "x")).await.unwrap();
    for expected in ["during", "after"] {
        let batch = soon("a change after the fault", watch.next()).await.unwrap().unwrap();
        let [Change::Put(entry)] = &batch.changes[..] else { panic!("one put: {batch:?}") };
        assert_eq!(entry.name, expected);
    }
    // What was lost by our own reckoning goes, and the same id does not come back.
    let gone = async || store.get(&keys::session(session.id())).await.unwrap().is_none().then_some(());
    eventually("the session's key to go", gone).await;
    let again = store.open_session(session.id().clone(), Duration::from_secs(2), Bytes::new()).await;
    assert!(matches!(again, Err(Error::Fatal(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_lease_is_a_lost_session_and_another_id_claims_again() {
    let etcd = testing::Etcd::start().await.unwrap();
    let store = etcd.store("test");
    let ttl = Duration::from_secs(3);
    let session = store.open_session(SessionId("first".into()), ttl, Bytes::new()).await.unwrap();
    let claim = |id: &SessionId, guard| Txn {
        guards: vec![guard, Guard::SessionAlive(id.clone())],
        ops: vec![Op::Put {
            key: Key::new(Keyspace::JobOwners, "job"),
            value: Bytes::from(id.0.clone()),
            session: None,
        }],
        ..Txn::default()
    };
    let owner = Key::new(Keyspace::JobOwners, "job");
    let TxnOutcome::Committed(token) = store.put_txn(claim(session.id(), Guard::Absent(owner.clone()))).await.unwrap()
    else {
        panic!("nobody owns it")
    };
    // Somebody else takes the lease away: the next renewal is answered with TTL 0.
    let mut raw = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    let leases: Vec<i64> = raw.leases().await.unwrap().leases().iter().map(etcd_client::LeaseStatus::id).collect();
    let [lease] = leases[..] else { panic!("one lease: {leases:?}") };
    let revoked = tokio::time::Instant::now();
    raw.lease_revoke(lease).await.unwrap();
    soon("the session to be lost", session.lost()).await;
    assert!(revoked.elapsed() < ttl, "told by the answer, not by the clock: {:?}", revoked.elapsed());
    assert_eq!(session.slack(), Duration::ZERO);
    let late = store.put_txn(claim(session.id(), Guard::AtRevision(owner.clone(), token))).await.unwrap();
    assert!(matches!(late, TxnOutcome::Refused { .. }), "a lost session claims nothing");
    let second = store.open_session(SessionId("second".into()), ttl, Bytes::new()).await.unwrap();
    let mut again = claim(second.id(), Guard::AtRevision(owner.clone(), token));
    again.guards.push(Guard::SessionGone(session.id().clone()));
    let TxnOutcome::Committed(new_token) = store.put_txn(again).await.unwrap() else { panic!("nobody took it") };
    assert!(new_token > token);
    let granted: Vec<i64> = raw.leases().await.unwrap().leases().iter().map(etcd_client::LeaseStatus::id).collect();
    assert!(granted.len() == 1 && granted[0] != lease, "the old lease was not granted again: {granted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_after_etcd_was_killed_and_started_again() {
    let mut etcd = testing::Etcd::start().await.unwrap();
    let store = etcd.store("test");
    let from = store.revision().await.unwrap() + 1;
    let mut watch = store.watch(Keyspace::JobDeltas, "", from).await.unwrap();
    let two = |first: &str, second: &str| Txn {
        ops: [first, second].map(|name| Op::Put { key: key(name), value: Bytes::new(), session: None }).to_vec(),
        ..Txn::default()
    };
    store.put_txn(two("a", "b")).await.unwrap();
    soon("the first change", watch.next()).await.unwrap().unwrap();
    etcd.kill().unwrap();
    let refused = store.put_txn(once("dead", "")).await;
    assert!(matches!(refused, Err(Error::Unavailable(_) | Error::Unknown(_))), "{refused:?}");
    etcd.restart().await.unwrap();
    // While the watch was away; it hears of both together.
    let put = eventually("etcd to answer again", async || store.put_txn(two("c", "d")).await.ok()).await;
    let TxnOutcome::Committed(revision) = put else { panic!("no guard") };
    loop {
        let batch = soon("a change after the fault", watch.next()).await.unwrap().unwrap();
        if batch.revision == revision {
            let names: Vec<&str> = batch
                .changes
                .iter()
                .map(|change| match change {
                    Change::Put(entry) => entry.name.as_str(),
                    Change::Deleted { name, .. } => name,
                })
                .collect();
            assert_eq!(names, ["c", "d"]);
            break;
        }
        // An attempt whose answer was lost may have landed before it.
        assert!(batch.revision < revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_go_on_without_any_one_of_them() {
    let mut cluster = testing::EtcdCluster::start().await.unwrap();
    let store = Arc::new(cluster.store("test"));
    // Long enough for a busy machine: a silent member costs a third of it before the next one is asked, and that one may
    // just be electing a leader.
    let ttl = Duration::from_secs(24);
    let session = store.open_session(SessionId("s".into()), ttl, Bytes::new()).await.unwrap();
    for member in 0..3 {
        cluster.members[member].pause().unwrap();
        // One of them is the leader, and one is the one that our calls go to.
        let name = format!("without-{member}");
        let txn = once(&name, "x");
        let settled = eventually("a write without one member", async || store.put_txn(txn.clone()).await.ok()).await;
        if let TxnOutcome::Refused { read, .. } = settled {
            assert_eq!(read[0].as_ref().unwrap().value, "x");
        }
        let read = eventually("a read without one member", async || store.get(&key(&name)).await.ok()).await;
        assert_eq!(read.unwrap().value, "x");
        let renewed = async || (session.slack() > ttl * 3 / 4).then_some(());
        eventually("a renewal without one member", renewed).await;
        assert!(cluster.members[member].is_paused(), "the fault lasted until here");
        cluster.members[member].resume().unwrap();
    }
    assert!(!session.slack().is_zero(), "the session outlived all that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_member_does_not_answer_goes_to_another_one_long_before_its_deadline() {
    const DEADLINE: Duration = Duration::from_secs(60);
    const BEFORE: Duration = Duration::from_secs(45);
    let mut cluster = testing::EtcdCluster::start().await.unwrap();
    let options = EtcdOptions::new(cluster.endpoints()).unwrap();
    let store = Etcd::new(EtcdOptions { call_timeout: DEADLINE, ..options }, "test").unwrap();
    store.put_txn(once("before", "x")).await.unwrap();
    for member in 0..3 {
        // One of them is the one that our calls go to.
        cluster.members[member].pause().unwrap();
        let txn = once(&format!("without-{member}"), "x");
        let settled = async { while store.put_txn(txn.clone()).await.is_err() {} };
        tokio::time::timeout(BEFORE, settled).await.expect("the next member is asked");
        cluster.members[member].resume().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_that_it_is_full_and_is_read_still() {
    let etcd = testing::Etcd::start_with(&["--quota-backend-bytes=4194304"]).await.unwrap();
    let store = etcd.store("test");
    store.put_txn(once("first", "x")).await.unwrap();
    let full = eventually("the store to be full", async || {
        let value = Bytes::from(vec![7; 200 << 10]);
        store.put(key("large"), value).await.err()
    });
    let error = full.await;
    assert!(matches!(&error, Error::NoSpace(why) if why.contains("compact")), "{error:?}");
    assert_eq!(store.get(&key("first")).await.unwrap().unwrap().value, "x");
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_certainly_not_done() {
    // A port that nobody listens on: bound, and given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = impatient(&[format!("127.0.0.1:{port}")]);
    let began = tokio::time::Instant::now();
    assert!(matches!(store.put_txn(once("a", "")).await, Err(Error::Unavailable(_))), "no connection, so not sent");
    assert!(matches!(store.get(&key("a")).await, Err(Error::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(5), "every call has a deadline");
}
