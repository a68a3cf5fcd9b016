//! Transactions in etcd's own words.

use std::collections::BTreeMap;

use bytes::Bytes;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, PutOptions, TxnOp, TxnOpResponse, TxnResponse,
};

use super::layout::{Layout, end_of};
use super::{NO_LEASE, revision_out};
use crate::{Guard, Keyspace, Op, SessionId, Txn};

/// A transaction; `leases` has the lease of every session that it names.
pub(super) fn outward(layout: &Layout, txn: &Txn, leases: &BTreeMap<SessionId, i64>) -> etcd_client::Txn {
    let compares: Vec<Compare> = txn.guards.iter().map(|guard| compare(layout, guard)).collect();
    let mut ops: Vec<TxnOp> = txn.ops.iter().filter_map(|op| operation(layout, op, leases)).collect();
    if ops.is_empty() {
        // etcd answers a transaction without any operation from a member's own, perhaps old, state. A read makes it
        // linearizable.
        ops.push(TxnOp::get(layout.stored(Keyspace::Meta, ""), Some(GetOptions::new().with_count_only())));
    }
    let reads: Vec<TxnOp> = txn.read_on_failure.iter().map(|key| TxnOp::get(layout.key(key), None)).collect();
    etcd_client::Txn::new().when(compares).and_then(ops).or_else(reads)
}

fn compare(layout: &Layout, guard: &Guard) -> Compare {
    match guard {
        Guard::Absent(key) => Compare::create_revision(layout.key(key), CompareOp::Equal, 0),
        Guard::Present(key) => Compare::create_revision(layout.key(key), CompareOp::Greater, 0),
        Guard::AtRevision(key, revision) => {
            Compare::mod_revision(layout.key(key), CompareOp::Equal, revision_out(*revision))
        }
        Guard::SessionAlive(id) => Compare::create_revision(layout.session(id), CompareOp::Greater, 0),
        Guard::SessionGone(id) => Compare::version(layout.session(id), CompareOp::Equal, 0),
        Guard::NothingNewer { keyspace, prefix, than } => {
            // A comparison over a range holds if it holds for each key in it.
            let from = layout.stored(*keyspace, prefix);
            let end = end_of(&from);
            Compare::mod_revision(from, CompareOp::Less, revision_out(than.saturating_add(1))).with_range(end)
        }
    }
}

/// `None`: it does nothing.
fn operation(layout: &Layout, op: &Op, leases: &BTreeMap<SessionId, i64>) -> Option<TxnOp> {
    Some(match op {
        Op::Put { key, value, session } => {
            let options =
                session.as_ref().map(|id| PutOptions::new().with_lease(leases.get(id).copied().unwrap_or(NO_LEASE)));
            TxnOp::put(layout.key(key), value.as_ref(), options)
        }
        Op::Delete(key) => TxnOp::delete(layout.key(key), None),
        Op::DeleteRange { from, to, .. } if from >= to => return None,
        Op::DeleteRange { keyspace, from, to } => {
            let end = layout.stored(*keyspace, to);
            TxnOp::delete(layout.stored(*keyspace, from), Some(DeleteOptions::new().with_range(end)))
        }
    })
}

/// Reads several keys at one revision.
pub(super) fn gets(stored: &[Vec<u8>], at: Option<i64>) -> etcd_client::Txn {
    let options = at.map(|at| GetOptions::new().with_revision(at));
    let gets: Vec<TxnOp> = stored.iter().map(|key| TxnOp::get(key.as_slice(), options.clone())).collect();
    etcd_client::Txn::new().and_then(gets)
}

/// Writes a session's key, unless it is there; then its lease tells whose it is.
pub(super) fn session_key(key: &[u8], lease: i64, value: &Bytes) -> etcd_client::Txn {
    let put = TxnOp::put(key, value.as_ref(), Some(PutOptions::new().with_lease(lease)));
    etcd_client::Txn::new()
        .when([Compare::create_revision(key, CompareOp::Equal, 0)])
        .and_then([put])
        .or_else([TxnOp::get(key, None)])
}

/// What the gets of an answer found, in their order.
pub(super) fn read(response: &TxnResponse) -> impl Iterator<Item = Option<KeyValue>> {
    response.op_responses().into_iter().map(|answer| match answer {
        TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
        _ => None,
    })
}
