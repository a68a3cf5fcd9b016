//! Reading a job from the store: to advance it, or just to look at it.

use std::sync::Arc;

use muster_graph::execution::ExecutionGraph;
use muster_graph::ids::JobId;
use muster_graph::plan::Plan;
use muster_graph::spec::JobSpec;
use muster_proto::{blob, convert, storage, v1};
use muster_state::codec::{self, blob::Blob};
use muster_state::{
    Entry, Error, Guard, Key, Keyspace, Op, Revision, Scan, SessionId, StateBackend, TXN_BYTES_MAX, TXN_OPS_MAX, Txn,
    TxnOutcome, keys,
};
use prost::Message as _;

use crate::engine::Loaded;
use crate::options::{INLINE_BYTES_MAX, INLINE_TASKS_MAX};
use crate::persist::{Cursor, Layout, Stored};
use crate::requests;
use crate::updates;

/// Why a job could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// It is somebody else's, or over, or there is no such job.
    #[error("the job is not this scheduler's any more")]
    NotOurs,
    /// The store did not answer, or a record is unreadable.
    #[error(transparent)]
    Store(#[from] Error),
    /// What is stored does not make sense.
    #[error("the job's stored state is damaged: {0}")]
    Damaged(String),
}

fn damaged(error: impl std::fmt::Display) -> LoadError {
    LoadError::Damaged(error.to_string())
}

/// A job as it is stored.
pub(crate) struct StoredJob {
    pub(crate) head: storage::JobHead,
    pub(crate) head_entry: Entry,
    pub(crate) keyspace: Keyspace,
    /// The owner's record with its revision.
    pub(crate) owner: Option<(storage::OwnerRecord, Revision)>,
    /// A cancel that was left in the store, as [`crate::requests::decode`] has it.
    pub(crate) cancel_mark: Option<(String, Revision)>,
    /// What was read.
    pub(crate) revision: Revision,
}

/// Reads a job's head, wherever it is. `None`: there is no such job.
pub(crate) async fn head(state: &dyn StateBackend, id: JobId) -> Result<Option<StoredJob>, Error> {
    let keys = [
        keys::active_job(id),
        keys::completed_job(id),
        keys::failed_job(id),
        keys::staged_job(id),
        keys::owner(id),
        keys::cancel_mark(id),
    ];
    let (revision, mut entries) = state.get_many(&keys).await?;
    let cancel_mark = entries.pop().flatten().map(|entry| requests::decode(id, &entry)).transpose()?;
    let owner = match entries.pop().flatten() {
        Some(entry) => Some((codec::decode(&keys[4], &entry.value)?, entry.mod_revision)),
        None => None,
    };
    for (key, entry) in keys.iter().zip(entries) {
        if let Some(head_entry) = entry {
            let head: storage::JobHead = codec::decode(key, &head_entry.value)?;
            if !updates::exists(state, &head).await? {
                return Ok(None);
            }
            return Ok(Some(StoredJob { head, head_entry, keyspace: key.keyspace, owner, cancel_mark, revision }));
        }
    }
    Ok(None)
}

async fn content(state: &dyn StateBackend, id: JobId, content: &storage::Content) -> Result<Vec<u8>, LoadError> {
    if !content.inline.is_empty() {
        return Ok(content.inline.clone());
    }
    codec::blob::load(state, id, &content.digest)
        .await?
        .ok_or_else(|| damaged(format!("blob {} is missing", content.digest)))
}

/// Bytes for a head: in it if they are few, else as a blob whose writes are added to `ops`.
pub(crate) fn to_content(id: JobId, bytes: Vec<u8>, ops: &mut Vec<Op>) -> Result<storage::Content, Error> {
    let digest = blob::digest(&bytes);
    if bytes.len() <= INLINE_BYTES_MAX / 2 {
        return Ok(storage::Content { digest, inline: bytes });
    }
    ops.extend(Blob::new(&bytes)?.puts(id));
    Ok(storage::Content { digest, inline: Vec::new() })
}

