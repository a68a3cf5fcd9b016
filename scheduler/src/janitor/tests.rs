//! What a janitor does that cannot have its lock, in a store that is full.

use std::sync::Arc;
use std::time::Duration;

use muster_state::faults::{Fault, Faulty, Operation};
use muster_state::{Error, Key, Keyspace, Memory, Revision, Scan, StateBackend};

use super::*;

/// Whether the store can still be read as it was then.
async fn remembers(state: &dyn StateBackend, revision: Revision) -> bool {
    match state.scan_keys(Keyspace::Meta, Scan { at: Some(revision), ..Scan::default() }).await {
        Ok(_) => true,
        Err(Error::Compacted { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn no_room_is_made_in_a_full_store_as_long_as_it_is_in_doubt() {
    let state = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let (shared, _engine) = Shared::without_engine(&(Arc::clone(&state) as Arc<dyn StateBackend>)).await;
    let before = state.revision().await.unwrap();
    state.put(Key::new(Keyspace::Meta, "something"), "new".into()).await.unwrap();
    // So nobody can stand in the queue for the lock.
    let full = state.inject(Keyspace::Locks, Operation::Write, Fault::NoSpace, usize::MAX);
    shared.health.doubt_is_recorded("restored from a backup".to_owned());
    let janitor = tokio::spawn(keep(Arc::clone(&shared)));
    while full.fired() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(remembers(&*state, before).await, "an operator may want to look at it");
    let epoch = shared.presence().identity.epoch;
    shared.health.begin_epoch(epoch, before);
    let freed = async {
        while remembers(&*state, before).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("room is made when the doubt is over");
    janitor.abort();
}
