//! Groups. C3: no commit that comes after a group's cancel assigns anything in it but what always runs, whether or not the job had
//! heard of it. C6: what was added up of a group, and what waits to be, is what its jobs' heads say; and at the end each completion of
//! a group was seen once.
//!
//! Counted anew from the heads as they come and go; which jobs count, their first head says.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::TaskPhase;
use muster_graph::ids::JobId;
use muster_graph::spec::When;
use muster_proto::storage::{GroupChange, GroupSums, JobHead};
use muster_proto::v1;
use muster_state::{Keyspace, Revision, keys};

use super::Findings;
use crate::checker::decode::Step;
use crate::checker::evidence::Evidence;
use crate::checker::job::{Job, Move, States};
use crate::checker::store::Store;
use crate::checker::verdict::Rule;

/// Namespace and path.
type Name = (String, String);

/// Jobs: submitted, successful, failed, cancelled; and of those that are over the tasks: successful, failed, cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally([i64; 7]);

impl Tally {
    fn add(&mut self, more: Self, times: i64) {
        self.0.iter_mut().zip(more.0).for_each(|(sum, more)| *sum += times * more);
    }

    fn of_change(change: &GroupChange) -> Self {
        let tasks = change.tasks.unwrap_or_default();
        let sign = if change.taken_back { -1 } else { 1 };
        let tasks = [tasks.successful, tasks.failed, tasks.cancelled].map(|count| sign * i64::from(count));
        Self([change.submitted, change.successful, change.failed, change.cancelled, tasks[0], tasks[1], tasks[2]])
    }

    fn of_sums(sums: &GroupSums) -> Self {
        let tasks = sums.tasks.unwrap_or_default();
        let all = [
            sums.submitted,
            sums.successful,
            sums.failed,
            sums.cancelled,
            tasks.successful,
            tasks.failed,
            tasks.cancelled,
        ];
        Self(all.map(|count| i64::try_from(count).unwrap_or(i64::MAX)))
    }

    /// Of a job that is over.
    fn of_end(head: &JobHead) -> Self {
        let one = |state: v1::JobState| i64::from(head.state == i32::from(state));
        let tasks = head.tasks.unwrap_or_default();
        Self([
            0,
            one(v1::JobState::Successful),
            one(v1::JobState::Failed),
            one(v1::JobState::Cancelled),
            tasks.successful.into(),
            tasks.failed.into(),
            tasks.cancelled.into(),
        ])
    }

    fn is_complete(self) -> bool {
        self.0[0] == self.0[1] + self.0[2] + self.0[3]
    }
}

const SUBMITTED: Tally = Tally([1, 0, 0, 0, 0, 0, 0]);

/// A group, and those around it.
fn outwards(namespace: &str, path: &str) -> impl Iterator<Item = Name> {
    let mut next = Some(path.to_owned());
    let namespace = namespace.to_owned();
    std::iter::from_fn(move || {
        let path = next.take()?;
        next = match path.rsplit_once('/') {
            _ if path.is_empty() => None,
            Some((parent, _)) => Some(parent.to_owned()),
            None => Some(String::new()),
        };
        Some((namespace.clone(), path))
    })
}

/// What has to be remembered of the past.
#[derive(Debug, Default)]
pub(in crate::checker) struct Groups {
    cancelled: BTreeMap<Name, Revision>,
    /// By the heads.
    counted: BTreeMap<Name, Tally>,
    completions: BTreeMap<Name, u64>,
    /// By what is stored for groups.
    sums: BTreeMap<Name, GroupSums>,
    waiting: BTreeMap<String, GroupChange>,
}

impl Groups {
    /// Counts what the revision does to jobs.
    pub(in crate::checker) fn before(&mut self, step: &Step, store: &Store) {
        for (id, of_job) in &step.jobs {
            let Some((place, head)) = of_job.head().filter(|(_, head)| head.counted) else { continue };
            let known = store.jobs.get(id);
            let was = known.and_then(|job| Some((job.place?, job.head.as_ref()?)));
            let is_over = |place: Keyspace| place != Keyspace::ActiveJobs;
            match was {
                None => self.count(head, SUBMITTED, 1),
                Some((before, _)) if is_over(place) && !is_over(before) => self.count(head, Tally::of_end(head), 1),
                Some((before, over)) if !is_over(place) && is_over(before) => self.count(head, Tally::of_end(over), -1),
                Some(_) => {}
            }
        }
    }

