//! How a job's changes become writes, and where its next write goes.
//!
//! A job of a few tasks is one record: its head holds all of its state and is rewritten by each commit. A larger job
//! appends one delta per commit; from time to time a commit also *folds*: it writes the present value of the parts that
//! have been dirty for longest, each noting up to which commit it is folded, and deletes the deltas that no part needs
//! any more. A fold needs no read and no transaction of its own, since the graph in memory is exactly what the
//! commit makes true.
//!
//! **Invariants.** Every write compares the epoch, the owner's token and the revision of the job's previous write (its
//! *predecessor*); every key that is overwritten is compared with the revision that is known of it; the newest delta is
//! never deleted.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::{Delta, ExecutionGraph, JobState, Part, PartSizes};
use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_proto::v1;
use muster_state::codec::{self, Bucket, Commit, Events};
use muster_state::keys::{self, StatePart};
use muster_state::{Guard, Key, Keyspace, Op, Revision, VALUE_BYTES_MAX};

use crate::engine::{Identity, Job, JobCommit, Landed, view};

/// How many neighbours are stored together. Parts are named by their place, so these are for ever.
pub const PART_SIZES: PartSizes = PartSizes { executors: 256, stages: 256, tasks: 512 };
/// A part that has been dirty for so many commits is folded: bounds what a takeover has to read.
const FOLD_BEHIND: u64 = 64;
/// Parts folded by one commit, at most: with 16 KiB each they stay small beside a transaction's 1 MiB.
const FOLD_PARTS: usize = 8;
/// A delta is cut where its tasks would make it larger than this.
const DELTA_BYTES_MAX: usize = 128 << 10;
/// An estimate of one run of tasks in a delta, for cutting.
const RUN_BYTES: usize = 64;
/// Events of one commit beyond this are left out of the log.
const EVENTS_BYTES_MAX: usize = 128 << 10;
/// A running job's head is written at least this often while it has commits, so that lists show its progress.
const HEAD_EVERY: Millis = 1_000;

/// Where a job's next write goes.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The revision of the owner's record.
    pub(crate) token: Revision,
    /// The head's revision.
    pub(crate) head_revision: Revision,
    /// What the previous write wrote, and when.
    pub(crate) predecessor: (Key, Revision),
    /// Of the newest commit.
    pub(crate) sequence: u64,
    pub(crate) layout: Layout,
    head_written_at: Millis,
    pending: Option<Pending>,
}

/// Where a job's states are.
#[derive(Debug, Clone)]
pub(crate) enum Layout {
    /// In its head.
    Inline,
    /// In buckets and deltas.
    Packed(Folding),
}

/// What is folded up to where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folding {
    /// Parts that are stored, with their revisions.
    revisions: BTreeMap<StatePart, Revision>,
    /// Parts that some deltas have changed since they were folded, with the first such delta.
    dirty_since: BTreeMap<StatePart, u64>,
    /// The oldest delta that is stored.
    oldest_delta: u64,
}

/// What the transaction in flight will have changed.
#[derive(Debug, Clone)]
struct Pending {
    predecessor: Key,
    wrote_head: bool,
    folded: Vec<StatePart>,
    oldest_delta: Option<u64>,
}

impl Cursor {
    /// Of a job whose head is all that was written.
    #[must_use]
    pub fn after_head(job: JobId, token: Revision, head_revision: Revision, sequence: u64, packed: bool) -> Self {
        let layout = if packed {
            Layout::Packed(Folding { oldest_delta: sequence + 1, ..Folding::default() })
        } else {
            Layout::Inline
        };
        Self {
            token,
            head_revision,
            predecessor: (keys::active_job(job), head_revision),
            sequence,
            layout,
            head_written_at: 0,
            pending: None,
        }
    }
}

fn part_name(part: Part) -> StatePart {
    match part {
        Part::Job => StatePart::Job,
        Part::Executors { first, .. } => StatePart::Executors(first / PART_SIZES.executors),
        Part::Stages { first, .. } => StatePart::Stages(first / PART_SIZES.stages),
        Part::Tasks { stage, first, .. } => StatePart::Tasks(stage, first / PART_SIZES.tasks),
    }
}

