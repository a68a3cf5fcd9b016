//! A group of jobs, as a row of the tree, at length and as JSON.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use muster_proto::v1;
use serde::Serialize;

use super::detail::{bad_number, in_words, map, progress, state};
use super::time::{age, rfc3339};
use super::views::{Counts, optional};
use super::{Cell, Detail, Page, Row};

/// The path of the group that is always there, as people write it. On the wire it is empty.
pub(crate) const ROOT: &str = "/";
/// What a level of the tree moves a name to the right.
const INDENT: usize = 2;

/// A path as people write it, and as every verb takes it.
pub(crate) fn path_text(path: &str) -> String {
    if path.is_empty() { ROOT.to_owned() } else { path.to_owned() }
}

/// A group.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Group {
    pub(crate) namespace: String,
    /// Its path; the root is `/`.
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) state: &'static str,
    /// Whether all of its jobs are over.
    pub(crate) complete: bool,
    pub(crate) attributes: BTreeMap<String, String>,
    /// It cancels itself when so many of its jobs have failed; null: never.
    pub(crate) cancel_after_failures: Option<u64>,
    /// Is told of each completion; null: none.
    pub(crate) callback: Option<String>,
    pub(crate) created_at: Option<String>,
    /// Null as long as it is not complete, or never had a job.
    pub(crate) completed_at: Option<String>,
    /// Its own cancel.
    pub(crate) cancelled: Option<Cancel>,
    /// The outermost group that is cancelled, of those around it and itself.
    pub(crate) cancelled_by: Option<String>,
    pub(crate) jobs: JobCounts,
    /// Tasks of these jobs.
    pub(crate) tasks: Counts,
    /// By jobs that are over.
    pub(crate) spent: Spent,
    #[serde(skip)]
    pub(crate) created_ms: u64,
    #[serde(skip)]
    pub(crate) completed_ms: u64,
    /// Levels below the group that a list begins with.
    #[serde(skip)]
    pub(crate) level: usize,
}

/// That a group was cancelled.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cancel {
    pub(crate) reason: Option<String>,
    pub(crate) at: Option<String>,
    /// It cancelled itself, after so many failures.
    pub(crate) by_failures: bool,
    #[serde(skip)]
    pub(crate) at_ms: u64,
}

/// Jobs of a group and of those in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct JobCounts {
    /// Not over.
    pub(crate) live: u64,
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) total: u64,
}

/// What the attempts that count took: how long each ran, times what it had.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Spent {
    pub(crate) run_ms: u64,
    /// Of one core.
    pub(crate) cpu_ms: u64,
    pub(crate) memory_mib_ms: u64,
    pub(crate) named_ms: BTreeMap<String, u64>,
}

impl From<Option<v1::JobCounts>> for JobCounts {
    fn from(counts: Option<v1::JobCounts>) -> Self {
        let v1::JobCounts { live, successful, failed, cancelled } = counts.unwrap_or_default();
        let total = [live, successful, failed, cancelled].into_iter().fold(0, u64::saturating_add);
        Self { live, successful, failed, cancelled, total }
    }
}

impl JobCounts {
    pub(crate) fn over(self) -> u64 {
        self.total.saturating_sub(self.live)
    }

    /// `12 of 64 successful, 3 live`.
    fn in_words(self) -> String {
        let mut text = format!("{} of {} successful", self.successful, self.total);
        for (number, what) in [(self.live, "live"), (self.failed, "failed"), (self.cancelled, "cancelled")] {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
        text
    }
}

impl From<Option<v1::Spent>> for Spent {
    fn from(spent: Option<v1::Spent>) -> Self {
        let v1::Spent { run_ms, cpu_ms, memory_mib_ms, named_ms } = spent.unwrap_or_default();
        Self { run_ms, cpu_ms, memory_mib_ms, named_ms }
    }
}

impl Spent {
    /// `1.5 core hours, 3.0 GiB hours, 2.0 gpu minutes`.
    fn in_words(&self) -> String {
        let cpu = (self.cpu_ms as f64, "core");
        let memory = (self.memory_mib_ms as f64 / 1024.0, "GiB");
        let named = self.named_ms.iter().map(|(name, &ms)| (ms as f64, name.as_str()));
        let held = [cpu, memory].into_iter().chain(named).filter(|(amount_ms, _)| *amount_ms > 0.0);
        held.map(|(amount_ms, what)| held_for(amount_ms, what)).collect::<Vec<_>>().join(", ")
    }
}

/// An amount of something times how long it was held, in the unit in which the number is easily read.
fn held_for(amount_ms: f64, what: &str) -> String {
    let (number, unit) = match amount_ms {
        ms if ms < 60_000.0 => (ms / 1000.0, "seconds"),
        ms if ms < 3_600_000.0 => (ms / 60_000.0, "minutes"),
        ms => (ms / 3_600_000.0, "hours"),
    };
    format!("{number:.1} {what} {unit}")
}

pub(crate) fn group_state(state: v1::GroupState) -> &'static str {
    match state {
        v1::GroupState::Unspecified => "unknown",
        v1::GroupState::Running => "running",
        v1::GroupState::Successful => "successful",
        v1::GroupState::Failed => "failed",
        v1::GroupState::Cancelled => "cancelled",
    }
}

