//! A bunch is staged: cut into parts, each of which is one transaction.

use std::sync::Arc;

use muster_graph::groups::GroupPath;
use muster_graph::ids::JobId;
use muster_graph::spec::JobSpec;
use muster_proto::storage::{GroupPath as StoredPath, GroupRecord, JobHead, StagedJob, UpdatePart};
use muster_proto::v1;
use muster_state::{Guard, Key, Op, StateBackend, Txn, codec, keys};
use prost::Message as _;
use tonic::Status;

use super::{TRIES, Update, find, landed};
use crate::accept::{retry_later, store, unavailable};
use crate::after;
use crate::groups::{self, cancels, cancels::GroupCancels, changes};
use crate::load::{self, send_until_known};
use crate::prepare::{Prepared, prepare};
use crate::shared::Shared;

/// Groups and jobs in one bunch.
const BUNCH_MAX: usize = 1_000;
/// Operations of a part's transaction, at most: for a job four comparisons (and three writes), for a group two writes.
const OPERATIONS_MAX: usize = 120;
/// Bytes in it.
const BYTES_MAX: usize = 512 << 10;
/// Beyond so much of the store's quota nothing is staged: jobs that run need the rest.
const QUOTA_PERCENT_MAX: u64 = 60;

/// What a bunch asks for, checked.
enum Item {
    Group(GroupPath, v1::GroupSpec),
    Job(Box<Prepared>),
}

/// Some of the items, with the digest of what was asked for.
struct Part {
    items: Vec<Item>,
    digest: String,
}

/// See the module.
pub(crate) async fn stage(
    shared: &Arc<Shared>,
    namespace: &str,
    request: v1::StageUpdateRequest,
) -> Result<v1::StageUpdateResponse, Status> {
    let v1::StageUpdateRequest { token, bunch, groups, jobs, .. } = request;
    let state = &*shared.options.state;
    let asked = groups.len() + jobs.len();
    if !(1..=BUNCH_MAX).contains(&asked) {
        return Err(Status::invalid_argument(format!(
            "a bunch has 1 to BUNCH_MAX = {BUNCH_MAX} groups and jobs, and this one has {asked}: cut it"
        )));
    }
    let update = find(state, namespace, &token).await?;
    check_room(shared).await?;
    let parts = cut(shared, namespace, groups, jobs).await?;
    let keys: Vec<Key> = (0..=parts.len()).map(|part| keys::update_part(namespace, &token, bunch, part)).collect();
    let (_, mut found) = state.get_many(&keys).await.map_err(store)?;
    let other = || {
        Status::already_exists(format!(
            "bunch: {bunch} of update {token} was staged before with other content: give each bunch a number of its own"
        ))
    };
    // One more than there is to be.
    if found.pop().flatten().is_some() {
        return Err(other());
    }
    let mut response = v1::StageUpdateResponse { job_ids: Vec::new(), existed: true };
    let mut to_stage = Vec::new();
    let mut staged = Vec::new();
    for ((key, found), part) in keys.into_iter().zip(found).zip(parts) {
        match found {
            Some(entry) => {
                let known: UpdatePart = codec::decode(&key, &entry.value).map_err(store)?;
                if known.digest != part.digest {
                    return Err(other());
                }
                staged.push(Some(known));
            }
            None => {
                staged.push(None);
                to_stage.push((key, part));
            }
        }
    }
    let mut to_stage = to_stage.into_iter();
    for known in staged {
        let part = match known {
            Some(known) => known,
            None => {
                let Some((key, part)) = to_stage.next() else { continue };
                response.existed = false;
                let staged = stage_part(shared, &update, &key, &part).await?;
                if staged.digest != part.digest {
                    return Err(other());
                }
                staged
            }
        };
        response.job_ids.extend(part.jobs.into_iter().map(|job| job.job_id));
    }
    Ok(response)
}

/// Refused in time: a full store takes no results either.
async fn check_room(shared: &Shared) -> Result<(), Status> {
    shared.health.check_writable()?;
    let Some((in_use, quota)) = shared.health.filled() else { return Ok(()) };
    if in_use.saturating_mul(100) < quota.saturating_mul(QUOTA_PERCENT_MAX) {
        return Ok(());
    }
    Err(retry_later(format!(
        "the store uses {in_use} of the {quota} bytes of its quota, and nothing is staged beyond {QUOTA_PERCENT_MAX} % of them: \
         commit or abandon open updates, let jobs end, or give the store a larger quota (etcd's --quota-backend-bytes)"
    )))
}