fn part_of(name: StatePart) -> Part {
    match name {
        StatePart::Job => Part::Job,
        StatePart::Executors(bucket) => {
            Part::Executors { first: bucket * PART_SIZES.executors, count: PART_SIZES.executors }
        }
        StatePart::Stages(bucket) => Part::Stages { first: bucket * PART_SIZES.stages, count: PART_SIZES.stages },
        StatePart::Tasks(stage, bucket) => {
            Part::Tasks { stage, first: bucket * PART_SIZES.tasks, count: PART_SIZES.tasks }
        }
    }
}

/// All of a graph's state, as one delta.
#[must_use]
pub fn snapshot(graph: &ExecutionGraph) -> Delta {
    let mut all = graph.extract(Part::Job);
    let mut parts = vec![Part::Executors { first: 0, count: u32::MAX }, Part::Stages { first: 0, count: u32::MAX }];
    parts.extend((0u32..).zip(&graph.plan().stages).map(|(stage, plan)| Part::Tasks {
        stage: StageIndex(stage),
        first: 0,
        count: plan.tasks,
    }));
    for part in parts {
        let Delta { job: _, executors, stages, tasks, given_up, lost } = graph.extract(part);
        all.executors.extend(executors);
        all.stages.extend(stages);
        all.tasks.extend(tasks);
        all.given_up.extend(given_up);
        all.lost.extend(lost);
    }
    all
}

/// Where the head of a job in this state belongs.
#[must_use]
pub fn head_key(job: JobId, state: JobState) -> Key {
    match state {
        JobState::Queued | JobState::Running => keys::active_job(job),
        JobState::Successful => keys::completed_job(job),
        JobState::Failed | JobState::Cancelled => keys::failed_job(job),
    }
}

/// A job's next transaction; none if there is nothing to write.
pub(crate) fn prepare(job: &mut Job, identity: &Identity, commit_id: String, now: Millis) -> Option<JobCommit> {
    let delta = job.graph.take_delta();
    let id = job.id;
    let over = job.graph.is_over();
    let ends = over && job.head.finished_at_ms == 0;
    if delta.is_empty() && job.with_first_commit.is_empty() && !ends {
        return None;
    }
    let mut write = Write {
        guards: vec![
            Guard::AtRevision(keys::epoch(), identity.epoch_revision),
            Guard::AtRevision(keys::owner(id), job.cursor.token),
            Guard::AtRevision(job.cursor.predecessor.0.clone(), job.cursor.predecessor.1),
        ],
        ops: std::mem::take(&mut job.with_first_commit),
    };
    let moved = ends || job.head.retry_requested || v1::JobState::from(job.graph.job().state) as i32 != job.head.state;
    let log = view::log_of(&job.waiting.effects);
    let first_sequence = job.cursor.sequence + 1;
    let inline = matches!(job.cursor.layout, Layout::Inline);

    let mut pending =
        Pending { predecessor: keys::active_job(id), wrote_head: true, folded: Vec::new(), oldest_delta: None };
    if inline {
        job.cursor.sequence = first_sequence;
    } else {
        let token = job.cursor.token;
        let touched = delta.parts_touched(PART_SIZES);
        for delta in cut(delta) {
            job.cursor.sequence += 1;
            let key = keys::delta(id, job.cursor.sequence);
            write.guards.push(Guard::Absent(key.clone()));
            write.put(key.clone(), &Commit { id: commit_id.clone(), token, at: now, delta });
            pending.predecessor = key;
        }
        let sequence = job.cursor.sequence;
        let Layout::Packed(folding) = &mut job.cursor.layout else { unreachable!("it is not inline") };
        for part in touched {
            folding.dirty_since.entry(part_name(part)).or_insert(first_sequence);
        }
        folding.fold(id, &job.graph, sequence, &mut write, &mut pending);
        pending.wrote_head = moved || now >= job.cursor.head_written_at + HEAD_EVERY;
        // A head that was not the previous write has a revision of its own to be compared.
        if pending.wrote_head && job.cursor.predecessor.0 != keys::active_job(id) {
            write.guards.push(Guard::AtRevision(keys::active_job(id), job.cursor.head_revision));
        }
    }
    if pending.wrote_head {
        refresh_head(job, &commit_id, inline);
        job.cursor.head_written_at = now;
        let key = head_key(id, job.graph.job().state);
        if over {
            write.ops.push(Op::Delete(keys::active_job(id)));
            write.ops.push(Op::Delete(keys::owner(id)));
            write.guards.push(Guard::Absent(key.clone()));
        }
        write.put(key.clone(), &job.head);
        if inline {
            pending.predecessor = key;
        }
    }
    if !log.is_empty() {
        write.put_events(id, job.cursor.sequence, log, now);
    }
    let landed = Landed {
        key: pending.predecessor.clone(),
        commit_id,
        is_head: inline,
        owner: keys::owner(id),
        token: job.cursor.token,
        predecessor: job.cursor.predecessor.clone(),
    };
    job.cursor.pending = Some(pending);
    Some(JobCommit { job: id, guards: write.guards, ops: write.ops, landed })
}

