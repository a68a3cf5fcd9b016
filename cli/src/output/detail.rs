//! The views, for people: columns of lists and pages of single things.

use std::io;

use jiff::Timestamp;

use super::definition::in_a_row;
use super::group::ROOT;
use super::time::{age, taken};
use super::views::{Counts, Downloaded, Exited, Failure, Job, JobAtLength, Stage, Started, Task, TaskOutput};
use super::{Cell, Detail, Page, Row, Tone};
use crate::quantity::bytes_for_people;

/// A state in its color.
pub(crate) fn state(text: &str) -> Cell {
    let tone = match text {
        "successful" | "ready" => Tone::Good,
        "failed" | "lost" | "unreachable" | "quarantined" => Tone::Bad,
        "running" | "assigned" | "draining" => Tone::Busy,
        "cancelled" | "skipped" | "disconnected" | "stopped" => Tone::Faint,
        _ => Tone::Plain,
    };
    Cell::toned(text, tone)
}

pub(super) fn text(value: Option<&String>) -> Cell {
    Cell::optional(value.map_or("", String::as_str))
}

pub(super) fn progress(counts: Counts) -> Cell {
    Cell::number(format!("{}/{}", counts.over(), counts.total))
}

pub(super) fn bad_number(number: impl Into<u64>) -> Cell {
    let number = number.into();
    if number > 0 { Cell::toned(number.to_string(), Tone::Bad).right() } else { Cell::number(number) }
}

pub(super) fn map<V: ToString>(map: &std::collections::BTreeMap<String, V>) -> Cell {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={}", value.to_string())).collect();
    Cell::optional(&pairs.join(","))
}

impl Row for Job {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["JOB", "NAME", "STATE", "TASKS", "FAILED", "AGE", "TOOK"];
        if wide {
            headers.extend(["NAMESPACE", "GROUP", "RUNNING", "OWNER", "LABELS", "MESSAGE"]);
        }
        headers
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let mut cells = vec![
            Cell::new(&self.id),
            Cell::new(&self.name),
            state(self.state),
            progress(self.counts),
            bad_number(self.counts.failed),
            Cell::number(age(self.submitted_ms, now)),
            Cell::number(taken(self.started_ms, self.finished_ms, now)),
        ];
        if wide {
            cells.extend([
                Cell::new(&self.namespace),
                Cell::new(&self.group),
                Cell::number(self.counts.running),
                text(self.owner.as_ref()),
                map(&self.labels),
                text(self.message.as_ref()),
            ]);
        }
        cells
    }
}

impl Row for Stage {
    fn name(&self) -> String {
        format!("{}/{}", self.job, self.name)
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["STAGE", "STATE", "TASKS", "RUNNING", "FAILED", "TOOK", "REASON"];
        if wide {
            headers.extend(["PENDING", "ASSIGNED", "CANCELLED", "NEEDS"]);
        }
        headers
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let mut cells = vec![
            // As a directory is told from a file.
            Cell::new(if self.is_job { format!("{}/", self.name) } else { self.name.clone() }),
            state(self.state),
            progress(self.counts),
            Cell::number(self.counts.running),
            bad_number(self.counts.failed),
            Cell::number(taken(self.started_ms, self.finished_ms, now)),
            text(self.reason.as_ref()),
        ];
        if wide {
            cells.extend([
                Cell::number(self.counts.pending),
                Cell::number(self.counts.assigned),
                Cell::number(self.counts.cancelled),
                Cell::optional(&self.needs.join(",")),
            ]);
        }
        cells
    }
}

/// How an attempt ended, for people: `failed, exit 3`.
fn ending(outcome: Option<&str>, exit: Option<Exited>) -> Cell {
    match (outcome, exit) {
        (None, _) => Cell::optional(""),
        (Some("succeeded"), _) => Cell::toned("succeeded", Tone::Good),
        (Some(outcome), None) => Cell::toned(outcome, Tone::Bad),
        (Some(outcome), Some(exit)) => Cell::toned(format!("{outcome}, {}", exit.text()), Tone::Bad),
    }
}

impl Row for Failure {
    fn name(&self) -> String {
        format!("{}/{}", self.stage, self.index)
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["TASK", "ATTEMPT", "ENDED", "FINAL", "MESSAGE"];
        if wide {
            headers.extend(["EXECUTOR", "AT"]);
        }
        headers
    }

