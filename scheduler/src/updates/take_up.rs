//! Committed jobs come to schedulers: part by part, each in one transaction that makes its jobs active and names their owner. Any scheduler does it
//! that has room; of two that try the same part one is refused, and looks for another.

use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::storage::{GroupRecord, JobHead, UpdatePart, UpdateRecord};
use muster_proto::v1;
use muster_state::{Entry, Error, Guard, Key, Keyspace, Op, Revision, Txn, codec, keys};

use super::{Update, all, each_part, landed};
use crate::load::{StoredJob, send_until_known};
use crate::shared::Shared;
use crate::{claims, ownership, self_fencing};

/// Between two looks for what peers have committed, or had no room for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A part of a committed update, as it was read.
struct Waiting {
    key: Key,
    part: UpdatePart,
    revision: Revision,
}

/// Takes up whatever there is room for, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        // Sooner when this scheduler has committed one.
        let _ = tokio::time::timeout(LOOK_EVERY, shared.updated.notified()).await;
        if let Err(error) = look(&shared).await {
            tracing::info!(%error, "jobs of updates are taken up again soon");
        }
    }
}

fn may_take(shared: &Shared) -> bool {
    shared.health.is_trusted() && self_fencing::stuck(shared).is_none() && !*shared.draining.borrow()
}

async fn look(shared: &Arc<Shared>) -> Result<(), Error> {
    let state = &*shared.options.state;
    let (updates, _) = all(state, None).await?;
    for update in updates {
        if update.record.state() != v1::UpdateState::Committed || update.record.taken_up {
            continue;
        }
        let mut waiting = Vec::new();
        each_part(state, &update.namespace, &update.token, None, |entry, part| {
            if !part.taken_up {
                waiting.push(waiting_part(&entry, part));
            }
            Ok(())
        })
        .await?;
        if waiting.is_empty() {
            done(shared, &update).await?;
            continue;
        }
        // Peers begin somewhere else.
        let first = usize::try_from(rand::random::<u32>()).unwrap_or(0) % waiting.len();
        waiting.rotate_left(first);
        for part in waiting {
            if !may_take(shared) || claims::room(shared).await < part.part.jobs.len() {
                return Ok(());
            }
            take(shared, &update.namespace, part).await?;
        }
    }
    Ok(())
}

fn waiting_part(entry: &Entry, part: UpdatePart) -> Waiting {
    Waiting { key: Key::new(Keyspace::Updates, entry.name.clone()), part, revision: entry.mod_revision }
}

/// Takes up the part that a staged job is in, whether or not there is room: somebody asks for it.
pub(crate) async fn with(shared: &Arc<Shared>, stored: &StoredJob) -> Result<(), Error> {
    let key = Key::new(Keyspace::Updates, stored.head.update_part.clone());
    let Some(entry) = shared.options.state.get(&key).await? else { return Ok(()) };
    let part: UpdatePart = codec::decode(&key, &entry.value)?;
    if part.taken_up || !shared.health.is_trusted() {
        return Ok(());
    }
    take(shared, &stored.head.namespace, waiting_part(&entry, part)).await
}

/// Its jobs become active and this scheduler's, and its groups lose the name of the update.
async fn take(shared: &Arc<Shared>, namespace: &str, waiting: Waiting) -> Result<(), Error> {
    let state = &*shared.options.state;
    let identity = shared.presence().identity;
    let owner = codec::encode(&ownership::owner_record(shared, &identity.session))?;
    let Waiting { key, part, revision } = waiting;
    let put = |key: Key, value: bytes::Bytes| Op::Put { key, value, session: None };
    let jobs: Vec<JobId> = part.jobs.iter().filter_map(|job| job.job_id.parse().ok()).collect();
    let staged: Vec<Key> = jobs.iter().map(|job| keys::staged_job(*job)).collect();
    let groups: Vec<Key> = part.groups.iter().map(|path| keys::group(namespace, path)).collect();
    // What is read is as the part says it is, if nobody has taken that up: its guard tells.
    let mut txn = Txn {
        guards: vec![
            Guard::AtRevision(keys::epoch(), identity.epoch_revision),
            Guard::SessionAlive(identity.session.clone()),
            Guard::AtRevision(key.clone(), revision),
        ],
        ..Txn::default()
    };
    let (_, heads) = state.get_many(&staged).await?;
    for (job, (staged, entry)) in jobs.iter().zip(staged.into_iter().zip(heads)) {
        // A peer was faster.
        let Some(entry) = entry else { return Ok(()) };
        let head: JobHead = codec::decode(&staged, &entry.value)?;
        let head = JobHead { update_part: String::new(), ..head };
        txn.guards.push(Guard::Absent(keys::owner(*job)));
        txn.ops.push(Op::Delete(staged));
        txn.ops.push(put(keys::active_job(*job), codec::encode(&head)?));
        txn.ops.push(put(keys::owner(*job), owner.clone()));
    }
    let (_, records) = state.get_many(&groups).await?;
    for (key, entry) in groups.into_iter().zip(records) {
        let Some(entry) = entry else { return Ok(()) };
        let record: GroupRecord = codec::decode(&key, &entry.value)?;
        txn.ops.push(put(key, codec::encode(&GroupRecord { update: String::new(), ..record })?));
    }
    txn.ops.push(put(key, codec::encode(&UpdatePart { taken_up: true, ..part })?));
    // Refused: a peer was faster, or an earlier sending of this has landed: then the scan of owners finds that the jobs are ours.
    if landed(&send_until_known(state, txn).await?) {
        for job in jobs {
            ownership::adopt_soon(shared, job);
        }
    }
    Ok(())
}

/// Nobody needs to look at it any more.
async fn done(shared: &Shared, update: &Update) -> Result<(), Error> {
    let record = UpdateRecord { taken_up: true, ..update.record };
    let guards = vec![
        Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision),
        Guard::AtRevision(update.key(), update.revision),
    ];
    let put = Op::Put { key: update.key(), value: codec::encode(&record)?, session: None };
    send_until_known(&*shared.options.state, Txn { guards, ops: vec![put], ..Txn::default() }).await.map(drop)
}