    fn count(&mut self, head: &JobHead, more: Tally, times: i64) {
        for name in outwards(&head.namespace, &head.group) {
            let known = self.counted.entry(name.clone()).or_default();
            let was_complete = known.is_complete();
            known.add(more, times);
            if known.is_complete() && !was_complete {
                *self.completions.entry(name).or_default() += 1;
            }
        }
    }

    /// Looks at what of a job was assigned.
    pub(in crate::checker) fn assigned(
        &self,
        id: JobId,
        job: &Job,
        states: &States,
        moves: &[Move],
        revision: Revision,
        findings: &mut Findings,
    ) {
        let Some(head) = &job.head else { return };
        let cancelled = |name: Name| Some((self.cancelled.get(&name)?, name.1));
        let Some((since, path)) = outwards(&head.namespace, &head.group).find_map(cancelled) else { return };
        for moved in moves {
            let assigned = moved.to.state.phase() == TaskPhase::Assigned && moved.to.attempt > moved.from.attempt;
            let stage = states.plan.stages.get(moved.task.stage.0 as usize);
            if assigned && stage.is_some_and(|stage| stage.when != When::Always) {
                let what = format!("attempt {} was assigned after the cancel of group '{path}'", moved.to.attempt);
                findings.of_task(Rule::GroupCancelled, (id, moved.task), vec![*since, revision], what);
            }
        }
    }

    /// Compares what is stored for groups with what their jobs say.
    pub(in crate::checker) fn after(&mut self, step: &Step, findings: &mut Findings) {
        for (namespace, path) in &step.group_cancels {
            self.cancelled.entry((namespace.clone(), path.clone())).or_insert(step.revision);
        }
        let mut touched: BTreeSet<Name> = BTreeSet::new();
        for (name, change) in &step.group_changes {
            if let Some(change) = change.as_ref().filter(|change| !change.correction.is_empty()) {
                let what =
                    format!("an audit found the counts of group '{}' wrong: {:?}", change.group, change.correction);
                findings.add(Rule::GroupCounts, None, None, vec![step.revision], what);
            }
            match change {
                Some(change) => drop(self.waiting.insert(name.clone(), change.clone())),
                None => drop(self.waiting.remove(name)),
            }
        }
        for (name, sums) in &step.group_sums {
            touched.insert(name.clone());
            match sums {
                Some(sums) => drop(self.sums.insert(name.clone(), sums.clone())),
                None => drop(self.sums.remove(name)),
            }
        }
        for name in touched {
            let mut stored = self.sums.get(&name).map(Tally::of_sums).unwrap_or_default();
            for (change_name, change) in &self.waiting {
                let Some(namespace) = keys::group_change_of(change_name) else { continue };
                if outwards(namespace, &change.group).any(|around| around == name) {
                    stored.add(Tally::of_change(change), 1);
                }
            }
            let counted = self.counted.get(&name).copied().unwrap_or_default();
            if stored != counted {
                let what = format!("group {name:?}: its records add up to {stored:?}, its jobs to {counted:?}");
                findings.add(Rule::GroupCounts, None, None, vec![step.revision], what);
            }
        }
    }

    /// When all is quiet nothing waits, and as many completions were seen as there were; and acknowledged cancels are there.
    pub(in crate::checker) fn end(&self, evidence: &Evidence, last: Revision, findings: &mut Findings) {
        for (namespace, path) in &evidence.clients.groups_cancelled {
            if !self.cancelled.contains_key(&(namespace.clone(), path.clone())) {
                let what = format!("the cancel of group '{path}' of {namespace} was acknowledged, and is not there");
                findings.add(Rule::GroupCancelled, None, None, vec![last], what);
            }
        }
        if !self.waiting.is_empty() {
            return;
        }
        for (name, counted) in &self.counted {
            let sums = self.sums.get(name).cloned().unwrap_or_default();
            let expected = self.completions.get(name).copied().unwrap_or(0);
            if Tally::of_sums(&sums) != *counted || sums.completions != expected {
                let what = format!(
                    "group {name:?}: {sums:?}; its jobs say {counted:?}, and it became complete {expected} times"
                );
                findings.add(Rule::GroupCounts, None, None, vec![last], what);
            }
        }
    }
}
