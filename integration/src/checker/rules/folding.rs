//! C6, folding: a bucket holds exactly what the deltas up to its mark have made of its part; a delta is deleted only when
//! every part that it changes is folded up to it; and from what is stored at the end, the whole state can be restored.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_graph::execution::{Delta, ExecutionGraph, TaskRun};
use muster_graph::ids::JobId;
use muster_state::codec;
use muster_state::keys::StatePart;

use super::Findings;
use crate::checker::decode::{JobStep, Step};
use crate::checker::job::{EXECUTORS_IN_PART, Job, STAGES_IN_PART, TASKS_IN_PART, parts_of};
use crate::checker::store::Store;
use crate::checker::verdict::Rule;

/// Looks at a revision, with the store as it was before.
pub(in crate::checker) fn before(step: &Step, store: &Store, findings: &mut Findings) {
    for (id, job) in &step.jobs {
        let Some(known) = store.jobs.get(id).filter(|known| !known.torn) else { continue };
        let newest = job.commits.keys().next_back().copied().unwrap_or(known.sequence);
        for sequence in &job.dropped {
            let mut wrong = |what: String| findings.of_job(Rule::Folding, *id, step.revision, what);
            if *sequence >= newest {
                wrong(format!("delta {sequence} is the newest, and was deleted"));
            }
            let Some(commit) = known.deltas.get(sequence) else { continue };
            for part in parts_of(&commit.delta) {
                let written = job.buckets.iter().find(|(written, _)| *written == part);
                let mark = match written {
                    Some((_, bucket)) => bucket.as_ref().map(|bucket| bucket.folded_to),
                    None => known.buckets.get(&part).map(|(mark, _)| *mark),
                };
                if mark.is_none_or(|mark| mark < *sequence) {
                    wrong(format!("delta {sequence} was deleted, and {part:?} is folded up to {mark:?}"));
                }
            }
        }
    }
}

/// Looks at the buckets that were just written.
pub(in crate::checker) fn after(id: JobId, step: &JobStep, job: &Job, revision: u64, findings: &mut Findings) {
    let Some(states) = &job.states else { return };
    for (part, bucket) in &step.buckets {
        let Some(bucket) = bucket else { continue };
        if bucket.folded_to != job.sequence {
            let what = format!("{part:?} is folded up to {}, in commit {}", bucket.folded_to, job.sequence);
            findings.of_job(Rule::Folding, id, revision, what);
        } else if let Err(difference) = states.compare_part(*part, &bucket.delta) {
            findings.of_job(Rule::Folding, id, revision, format!("{part:?}: {difference}"));
        }
    }
}

/// Restores every job from what is stored of it, and compares.
pub(in crate::checker) fn end(store: &Store, last: u64, findings: &mut Findings) {
    for (id, job) in &store.jobs {
        if job.torn || job.head.is_none() {
            continue;
        }
        if let Err(why) = restore(*id, job) {
            findings.of_job(Rule::Folding, *id, last, why);
        }
    }
}

fn restore(id: JobId, job: &Job) -> Result<(), String> {
    let (Some(states), Some(head)) = (&job.states, &job.head) else { return Ok(()) };
    let deltas = if head.packed {
        let marks: BTreeMap<StatePart, u64> = job.buckets.iter().map(|(part, (mark, _))| (*part, *mark)).collect();
        let newer = job.deltas.iter().map(|(sequence, commit)| newer_than(&marks, *sequence, &commit.delta));
        job.buckets.values().map(|(_, delta)| delta.clone()).chain(newer).collect()
    } else if head.states.is_empty() {
        Vec::new()
    } else {
        vec![codec::decode_bytes::<Delta>(&head.states)?]
    };
    let graph = ExecutionGraph::restore(Arc::clone(&states.plan), id, deltas)
        .map_err(|error| format!("what is stored cannot be restored: {error}"))?;
    states.compare(&graph)
}

/// What of a delta the buckets do not contain already.
fn newer_than(marks: &BTreeMap<StatePart, u64>, sequence: u64, delta: &Delta) -> Delta {
    let newer = |part: StatePart| marks.get(&part).is_none_or(|mark| *mark < sequence);
    let of_task = |stage, index: u32| StatePart::Tasks(stage, index / TASKS_IN_PART);
    let of_executor = |executor: u32| StatePart::Executors(executor / EXECUTORS_IN_PART);
    let single = |run: &TaskRun| {
        let run = run.clone();
        (run.first..run.first + run.count).map(move |first| TaskRun { first, count: 1, ..run.clone() })
    };
    let mut left = delta.clone();
    left.job = left.job.filter(|_| newer(StatePart::Job));
    left.executors.retain(|(executor, _)| newer(of_executor(executor.0)));
    left.lost.retain(|(executor, _)| newer(of_executor(executor.0)));
    left.stages.retain(|(stage, _)| newer(StatePart::Stages(stage.0 / STAGES_IN_PART)));
    left.tasks = delta.tasks.iter().flat_map(single).filter(|run| newer(of_task(run.stage, run.first))).collect();
    left.given_up.retain(|(task, _)| newer(of_task(task.stage, task.index.0)));
    left
}
