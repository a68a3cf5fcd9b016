//! The order in which tasks are owed, and the placement that has just happened, rehearsed without being carried out.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::{Placing, Resources};
use muster_proto::v1;

use super::words::count_of;
use crate::engine::place::Closed;
use crate::engine::{Engine, Job};
use crate::placement::{self, Backlog, Gathering, Offer};

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
    /// Executors where room gathers for a task of its own: of which stage, and what is there of what it needs.
    pub(super) gathers: BTreeMap<String, (StageIndex, Resources)>,
    /// Somebody comes after it.
    pub(super) is_followed: bool,
    /// What each executor has to offer after them, or why it offers nothing.
    pub(super) left: BTreeMap<String, Result<Offer, Closed>>,
    told: RefCell<BTreeMap<StageIndex, v1::Reason>>,
}

impl Rehearsal {
    /// What an executor has left for tasks of a stage: what is kept for one of them is theirs.
    pub(super) fn left_for(&self, stage: StageIndex, executor: &str) -> Option<Result<Offer, Closed>> {
        let mut left = self.left.get(executor).cloned()?;
        if let (Ok(offer), Some(_)) = (&mut left, self.gathers.get(executor).filter(|(by, _)| *by == stage)) {
            offer.give_up();
        }
        Some(left)
    }

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
    /// Of its namespace, all the others.
    own: Group,
    /// Of other namespaces, whose names are nobody else's business.
    others: Group,
    /// Tasks that come earlier and fit on no executor: they hold nobody up.
    passed_over: u32,
}

#[derive(Debug, Default)]
struct Group {
    jobs: u32,
    tasks: u32,
}

impl Line {
    fn count(&mut self, job: &Job, is_own: bool, tasks: u32) {
        let is_new = self.last.replace(job.id) != Some(job.id);
        if is_own && is_new && self.named.len() < JOBS_NAMED {
            self.named.push((job.id, job.head.name.clone(), tasks));
            return;
        }
        if let Some((_, _, more)) = self.named.last_mut().filter(|(last, ..)| *last == job.id) {
            *more = more.saturating_add(tasks);
            return;
        }
        let group = if is_own { &mut self.own } else { &mut self.others };
        group.jobs += u32::from(is_new);
        group.tasks = group.tasks.saturating_add(tasks);
    }

    pub(super) fn tasks(&self) -> u32 {
        let named = self.named.iter().map(|(.., tasks)| *tasks);
        named.chain([self.own.tasks, self.others.tasks]).fold(0, u32::saturating_add)
    }

    /// Who they are, each in a line.
    pub(super) fn told(&self) -> Vec<String> {
        let tasks = |number: u32| count_of(number, "task", "tasks");
        let named = self.named.iter();
        let mut lines: Vec<String> =
            named.map(|(id, name, number)| format!("before it: {} of job {id} ({name})", tasks(*number))).collect();
        for (group, one, more) in [
            (&self.own, "more job of its namespace", "more jobs of its namespace"),
            (&self.others, "job of another namespace", "jobs of other namespaces"),
        ] {
            if group.jobs > 0 {
                lines.push(format!("before it: {} of {}", tasks(group.tasks), count_of(group.jobs, one, more)));
            }
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
        let place = (Reverse(job.head.priority), job.id);
        if !self.ready.contains(&place) {
            return None;
        }
        let schedulers = self.schedulers_sharing();
        let is_followed = self.ready.last() != Some(&place);
        let mut rehearsal = Rehearsal { is_followed, ..Rehearsal::default() };
        let (mut ids, mut labels, mut offers) = (Vec::new(), Vec::new(), Vec::new());
        let kept = &self.room_gathers.places;
        for (id, executor) in &self.executors {
            let offer = executor.offer(false, schedulers, now);
            if let Err(closed) = offer {
                rehearsal.left.insert(id.clone(), Err(closed));
            }
            if let Ok(offer) = executor.offer_beside(offer, None, kept.contains_key(id)) {
                ids.push(id.clone());
                labels.push(&executor.labels);
                offers.push(offer);
            }
        }
        // Who is asked changes nobody's mind.
        let as_it_is = Gathering { most: usize::MAX, ..Gathering::NONE };
        // Most want the same as others.
        let mut known: HashMap<Placing<'_>, BTreeMap<&Resources, bool>> = HashMap::new();
        let mut fits_somewhere = |job: &'a Job, stage: StageIndex| {
            let plan = job.graph.plan();
            let wanted = &plan.stages[stage.0 as usize].resources;
            let same = known.entry(plan.placing(stage)).or_default();
            *same.entry(wanted).or_insert_with(|| self.nowhere(plan, stage).is_none())
        };
        let (mut wanted, mut after) = (Vec::new(), None);
        loop {
            after = self.next_round(after, &mut wanted, |_, _| true);
            let before = wanted.iter().position(|(id, ..)| *id == job.id).unwrap_or(wanted.len());
            for (id, stage, tasks) in &wanted[..before] {
                let other = &self.jobs[id];
                if fits_somewhere(other, *stage) {
                    rehearsal.line.count(other, other.head.namespace == job.head.namespace, *tasks);
                } else {
                    rehearsal.line.passed_over = rehearsal.line.passed_over.saturating_add(*tasks);
                }
            }
            let own: Vec<_> = wanted[before..].iter().take_while(|(id, ..)| *id == job.id).copied().collect();
            let mut earlier = 0u32;
            for (_, stage, tasks) in &own {
                rehearsal.in_job.insert(*stage, earlier);
                earlier = earlier.saturating_add(if fits_somewhere(job, *stage) { *tasks } else { 0 });
            }
            // Those before it on their own: what comes after them takes nothing of theirs.
            for some in [&wanted[..before], &own] {
                let is_own = some.first().is_some_and(|(id, ..)| *id == job.id);
                let ranks = self.ranks(some, &labels);
                let gathered = self.gathered(kept, some, now);
                ids.iter().zip(&mut offers).for_each(|(id, offer)| offer.gathered = gathered.get(id).copied());
                for assignment in placement::solve(&self.demands(some, &ranks, now), &mut offers, &as_it_is) {
                    if is_own {
                        *rehearsal.given.entry(some[assignment.demand].1).or_default() += assignment.count;
                    }
                }
                for (id, offer) in ids.iter().zip(&mut offers) {
                    let Some(kept) = &mut offer.kept else { continue };
                    if let Some(by) = kept.by.take().filter(|_| is_own) {
                        rehearsal.gathers.insert(id.clone(), (some[by].1, kept.free.clone()));
                    }
                }
                if !is_own {
                    // Nothing waits where somebody earlier waits for room.
                    for (id, offer) in ids.iter().zip(&mut offers).filter(|(_, offer)| offer.is_owed) {
                        offer.backlog = Backlog::default();
                        rehearsal.owed.insert(id.clone());
                    }
                }
            }
            if !own.is_empty() || wanted.is_empty() {
                break;
            }
        }
        for (id, offer) in ids.into_iter().zip(offers) {
            rehearsal.left.entry(id).or_insert(Ok(offer));
        }
        Some(rehearsal)
    }
}
