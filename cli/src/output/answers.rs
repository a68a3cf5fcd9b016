//! What became of a wish: to submit, to cancel, to retry.

use std::io;

use jiff::Timestamp;
use serde::Serialize;

use super::detail::state;
use super::{Cell, Detail, Page, Row};

/// The answer to a submit.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Submission {
    pub(crate) id: String,
    pub(crate) existed: bool,
    pub(crate) idempotency_key: String,
}

impl Detail for Submission {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let existed = if self.existed { "yes: the idempotency key had been used for it before" } else { "no" };
        page.facts(vec![("Job", Cell::new(&self.id)), ("Existed", Cell::new(existed))])
    }
}

/// The answer to a cancel.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cancellation {
    pub(crate) id: String,
    pub(crate) state: &'static str,
}

impl Row for Cancellation {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["JOB", "STATE"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![Cell::new(&self.id), state(self.state)]
    }
}

/// The answer to a cancel of a group.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupCancellation {
    pub(crate) namespace: String,
    /// As it was named.
    pub(crate) group: String,
    pub(crate) state: &'static str,
}

impl Row for GroupCancellation {
    fn name(&self) -> String {
        self.group.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["GROUP", "STATE"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![Cell::new(&self.group), state(self.state)]
    }
}

/// The answer to a retry.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Retry {
    pub(crate) id: String,
    /// How many tasks will run again.
    pub(crate) tasks: u32,
}

impl Detail for Retry {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        page.facts(vec![("Job", Cell::new(&self.id)), ("Tasks to run again", Cell::new(self.tasks.to_string()))])
    }
}

/// The answer to a retry of what failed in a group.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupRetry {
    pub(crate) namespace: String,
    pub(crate) group: String,
    /// How many jobs are active again.
    pub(crate) jobs: u64,
    /// How many of their tasks will run again.
    pub(crate) tasks: u64,
    /// Jobs with which there was nothing to do any more, for instance since somebody else retried them meanwhile.
    pub(crate) passed_over: u64,
    /// Jobs of which it is not known whether they were retried.
    pub(crate) unknown: u64,
}

impl Detail for GroupRetry {
    fn name(&self) -> String {
        self.group.clone()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let mut facts = vec![
            ("Group", Cell::new(&self.group)),
            ("Jobs retried", Cell::new(self.jobs.to_string())),
            ("Tasks to run again", Cell::new(self.tasks.to_string())),
        ];
        for (what, jobs) in [("Passed over", self.passed_over), ("Not known", self.unknown)] {
            if jobs > 0 {
                facts.push((what, Cell::new(jobs.to_string())));
            }
        }
        page.facts(facts)
    }
}