impl From<v1::GroupCancel> for Cancel {
    fn from(cancel: v1::GroupCancel) -> Self {
        let v1::GroupCancel { reason, at_ms, by_failures } = cancel;
        Self { reason: optional(reason), at: rfc3339(at_ms), by_failures, at_ms }
    }
}

impl From<v1::GroupView> for Group {
    fn from(view: v1::GroupView) -> Self {
        let spec = view.spec.clone().unwrap_or_default();
        Self {
            state: group_state(view.state()),
            complete: muster_client::is_complete(&view),
            group: path_text(&view.path),
            cancelled_by: view.is_cancelled.then(|| path_text(&view.cancelled_by)),
            namespace: view.namespace,
            id: view.id,
            attributes: spec.attributes,
            cancel_after_failures: (spec.cancel_after_failures > 0).then_some(spec.cancel_after_failures),
            callback: optional(spec.callback),
            created_at: rfc3339(view.created_at_ms),
            completed_at: rfc3339(view.completed_at_ms),
            cancelled: view.cancelled.map(Cancel::from),
            jobs: view.jobs.into(),
            tasks: view.tasks.into(),
            spent: view.spent.into(),
            created_ms: view.created_at_ms,
            completed_ms: view.completed_at_ms,
            level: 0,
        }
    }
}

fn levels(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

/// A group and those in it: each is followed by all that is in it, a level further to the right.
pub(crate) fn tree(mut views: Vec<v1::GroupView>) -> Vec<Group> {
    views.sort_by(|one, other| one.path.split('/').cmp(other.path.split('/')));
    let top = views.first().map_or(0, |view| levels(&view.path));
    let placed = |view: v1::GroupView| Group { level: levels(&view.path).saturating_sub(top), ..Group::from(view) };
    views.into_iter().map(placed).collect()
}

impl Group {
    /// The whole path for the first of a tree, the last name for those below it.
    fn in_tree(&self) -> String {
        match self.level {
            0 => self.group.clone(),
            level => {
                let name = self.group.rsplit('/').next().unwrap_or_default();
                format!("{:width$}{name}", "", width = level * INDENT)
            }
        }
    }

    /// By whom it was cancelled, when and why.
    fn why_cancelled(&self, now: Timestamp) -> Option<String> {
        let around = self.cancelled_by.as_ref().filter(|by| **by != self.group);
        let around = around.map(|by| format!("with the group {by} around it"));
        let itself = self.cancelled.as_ref().map(|cancel| {
            let by = if cancel.by_failures { "by itself, " } else { "" };
            let because = cancel.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            format!("{by}{} ago{because}", age(cancel.at_ms, now))
        });
        match (itself, around) {
            (Some(itself), Some(around)) => Some(format!("{itself}; also {around}")),
            (itself, around) => itself.or(around),
        }
    }
}

impl Row for Group {
    fn name(&self) -> String {
        self.group.clone()
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["GROUP", "STATE", "LIVE", "SUCCESSFUL", "FAILED", "CANCELLED", "TASKS", "AGE"];
        if wide {
            headers.extend(["RUNNING", "SPENT", "CANCELLED BY", "ATTRIBUTES", "ID"]);
        }
        headers
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let mut cells = vec![
            Cell::new(self.in_tree()),
            state(self.state),
            Cell::number(self.jobs.live),
            Cell::number(self.jobs.successful),
            bad_number(self.jobs.failed),
            Cell::number(self.jobs.cancelled),
            progress(self.tasks),
            Cell::number(age(self.created_ms, now)),
        ];
        if wide {
            cells.extend([
                Cell::number(self.tasks.running),
                Cell::optional(&self.spent.in_words()),
                Cell::optional(self.cancelled_by.as_deref().unwrap_or_default()),
                map(&self.attributes),
                Cell::new(&self.id),
            ]);
        }
        cells
    }
}

impl Detail for Group {
    fn name(&self) -> String {
        self.group.clone()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let now = page.now();
        let mut facts = vec![
            ("Group", Cell::new(&self.group)),
            ("Id", Cell::new(&self.id)),
            ("Namespace", Cell::new(&self.namespace)),
            ("State", state(self.state)),
        ];
        if let Some(why) = self.why_cancelled(now) {
            facts.push(("Cancelled", Cell::new(why)));
        }
        if let Some(failures) = self.cancel_after_failures {
            facts.push(("Cancels itself", Cell::new(format!("after {failures} failed jobs"))));
        }
        if let Some(url) = &self.callback {
            facts.push(("Callback", Cell::new(url)));
        }
        if !self.attributes.is_empty() {
            facts.push(("Attributes", map(&self.attributes)));
        }
        for (what, at_ms) in [("Created", self.created_ms), ("Completed", self.completed_ms)] {
            if at_ms > 0 {
                facts.push((what, Cell::new(format!("{} ago", age(at_ms, now)))));
            }
        }
        facts.push(("Jobs", Cell::new(self.jobs.in_words())));
        facts.push(("Tasks", Cell::new(in_words(self.tasks))));
        facts.push(("Spent", Cell::optional(&self.spent.in_words())));
        page.facts(facts)
    }
}