/// Reads a planned job's graph, as of one revision.
pub(crate) async fn graph(
    state: &dyn StateBackend,
    id: JobId,
    head: &storage::JobHead,
    at: Revision,
) -> Result<(ExecutionGraph, Layout, Option<(u64, Revision)>), LoadError> {
    let plan = head.plan.as_ref().ok_or_else(|| damaged("the job is not planned"))?;
    let plan = codec::decode_bytes::<storage::StoredPlan>(&content(state, id, plan).await?).map_err(damaged)?;
    let plan = Arc::new(Plan::try_from(plan).map_err(damaged)?);
    if !head.packed {
        let deltas = match head.states.as_slice() {
            [] => Vec::new(),
            bytes => vec![codec::decode_bytes(bytes).map_err(damaged)?],
        };
        let graph = ExecutionGraph::restore(plan, id, deltas).map_err(damaged)?;
        return Ok((graph, Layout::Inline, None));
    }
    let mut stored = Stored::default();
    for entry in all_below(state, Keyspace::JobStages, keys::job_prefix(id), at).await? {
        let (_, part) = keys::state_part_of(&entry.name)
            .ok_or_else(|| damaged(format!("{} is not the name of a part", entry.name)))?;
        let bucket = codec::decode(&Key::new(Keyspace::JobStages, entry.name), &entry.value)?;
        stored.buckets.push((part, entry.mod_revision, bucket));
    }
    for entry in all_below(state, Keyspace::JobDeltas, keys::job_prefix(id), at).await? {
        let sequence = keys::sequence_of(&entry.name)
            .ok_or_else(|| damaged(format!("{} is not the name of a delta", entry.name)))?;
        let commit = codec::decode(&Key::new(Keyspace::JobDeltas, entry.name), &entry.value)?;
        stored.deltas.push((sequence, entry.mod_revision, commit));
    }
    let newest = stored.deltas.last().map(|(sequence, revision, _)| (*sequence, *revision));
    let (deltas, layout) = stored.into_deltas();
    let graph = ExecutionGraph::restore(plan, id, deltas).map_err(damaged)?;
    Ok((graph, layout, newest))
}

/// Everything whose name begins with this, as of one revision.
pub(crate) async fn all_below(
    state: &dyn StateBackend,
    keyspace: Keyspace,
    prefix: String,
    at: Revision,
) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let mut scan = Scan { prefix, at: Some(at), ..Scan::default() };
    loop {
        let page = state.scan(keyspace, scan.clone()).await?;
        entries.extend(page.entries);
        match page.next {
            Some(after) => scan.after = Some(after),
            None => return Ok(entries),
        }
    }
}

/// Reads a job that this scheduler owns by `token`, planning it if that has not been done.
pub(crate) async fn owned(state: &dyn StateBackend, id: JobId, session: &SessionId) -> Result<Loaded, LoadError> {
    let stored = head(state, id).await?.ok_or(LoadError::NotOurs)?;
    let Some((owner, token)) = stored.owner else { return Err(LoadError::NotOurs) };
    if owner.session_id != session.0 || stored.keyspace != Keyspace::ActiveJobs {
        return Err(LoadError::NotOurs);
    }
    let head_revision = stored.head_entry.mod_revision;
    let group = stored.head.group.parse().map_err(damaged)?;
    if stored.head.plan.is_none() {
        let spec = stored.head.spec.as_ref().ok_or_else(|| damaged("the head names no spec"))?;
        let spec = codec::decode_bytes::<storage::StoredSpec>(&content(state, id, spec).await?).map_err(damaged)?;
        let planned = plan(state, id, session, stored.head, spec, (token, head_revision)).await?;
        return Ok(Loaded { cancel_mark: stored.cancel_mark, ..planned });
    }
    let (graph, layout, newest) = graph(state, id, &stored.head, stored.revision).await?;
    let mut cursor = Cursor::after_head(id, token, head_revision, stored.head.sequence, stored.head.packed);
    cursor.marks_known = stored.revision;
    if let Some((sequence, revision)) = newest {
        cursor.sequence = cursor.sequence.max(sequence);
        if revision > head_revision {
            cursor.predecessor = (keys::delta(id, sequence), revision);
        }
        cursor.layout = layout;
    }
    Ok(Loaded {
        id,
        session: session.clone(),
        head: stored.head,
        graph,
        cursor,
        with_first_commit: Vec::new(),
        fresh: false,
        after: Vec::new(),
        group,
        cancel_mark: stored.cancel_mark,
        retry: None,
    })
}

