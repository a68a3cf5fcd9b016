//! A schedule, as a row, at length and as JSON.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1;
use serde::Serialize;

use super::time::{age, rfc3339};
use super::{Cell, Detail, Page, Row, Tone};
use crate::quantity::duration_for_people;

/// A schedule.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Schedule {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) cron: String,
    pub(crate) zone: String,
    /// The definition: `NAME` or `NAME@REVISION`.
    pub(crate) definition: String,
    /// Values of its parameters, as one gives them.
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) overlap: &'static str,
    pub(crate) missed: &'static str,
    /// Older times are not made up for; none: whatever their age.
    pub(crate) window_ms: Option<u64>,
    pub(crate) paused: bool,
    /// Coming times; none while it is paused.
    pub(crate) next: Vec<String>,
    /// Times that have passed and are still to run.
    pub(crate) waiting: Vec<String>,
    /// The job of the newest time that ran, and that time.
    pub(crate) last_job: Option<String>,
    pub(crate) last: Option<String>,
    /// Why the newest time got no job.
    pub(crate) problem: Option<String>,
    pub(crate) passed_over: Vec<PassedOver>,
    #[serde(skip)]
    next_ms: u64,
    #[serde(skip)]
    last_ms: u64,
}

/// Times that never ran.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PassedOver {
    pub(crate) first: String,
    pub(crate) last: String,
    /// `overlap`, `queue-full`, `missed` or `made-up-for`.
    pub(crate) why: String,
}

fn time(at_ms: u64) -> String {
    rfc3339(at_ms).unwrap_or_default()
}

/// A parameter's value as it would be given on a command line.
fn as_given(value: &v1::Argument) -> String {
    use v1::argument::Value;
    match &value.value {
        None => "null".to_owned(),
        Some(Value::Word(text) | Value::Text(text) | Value::Number(text)) => text.clone(),
        Some(Value::Truth(truth)) => truth.to_string(),
        Some(Value::List(list)) => list.items.iter().map(as_given).collect::<Vec<_>>().join(","),
        Some(Value::Map(map)) => {
            let entries = map.entries.iter().map(|(name, value)| format!("{name}: {}", as_given(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

impl From<v1::ScheduleView> for Schedule {
    fn from(view: v1::ScheduleView) -> Self {
        let schedule = view.schedule.unwrap_or_default();
        let (overlap, missed) = (schedule.overlap(), schedule.missed());
        let run = schedule.run.unwrap_or_default();
        let some = |text: String| (!text.is_empty()).then_some(text);
        Self {
            namespace: view.namespace,
            name: view.name,
            cron: schedule.cron,
            zone: some(schedule.zone).unwrap_or_else(|| "UTC".to_owned()),
            parameters: run.arguments.into_iter().map(|(name, value)| (name, as_given(&value))).collect(),
            definition: match run.revision {
                0 => run.name,
                revision => format!("{}@{revision}", run.name),
            },
            overlap: match overlap {
                v1::Overlap::Unspecified | v1::Overlap::Skip => "skip",
                v1::Overlap::Queue => "queue",
                v1::Overlap::Replace => "replace",
            },
            missed: match missed {
                v1::Missed::None => "none",
                v1::Missed::Unspecified | v1::Missed::One => "one",
                v1::Missed::All => "all",
            },
            window_ms: schedule.window_ms,
            paused: view.paused,
            next_ms: view.next_at_ms.first().copied().unwrap_or(0),
            next: view.next_at_ms.into_iter().map(time).collect(),
            waiting: view.waiting_at_ms.into_iter().map(time).collect(),
            last_job: some(view.last_job),
            last: rfc3339(view.last_tick_ms),
            last_ms: view.last_tick_ms,
            problem: some(view.problem),
            passed_over: view
                .passed_over
                .into_iter()
                .map(|passed| PassedOver { first: time(passed.first_ms), last: time(passed.last_ms), why: passed.why })
                .collect(),
        }
    }
}

impl Schedule {
    fn state(&self) -> Cell {
        match (&self.problem, self.paused) {
            (_, true) => Cell::toned("paused", Tone::Faint),
            (Some(_), false) => Cell::toned("failing", Tone::Bad),
            (None, false) => Cell::toned("active", Tone::Good),
        }
    }

    /// In how long the next time comes.
    fn next_in(&self, now: Timestamp) -> Cell {
        let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
        match self.next_ms {
            0 => Cell::optional(""),
            next => Cell::new(format!("in {}", duration_for_people(Duration::from_millis(next.saturating_sub(now))))),
        }
    }

    /// Its namespace only where it is not the default one.
    fn full_name(&self) -> String {
        match self.namespace.as_str() {
            "default" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }
}

impl Row for Schedule {
    fn name(&self) -> String {
        self.full_name()
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["SCHEDULE", "STATE", "CRON", "ZONE", "RUNS", "NEXT", "LAST", "LAST JOB"];
        if wide {
            headers.extend(["OVERLAP", "MISSED", "WAITING", "PROBLEM"]);
        }
        headers
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let last = if self.last_ms == 0 { String::new() } else { format!("{} ago", age(self.last_ms, now)) };
        let mut cells = vec![
            Cell::new(self.full_name()),
            self.state(),
            Cell::new(&self.cron),
            Cell::new(&self.zone),
            Cell::new(&self.definition),
            self.next_in(now),
            Cell::optional(&last),
            Cell::optional(self.last_job.as_deref().unwrap_or_default()),
        ];
        if wide {
            cells.extend([
                Cell::new(self.overlap),
                Cell::new(self.missed),
                Cell::number(self.waiting.len()),
                Cell::optional(self.problem.as_deref().unwrap_or_default()),
            ]);
        }
        cells
    }
}

impl Detail for Schedule {
    fn name(&self) -> String {
        self.full_name()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let window = self.window_ms.map(|window| duration_for_people(Duration::from_millis(window)));
        let with = self.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        let last = match (&self.last, &self.last_job) {
            (Some(last), Some(job)) => format!("{last}  job {job}"),
            (last, _) => last.clone().unwrap_or_default(),
        };
        page.facts(vec![
            ("schedule", Cell::new(self.full_name())),
            ("state", self.state()),
            ("runs", Cell::new(&self.definition)),
            ("with", Cell::optional(&with)),
            ("cron", Cell::new(format!("{}  ({})", self.cron, self.zone))),
            ("overlap", Cell::new(self.overlap)),
            ("missed", Cell::new(self.missed)),
            ("window", Cell::optional(window.as_deref().unwrap_or_default())),
            ("last", Cell::optional(&last)),
            ("problem", Cell::optional(self.problem.as_deref().unwrap_or_default())),
        ])?;
        for (title, times) in [("Waiting", &self.waiting), ("Next", &self.next)] {
            if !times.is_empty() {
                page.headline(title)?;
                times.iter().try_for_each(|time| page.item(&Cell::new(time)))?;
            }
        }
        if !self.passed_over.is_empty() {
            page.headline("Passed over")?;
            for passed in &self.passed_over {
                let times = match passed.first == passed.last {
                    true => passed.first.clone(),
                    false => format!("{} … {}", passed.first, passed.last),
                };
                page.item(&Cell::new(format!("{times}: {}", passed.why)))?;
            }
        }
        Ok(())
    }
}
