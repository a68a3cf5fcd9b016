//! What became of assignments, by the accounts of the executors that have them.

use std::collections::BTreeMap;

use muster_graph::execution::{Counts, ExecutorRef, TaskPhase};
use muster_graph::ids::{Attempt, JobId, Millis, StageIndex, TaskId};
use muster_graph::plan::LossPolicy;
use muster_proto::v1;
use v1::ReasonKind as Kind;

use super::words::{count_of, in_a_line, listed, reason, time};
use crate::engine::account::Booking;
use crate::engine::losses::is_ending;
use crate::engine::{Engine, Executor, Job, Link};

/// Tasks of a stage for which the same is true.
#[derive(Default)]
struct Alike<'a> {
    tasks: u32,
    first: u32,
    executors: Vec<&'a str>,
    /// When the launch that left first did.
    since: Millis,
}

/// By stage and kind of reason.
#[derive(Default)]
pub(super) struct Held<'a>(BTreeMap<StageIndex, BTreeMap<i32, Alike<'a>>>);

impl Held<'_> {
    /// What became of so many tasks of a stage.
    pub(super) fn told(&self, stage: StageIndex, tasks: u32, now: Millis) -> Vec<v1::Reason> {
        let groups = || self.0.get(&stage).into_iter().flatten();
        let mut reasons: Vec<v1::Reason> = groups().map(|(kind, some)| grouped(*kind, some, now)).collect();
        let rest = tasks.saturating_sub(groups().map(|(_, some)| some.tasks).sum());
        if rest > 0 {
            let text = "assigned to executors of which this scheduler knows no more yet";
            reasons.push(reason(Kind::Asking, rest, text));
        }
        reasons
    }
}

impl Executor {
    /// How many attempts of a job it has.
    pub(super) fn held_of(&self, job: JobId) -> u32 {
        u32::try_from(self.held.keys().filter(|(of, ..)| *of == job).count()).unwrap_or(u32::MAX)
    }

    /// Where an attempt is that it was given.
    fn progress(&self, booking: &Booking) -> Kind {
        let is_answered = !booking.is_on_its_way() || (!self.pull && self.unanswered == 0);
        match booking {
            Booking { sent: false, .. } => Kind::Committing,
            _ if !is_answered => Kind::Launching,
            Booking { waits: true, .. } => Kind::WaitsThere,
            _ => Kind::Preparing,
        }
    }
}

