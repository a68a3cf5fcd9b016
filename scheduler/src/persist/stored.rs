//! From buckets and deltas, as read, to a graph's state and the place of its next write.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::Delta;
use muster_state::Revision;
use muster_state::codec::{Bucket, Commit};
use muster_state::keys::StatePart;

use super::folding::part_name;
use super::{Folding, Layout, PART_SIZES};

/// Stored states of a packed job, as read.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Buckets with their revisions.
    pub(crate) buckets: Vec<(StatePart, Revision, Bucket)>,
    /// Deltas in the order of their sequences, with their revisions.
    pub(crate) deltas: Vec<(u64, Revision, Commit)>,
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
