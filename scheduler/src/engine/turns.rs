//! The order in which tasks are owed, in rounds: each is a part of one namespace's queue, as much as it may have before another
//! one's turn comes. Placing walks them to carry them out, and explanations in thought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_graph::ids::{JobId, Millis, StageIndex};

use super::queues::{Place, Thought};
use super::{Engine, Job};
use crate::fairness::Amount;

/// Demands stated as one problem, or a few more: all stages of a job are in one round, unless another namespace's turn comes. Whoever
/// comes first in the order is in an earlier round.
const DEMANDS_PER_ROUND: usize = 512;

/// So many tasks of a stage wait to be placed.
pub(super) type Wanted = (JobId, StageIndex, u32);

/// How far one go through the queues has come.
#[derive(Debug)]
pub(super) struct Turns {
    /// The namespaces that have something left.
    open: BTreeMap<Arc<str>, Turn>,
    /// What the cluster has; asked for only if several want it.
    total: Amount,
    /// Demands that found no room, of jobs that are looked at again.
    stuck: BTreeSet<(JobId, StageIndex)>,
    /// Given in thought.
    thought: BTreeMap<(JobId, StageIndex), u32>,
}

#[derive(Debug, Default)]
struct Turn {
    /// The last job that is done with. Demands that fit nowhere must not keep those behind them from being looked at.
    after: Option<Place>,
    thought: Thought,
}

/// Demands that are next.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) namespace: Arc<str>,
    pub(super) wanted: Vec<Wanted>,
    /// The last job, if it is not done with.
    resumes: Option<JobId>,
}

impl Turns {
    /// These are the tasks of a round's demands that found no room.
    pub(super) fn found_no_room(&mut self, round: &Round, left: &[u32]) {
        let of_last =
            round.wanted.iter().zip(left).filter(|((job, ..), left)| round.resumes == Some(*job) && **left > 0);
        self.stuck.extend(of_last.map(|((job, stage, _), _)| (*job, *stage)));
    }
}

impl Engine {
    /// What all executors have together that are there.
    pub(super) fn cluster_total(&self) -> Amount {
        let mut total = Amount::default();
        let there = self.executors.values().filter(|executor| executor.is_reachable());
        there.for_each(|executor| total.add(&executor.total, 1));
        total
    }

    /// From the beginning.
    pub(super) fn turns(&self) -> Turns {
        let open: BTreeMap<_, _> = self.queues.with_ready().map(|name| (Arc::clone(name), Turn::default())).collect();
        let total = if open.len() > 1 { self.cluster_total() } else { Amount::default() };
        Turns { open, total, stuck: BTreeSet::new(), thought: BTreeMap::new() }
    }

    /// So many tasks of a demand are given in thought.
    pub(super) fn think_given(&self, turns: &mut Turns, round: &Round, (job, stage, count): Wanted) {
        *turns.thought.entry((job, stage)).or_default() += count;
        if let Some(turn) = turns.open.get_mut(&round.namespace) {
            let need = &self.jobs[&job].graph.plan().stages[stage.0 as usize].resources;
            turn.thought.add(need, count);
        }
    }

    /// The next of the demands that `counts`, in the order in which they are owed. `None`: there are none left.
    pub(super) fn next_round(
        &self,
        turns: &mut Turns,
        now: Millis,
        counts: impl Fn(&Job, StageIndex) -> bool,
    ) -> Option<Round> {
        loop {
            let open = turns.open.iter().map(|(name, turn)| (name, &turn.thought));
            let (namespace, far) = self.queues.next(open, &turns.total)?;
            let namespace = Arc::clone(namespace);
            let round = self.round_of(&namespace, far, turns, now, &counts);
            if !round.wanted.is_empty() {
                return Some(round);
            }
            turns.open.remove(&namespace);
        }
    }

    /// What comes next of one namespace, as far as it may go: a share for its weight.
    fn round_of(
        &self,
        namespace: &Arc<str>,
        mut far: Option<u64>,
        turns: &mut Turns,
        now: Millis,
        counts: impl Fn(&Job, StageIndex) -> bool,
    ) -> Round {
        let Turns { open, total, stuck, thought } = turns;
        let turn = open.get_mut(namespace).expect("turns are of those that are open");
        let mut round = Round { namespace: Arc::clone(namespace), wanted: Vec::new(), resumes: None };
        let limit = self.queues.limit(namespace, &turn.thought, &self.identity.session.0, now);
        if limit.as_ref().is_some_and(|limit| limit.is_reached()) {
            return round;
        }
        for place in self.queues.ready_after(namespace, turn.after) {
            if round.wanted.len() >= DEMANDS_PER_ROUND {
                break;
            }
            let job = &self.jobs[&place.1];
            let given = |stage: StageIndex| thought.get(&(job.id, stage)).copied().unwrap_or(0);
            let in_thought: u32 = if thought.is_empty() { 0 } else { job.graph.ready().map(|r| given(r.stage)).sum() };
            let mut may_run = job.may_run().saturating_sub(in_thought);
            let ready = job.graph.ready().filter(|ready| !job.is_full() && !stuck.contains(&(job.id, ready.stage)));
            for ready in ready.filter(|ready| counts(job, ready.stage)) {
                let need = &job.graph.plan().stages[ready.stage.0 as usize].resources;
                let allowed = limit.as_ref().map_or(u32::MAX, |limit| limit.leaves(need));
                let most = ready.count.saturating_sub(given(ready.stage)).min(may_run).min(allowed);
                let step = far.map_or(1, |_| self.queues.step(namespace, need, total));
                let in_turn = far.map_or(u32::MAX, |far| u32::try_from(far.div_ceil(step)).unwrap_or(u32::MAX).max(1));
                let count = most.min(in_turn);
                if count == 0 {
                    continue;
                }
                round.wanted.push((job.id, ready.stage, count));
                may_run -= count;
                far = far.map(|far| far.saturating_sub(step.saturating_mul(count.into())));
                // What the next one may have depends on what becomes of this one.
                if far == Some(0) || limit.is_some() {
                    round.resumes = Some(job.id);
                    return round;
                }
            }
            turn.after = Some(*place);
        }
        round
    }
}