/// Checks all of a bunch before any of it is written.
async fn cut(
    shared: &Arc<Shared>,
    namespace: &str,
    groups: Vec<v1::StagedGroup>,
    jobs: Vec<v1::JobSpec>,
) -> Result<Vec<Part>, Status> {
    let total = groups.len() + jobs.len();
    let mut asked: Vec<(Item, usize, Vec<u8>)> = Vec::with_capacity(total);
    for (place, group) in groups.into_iter().enumerate() {
        let bytes = group.encode_to_vec();
        let here = |status: Status| Status::new(status.code(), format!("groups[{place}].{}", status.message()));
        let path = groups::path(&group.path).map_err(here)?;
        if path.is_root() {
            return Err(Status::invalid_argument(format!(
                "groups[{place}].path: the root is always there; leave it out"
            )));
        }
        let spec = group.spec.unwrap_or_default();
        groups::check_spec(&spec).map_err(here)?;
        let before = asked.iter().find_map(|(item, ..)| match item {
            Item::Group(known, spec) if *known == path => Some(spec),
            _ => None,
        });
        if before.is_some_and(|before| *before != spec) {
            return Err(Status::invalid_argument(format!(
                "groups[{place}].path: {path} is in the bunch twice, made otherwise"
            )));
        }
        asked.push((Item::Group(path, spec), 2, bytes));
    }
    for (place, job) in jobs.into_iter().enumerate() {
        let bytes = job.encode_to_vec();
        let here = |status: Status| Status::new(status.code(), format!("jobs[{place}].{}", status.message()));
        let job = JobSpec::try_from(job).map_err(Status::from).map_err(here)?;
        if job.namespace != namespace {
            return Err(Status::invalid_argument(format!(
                "jobs[{place}].namespace: it is {}, and the update is one of {namespace}: give it an update of its own",
                job.namespace
            )));
        }
        let prepared = prepare(shared, job, None, None, None).await.map_err(here)?;
        if prepared.tasks > shared.options.owned_max.tasks {
            return Err(Status::invalid_argument(format!(
                "jobs[{place}].stages: {} tasks are more than the {} that this scheduler takes (--max-tasks): split the job",
                prepared.tasks, shared.options.owned_max.tasks
            )));
        }
        after::check(&*shared.options.state, namespace, &prepared.after).await.map_err(here)?;
        asked.push((Item::Job(Box::new(prepared)), 4, bytes));
    }
    let mut parts = Vec::new();
    let (mut items, mut operations, mut size) = (Vec::new(), 0, 0);
    let digest = |total: usize| {
        let mut digest = blake3::Hasher::new();
        digest.update(&total.to_be_bytes());
        digest
    };
    let mut hasher = digest(total);
    for (item, more, bytes) in asked {
        if operations + more > OPERATIONS_MAX || (size > 0 && size + bytes.len() > BYTES_MAX) {
            let digest = std::mem::replace(&mut hasher, digest(total)).finalize().to_hex().to_string();
            parts.push(Part { items: std::mem::take(&mut items), digest });
            (operations, size) = (0, 0);
        }
        hasher.update(&bytes.len().to_be_bytes());
        hasher.update(&bytes);
        (operations, size) = (operations + more, size + bytes.len());
        items.push(item);
    }
    parts.push(Part { items, digest: hasher.finalize().to_hex().to_string() });
    Ok(parts)
}

/// Stages one part, and answers what is staged under its name then.
async fn stage_part(shared: &Shared, update: &Update, key: &Key, part: &Part) -> Result<UpdatePart, Status> {
    let state = &*shared.options.state;
    for _ in 0..TRIES {
        update.check_open(shared.now())?;
        let known = cancels::current(shared, &update.namespace).await?;
        let (txn, blobs, record) = transaction(shared, update, key, part, &known).await?;
        // Too large for the transaction, and of no effect without it.
        load::write_blobs(state, &[], blobs).await.map_err(store)?;
        if landed(&send_until_known(state, txn).await.map_err(store)?) {
            return Ok(record);
        }
        // By an earlier sending of this, or another client's.
        if let Some(entry) = state.get(key).await.map_err(store)? {
            return codec::decode(key, &entry.value).map_err(store);
        }
        find(state, &update.namespace, &update.token).await?.check_open(shared.now())?;
        cancels::refresh(shared, &update.namespace).await?;
    }
    Err(unavailable("groups of the namespace were changed by others again and again; stage the bunch again"))
}

