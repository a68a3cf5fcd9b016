//! Watches: every change, in order, also over compaction.

use futures::{FutureExt as _, StreamExt as _};
use muster_state::testing::soon;
use muster_state::{Change, Error, Keyspace, Op, WatchBatch, WatchStream};

use crate::{Store, delete, key, put};

async fn next(watch: &mut WatchStream) -> WatchBatch {
    soon("a batch of changes", watch.next()).await.expect("the watch goes on").unwrap()
}

/// `+name=value` or `-name`, each.
fn shown(batch: &WatchBatch) -> String {
    let change = |change: &Change| match change {
        Change::Put(entry) => {
            assert_eq!(entry.mod_revision, batch.revision);
            format!("+{}={}", entry.name, String::from_utf8_lossy(&entry.value))
        }
        Change::Deleted { name, revision } => {
            assert_eq!(*revision, batch.revision);
            format!("-{name}")
        }
    };
    batch.changes.iter().map(change).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn changes_come_in_order_and_those_of_a_revision_together(store: Store) {
    let from = store.state.revision().await.unwrap() + 1;
    let mut watch = store.other.watch(Keyspace::JobPlans, "", from).await.unwrap();
    let first = store.commit(vec![put("b", "1"), put("a", "1"), put("c", "1")]).await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, shown(&batch).as_str()), (first, "+b=1 +a=1 +c=1"), "as the transaction wrote them");
    let range = Op::DeleteRange { keyspace: Keyspace::JobPlans, from: "b".to_owned(), to: "d".to_owned() };
    let second = store.commit(vec![put("z", "2"), range, put("a", "2")]).await;
    let third = store.commit(vec![delete("a"), delete("nothing")]).await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, shown(&batch).as_str()), (second, "+z=2 -b -c +a=2"));
    let Change::Put(entry) = &batch.changes[3] else { panic!("a put") };
    assert_eq!(entry.create_revision, first);
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, shown(&batch).as_str()), (third, "-a"));
    assert!(watch.next().now_or_never().is_none(), "there is nothing more");
}

pub(crate) async fn a_watch_begins_in_the_past(store: Store) {
    let first = store.commit(vec![put("a", "1")]).await;
    let second = store.commit(vec![put("a", "2")]).await;
    store.commit(vec![delete("a")]).await;
    let mut watch = store.state.watch(Keyspace::JobPlans, "", first).await.unwrap();
    for expected in ["+a=1", "+a=2", "-a"] {
        assert_eq!(shown(&next(&mut watch).await), expected);
    }
    let mut later = store.state.watch(Keyspace::JobPlans, "", second).await.unwrap();
    assert_eq!(shown(&next(&mut later).await), "+a=2", "from a revision, that one included");
    store.commit(vec![put("a", "4")]).await;
    assert_eq!(shown(&next(&mut watch).await), "+a=4", "and it goes on with the present");
    // A watch from the future waits for it.
    let future = store.state.revision().await.unwrap() + 2;
    let mut ahead = store.state.watch(Keyspace::JobPlans, "", future).await.unwrap();
    store.commit(vec![put("a", "5")]).await;
    store.commit(vec![put("a", "6")]).await;
    assert_eq!(shown(&next(&mut ahead).await), "+a=6");
}

pub(crate) async fn a_watch_sees_its_prefix_only(store: Store) {
    let from = store.state.revision().await.unwrap() + 1;
    let mut watch = store.state.watch(Keyspace::JobPlans, "job-1/", from).await.unwrap();
    store.commit(vec![put("job-10/a", ""), put("job-1", "")]).await;
    let elsewhere = muster_state::Key::new(Keyspace::JobStages, "job-1/a");
    store.state.put(elsewhere, bytes::Bytes::new()).await.unwrap();
    store.commit(vec![put("job-10/a", ""), put("job-1/a", "yes")]).await;
    assert_eq!(shown(&next(&mut watch).await), "+job-1/a=yes");
}

pub(crate) async fn a_compacted_beginning_is_said_and_the_oldest_is_complete(store: Store) {
    let first = store.commit(vec![put("a", "1"), put("b", "1")]).await;
    store.commit(vec![put("a", "2")]).await;
    // A deletion just where history will begin: the easiest thing to lose.
    let boundary = store.commit(vec![delete("b")]).await;
    let last = store.commit(vec![put("a", "3")]).await;
    store.state.compact(boundary).await.unwrap();
    for from in [first, boundary - 1] {
        let mut watch = store.state.watch(Keyspace::JobPlans, "", from).await.unwrap();
        match soon("the end of the watch", watch.next()).await {
            Some(Err(Error::Compacted { asked, oldest })) => assert_eq!((asked, oldest), (from, boundary)),
            other => panic!("history is gone: {other:?}"),
        }
        assert!(watch.next().await.is_none(), "an error ends the watch");
    }
    let mut watch = store.state.watch(Keyspace::JobPlans, "", boundary).await.unwrap();
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, shown(&batch).as_str()), (boundary, "-b"));
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, shown(&batch).as_str()), (last, "+a=3"));
}

pub(crate) async fn a_slow_watcher_loses_nothing(store: Store) {
    const WRITES: usize = 400;
    let from = store.state.revision().await.unwrap() + 1;
    let mut watch = store.state.watch(Keyspace::JobPlans, "", from).await.unwrap();
    let large = "x".repeat(20_000);
    for i in 0..WRITES {
        // Together far more than one response of etcd holds, so that it is cut into fragments.
        store.state.put(key("k"), bytes::Bytes::from(format!("{i} {large}"))).await.unwrap();
    }
    let mut watch_again = store.other.watch(Keyspace::JobPlans, "", from).await.unwrap();
    for watch in [&mut watch, &mut watch_again] {
        let mut last = 0;
        for i in 0..WRITES {
            let batch = next(watch).await;
            assert!(batch.revision > last);
            last = batch.revision;
            let [Change::Put(entry)] = &batch.changes[..] else { panic!("one put") };
            assert!(entry.value.starts_with(format!("{i} ").as_bytes()));
        }
    }
}
