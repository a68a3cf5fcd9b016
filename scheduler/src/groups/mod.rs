//! Groups of jobs. What they mean is the rules' matter ([`muster_graph::groups`]); here they are kept in the store.
//!
//! Invariants:
//! - A group is made once and never changes; what happens to it is in records of their own.
//! - A cancel is one transaction, however much is in the group: a mark that stays for ever, and the namespace's head of cancels
//!   ([`cancels`]). Each commit of a job compares that head, so after the acknowledgement nothing of the group is assigned, whoever
//!   owns its jobs.
//! - What a job changes for the groups around it is written in the very transaction that changes the job ([`changes`]), under a name of its
//!   own: jobs of one group never meet. One [`keeper`] at a time adds it up, in the order of the store's revisions, and so sees each
//!   completion once.
//! - Nothing is decided by what was counted but the end of a group and how many failures it bears. An [`audit`] counts anew, and corrects.
//! - A completion that a callback is to be told of is put into an outbox by the transaction that sees it; one scheduler at a time
//!   delivers what is there ([`callbacks`]), and nothing waits for that.
//! - What is shown is exact as of one revision: what is added up, and what is not yet ([`views`]). Tasks of live jobs are as their heads
//!   tell, which is at most about a second old.

pub(crate) mod audit;
pub(crate) mod callbacks;
pub(crate) mod cancels;
pub(crate) mod changes;
mod entrance;
pub(crate) mod keeper;
pub(crate) mod live;
mod spec;
pub(crate) mod views;

use muster_graph::groups::GroupPath;
use muster_proto::storage::{GroupPath as StoredPath, GroupRecord};
use muster_state::{Guard, Op, StateBackend, Txn, TxnOutcome, codec, keys};
use tonic::Status;

use crate::accept::{store, unavailable};
use crate::load::send_until_known;
use crate::shared::Shared;
use crate::updates::Committed;
use cancels::GroupCancels;
pub(crate) use entrance::Entrance;
pub(crate) use spec::check_spec;

/// What the root is called where ids are asked for.
pub(crate) const ROOT_ID: &str = "root";
/// Before an id that stands for a path.
const BY_ID: &str = "id:";
/// A change that meets others again and again gives up.
const TRIES: u32 = 10;

/// The group that a request names by its path or id, and that it exists.
pub(crate) async fn find(state: &dyn StateBackend, namespace: &str, named: &str) -> Result<GroupPath, Status> {
    let missing = || {
        Status::not_found(format!(
            "group: there is no group '{named}' in namespace {namespace}; `muster groups --namespace {namespace}` lists them"
        ))
    };
    let path = match named.strip_prefix(BY_ID) {
        Some(ROOT_ID) => return Ok(GroupPath::root()),
        Some(id) => {
            let key = keys::group_id(namespace, id);
            let entry = state.get(&key).await.map_err(store)?.ok_or_else(missing)?;
            let found: StoredPath = codec::decode(&key, &entry.value).map_err(store)?;
            found.path.parse().map_err(|error| Status::data_loss(format!("{}: {error}", key.name)))?
        }
        None => path(named)?,
    };
    if path.is_root() {
        return Ok(path);
    }
    let key = keys::group(namespace, path.as_str());
    let entry = state.get(&key).await.map_err(store)?.ok_or_else(missing)?;
    let record: GroupRecord = codec::decode(&key, &entry.value).map_err(store)?;
    // Staged is not there.
    if Committed::default().has(state, namespace, &record.update).await.map_err(store)? {
        Ok(path)
    } else {
        Err(missing())
    }
}

/// Nobody makes a group that an update makes which is not committed: which of the two it would be is open.
pub(crate) async fn check_not_staged(
    state: &dyn StateBackend,
    namespace: &str,
    path: &GroupPath,
    record: &GroupRecord,
) -> Result<(), Status> {
    let update = &record.update;
    if Committed::default().has(state, namespace, update).await.map_err(store)? {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "path: group {path} of namespace {namespace} is being made by update {update}, which is not committed: commit or abandon that first"
    )))
}

/// A path in a request.
pub(crate) fn path(text: &str) -> Result<GroupPath, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("group: {error}")))
}

/// Nothing new gets into a group that is cancelled, itself or around it.
pub(crate) fn check_open(namespace: &str, path: &GroupPath, known: &GroupCancels) -> Result<(), Status> {
    let Some((by, cancel)) = known.strikes(path) else { return Ok(()) };
    let by: GroupPath = by.parse().unwrap_or_default();
    let why = if cancel.reason.is_empty() { String::new() } else { format!(" ({})", cancel.reason) };
    Err(Status::failed_precondition(format!(
        "group: {path} of namespace {namespace} takes nothing new, since group {by} is cancelled{why}: make another group"
    )))
}

/// Makes a group, or finds that it was made like that before.
pub(crate) async fn create(
    shared: &Shared,
    namespace: &str,
    path: &GroupPath,
    record: GroupRecord,
) -> Result<(), Status> {
    let state = &*shared.options.state;
    let key = keys::group(namespace, path.as_str());
    for _ in 0..TRIES {
        if let Some(entry) = state.get(&key).await.map_err(store)? {
            let known: GroupRecord = codec::decode(&key, &entry.value).map_err(store)?;
            check_not_staged(state, namespace, path, &known).await?;
            return if known.spec.unwrap_or_default() == record.spec.clone().unwrap_or_default() {
                Ok(())
            } else {
                Err(Status::already_exists(format!(
                    "path: group {path} exists in namespace {namespace}, and was made otherwise; groups do not change: take another name"
                )))
            };
        }
        if let Some(parent) = path.parent() {
            find(state, namespace, parent.as_str()).await?;
        }
        let known = cancels::current(shared, namespace).await?;
        check_open(namespace, path, &known)?;
        let mut guards = vec![
            Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision),
            Guard::Absent(key.clone()),
            known.guard(namespace),
        ];
        if let Some(parent) = path.parent().filter(|parent| !parent.is_root()) {
            guards.push(Guard::Present(keys::group(namespace, parent.as_str())));
        }
        let put = |key, value| Op::Put { key, value, session: None };
        let by_id = StoredPath { path: path.as_str().to_owned() };
        let ops = vec![
            put(key.clone(), codec::encode(&record).map_err(store)?),
            put(keys::group_id(namespace, &record.id), codec::encode(&by_id).map_err(store)?),
        ];
        match send_until_known(state, Txn { guards, ops, ..Txn::default() }).await.map_err(store)? {
            TxnOutcome::Committed(_) => return Ok(()),
            // It was made meanwhile, perhaps by an earlier sending of this; or a group was cancelled: look again.
            TxnOutcome::Refused { .. } => cancels::refresh(shared, namespace).await?,
        }
    }
    Err(unavailable("groups of the namespace were changed by others again and again; try again"))
}