/// The transaction has landed.
pub(crate) fn committed(job: &mut Job, revision: Revision) {
    let cursor = &mut job.cursor;
    let Some(pending) = cursor.pending.take() else { return };
    cursor.predecessor = (pending.predecessor, revision);
    if pending.wrote_head {
        cursor.head_revision = revision;
    }
    if let Layout::Packed(folding) = &mut cursor.layout {
        for part in pending.folded {
            folding.revisions.insert(part, revision);
        }
        if let Some(oldest) = pending.oldest_delta {
            folding.oldest_delta = oldest;
        }
    }
}

fn refresh_head(job: &mut Job, commit_id: &str, inline: bool) {
    let record = job.graph.job();
    job.head.state = v1::JobState::from(record.state).into();
    job.head.started_at_ms = record.started_at;
    job.head.finished_at_ms = record.finished_at;
    job.head.cancel_requested = record.cancel.is_some();
    job.head.tasks = Some(job.graph.counts().into());
    job.head.message = view::message(&job.graph);
    job.head.sequence = job.cursor.sequence;
    commit_id.clone_into(&mut job.head.commit_id);
    job.head.retry_requested = false;
    job.head.packed = !inline;
    job.head.states = if inline {
        codec::encode(&snapshot(&job.graph)).expect("a job of INLINE_TASKS_MAX tasks is small").to_vec()
    } else {
        Vec::new()
    };
}

/// Writes of one job.
struct Write {
    guards: Vec<Guard>,
    ops: Vec<Op>,
}

impl Write {
    fn put<R: codec::Record>(&mut self, key: Key, record: &R) {
        let value = codec::encode(record).expect("records are cut to size before they come here");
        self.ops.push(Op::Put { key, value, session: None });
    }

    fn put_events(&mut self, id: JobId, sequence: u64, mut events: Vec<muster_graph::execution::JobEvent>, at: Millis) {
        loop {
            match codec::encode(&Events { at, events: events.clone() }) {
                Ok(value) if value.len() <= EVENTS_BYTES_MAX => {
                    self.ops.push(Op::Put { key: keys::events(id, sequence), value, session: None });
                    return;
                }
                _ => {
                    tracing::warn!(job = %id, events = events.len(), "too many events in one commit; the later half is left out of the log");
                    events.truncate(events.len() / 2);
                }
            }
        }
    }
}

impl Folding {
    fn fold(&mut self, id: JobId, graph: &ExecutionGraph, sequence: u64, write: &mut Write, pending: &mut Pending) {
        let Some(&behind) = self.dirty_since.values().min() else { return };
        if sequence - behind < FOLD_BEHIND {
            return;
        }
        let mut oldest: Vec<(u64, StatePart)> = self.dirty_since.iter().map(|(part, since)| (*since, *part)).collect();
        oldest.sort_unstable();
        for (_, part) in oldest.into_iter().take(FOLD_PARTS) {
            let bucket = Bucket { folded_to: sequence, delta: graph.extract(part_of(part)) };
            let key = keys::state_part(id, part);
            let value = codec::encode(&bucket).expect("a part is far below the largest record");
            if value.len() > VALUE_BYTES_MAX {
                // Not lost, only not folded: its deltas stay.
                tracing::warn!(job = %id, ?part, bytes = value.len(), "a part is too large to be folded");
                continue;
            }
            write.guards.push(match self.revisions.get(&part) {
                Some(&revision) => Guard::AtRevision(key.clone(), revision),
                None => Guard::Absent(key.clone()),
            });
            write.ops.push(Op::Put { key, value, session: None });
            self.dirty_since.remove(&part);
            pending.folded.push(part);
        }
        // Deltas below the first that some part still needs may go, but never the newest.
        let floor = self.dirty_since.values().min().copied().unwrap_or(sequence).min(sequence);
        if floor > self.oldest_delta {
            write.ops.push(keys::delete_sequences(Keyspace::JobDeltas, id, self.oldest_delta, floor));
            pending.oldest_delta = Some(floor);
        }
    }
}