impl Engine {
    /// What became of a job's assigned and running tasks, in one look at the accounts.
    pub(super) fn held(&self, job: &Job) -> Held<'_> {
        let mut held = Held::default();
        for executor in self.executors.values() {
            for (key, booking) in &executor.held {
                let (id, task, attempt) = *key;
                let known = || job.graph.task(task).filter(|known| known.attempt == attempt);
                let Some(known) = (id == job.id).then(known).flatten() else { continue };
                let kind = match known.state.phase() {
                    TaskPhase::Assigned | TaskPhase::Running if !executor.is_reachable() => Kind::ExecutorAway,
                    TaskPhase::Running => Kind::Running,
                    TaskPhase::Assigned => executor.progress(booking),
                    _ => continue,
                };
                let name = executor.key.id.as_str();
                let group = held.0.entry(task.stage).or_default().entry(kind.into()).or_default();
                group.first = if group.tasks == 0 { task.index.0 } else { group.first.min(task.index.0) };
                group.tasks += 1;
                if booking.sent && (group.since == 0 || booking.since < group.since) {
                    group.since = booking.since;
                }
                if group.executors.last() != Some(&name) {
                    group.executors.push(name);
                }
            }
        }
        held
    }

    /// What became of one task that was assigned.
    pub(super) fn held_task(
        &self,
        job: &Job,
        id: TaskId,
        attempt: Attempt,
        on: ExecutorRef,
        now: Millis,
    ) -> v1::Reason {
        let name = job.graph.executor(on).map(|key| key.id.as_str()).unwrap_or_default();
        let Some(executor) = self.executors.get(name) else {
            return on_paper_at(name.to_owned());
        };
        if !executor.is_reachable() {
            return self.away(executor, job, 1, now);
        }
        let runs = job.graph.task(id).is_some_and(|task| task.state.phase() == TaskPhase::Running);
        let (kind, text) = match executor.held.get(&(job.id, id, attempt)) {
            _ if runs => (Kind::Running, format!("runs on {name}")),
            None => (Kind::Asking, format!("assigned to {name}, of which this scheduler knows no more yet")),
            Some(booking) => match executor.progress(booking) {
                Kind::Committing => (Kind::Committing, format!("that it goes to {name} is being committed")),
                Kind::Launching if executor.pull => {
                    (Kind::Launching, format!("given to {name}, which has not shown yet that it has it"))
                }
                Kind::Launching => (Kind::Launching, format!("sent to {name}, which has not answered yet")),
                Kind::WaitsThere => {
                    let wait = executor.waiting();
                    (Kind::WaitsThere, format!("waits on {name} for what becomes free there, one of {wait}"))
                }
                _ => (Kind::Preparing, format!("{name} has it, and fetches what it needs")),
            },
        };
        v1::Reason { executors: vec![name.to_owned()], ..reason(kind, 1, text) }
    }

    /// Tasks of a job are on an executor that is out of reach.
    pub(super) fn away(&self, executor: &Executor, job: &Job, tasks: u32, now: Millis) -> v1::Reason {
        let name = executor.key.id.as_str();
        let since = executor.away_since.unwrap_or(executor.since);
        let how = if executor.link == Link::Gone { "lost" } else { "out of reach" };
        let mut text = format!(
            "{} on {name}, which is {how} for {}",
            count_of(tasks, "task is", "tasks are"),
            time(now.saturating_sub(since))
        );
        let until = match job.graph.plan().lost_after {
            LossPolicy::Time(limit) => Some(since.saturating_add(limit)),
            LossPolicy::Cluster => Some(executor.since.saturating_add(self.lost_after)),
            LossPolicy::Never if is_ending(job) => Some(executor.since.saturating_add(self.lost_after)),
            LossPolicy::Never => None,
        };
        match until {
            Some(until) => {
                let left = time(until.saturating_sub(now));
                text.push_str(&format!("; if it is not back in {left}, what it has runs elsewhere"));
            }
            None => text.push_str("; the job's `lost_after: never` says to wait for it"),
        }
        v1::Reason {
            executors: vec![name.to_owned()],
            since_ms: since,
            until_ms: until.unwrap_or(0),
            remedies: vec![format!("`muster executors remove {name}`, if it will not come back")],
            ..reason(Kind::ExecutorAway, tasks, text)
        }
    }
}

fn grouped(kind: i32, some: &Alike<'_>, now: Millis) -> v1::Reason {
    let names = in_a_line(some.executors.iter().copied());
    let age = time(now.saturating_sub(some.since));
    let kind = Kind::try_from(kind).unwrap_or_default();
    let text = match kind {
        Kind::Committing => "being committed: executors hear of it when it is in the store".to_owned(),
        Kind::Launching => format!("sent to {names}, not answered yet; the first {age} ago"),
        Kind::WaitsThere => format!("wait on {names} for what becomes free there; the first for {age}"),
        Kind::Preparing => format!("on {names}, fetching what they need"),
        Kind::ExecutorAway => format!("on {names}, out of reach or lost"),
        _ => format!("run on {names}"),
    };
    v1::Reason {
        executors: listed(some.executors.iter().copied()),
        index: Some(some.first),
        ..reason(kind, some.tasks, text)
    }
}

/// What the states alone say, when no scheduler has the job in memory.
pub(super) fn on_paper(counts: Counts) -> Vec<v1::Reason> {
    let running = reason(Kind::Running, counts.running, "ran when the job was last written");
    let assigned = reason(Kind::Launching, counts.assigned, "assigned when the job was last written");
    [running, assigned].into_iter().filter(|reason| reason.tasks > 0).collect()
}

/// The same of one task.
pub(super) fn on_paper_at(executor: String) -> v1::Reason {
    let text = format!("was given to {executor}");
    v1::Reason { executors: vec![executor], ..reason(Kind::Asking, 1, text) }
}
