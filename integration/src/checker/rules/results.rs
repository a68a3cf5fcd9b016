//! C2, exactly one accepted result: a task's accepted result stays until its output is given up, which begins a new
//! generation; what is accepted was assigned to that executor by an earlier revision, for nothing is launched before its
//! commit; attempts only rise, and an attempt is on one executor. (That executor may have restarted: its result then comes
//! under a later incarnation.) Its output may move, unchanged, to an executor that noted that it has all of it.

use std::collections::HashMap;

use muster_graph::execution::{Accepted, Task, TaskPhase, TaskState};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, TaskId};
use muster_state::Revision;

use super::Findings;
use super::attempts::AttemptName;
use super::starts::name_of;
use crate::checker::evidence::Evidence;
use crate::checker::job::Move;
use crate::checker::verdict::Rule;

/// What has to be remembered of the past.
#[derive(Debug, Default)]
pub(in crate::checker) struct Results {
    /// By task and generation.
    accepted: HashMap<(JobId, TaskId, u16), (Attempt, Revision)>,
    /// Outputs that moved, and where to.
    moved: Vec<(AttemptName, ExecutorKey, Revision)>,
    pub(in crate::checker) accepted_twice: usize,
    pub(in crate::checker) accepted_total: usize,
}

fn describe(task: &Task, on: Option<&ExecutorKey>) -> String {
    let on = on.map_or_else(String::new, |on| format!(" on {}@{}", on.id, on.incarnation));
    format!("attempt {} generation {} {:?}{on}", task.attempt, task.generation, task.state.phase())
}

impl Results {
    /// Looks at a job's moves.
    pub(in crate::checker) fn after(
        &mut self,
        job: JobId,
        moves: &[Move],
        revision: Revision,
        findings: &mut Findings,
    ) {
        for moved in moves {
            let name = (job, moved.task);
            let what = |why: &str| {
                format!(
                    "{why}: from {} to {}",
                    describe(&moved.from, moved.from_on.as_ref()),
                    describe(&moved.to, moved.to_on.as_ref())
                )
            };
            let (from, to) = (&moved.from, &moved.to);
            if to.attempt < from.attempt || to.generation < from.generation {
                findings.of_task(Rule::AttemptsRise, name, vec![revision], what("a number fell"));
                continue;
            }
            let (was, is) = (from.state.phase(), to.state.phase());
            if let Some(on) = moved_to(moved) {
                self.moved.push(((job, moved.task, to.attempt), on.clone(), revision));
                continue;
            }
            if was == TaskPhase::Successful && to.generation == from.generation {
                self.accepted_twice += usize::from(is == TaskPhase::Successful);
                let first = self.accepted.get(&(job, moved.task, from.generation)).map(|(_, revision)| *revision);
                let revisions = first.into_iter().chain([revision]).collect();
                findings.of_task(Rule::AcceptedOnce, name, revisions, what("an accepted result was replaced"));
                continue;
            }
            if is == TaskPhase::Successful {
                self.accept(job, moved, revision, findings);
            }
            let held = matches!(is, TaskPhase::Assigned | TaskPhase::Running);
            let back = was == TaskPhase::Running && is == TaskPhase::Assigned;
            if held && from.attempt == to.attempt && (!goes_on(moved) || back || from.spent != to.spent) {
                findings.of_task(Rule::AttemptsRise, name, vec![revision], what("an attempt was given a second time"));
            }
        }
    }

    /// Compares where outputs moved to with what those executors noted.
    pub(in crate::checker) fn end(&self, evidence: &Evidence, findings: &mut Findings) {
        if evidence.executors.is_empty() {
            return;
        }
        let mut kept: HashMap<(&str, AttemptName), u64> = HashMap::new();
        for (executor, lines) in &evidence.executors {
            for line in lines.iter().filter(|line| line.event == "keep") {
                if let Some(name) = name_of(line) {
                    kept.entry((executor, name)).or_insert(line.boot_us);
                }
            }
        }
        for (name, on, revision) in &self.moved {
            let at_us = evidence.writes.binary_search_by_key(revision, |write| write.revision);
            let at_us = at_us.map_or(u64::MAX, |place| evidence.writes[place].at_us);
            let in_time = |kept_us: &u64| !evidence.scenario.exact_times || *kept_us <= at_us;
            // The last lines of one that was killed may never have reached its disk.
            if !kept.get(&(on.id.as_str(), *name)).is_some_and(in_time) && !evidence.scenario.killed.contains(&on.id) {
                let what =
                    format!("the output of attempt {} moved to {on:?}, which had not said that it has it", name.2);
                findings.of_task(Rule::MovedKept, (name.0, name.1), vec![*revision], what);
            }
        }
    }

    fn accept(&mut self, job: JobId, moved: &Move, revision: Revision, findings: &mut Findings) {
        self.accepted_total += 1;
        let (name, to) = ((job, moved.task), &moved.to);
        match self.accepted.insert((job, moved.task, to.generation), (to.attempt, revision)) {
            Some((attempt, before)) if !matches!(moved.from.state, TaskState::Successful(_)) => {
                self.accepted_twice += 1;
                let what = format!("generation {} has attempt {attempt} and attempt {}", to.generation, to.attempt);
                findings.of_task(Rule::AcceptedOnce, name, vec![before, revision], what);
            }
            _ => {}
        }
        let was = moved.from.state.phase();
        let held = matches!(was, TaskPhase::Assigned | TaskPhase::Running) && moved.from.attempt == to.attempt;
        if !held || !goes_on(moved) || moved.from.generation != to.generation {
            let what = format!(
                "accepted as {}, and it was {}",
                describe(to, moved.to_on.as_ref()),
                describe(&moved.from, moved.from_on.as_ref())
            );
            findings.of_task(Rule::AcceptedAssigned, name, vec![revision], what);
        }
    }
}

/// The executor that an output moved to, if nothing else of its task changed.
fn moved_to(moved: &Move) -> Option<&ExecutorKey> {
    let (TaskState::Successful(from), TaskState::Successful(to)) = (&moved.from.state, &moved.to.state) else {
        return None;
    };
    let state = TaskState::Successful(Accepted { on: to.on, ..*from });
    let same = Task { state, ..moved.from } == moved.to && from.on != to.on;
    moved.to_on.as_ref().filter(|_| same)
}

/// Whether an attempt is where it was, or under a later life of the same executor.
fn goes_on(moved: &Move) -> bool {
    let (Some(from), Some(to)) = (&moved.from_on, &moved.to_on) else { return false };
    let held = matches!(moved.from.state.phase(), TaskPhase::Assigned | TaskPhase::Running);
    held && from.id == to.id && from.incarnation <= to.incarnation
}
