//! An update is committed: what is staged is counted and checked, and then one transaction says that it exists.

use std::collections::BTreeSet;

use muster_graph::groups::GroupPath;
use muster_proto::storage::{GroupRecord, UpdateRecord};
use muster_proto::v1;
use muster_state::{Guard, Key, Keyspace, Op, Txn, codec, keys};
use tonic::Status;

use super::{Committed, TRIES, Update, each_part, find, landed};
use crate::accept::{check_quota, store, unavailable};
use crate::groups::{self, cancels};
use crate::load::send_until_known;
use crate::shared::Shared;

/// Groups looked at in one read.
const AT_ONCE: usize = 100;

/// What is staged.
struct Staged {
    groups: u64,
    jobs: u64,
    /// Groups that jobs are in, and that staged groups are in.
    needed: BTreeSet<String>,
    /// Nothing was staged since.
    unchanged: Guard,
}

/// See the module. The numbers are those that the client has staged.
pub(crate) async fn commit(
    shared: &Shared,
    namespace: &str,
    request: v1::CommitUpdateRequest,
) -> Result<Update, Status> {
    let v1::CommitUpdateRequest { token, groups: groups_declared, jobs: jobs_declared, .. } = request;
    let state = &*shared.options.state;
    let agree = |groups: u64, jobs: u64| {
        if (groups, jobs) == (groups_declared, jobs_declared) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "groups, jobs: {groups_declared} groups and {jobs_declared} jobs are declared, and {groups} groups and {jobs} jobs are staged \
             of update {token}: stage what is missing, or abandon it"
        )))
    };
    for _ in 0..TRIES {
        let update = find(state, namespace, &token).await?;
        if update.record.state() == v1::UpdateState::Committed {
            agree(update.record.groups, update.record.jobs)?;
            return Ok(update);
        }
        update.check_open(shared.now())?;
        let staged = staged(shared, &update).await?;
        agree(staged.groups, staged.jobs)?;
        all_there(shared, &update, &staged.needed).await?;
        check_quota(shared, namespace, staged.jobs).await?;
        let known = cancels::current(shared, namespace).await?;
        groups::check_open(namespace, &GroupPath::root(), &known)?;
        let record = UpdateRecord {
            state: v1::UpdateState::Committed.into(),
            committed_at_ms: shared.now(),
            groups: staged.groups,
            jobs: staged.jobs,
            ..update.record
        };
        let guards = vec![
            Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision),
            Guard::AtRevision(update.key(), update.revision),
            staged.unchanged,
            known.guard(namespace),
        ];
        let put = Op::Put { key: update.key(), value: codec::encode(&record).map_err(store)?, session: None };
        let txn = Txn { guards, ops: vec![put], ..Txn::default() };
        if landed(&send_until_known(state, txn).await.map_err(store)?) {
            tracing::info!(namespace, token, jobs = record.jobs, groups = record.groups, "update committed");
            crate::faults::die_at("after-update-commit");
            shared.updated.notify_one();
            return find(state, namespace, &token).await;
        }
        // Something was staged or cancelled meanwhile, or an earlier sending of this has landed.
        cancels::refresh(shared, namespace).await?;
    }
    Err(unavailable("the update, or groups of its namespace, were changed by others again and again; commit it again"))
}

async fn staged(shared: &Shared, update: &Update) -> Result<Staged, Status> {
    let (mut groups, mut jobs, mut needed) = (0, 0, BTreeSet::new());
    let state = &*shared.options.state;
    let than = each_part(state, &update.namespace, &update.token, None, |_, part| {
        groups += part.groups_named;
        jobs += part.jobs.len() as u64;
        needed.extend(part.jobs.into_iter().map(|job| job.group));
        // A path without its last name is the path of the group around it.
        needed.extend(part.groups.iter().filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned())));
        Ok(())
    })
    .await
    .map_err(store)?;
    needed.remove("");
    let prefix = keys::update_parts(&update.namespace, &update.token);
    let unchanged = Guard::NothingNewer { keyspace: Keyspace::Updates, prefix, than };
    Ok(Staged { groups, jobs, needed, unchanged })
}

/// Every group that is needed exists, or will with this update.
async fn all_there(shared: &Shared, update: &Update, needed: &BTreeSet<String>) -> Result<(), Status> {
    let (state, namespace) = (&*shared.options.state, &*update.namespace);
    let mut committed = Committed::default();
    let paths: Vec<&String> = needed.iter().collect();
    for some in paths.chunks(AT_ONCE) {
        let keys: Vec<Key> = some.iter().map(|path| keys::group(namespace, path)).collect();
        let (_, entries) = state.get_many(&keys).await.map_err(store)?;
        for (path, (key, entry)) in some.iter().zip(keys.iter().zip(entries)) {
            let is_there = match entry {
                Some(entry) => {
                    let record: GroupRecord = codec::decode(key, &entry.value).map_err(store)?;
                    record.update == update.token
                        || committed.has(state, namespace, &record.update).await.map_err(store)?
                }
                None => false,
            };
            if !is_there {
                return Err(Status::failed_precondition(format!(
                    "groups: there is no group {path} in namespace {namespace}, and update {} makes none: stage it, or create it first",
                    update.token
                )));
            }
        }
    }
    Ok(())
}