/// Plans a job that was accepted: compiles its spec, and stores what is too large for its first commit. The revisions are
/// its token and that of its head.
pub(crate) async fn plan(
    state: &dyn StateBackend,
    id: JobId,
    session: &SessionId,
    mut head: storage::JobHead,
    stored: storage::StoredSpec,
    (token, head_revision): (Revision, Revision),
) -> Result<Loaded, LoadError> {
    // Large jobs take long enough to be in the way of everything else on this thread.
    let after = stored.spec.as_ref().map(|spec| spec.after_jobs.clone()).unwrap_or_default();
    let after = convert::after_jobs(after, "after_jobs").map_err(damaged)?;
    let (plan, works) = crate::blocking::run(move || compile(stored))
        .await
        .map_err(|error| damaged(format!("planning ended early: {error}")))??;
    let group = head.group.parse().map_err(damaged)?;
    let mut ops = Vec::new();
    for work in works {
        ops.extend(Blob::new(&work)?.puts(id));
    }
    let tasks = plan.stages.iter().map(|stage| u64::from(stage.tasks)).sum::<u64>();
    let bytes = codec::encode(&storage::StoredPlan::from(&plan))?.to_vec();
    let inline_bytes = bytes.len() + head.spec.as_ref().map_or(0, |spec| spec.inline.len());
    let packed = tasks.max(plan.stages.len() as u64) > INLINE_TASKS_MAX || inline_bytes > INLINE_BYTES_MAX;
    head.plan = Some(to_content(id, bytes, &mut ops)?);
    head.task_total = tasks;
    let guards = [Guard::AtRevision(keys::owner(id), token)];
    let with_first_commit = if fits_into_a_commit(&ops) {
        ops
    } else {
        if !write_blobs(state, &guards, ops).await? {
            return Err(LoadError::NotOurs);
        }
        Vec::new()
    };
    let graph = ExecutionGraph::new(Arc::new(plan), id);
    let cursor = Cursor::after_head(id, token, head_revision, head.sequence, packed);
    let session = session.clone();
    Ok(Loaded {
        id,
        session,
        head,
        graph,
        cursor,
        with_first_commit,
        fresh: true,
        after,
        group,
        cancel_mark: None,
        retry: None,
    })
}

fn compile(stored: storage::StoredSpec) -> Result<(Plan, Vec<Vec<u8>>), LoadError> {
    let spec = stored.spec.ok_or_else(|| damaged("the stored spec is empty"))?;
    let spec = JobSpec::try_from(spec).map_err(damaged)?;
    let works: Vec<Vec<u8>> =
        blob::stage_works(&spec, &stored.items).map(|work: v1::StageWork| work.encode_to_vec()).collect();
    let mut digests = works.iter().map(|work| blob::digest(work));
    // In the order of the works, which gates do not have either.
    let plan = Plan::compile(&spec, |_| digests.next().unwrap_or_default())
        .map_err(|problems| damaged(problems.first().map(ToString::to_string).unwrap_or_default()))?;
    let mut distinct = works;
    distinct.sort_unstable();
    distinct.dedup();
    Ok((plan, distinct))
}

/// Few and small enough to go along with a job's first commit.
fn fits_into_a_commit(ops: &[Op]) -> bool {
    const OPS: usize = 16;
    const BYTES: usize = 64 << 10;
    ops.len() <= OPS && ops.iter().map(op_bytes).sum::<usize>() <= BYTES
}

fn op_bytes(op: &Op) -> usize {
    /// For the key.
    const OVERHEAD: usize = 128;
    match op {
        Op::Put { value, .. } => value.len() + OVERHEAD,
        Op::Delete(_) | Op::DeleteRange { .. } => OVERHEAD,
    }
}

/// Stores immutable blobs in as few transactions as they fit into. False if a guard does not hold.
pub(crate) async fn write_blobs(state: &dyn StateBackend, guards: &[Guard], ops: Vec<Op>) -> Result<bool, Error> {
    let mut ops = ops.into_iter().peekable();
    while ops.peek().is_some() {
        let mut txn = Txn { guards: guards.to_vec(), ..Txn::default() };
        let mut bytes = 0;
        while let Some(next) = ops
            .next_if(|op| txn.ops.is_empty() || (txn.ops.len() < TXN_OPS_MAX && bytes + op_bytes(op) <= TXN_BYTES_MAX))
        {
            bytes += op_bytes(&next);
            txn.ops.push(next);
        }
        if let TxnOutcome::Refused { .. } = send_until_known(state, txn).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sends an idempotent transaction until its outcome is known. Its caller tells from the refusal's reading whether an
/// earlier sending had landed.
pub(crate) async fn send_until_known(state: &dyn StateBackend, txn: Txn) -> Result<TxnOutcome, Error> {
    /// With the pauses between them, about ten seconds beside the calls' own deadlines.
    const SENDINGS: u32 = 8;
    let mut pause = std::time::Duration::from_millis(50);
    let mut sent = 0;
    loop {
        sent += 1;
        match state.put_txn(txn.clone()).await {
            Err(error) if error.is_retryable() && sent < SENDINGS => {
                tracing::debug!(%error, "sending the identical transaction again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_secs(2));
            }
            settled => return settled,
        }
    }
}