async fn transaction(
    shared: &Shared,
    update: &Update,
    key: &Key,
    part: &Part,
    known: &GroupCancels,
) -> Result<(Txn, Vec<Op>, UpdatePart), Status> {
    let (namespace, now) = (&*update.namespace, shared.now());
    let put = |key: Key, value: bytes::Bytes| Op::Put { key, value, session: None };
    let mut txn = Txn {
        guards: vec![
            Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision),
            Guard::AtRevision(update.key(), update.revision),
            Guard::Absent(key.clone()),
            known.guard(namespace),
        ],
        ..Txn::default()
    };
    let mut blobs = Vec::new();
    let mut record = UpdatePart { digest: part.digest.clone(), ..UpdatePart::default() };
    for (item, id) in part.items.iter().zip(JobId::staged(now, rand::random())) {
        match item {
            Item::Group(path, spec) => {
                record.groups_named += 1;
                groups::check_open(namespace, path, known)?;
                if is_there(&*shared.options.state, update, path, spec).await?
                    || record.groups.contains(&path.to_string())
                {
                    continue;
                }
                let group_id = format!("{:016x}", rand::random::<u64>());
                let by_id = StoredPath { path: path.as_str().to_owned() };
                let made = GroupRecord {
                    id: group_id.clone(),
                    spec: Some(spec.clone()),
                    created_at_ms: now,
                    update: update.token.clone(),
                };
                let group = keys::group(namespace, path.as_str());
                txn.guards.push(Guard::Absent(group.clone()));
                txn.ops.push(put(group, codec::encode(&made).map_err(store)?));
                txn.ops.push(put(keys::group_id(namespace, &group_id), codec::encode(&by_id).map_err(store)?));
                record.groups.push(path.as_str().to_owned());
            }
            Item::Job(prepared) => {
                groups::check_open(namespace, &prepared.group, known)?;
                let (head, more) = prepared.as_job(id, now).map_err(store)?;
                let head = JobHead { update_part: key.name.clone(), ..head };
                blobs.extend(more);
                let staged = keys::staged_job(id);
                // Whoever staged in the same millisecond may have drawn the same.
                let taken = [staged.clone(), keys::active_job(id), keys::completed_job(id), keys::failed_job(id)];
                txn.guards.extend(taken.map(Guard::Absent));
                txn.ops.push(put(staged, codec::encode(&head).map_err(store)?));
                txn.ops.push(changes::staged(id, &head, &update.token).map_err(store)?);
                if !head.group.is_empty() {
                    txn.ops.push(put(keys::group_member(namespace, &head.group, id), bytes::Bytes::new()));
                }
                record.jobs.push(StagedJob {
                    job_id: id.to_string(),
                    group: head.group,
                    tasks: u32::try_from(prepared.tasks).unwrap_or(u32::MAX),
                });
            }
        }
    }
    txn.ops.push(put(key.clone(), codec::encode(&record).map_err(store)?));
    Ok((txn, blobs, record))
}

/// Whether a group needs not be staged, because it exists or this update has staged it, and just so.
async fn is_there(
    state: &dyn StateBackend,
    update: &Update,
    path: &GroupPath,
    spec: &v1::GroupSpec,
) -> Result<bool, Status> {
    let namespace = &*update.namespace;
    let key = keys::group(namespace, path.as_str());
    let Some(entry) = state.get(&key).await.map_err(store)? else { return Ok(false) };
    let known: GroupRecord = codec::decode(&key, &entry.value).map_err(store)?;
    if known.update != update.token {
        groups::check_not_staged(state, namespace, path, &known).await?;
    }
    if known.spec.unwrap_or_default() == *spec {
        return Ok(true);
    }
    Err(Status::already_exists(format!(
        "groups: {path} exists in namespace {namespace}, or is staged, and was made otherwise; groups do not change: take another name"
    )))
}
