//! Folding: from deltas to buckets, a few at a time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use muster_graph::execution::{Delta, ExecutionGraph, Part};
use muster_graph::ids::JobId;
use muster_state::codec::{self, Bucket};
use muster_state::keys::{self, StatePart};
use muster_state::{Guard, Keyspace, Op, Revision, VALUE_BYTES_MAX};

use super::{PART_SIZES, Pending, Write};

/// A part that has been dirty for so many commits is folded: bounds what a takeover has to read.
const FOLD_BEHIND: u64 = 64;
/// Parts folded by one commit, at most: with 16 KiB each they stay small beside a transaction's 1 MiB.
const FOLD_PARTS: usize = 8;
/// A delta is cut where its tasks would make it larger than this.
const DELTA_BYTES_MAX: usize = 128 << 10;
/// An estimate of one run of tasks in a delta, for cutting.
const RUN_BYTES: usize = 64;
/// What is folded up to where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folding {
    /// Parts that are stored, with their revisions.
    pub(super) revisions: BTreeMap<StatePart, Revision>,
    /// Parts that some deltas have changed since they were folded, with the first such delta.
    pub(super) dirty_since: BTreeMap<StatePart, u64>,
    /// The oldest delta that is stored.
    pub(super) oldest_delta: u64,
}

pub(super) fn part_name(part: Part) -> StatePart {
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

impl Folding {
    /// Adds to a commit what it folds. `sequences` are those of the commit's own deltas.
    pub(super) fn fold(
        &mut self,
        id: JobId,
        graph: &ExecutionGraph,
        sequences: RangeInclusive<u64>,
        write: &mut Write,
        pending: &mut Pending,
    ) {
        let (first, sequence) = sequences.into_inner();
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
        // Deltas below the first that some part still needs may go, but never those that this very commit writes.
        let floor = self.dirty_since.values().min().copied().unwrap_or(first).min(first);
        if floor > self.oldest_delta {
            write.ops.push(keys::delete_sequences(Keyspace::JobDeltas, id, self.oldest_delta, floor));
            pending.oldest_delta = Some(floor);
        }
    }
}

/// Cuts a delta so that none of the pieces is too large for a value. The first piece holds what is not tasks.
pub(super) fn cut(mut delta: Delta) -> Vec<Delta> {
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
