//! The order in which tasks are owed, and the placement that has just happened, rehearsed without being carried out.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::{Placing, Resources};
use muster_proto::v1;

use super::words::count_of;
use crate::engine::place::Closed;
use crate::engine::turns::Wanted;
use crate::engine::{Engine, Job};
use crate::placement::{self, Backlog, Offer};

/// Jobs of a task's own namespace that are named among those before it.
const JOBS_NAMED: usize = 5;

/// Who is before a job in the order, and what they leave it.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    pub(super) line: Line,
    /// Tasks of its own that are owed before those of each of its stages.
    pub(super) in_job: BTreeMap<StageIndex, u32>,
    /// What this job's own stages were given, which is nothing unless something came in since the last placement.
    pub(super) given: BTreeMap<StageIndex, u32>,
    /// Executors where one of those before it waits for room.
    pub(super) owed: BTreeSet<String>,
    /// Somebody comes after it.
    pub(super) is_followed: bool,
    /// What each executor has to offer after them, or why it offers nothing.
    pub(super) left: BTreeMap<String, Result<Offer, Closed>>,
    told: RefCell<BTreeMap<StageIndex, v1::Reason>>,
}

impl Rehearsal {
    /// What is said of the tasks of a stage, which is the same for all of them.
    pub(super) fn told_once(&self, stage: StageIndex, tell: impl FnOnce() -> v1::Reason) -> v1::Reason {
        if let Some(told) = self.told.borrow().get(&stage) {
            return told.clone();
        }
        let told = tell();
        self.told.borrow_mut().insert(stage, told.clone());
        told
    }
}

/// Tasks that are owed before a job's.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The job that was counted last.
    last: Option<JobId>,
    /// Of its namespace, the first ones with their names and tasks.
    named: Vec<(JobId, String, u32)>,
    /// Of its namespace, how many others, and their tasks.
    more: (u32, u32),
    /// Other namespaces whose turn comes first. Their names are nobody else's business.
    pub(super) namespaces: BTreeSet<Arc<str>>,
    /// Tasks that come earlier and fit on no executor: they hold nobody up.
    passed_over: u32,
}

impl Line {
    /// Counts tasks of its own namespace.
    fn count(&mut self, job: &Job, tasks: u32) {
        if self.last.replace(job.id) == Some(job.id) {
            let known = self.named.last_mut().filter(|(last, ..)| *last == job.id).map(|(.., known)| known);
            let known = known.unwrap_or(&mut self.more.1);
            *known = known.saturating_add(tasks);
        } else if self.named.len() < JOBS_NAMED {
            self.named.push((job.id, job.head.name.clone(), tasks));
        } else {
            self.more = (self.more.0 + 1, self.more.1.saturating_add(tasks));
        }
    }

    /// Of its own namespace.
    pub(super) fn tasks(&self) -> u32 {
        self.named.iter().map(|(.., tasks)| *tasks).fold(self.more.1, u32::saturating_add)
    }

    /// Who they are, each in a line.
    pub(super) fn told(&self) -> Vec<String> {
        let tasks = |number: u32| count_of(number, "task", "tasks");
        let named = self.named.iter();
        let mut lines: Vec<String> =
            named.map(|(id, name, number)| format!("before it: {} of job {id} ({name})", tasks(*number))).collect();
        if self.more.0 > 0 {
            let jobs = count_of(self.more.0, "more job", "more jobs");
            lines.push(format!("before it: {} of {jobs} of its namespace", tasks(self.more.1)));
        }
        if self.passed_over > 0 {
            let fit = count_of(self.passed_over, "earlier task fits", "earlier tasks fit");
            lines.push(format!("{fit} on no executor: that holds nobody up"));
        }
        lines
    }
}

impl Engine {
    /// Places what is before a job, and the job, without carrying it out. `None`: nothing of the job is ready.
    pub(super) fn rehearse<'a>(&'a self, job: &'a Job, now: Millis) -> Option<Rehearsal> {
        if !self.queues.is_ready(&job.namespace, job.place()) {
            return None;
        }
        let schedulers = self.schedulers_sharing();
        let is_followed = self.queues.is_followed(&job.namespace, job.place());
        let mut rehearsal = Rehearsal { is_followed, ..Rehearsal::default() };
        let (mut ids, mut labels, mut offers) = (Vec::new(), Vec::new(), Vec::new());
        for (id, executor) in &self.executors {
            match executor.offer(false, schedulers, now) {
                Ok(offer) => {
                    ids.push(id.clone());
                    labels.push(&executor.labels);
                    offers.push(offer);
                }
                Err(closed) => drop(rehearsal.left.insert(id.clone(), Err(closed))),
            }
        }
        // Tasks of its own, of the stages looked at so far.
        let mut in_job = 0u32;
        // Most want the same as others.
        let mut known: HashMap<Placing<'_>, BTreeMap<&Resources, bool>> = HashMap::new();
        let mut fits_somewhere = |job: &'a Job, stage: StageIndex| {
            let plan = job.graph.plan();
            let wanted = &plan.stages[stage.0 as usize].resources;
            let same = known.entry(plan.placing(stage)).or_default();
            *same.entry(wanted).or_insert_with(|| self.nowhere(plan, stage).is_none())
        };
        let mut turns = self.turns();
        while let Some(round) = self.next_round(&mut turns, now, |_, _| true) {
            let before = round.wanted.iter().position(|(id, ..)| *id == job.id).unwrap_or(round.wanted.len());
            for (id, stage, tasks) in &round.wanted[..before] {
                let other = &self.jobs[id];
                if !fits_somewhere(other, *stage) {
                    rehearsal.line.passed_over = rehearsal.line.passed_over.saturating_add(*tasks);
                } else if other.namespace == job.namespace {
                    rehearsal.line.count(other, *tasks);
                } else {
                    rehearsal.line.namespaces.insert(Arc::clone(&other.namespace));
                }
            }
            // The job as a whole, though its namespace's turn may end before.
            let is_here = before < round.wanted.len();
            let ready = job.graph.ready().filter(|_| is_here);
            let own: Vec<Wanted> = ready.map(|ready| (job.id, ready.stage, ready.count)).collect();
            for (_, stage, tasks) in &own {
                rehearsal.in_job.insert(*stage, in_job);
                in_job = in_job.saturating_add(if fits_somewhere(job, *stage) { *tasks } else { 0 });
            }
            let mut left: Vec<u32> = round.wanted.iter().map(|(.., tasks)| *tasks).collect();
            let ranks = self.ranks(&round.wanted[..before], &labels);
            for assignment in placement::solve(&self.demands(&round.wanted[..before], &ranks, now), &mut offers) {
                let (id, stage, _) = round.wanted[assignment.demand];
                left[assignment.demand] -= assignment.count;
                self.think_given(&mut turns, &round, (id, stage, assignment.count));
            }
            turns.found_no_room(&round, &left);
            // Nothing waits where somebody earlier waits for room.
            for (id, offer) in ids.iter().zip(&mut offers).filter(|(_, offer)| offer.is_owed) {
                offer.backlog = Backlog::default();
                rehearsal.owed.insert(id.clone());
            }
            if is_here {
                // On its own: what comes after those before it takes nothing of theirs.
                let ranks = self.ranks(&own, &labels);
                for assignment in placement::solve(&self.demands(&own, &ranks, now), &mut offers) {
                    *rehearsal.given.entry(own[assignment.demand].1).or_default() += assignment.count;
                }
                break;
            }
        }
        rehearsal.left.extend(ids.into_iter().zip(offers.into_iter().map(Ok)));
        Some(rehearsal)
    }
}
