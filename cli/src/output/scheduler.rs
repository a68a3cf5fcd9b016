//! A scheduler, as a row and as JSON.

use jiff::Timestamp;
use muster_proto::v1;
use serde::Serialize;

use super::detail::state;
use super::{Cell, Row};

/// A scheduler.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scheduler {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) jobs: u32,
    /// Whether it hands its jobs over and takes no new ones.
    pub(crate) draining: bool,
    pub(crate) version: Option<String>,
    /// Whether it is the one that answered.
    pub(crate) answered: bool,
}

impl From<v1::SchedulerView> for Scheduler {
    fn from(view: v1::SchedulerView) -> Self {
        Self {
            id: view.scheduler_id,
            address: view.address,
            jobs: view.jobs,
            draining: view.draining,
            version: (!view.version.is_empty()).then_some(view.version),
            answered: view.self_,
        }
    }
}

impl Row for Scheduler {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["SCHEDULER", "ADDRESS", "STATE", "JOBS"];
        if wide {
            headers.extend(["VERSION", "ANSWERED"]);
        }
        headers
    }

    fn cells(&self, wide: bool, _: Timestamp) -> Vec<Cell> {
        let state = state(if self.draining { "draining" } else { "ready" });
        let mut cells = vec![Cell::new(&self.id), Cell::new(&self.address), state, Cell::number(self.jobs)];
        if wide {
            cells.extend([
                Cell::optional(self.version.as_deref().unwrap_or_default()),
                Cell::new(if self.answered { "yes" } else { "no" }),
            ]);
        }
        cells
    }
}