/// Cuts a delta so that none of the pieces is too large for a value. The first piece holds what is not tasks.
fn cut(mut delta: Delta) -> Vec<Delta> {
    let runs = DELTA_BYTES_MAX / RUN_BYTES;
    if delta.tasks.len() <= runs {
        return vec![delta];
    }
    let tasks = std::mem::take(&mut delta.tasks);
    // What a task has given up is said beside its own run, or it would be taken back by the run.
    let given_up: BTreeMap<_, _> = std::mem::take(&mut delta.given_up).into_iter().collect();
    let mut pieces = vec![delta];
    for some in tasks.chunks(runs) {
        let mut piece = Delta { tasks: some.to_vec(), ..Delta::default() };
        if !given_up.is_empty() {
            let within = |task: &muster_graph::ids::TaskId| {
                some.iter()
                    .any(|run| run.stage == task.stage && (run.first..run.first + run.count).contains(&task.index.0))
            };
            piece.given_up = given_up.iter().filter(|(task, _)| within(task)).map(|(t, sum)| (*t, *sum)).collect();
        }
        pieces.push(piece);
    }
    pieces
}

/// Stored states of a packed job, as read.
#[derive(Debug, Default)]
pub struct Stored {
    /// Buckets with their revisions.
    pub buckets: Vec<(StatePart, Revision, Bucket)>,
    /// Deltas in the order of their sequences, with their revisions.
    pub deltas: Vec<(u64, Revision, Commit)>,
}

impl Stored {
    /// The deltas from which a graph is restored: every bucket, then of each commit what no bucket contains already.
    /// Also the cursor's layout.
    pub(crate) fn into_deltas(self) -> (Vec<Delta>, Layout) {
        let mut folding =
            Folding { oldest_delta: self.deltas.first().map_or(0, |(sequence, ..)| *sequence), ..Folding::default() };
        let mut marks: BTreeMap<StatePart, u64> = BTreeMap::new();
        let mut deltas = Vec::with_capacity(self.buckets.len() + self.deltas.len());
        for (part, revision, bucket) in self.buckets {
            folding.revisions.insert(part, revision);
            marks.insert(part, bucket.folded_to);
            deltas.push(bucket.delta);
        }
        for (sequence, _, commit) in self.deltas {
            let newer: BTreeSet<StatePart> = commit
                .delta
                .parts_touched(PART_SIZES)
                .into_iter()
                .map(part_name)
                .filter(|part| marks.get(part).is_none_or(|mark| *mark < sequence))
                .collect();
            for part in &newer {
                folding.dirty_since.entry(*part).or_insert(sequence);
            }
            deltas.push(restrict(commit.delta, &newer));
        }
        (deltas, Layout::Packed(folding))
    }
}

/// What of a delta concerns these parts.
fn restrict(delta: Delta, parts: &BTreeSet<StatePart>) -> Delta {
    let Delta { job, executors, stages, tasks, given_up, lost } = delta;
    let has = |part| parts.contains(&part);
    let executor = |executor: u32| StatePart::Executors(executor / PART_SIZES.executors);
    let bucket = |stage, index: u32| StatePart::Tasks(stage, index / PART_SIZES.tasks);
    let mut kept = Vec::with_capacity(tasks.len());
    for run in tasks {
        let end = run.first + run.count;
        let mut first = run.first;
        while first < end {
            let next = ((first / PART_SIZES.tasks + 1) * PART_SIZES.tasks).min(end);
            if has(bucket(run.stage, first)) {
                kept.push(muster_graph::execution::TaskRun { first, count: next - first, ..run.clone() });
            }
            first = next;
        }
    }
    Delta {
        job: job.filter(|_| has(StatePart::Job)),
        executors: executors.into_iter().filter(|(on, _)| has(executor(on.0))).collect(),
        stages: stages.into_iter().filter(|(stage, _)| has(StatePart::Stages(stage.0 / PART_SIZES.stages))).collect(),
        tasks: kept,
        given_up: given_up.into_iter().filter(|(task, _)| has(bucket(task.stage, task.index.0))).collect(),
        lost: lost.into_iter().filter(|(on, _)| has(executor(on.0))).collect(),
    }
}
