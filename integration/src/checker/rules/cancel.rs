//! C3, cancels: once a job is being cancelled, nothing of it is assigned but what always runs, until it is retried; and an
//! acknowledged cancel is one that the job knows of, or came too late for.

use std::collections::BTreeSet;

use muster_graph::execution::{JobRecord, TaskPhase};
use muster_graph::ids::{JobId, TaskId};
use muster_graph::spec::When;
use muster_state::{Keyspace, Revision};

use super::Findings;
use super::attempts::Attempts;
use crate::checker::evidence::Evidence;
use crate::checker::job::{Move, States};
use crate::checker::store::Store;
use crate::checker::verdict::Rule;

/// What has to be remembered of the past.
#[derive(Debug, Default)]
pub(in crate::checker) struct Cancels {
    known: BTreeSet<JobId>,
    retried: BTreeSet<JobId>,
}

fn always(states: &States, task: TaskId) -> bool {
    states.plan.stages.get(task.stage.0 as usize).is_some_and(|stage| stage.when == When::Always)
}

impl Cancels {
    /// Looks at a job's moves; `before` is its record before them.
    pub(in crate::checker) fn after(
        &mut self,
        job: JobId,
        before: Option<&JobRecord>,
        states: &States,
        moves: &[Move],
        revision: Revision,
        findings: &mut Findings,
    ) {
        if states.record.cancel.is_some() {
            self.known.insert(job);
        }
        let was = before.and_then(|record| record.cancel.as_ref());
        if was.is_some() && states.record.cancel.is_none() {
            self.retried.insert(job);
        }
        if was.is_none() || was != states.record.cancel.as_ref() {
            return;
        }
        for moved in moves {
            let assigned = moved.to.state.phase() == TaskPhase::Assigned && moved.to.attempt > moved.from.attempt;
            if assigned && !always(states, moved.task) {
                let what = format!("attempt {} was assigned after the cancel '{was:?}'", moved.to.attempt);
                findings.of_task(Rule::Cancelled, (job, moved.task), vec![revision], what);
            }
        }
    }

    /// Compares what clients were told with what became of it.
    pub(in crate::checker) fn end(
        &self,
        evidence: &Evidence,
        store: &Store,
        attempts: &Attempts,
        findings: &mut Findings,
    ) {
        for cancel in &evidence.clients.cancelled {
            let job = store.jobs.get(&cancel.job);
            let active = job.is_none_or(|job| job.place == Some(Keyspace::ActiveJobs));
            if active && !self.known.contains(&cancel.job) {
                let what = "its cancel was acknowledged, and it goes on".to_owned();
                findings.add(Rule::Cancelled, Some(cancel.job), None, Vec::new(), what);
            }
            let Some(states) = job.and_then(|job| job.states.as_ref()) else { continue };
            if !evidence.scenario.exact_times || self.retried.contains(&cancel.job) {
                continue;
            }
            for ((_, task, attempt), past) in attempts.of.iter().filter(|((job, ..), _)| *job == cancel.job) {
                let Some(given) = past.given.first() else { continue };
                if given.at_us > cancel.at_us && !always(states, *task) {
                    let what = format!(
                        "attempt {attempt} was assigned at {} us, its cancel was acknowledged at {} us",
                        given.at_us, cancel.at_us
                    );
                    findings.of_task(Rule::Cancelled, (cancel.job, *task), vec![given.revision], what);
                }
            }
        }
    }
}
