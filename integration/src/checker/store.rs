//! The store as the revisions so far have left it: the fold's state. Rules look at it before and after each revision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use muster_graph::execution::Delta;
use muster_graph::ids::JobId;
use muster_graph::plan::Plan;
use muster_proto::storage::{Content, ExecutorRecord, JobHead, StoredPlan};
use muster_state::codec::{self, Epoch};
use muster_state::{Keyspace, Revision, keys};

use super::decode::{JobStep, Step};
use super::job::{Job, Move, Owner, States};

/// A record of an executor, as it was written; `None`: deleted.
#[derive(Debug, Clone)]
pub(super) struct ExecutorWrite {
    pub(super) revision: Revision,
    pub(super) at_us: u64,
    pub(super) record: Option<ExecutorRecord>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Sessions that are there.
    pub(super) sessions: BTreeMap<String, Revision>,
    /// All that was ever written of each executor.
    pub(super) executors: HashMap<String, Vec<ExecutorWrite>>,
    /// Idempotency keys, with the jobs that they mean.
    pub(super) keys: HashMap<String, String>,
    pub(super) epoch: Option<Epoch>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    blobs: BTreeMap<String, Bytes>,
}

/// What applying a revision has shown of a job.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) moves: Vec<Move>,
    /// Something did not fit.
    pub(super) problems: Vec<String>,
}

impl Store {
    /// Takes a revision in. Says which tasks moved.
    pub(super) fn apply(&mut self, step: &Step) -> BTreeMap<JobId, Applied> {
        for (session, alive) in &step.sessions {
            if *alive {
                self.sessions.insert(session.clone(), step.revision);
            } else {
                self.sessions.remove(session);
            }
        }
        for (executor, record) in &step.executors {
            let written = ExecutorWrite { revision: step.revision, at_us: step.at_us, record: record.clone() };
            self.executors.entry(executor.clone()).or_default().push(written);
        }
        for (key, record) in &step.keys {
            if let Some(record) = record {
                self.keys.insert(key.clone(), record.job_id.clone());
            }
        }
        if let Some(epoch) = step.epoch {
            self.epoch = epoch;
        }
        let mut applied = BTreeMap::new();
        let revision = step.revision;
        for (id, step) in &step.jobs {
            for (name, value) in &step.blobs {
                match value {
                    Some(value) => drop(self.blobs.insert(name.clone(), value.clone())),
                    None => drop(self.blobs.remove(name)),
                }
            }
            let mut of_job = Applied::default();
            let blobs = &self.blobs;
            let job = self.jobs.entry(*id).or_default();
            if let Err(problem) = apply_to(job, *id, step, revision, blobs, &mut of_job) {
                if !job.torn {
                    of_job.problems.push(problem);
                }
                job.torn = true;
            }
            applied.insert(*id, of_job);
        }
        applied
    }
}

fn apply_to(
    job: &mut Job,
    id: JobId,
    step: &JobStep,
    revision: Revision,
    blobs: &BTreeMap<String, Bytes>,
    applied: &mut Applied,
) -> Result<(), String> {
    for (keyspace, head) in &step.heads {
        if head.is_none() && job.place == Some(*keyspace) {
            (job.place, job.head) = (None, None);
        }
    }
    let head = step.head();
    if let Some(record) = &step.owner {
        job.owner = record.clone().map(|record| Owner { token: revision, record });
    }
    if let Some((keyspace, head)) = head {
        (job.place, job.head) = (Some(keyspace), Some(head.clone()));
        plan(job, id, head, blobs)?;
    }
    for (part, bucket) in &step.buckets {
        match bucket {
            Some(bucket) => drop(job.buckets.insert(*part, (bucket.folded_to, bucket.delta.clone()))),
            None => drop(job.buckets.remove(part)),
        }
    }
    for sequence in &step.dropped {
        job.deltas.remove(sequence);
    }
    for (&sequence, commit) in &step.commits {
        let states = job.states.as_mut().ok_or("a delta of a job that is not planned")?;
        states.lay_over(&commit.delta, &mut applied.moves)?;
        job.sequence = job.sequence.max(sequence);
        job.deltas.insert(sequence, commit.clone());
    }
    let Some((_, head)) = head else { return Ok(()) };
    if !head.packed
        && !head.states.is_empty()
        && let Some(states) = &mut job.states
    {
        let delta: Delta = codec::decode_bytes(&head.states)?;
        states.forget_what_a_whole_leaves_out();
        states.lay_over(&delta, &mut applied.moves)?;
    }
    job.sequence = job.sequence.max(head.sequence);
    Ok(())
}

/// A job that was planned has states from then on.
fn plan(job: &mut Job, id: JobId, head: &JobHead, blobs: &BTreeMap<String, Bytes>) -> Result<(), String> {
    let (Some(content), None) = (&head.plan, &job.states) else { return Ok(()) };
    let bytes = content_of(id, content, blobs)?;
    let plan = codec::decode_bytes::<StoredPlan>(&bytes)?;
    let plan = Plan::try_from(plan).map_err(|error| error.to_string())?;
    job.states = Some(States::untouched(Arc::new(plan), id));
    Ok(())
}

fn content_of(id: JobId, content: &Content, blobs: &BTreeMap<String, Bytes>) -> Result<Vec<u8>, String> {
    if !content.inline.is_empty() {
        return Ok(content.inline.clone());
    }
    let prefix = keys::blob_prefix(id, &content.digest);
    let chunks: Vec<Bytes> = blobs
        .range(prefix.clone()..)
        .take_while(|(name, _)| name.starts_with(&prefix))
        .map(|(_, value)| value.clone())
        .collect();
    codec::blob::join(&muster_state::Key::new(Keyspace::JobPlans, prefix), &content.digest, &chunks)
        .map_err(|error| error.to_string())
}
