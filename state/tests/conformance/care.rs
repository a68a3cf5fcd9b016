//! What is told of the store itself, and done to it.

use muster_state::{Error, Scan};

use crate::{Store, put};

/// Larger than what any store takes for its own framing.
const LARGE: usize = 64 << 10;

pub(crate) async fn a_store_tells_its_members_and_grows_with_what_is_put_into_it(store: Store) {
    let before = store.state.status().await.unwrap();
    let leaders: Vec<&muster_state::Member> = before.members.iter().filter(|member| member.is_leader).collect();
    assert_eq!((before.members.len(), leaders.len()), (1, 1), "{before:?}");
    let member = leaders[0];
    assert!(!member.name.is_empty() && member.alarms.is_empty() && member.unreachable.is_none(), "{before:?}");
    assert_eq!(before.has_quota, !member.version.is_empty(), "it is a server's quota: {before:?}");
    for number in 0..32 {
        store.commit(vec![put(&format!("large-{number}"), &"x".repeat(LARGE))]).await;
    }
    let deadline = tokio::time::Instant::now() + muster_state::testing::PATIENCE;
    let after = loop {
        // etcd tells what its last flush to the disk had, which comes a moment after the answers.
        let after = store.state.status().await.unwrap();
        let grown = after.in_use_bytes().saturating_sub(before.in_use_bytes());
        if grown >= 32 * LARGE as u64 / 2 {
            break after;
        }
        assert!(tokio::time::Instant::now() < deadline, "it grew by {grown} only: {before:?} {after:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(after.size_bytes() >= after.in_use_bytes(), "{after:?}");
}

pub(crate) async fn what_is_forgotten_and_given_back_is_not_in_use_and_everything_else_is_still_there(store: Store) {
    for _ in 0..64 {
        store.commit(vec![put("again", &"x".repeat(LARGE))]).await;
    }
    let kept = store.commit(vec![put("kept", "value")]).await;
    let before = store.state.status().await.unwrap();
    store.state.compact(kept).await.unwrap();
    let deadline = tokio::time::Instant::now() + muster_state::testing::PATIENCE;
    let after = loop {
        // etcd forgets in the background, after it has answered.
        let status = store.state.status().await.unwrap();
        for member in &status.members {
            store.state.defragment(member.id).await.unwrap();
        }
        let status = store.state.status().await.unwrap();
        if status.in_use_bytes() < before.in_use_bytes() || before.in_use_bytes() < 8 * LARGE as u64 {
            break status;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing was given back: {before:?} {status:?}");
    };
    assert!(after.size_bytes() <= before.size_bytes(), "{before:?} {after:?}");
    for member in &after.members {
        store.state.disarm_no_space(member.id).await.unwrap();
    }
    assert_eq!(store.get("kept").await.map(|entry| entry.mod_revision), Some(kept));
    assert_eq!(store.get("again").await.map(|entry| entry.value.len()), Some(LARGE));
    let past = Scan { at: Some(kept - 2), ..Scan::default() };
    let read = store.state.scan(muster_state::Keyspace::JobPlans, past).await;
    assert!(matches!(read, Err(Error::Compacted { .. })), "{read:?}");
}
