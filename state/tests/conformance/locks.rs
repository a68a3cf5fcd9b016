//! Locks: one holder, in the order of asking, gone with their session or their future.

use std::sync::Arc;
use std::time::Duration;

use muster_state::faults::{Fault, Faulty, Operation};
use muster_state::testing::{eventually, soon};
use muster_state::{Keyspace, Scan, StateBackend, Txn, TxnOutcome};
use tokio::sync::mpsc;

use crate::{Store, TTL_SHORT, put};

/// How many are in the queue of a lock, its holder included.
async fn queued(state: &Arc<dyn StateBackend>, name: &str) -> usize {
    let scan = Scan { prefix: format!("{name}/"), ..Scan::default() };
    state.scan_keys(Keyspace::Locks, scan).await.unwrap().entries.len()
}

async fn until_queued(store: &Store, name: &str, count: usize) {
    eventually("a place in the queue", async || (queued(&store.state, name).await == count).then_some(())).await;
}

pub(crate) async fn the_lock_goes_round_in_the_order_of_arrival(store: Store) {
    const WAITERS: usize = 5;
    let session = store.session("s").await;
    let held = store.state.lock("l", &session).await.unwrap();
    let (sender, mut order) = mpsc::channel(WAITERS);
    for waiter in 0..WAITERS {
        let (state, session, sender) = (store.other.clone(), session.clone(), sender.clone());
        tokio::spawn(async move {
            let lock = state.lock("l", &session).await.unwrap();
            sender.send(waiter).await.unwrap();
            drop(lock);
        });
        until_queued(&store, "l", waiter + 2).await;
    }
    assert!(order.try_recv().is_err(), "it is held");
    assert!(store.holds(held.guard()).await);
    let guard = held.guard();
    drop(held);
    for waiter in 0..WAITERS {
        assert_eq!(soon("the next holder", order.recv()).await, Some(waiter));
    }
    until_queued(&store, "l", 0).await;
    assert!(!store.holds(guard).await, "a lock that was given back protects nothing");
}

pub(crate) async fn a_call_that_is_dropped_gives_its_place_up(store: Store) {
    let session = store.session("s").await;
    let held = store.state.lock("l", &session).await.unwrap();
    let (state, its) = (store.state.clone(), session.clone());
    let waiting = tokio::spawn(async move { state.lock("l", &its).await.map(drop) });
    until_queued(&store, "l", 2).await;
    let (state, its) = (store.state.clone(), session.clone());
    let behind = tokio::spawn(async move { state.lock("l", &its).await });
    until_queued(&store, "l", 3).await;
    waiting.abort();
    until_queued(&store, "l", 2).await;
    drop(held);
    let lock = soon("the one behind", behind).await.unwrap().unwrap();
    assert!(store.holds(lock.guard()).await);
    drop(lock);
    // Dropped at its very first await: its write is on its way, and must not stay.
    for _ in 0..20 {
        let call = store.state.lock("l", &session);
        let _ = tokio::time::timeout(Duration::ZERO, call).await;
    }
    until_queued(&store, "l", 0).await;
    soon("a lock that nobody holds", store.state.lock("l", &session)).await.unwrap();
}

pub(crate) async fn an_expired_holder_loses_the_lock_and_its_guard(store: Store) {
    let (holder, waiter) = (store.session_for("holder", TTL_SHORT).await, store.session("waiter").await);
    let held = store.state.lock("l", &holder).await.unwrap();
    let fenced = |guard, value: &str| Txn { guards: vec![guard], ops: vec![put("protected", value)], ..Txn::default() };
    let write = store.state.put_txn(fenced(held.guard(), "holder")).await.unwrap();
    assert!(matches!(write, TxnOutcome::Committed(_)));
    holder.renew(false);
    let lock = soon("the next holder", store.state.lock("l", &waiter)).await.unwrap();
    assert_eq!(holder.slack(), Duration::ZERO, "the old holder knows before the new one has it");
    // It still has the lock in its hands, and thinks of writing.
    let late = store.state.put_txn(fenced(held.guard(), "late")).await.unwrap();
    assert!(matches!(late, TxnOutcome::Refused { .. }));
    let write = store.state.put_txn(fenced(lock.guard(), "waiter")).await.unwrap();
    assert!(matches!(write, TxnOutcome::Committed(_)));
    assert_eq!(store.get("protected").await.unwrap().value, "waiter");
    drop(held);
    assert!(store.holds(lock.guard()).await, "giving back what was lost takes nothing from its holder");
}

pub(crate) async fn names_below_each_other_do_not_meet(store: Store) {
    let session = store.session("s").await;
    let _above = soon("a", store.state.lock("a", &session)).await.unwrap();
    let _below = soon("a/b", store.state.lock("a/b", &session)).await.unwrap();
    let _beside = soon("ab", store.state.lock("ab", &session)).await.unwrap();
    assert!(store.state.lock("", &session).await.is_err());
}

pub(crate) async fn an_unknown_entry_into_the_queue_is_settled(store: Store) {
    let session = store.session("s").await;
    for fault in [Fault::UnknownDone, Fault::UnknownNotDone, Fault::Unavailable] {
        let faulty = Faulty::new(store.state.clone());
        let injected = faulty.inject(Keyspace::Locks, Operation::Write, fault, 1);
        let entered = soon("the lock", faulty.lock("l", &session)).await;
        assert_eq!(injected.fired(), 1);
        match fault {
            Fault::Unavailable => assert!(entered.is_err_and(|error| error.is_retryable())),
            _ => assert!(store.holds(entered.unwrap().guard()).await),
        }
        until_queued(&store, "l", 0).await;
    }
}
