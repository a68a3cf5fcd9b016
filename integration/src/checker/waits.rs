//! How long each task waited from the commit that made it ready until its first start. Figures: nothing is decided here.
//!
//! The tasks of a stage without inputs are ready when the job is accepted, those of another one with the commit that
//! resolves their stage. Stages whose tasks become ready one by one (`each`) are left out. A commit is dated when the
//! recorder heard of it, which is never too early: a wait may come out too short by the recorder's lag, and not too long.

use std::collections::{BTreeMap, HashMap};

use muster_graph::execution::StageState;
use muster_graph::ids::{JobId, StageIndex};
use muster_graph::plan::Edge;

use super::decode::Step;
use super::evidence::Evidence;
use super::rules::starts::name_of;
use super::store::Store;
use super::verdict::Wait;

/// When stages became ready.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// By job: when it was accepted.
    accepted: BTreeMap<JobId, u64>,
    /// By job: of each stage, when it was seen to be resolved first; none: not yet.
    resolved: BTreeMap<JobId, Vec<Option<u64>>>,
}

impl Waits {
    /// Takes a revision in, with the store as it is after it.
    pub(super) fn after(&mut self, step: &Step, store: &Store) {
        for (id, written) in &step.jobs {
            if written.opens() {
                self.accepted.entry(*id).or_insert(step.at_us);
            }
            let Some(states) = &store.jobs[id].states else { continue };
            let resolved = self.resolved.entry(*id).or_insert_with(|| vec![None; states.stages.len()]);
            for (at_us, record) in resolved.iter_mut().zip(&states.stages) {
                if record.state != StageState::Unresolved {
                    at_us.get_or_insert(step.at_us);
                }
            }
        }
    }

    /// Compares it with what executors noted.
    pub(super) fn end(self, evidence: &Evidence, store: &Store) -> Vec<Wait> {
        let mut starts: HashMap<_, u64> = HashMap::new();
        for line in evidence.executors.values().flatten().filter(|line| line.event == "start") {
            if let Some((job, task, _)) = name_of(line) {
                let first = starts.entry((job, task)).or_insert(line.boot_us);
                *first = line.boot_us.min(*first);
            }
        }
        let waits = starts.into_iter().filter_map(|((job, task), started_us)| {
            Some(Wait { job, ready_us: self.ready_us(store, job, task.stage)?, started_us })
        });
        let mut waits: Vec<Wait> = waits.collect();
        waits.sort_unstable_by_key(|wait| (wait.ready_us, wait.job, wait.started_us));
        waits
    }

    fn ready_us(&self, store: &Store, job: JobId, stage: StageIndex) -> Option<u64> {
        let plan = &store.jobs.get(&job)?.states.as_ref()?.plan;
        let upstreams = &plan.stages.get(stage.0 as usize)?.upstreams;
        if upstreams.is_empty() {
            return self.accepted.get(&job).copied();
        }
        if upstreams.iter().any(|upstream| upstream.edge == Edge::Each) {
            return None;
        }
        *self.resolved.get(&job)?.get(stage.0 as usize)?
    }
}
