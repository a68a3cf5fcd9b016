//! The rules, each promise in files of its own. A rule looks at each revision with the store as it was before it, or as
//! it is after it; some decide at the end.

pub(super) mod accept;
pub(super) mod attempts;
pub(super) mod cancel;
pub(super) mod counts;
pub(super) mod folding;
pub(super) mod groups;
pub(super) mod ownership;
pub(super) mod results;
pub(super) mod sequence;
pub(super) mod starts;
pub(super) mod survival;
pub(super) mod takeover;

use muster_graph::ids::{JobId, TaskId};
use muster_state::Revision;

use super::verdict::{Rule, Violation};

/// Broken rules so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<Violation>,
}

impl Findings {
    /// A rule is broken by a job.
    pub(super) fn of_job(&mut self, rule: Rule, job: JobId, revision: Revision, what: impl Into<String>) {
        self.add(rule, Some(job), None, vec![revision], what.into());
    }

    /// A rule is broken by a task.
    pub(super) fn of_task(
        &mut self,
        rule: Rule,
        (job, task): (JobId, TaskId),
        revisions: Vec<Revision>,
        what: impl Into<String>,
    ) {
        self.add(rule, Some(job), Some(task), revisions, what.into());
    }

    /// A rule is broken.
    pub(super) fn add(
        &mut self,
        rule: Rule,
        job: Option<JobId>,
        task: Option<TaskId>,
        revisions: Vec<Revision>,
        what: String,
    ) {
        self.violations.push(Violation { rule, job, task, revisions, what });
    }
}
