//! From bytes to records: what one revision wrote, job by job.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_graph::ids::JobId;
use muster_proto::storage::{ExecutorRecord, GroupChange, GroupSums, IdempotencyRecord, JobHead, OwnerRecord};
use muster_state::codec::{self, Bucket, Commit, Epoch};
use muster_state::keys::{self, StatePart};
use muster_state::{Key, Keyspace, Revision};

use super::history::{Change, Write};

/// What one revision wrote. `None` in a pair: deleted.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) revision: Revision,
    pub(super) at_us: u64,
    /// Sessions that came (`true`) or went.
    pub(super) sessions: Vec<(String, bool)>,
    pub(super) executors: Vec<(String, Option<ExecutorRecord>)>,
    /// Idempotency keys, by their names in the store.
    pub(super) keys: Vec<(String, Option<IdempotencyRecord>)>,
    pub(super) epoch: Option<Option<Epoch>>,
    pub(super) jobs: BTreeMap<JobId, JobStep>,
    /// Groups that were cancelled, by namespace and path.
    pub(super) group_cancels: Vec<(String, String)>,
    /// What transactions changed for groups, by the names in the store.
    pub(super) group_changes: Vec<(String, Option<GroupChange>)>,
    /// What was added up of groups, by namespace and path.
    pub(super) group_sums: Vec<((String, String), Option<GroupSums>)>,
    /// Records that could not be read, with the job that they belong to.
    pub(super) unreadable: Vec<(Option<JobId>, String)>,
}

/// What one revision wrote of one job.
#[derive(Debug, Default)]
pub(super) struct JobStep {
    /// Heads, by the keyspace in which they are.
    pub(super) heads: Vec<(Keyspace, Option<JobHead>)>,
    pub(super) owner: Option<Option<OwnerRecord>>,
    /// Deltas that were put, by their sequences.
    pub(super) commits: BTreeMap<u64, Commit>,
    /// Deltas that were deleted.
    pub(super) dropped: Vec<u64>,
    pub(super) buckets: Vec<(StatePart, Option<Bucket>)>,
    /// Pieces of blobs, by their names.
    pub(super) blobs: Vec<(String, Option<Bytes>)>,
}

impl JobStep {
    /// The head that was put, if one was.
    pub(super) fn head(&self) -> Option<(Keyspace, &JobHead)> {
        self.heads.iter().find_map(|(keyspace, head)| Some((*keyspace, head.as_ref()?)))
    }

    /// Head and owner come together: a submit, or a finished job that is made active again.
    pub(super) fn opens(&self) -> bool {
        matches!(self.owner, Some(Some(_))) && self.head().is_some()
    }
}

/// Takes a revision apart.
pub(super) fn step(write: &Write) -> Step {
    let mut step = Step { revision: write.revision, at_us: write.at_us, ..Step::default() };
    for change in &write.changes {
        if let Err(why) = take(&mut step, change) {
            let job = keys::job_of(&change.name);
            step.unreadable.push((job, format!("{}/{}: {why}", change.keyspace.name(), change.name)));
        }
    }
    step
}

fn record<R: codec::Record>(change: &Change) -> Result<Option<R>, String> {
    let key = Key::new(change.keyspace, change.name.clone());
    change.value.as_ref().map(|value| codec::decode(&key, value)).transpose().map_err(|error| error.to_string())
}

fn take(step: &mut Step, change: &Change) -> Result<(), String> {
    let name = || change.name.clone();
    let job = || keys::job_of(&change.name).ok_or("the name of no job");
    match change.keyspace {
        Keyspace::Meta if change.name == keys::epoch().name => step.epoch = Some(record(change)?),
        Keyspace::Schedulers => step.sessions.push((name(), change.value.is_some())),
        Keyspace::Executors => step.executors.push((name(), record(change)?)),
        Keyspace::Idempotency => step.keys.push((name(), record(change)?)),
        Keyspace::ActiveJobs | Keyspace::CompletedJobs | Keyspace::FailedJobs => {
            let head = record(change)?;
            step.jobs.entry(job()?).or_default().heads.push((change.keyspace, head));
        }
        Keyspace::JobOwners => {
            let owner = record(change)?;
            step.jobs.entry(job()?).or_default().owner = Some(owner);
        }
        Keyspace::JobDeltas => {
            let sequence = keys::sequence_of(&change.name).ok_or("the name of no delta")?;
            let commit = record(change)?;
            let job = step.jobs.entry(job()?).or_default();
            match commit {
                Some(commit) => drop(job.commits.insert(sequence, commit)),
                None => job.dropped.push(sequence),
            }
        }
        Keyspace::JobStages => {
            let (id, part) = keys::state_part_of(&change.name).ok_or("the name of no part")?;
            let bucket = record(change)?;
            step.jobs.entry(id).or_default().buckets.push((part, bucket));
        }
        Keyspace::Groups => {
            let cancelled = keys::group_cancel_of(&change.name);
            step.group_cancels.extend(cancelled.map(|(namespace, path)| (namespace.to_owned(), path.to_owned())));
        }
        Keyspace::GroupCounts => match keys::group_sums_of(&change.name) {
            Some((namespace, path)) => {
                let sums = record(change)?;
                step.group_sums.push(((namespace.to_owned(), path.to_owned()), sums));
            }
            None => {
                let changed = record(change)?;
                step.group_changes.push((name(), changed));
            }
        },
        Keyspace::JobPlans => step.jobs.entry(job()?).or_default().blobs.push((name(), change.value.clone())),
        // Of no promise's: hints between schedulers, the log for people, marks, locks.
        _ => {}
    }
    Ok(())
}
