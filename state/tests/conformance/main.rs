//! One suite for every store: what a caller of `StateBackend` may rely on, shown on memory, on redb and on a real etcd.
//!
//! Each case gets a cluster of its own. Cases run one after the other, since some of them compact history, which is global
//! in etcd.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod care;
mod locks;
mod scans;
mod sessions;
mod transactions;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use muster_state::testing::PATIENCE;
use muster_state::{
    Embedded, Entry, Guard, Key, Keyspace, Memory, Op, Revision, SessionId, StateBackend, Txn, TxnOutcome,
};

/// Of a session that is to live for as long as a case takes, on a machine that is busy with others.
pub(crate) const TTL: Duration = Duration::from_secs(20);
/// Short, so that expiry can be waited for; etcd's own smallest.
pub(crate) const TTL_SHORT: Duration = Duration::from_secs(1);

/// One cluster of one store.
pub(crate) struct Store {
    pub(crate) state: Arc<dyn StateBackend>,
    /// Another client of the same cluster.
    pub(crate) other: Arc<dyn StateBackend>,
}

type Case = (&'static str, fn(Store) -> BoxFuture<'static, ()>);

macro_rules! cases {
    ($($module:ident :: $case:ident),+ $(,)?) => {
        const CASES: &[Case] = &[$((stringify!($case), |store| Box::pin($module::$case(store)))),+];
    };
}

cases! {
    transactions::absent_and_empty_differ,
    transactions::what_one_transaction_puts_has_one_revision,
    transactions::every_guard_holds_when_it_should_and_only_then,
    transactions::a_refused_transaction_writes_nothing_and_reads_what_was_asked,
    transactions::nothing_newer_looks_at_its_prefix_only,
    transactions::mv_takes_the_place_of_nothing,
    transactions::ranges_are_deleted_up_to_their_end,
    transactions::limits_are_refused_by_name,
    transactions::a_transaction_that_changes_nothing_makes_no_revision,
    transactions::a_delayed_transaction_of_the_same_owner_is_refused,
    transactions::an_identical_transaction_sent_again_tells_that_it_had_landed,
    transactions::concurrent_writers_lose_no_update,
    transactions::an_injected_unknown_outcome_is_settled_by_sending_again,
    scans::prefixes_do_not_collide,
    scans::keyspaces_do_not_see_each_other,
    scans::pages_stay_at_one_revision_while_writes_go_on,
    scans::a_scan_under_a_compaction_says_so,
    scans::names_come_without_values,
    scans::many_keys_are_read_at_one_revision,
    scans::a_revision_that_is_not_there_yet_is_an_error,
    watches::changes_come_in_order_and_those_of_a_revision_together,
    watches::a_watch_begins_in_the_past,
    watches::a_watch_sees_its_prefix_only,
    watches::a_compacted_beginning_is_said_and_the_oldest_is_complete,
    watches::a_slow_watcher_loses_nothing,
    sessions::keys_go_with_their_session,
    sessions::an_id_is_used_once,
    sessions::a_dead_session_takes_no_keys,
    sessions::a_session_that_is_not_renewed_is_lost,
    sessions::a_session_lives_as_long_as_it_is_renewed,
    sessions::a_dropped_session_ends_after_its_ttl,
    sessions::another_client_may_lease_to_a_session,
    locks::the_lock_goes_round_in_the_order_of_arrival,
    locks::a_call_that_is_dropped_gives_its_place_up,
    locks::an_expired_holder_loses_the_lock_and_its_guard,
    locks::names_below_each_other_do_not_meet,
    locks::an_unknown_entry_into_the_queue_is_settled,
    care::a_store_tells_its_members_and_grows_with_what_is_put_into_it,
    care::what_is_forgotten_and_given_back_is_not_in_use_and_everything_else_is_still_there,
}

async fn run(name: &str, case: fn(Store) -> BoxFuture<'static, ()>, store: Store, kind: &str) {
    let begun = std::time::Instant::now();
    println!("{kind}: {name}");
    // A task of its own, so that a panic is reported together with the case's name.
    let done = tokio::time::timeout(2 * PATIENCE, tokio::spawn(case(store))).await;
    match done {
        Ok(Ok(())) => println!("{kind}: {name}: passed in {:?}", begun.elapsed()),
        Ok(Err(panic)) => panic!("{kind}: {name} failed: {panic}"),
        Err(_) => panic!("{kind}: {name} hangs"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    for (name, case) in CASES {
        let memory = Memory::new();
        run(name, *case, Store { state: Arc::new(memory.clone()), other: Arc::new(memory) }, "memory").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_conforms() {
    for (name, case) in CASES {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(directory.path(), "test").await.unwrap();
        run(name, *case, Store { state: Arc::new(store.clone()), other: Arc::new(store) }, "embedded").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_conforms() {
    let etcd = muster_state::testing::Etcd::start().await.unwrap();
    for (number, (name, case)) in CASES.iter().enumerate() {
        let cluster = format!("case-{number}");
        let store = Store { state: Arc::new(etcd.store(&cluster)), other: Arc::new(etcd.store(&cluster)) };
        run(name, *case, store, "etcd").await;
    }
}

// What the cases are written with.

pub(crate) fn key(name: &str) -> Key {
    Key::new(Keyspace::JobPlans, name)
}

pub(crate) fn put(name: &str, value: &str) -> Op {
    Op::Put { key: key(name), value: Bytes::copy_from_slice(value.as_bytes()), session: None }
}

pub(crate) fn leased(name: &str, session: &SessionId) -> Op {
    Op::Put { key: key(name), value: Bytes::new(), session: Some(session.clone()) }
}

pub(crate) fn delete(name: &str) -> Op {
    Op::Delete(key(name))
}

impl Store {
    /// A transaction that is certain to be done.
    pub(crate) async fn commit(&self, ops: Vec<Op>) -> Revision {
        match self.state.put_txn(Txn { ops, ..Txn::default() }).await.unwrap() {
            TxnOutcome::Committed(revision) => revision,
            refused => panic!("refused without a guard: {refused:?}"),
        }
    }

    pub(crate) async fn get(&self, name: &str) -> Option<Entry> {
        self.state.get(&key(name)).await.unwrap()
    }

    /// Whether a transaction with this guard is done.
    pub(crate) async fn holds(&self, guard: Guard) -> bool {
        let txn = Txn { guards: vec![guard], ops: vec![delete("nothing")], ..Txn::default() };
        matches!(self.state.put_txn(txn).await.unwrap(), TxnOutcome::Committed(_))
    }

    pub(crate) async fn session(&self, id: &str) -> Arc<dyn muster_state::Session> {
        self.session_for(id, TTL).await
    }

    pub(crate) async fn session_for(&self, id: &str, ttl: Duration) -> Arc<dyn muster_state::Session> {
        self.state.open_session(SessionId(id.to_owned()), ttl, Bytes::from_static(b"here")).await.unwrap()
    }
}

pub(crate) fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}
