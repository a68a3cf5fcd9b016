//! The recorder of etcd: whole when members die and the past is forgotten under its hands, and loud when it is not.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::Bytes;
use muster_integration::checker::Write;
use muster_integration::recorder::Etcd as Recorder;
use muster_state::testing::{Etcd, EtcdCluster, eventually};
use muster_state::{Key, Keyspace, Op, Revision, StateBackend, Txn, TxnOutcome};

fn value(number: u32) -> Bytes {
    Bytes::from(number.to_string())
}

/// Writes some keys, and takes one away; whatever happens to members, it lands.
async fn write(store: &dyn StateBackend, number: u32) -> Revision {
    let put = |name: String| Op::Put { key: Key::new(Keyspace::Meta, name), value: value(number), session: None };
    let txn = Txn {
        ops: vec![
            put("always".to_owned()),
            put(format!("at-{}", number % 7)),
            Op::Delete(Key::new(Keyspace::Meta, format!("at-{}", (number + 1) % 7))),
        ],
        ..Txn::default()
    };
    eventually("a write lands", || async {
        match store.put_txn(txn.clone()).await {
            Ok(TxnOutcome::Committed(revision)) => Some(revision),
            Ok(TxnOutcome::Refused { .. }) => panic!("it has no guard"),
            Err(_) => None,
        }
    })
    .await
}

/// Every value that `always` ever had.
fn always(writes: &[Write]) -> Vec<u32> {
    let changes = writes.iter().flat_map(|write| &write.changes).filter(|change| change.name == "always");
    let number = |value: &Bytes| std::str::from_utf8(value).unwrap().parse().unwrap();
    changes.map(|change| number(change.value.as_ref().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_while_members_die_and_every_revision_is_compacted() {
    let mut cluster = EtcdCluster::start().await.unwrap();
    let recorder = Recorder::start(&cluster.endpoints(), "recorded");
    let store = cluster.store("recorded");
    let mut number = 0;
    for member in 0..3 {
        for _ in 0..40 {
            number += 1;
            let revision = write(&store, number).await;
            // All but the present is forgotten, as soon as somebody has heard of it.
            eventually("it is recorded", || async {
                recorder.so_far().last().is_some_and(|write| write.revision >= revision).then_some(())
            })
            .await;
            store.compact(revision).await.unwrap();
            if number % 40 == 10 {
                cluster.members[member].kill().unwrap();
            }
        }
        cluster.members[member].restart().await.unwrap();
    }
    let writes = recorder.finish().await.unwrap();
    let mut seen = always(&writes);
    // One whose answer was lost was sent again.
    seen.dedup();
    assert_eq!(seen, (1..=number).collect::<Vec<u32>>());
    assert!(writes.is_sorted_by(|one, other| one.revision < other.revision && one.at_us <= other.at_us));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_that_comes_too_late_says_so() {
    let etcd = Etcd::start().await.unwrap();
    let store = etcd.store("recorded");
    for number in 0..10 {
        write(&store, number).await;
    }
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "recorded");
    let error = recorder.finish().await.unwrap_err();
    assert!(error.to_string().contains("is compacted"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_one_etcd_are_recorded_apart_and_values_come_as_they_were() {
    let etcd = Etcd::start().await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "one");
    let (one, ten) = (etcd.store("one"), etcd.store("one0"));
    for number in 0..20 {
        write(&ten, number + 100).await;
        write(&one, number).await;
    }
    let session = one.open_session(muster_state::SessionId("s".to_owned()), Duration::from_secs(5), value(7)).await;
    session.unwrap().close().await;
    let writes = recorder.finish().await.unwrap();
    assert_eq!(always(&writes), (0..20).collect::<Vec<u32>>());
    let of_session: Vec<Option<Bytes>> = writes
        .iter()
        .flat_map(|write| &write.changes)
        .filter(|change| change.keyspace == Keyspace::Schedulers)
        .map(|change| change.value.clone())
        .collect();
    assert_eq!(of_session, [Some(value(7)), None], "it came, and went");
}