    fn cells(&self, wide: bool, _: Timestamp) -> Vec<Cell> {
        let mut cells = vec![
            Cell::new(format!("{}/{}", self.stage, self.index)),
            Cell::number(self.attempt),
            ending(self.outcome, self.exit),
            Cell::new(if self.r#final { "yes" } else { "no" }),
            text(self.message.as_ref()),
        ];
        if wide {
            cells.extend([text(self.executor.as_ref()), text(self.at.as_ref())]);
        }
        cells
    }
}

impl Row for Task {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.job, self.stage, self.index)
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["TASK", "STATE", "ATTEMPT", "TOOK", "ENDED", "MESSAGE"];
        if wide {
            headers.extend(["EXECUTOR", "OUTPUT", "FILES", "STARTED"]);
        }
        headers
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let mut cells = vec![
            Cell::new(format!("{}/{}", self.stage, self.index)),
            state(self.state),
            Cell::number(self.attempt.map_or("-".to_owned(), |attempt| attempt.to_string())),
            Cell::number(taken(self.started_ms, self.finished_ms, now)),
            ending(self.outcome, self.exit),
            text(self.message.as_ref()),
        ];
        if wide {
            let output = self.output.as_ref();
            cells.extend([
                text(self.executor.as_ref()),
                Cell::number(output.map_or("-".to_owned(), |output| bytes_for_people(output.bytes))),
                Cell::number(output.map_or("-".to_owned(), |output| output.files.to_string())),
                text(self.started_at.as_ref()),
            ]);
        }
        cells
    }
}

impl Row for TaskOutput {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.job, self.stage, self.index)
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["TASK", "SIZE", "FILES"];
        if wide {
            headers.extend(["ATTEMPT", "EXECUTOR", "CHECKSUM"]);
        }
        headers
    }

    fn cells(&self, wide: bool, _: Timestamp) -> Vec<Cell> {
        let mut cells = vec![
            Cell::new(format!("{}/{}", self.stage, self.index)),
            Cell::number(bytes_for_people(self.bytes)),
            Cell::number(self.files),
        ];
        if wide {
            let executor = text(self.executor.as_ref());
            cells.extend([Cell::number(self.attempt), executor, Cell::new(&self.checksum)]);
        }
        cells
    }
}

impl Row for Downloaded {
    fn name(&self) -> String {
        self.directory.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["TASK", "SIZE", "FILES", "DIRECTORY"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(format!("{}/{}", self.stage, self.index)),
            Cell::number(bytes_for_people(self.bytes)),
            Cell::number(self.files),
            Cell::new(&self.directory),
        ]
    }
}

impl Detail for JobAtLength {
    fn name(&self) -> String {
        self.job.id.clone()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let job = &self.job;
        let now = page.now();
        let mut facts = vec![("Job", Cell::new(&job.id)), ("Name", Cell::new(&job.name))];
        if !job.made_of.is_empty() {
            facts.push(("Made of", Cell::new(in_a_row(&job.made_of))));
        }
        facts.push(("Namespace", Cell::new(&job.namespace)));
        if job.group != ROOT {
            facts.push(("Group", Cell::new(&job.group)));
        }
        facts.push(("State", state(job.state)));
        if let Some(message) = &job.message {
            facts.push(("Why", Cell::new(message)));
        }
        if job.cancel_requested && job.finished_ms == 0 {
            facts.push(("Cancel", Cell::new("requested")));
        }
        if !job.labels.is_empty() {
            facts.push(("Labels", map(&job.labels)));
        }
        facts.push(("Submitted", Cell::new(format!("{} ago", age(job.submitted_ms, now)))));
        facts.push(("Took", Cell::new(taken(job.started_ms, job.finished_ms, now))));
        facts.push(("Tasks", Cell::new(in_words(job.counts))));
        if let Some(owner) = &job.owner {
            facts.push(("Owner", Cell::new(owner)));
        }
        page.facts(facts)?;
        if !self.stages.is_empty() {
            page.headline("Stages")?;
            let rows: Vec<Stage> = self.folding.rows(&self.stages).into_iter().cloned().collect();
            page.table(&rows)?;
        }
        if !self.failures.is_empty() {
            page.headline("Failed attempts (the first ones)")?;
            page.table(&self.failures)?;
        }
        if let Some(tasks) = &self.tasks {
            page.headline(if self.more_tasks { "Tasks (there are more: raise --limit)" } else { "Tasks" })?;
            page.table(tasks)?;
        }
        Ok(())
    }
}

/// `12 of 64 successful, 3 running`.
pub(crate) fn in_words(counts: Counts) -> String {
    let mut text = format!("{} of {} successful", counts.successful, counts.total);
    for (number, what) in [
        (counts.running, "running"),
        (counts.assigned, "assigned"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    text
}

impl Detail for Started {
    fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.address.clone())
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let mut facts = vec![("Started", Cell::new(self.what)), ("Address", Cell::new(&self.address))];
        if let Some(id) = &self.id {
            facts.insert(1, ("Id", Cell::new(id)));
        }
        if let Some(data_dir) = &self.data_dir {
            facts.push(("Data", Cell::new(data_dir)));
        }
        page.facts(facts)
    }
}
