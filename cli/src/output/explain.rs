//! Why tasks are not running: as pages for people, and as JSON.

use std::io;

use jiff::Timestamp;
use muster_client::v1;
use serde::Serialize;

use super::detail::{in_words, state};
use super::time::rfc3339;
use super::views::{Counts, job_state, optional, stage_state, task_state};
use super::{Cell, Detail, Page, Row};

/// A job, a stage or a task, explained.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Explanation {
    pub(crate) job: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) state: &'static str,
    pub(crate) counts: Counts,
    pub(crate) owner: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) tasks: Vec<Task>,
    /// Whether there are more stages or tasks than are listed.
    pub(crate) more: bool,
    /// A stage or a task was asked about: people want all that is known of it.
    #[serde(skip)]
    pub(crate) at_length: bool,
}

/// A stage that is not over, or that was asked about.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stage {
    pub(crate) stage: String,
    pub(crate) state: &'static str,
    pub(crate) counts: Counts,
    pub(crate) reasons: Vec<Reason>,
}

/// A task that was asked about.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Task {
    pub(crate) stage: String,
    pub(crate) index: u32,
    pub(crate) state: &'static str,
    pub(crate) attempt: Option<u32>,
    pub(crate) since: Option<String>,
    pub(crate) reasons: Vec<Reason>,
}

/// Why something is as it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reason {
    pub(crate) kind: &'static str,
    /// How many tasks it is about; 0: the whole job or stage.
    pub(crate) tasks: u32,
    /// One of them.
    pub(crate) index: Option<u32>,
    pub(crate) text: String,
    pub(crate) evidence: Vec<String>,
    pub(crate) remedies: Vec<String>,
    pub(crate) executors: Vec<String>,
    pub(crate) stages: Vec<String>,
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
}

impl From<v1::Reason> for Reason {
    fn from(reason: v1::Reason) -> Self {
        Self {
            kind: kind(reason.kind()),
            tasks: reason.tasks,
            index: reason.index,
            text: reason.text,
            evidence: reason.evidence,
            remedies: reason.remedies,
            executors: reason.executors,
            stages: reason.stages,
            since: rfc3339(reason.since_ms),
            until: rfc3339(reason.until_ms),
        }
    }
}

fn all(reasons: Vec<v1::Reason>) -> Vec<Reason> {
    reasons.into_iter().map(Reason::from).collect()
}

impl From<v1::Explanation> for Explanation {
    fn from(told: v1::Explanation) -> Self {
        let stage = |told: v1::StageExplanation| Stage {
            state: stage_state(told.state()),
            stage: told.stage,
            counts: told.counts.into(),
            reasons: all(told.reasons),
        };
        let task = |told: v1::TaskExplanation| Task {
            state: task_state(told.state()),
            stage: told.stage,
            index: told.index,
            attempt: (told.attempt > 0).then_some(told.attempt),
            since: rfc3339(told.since_ms),
            reasons: all(told.reasons),
        };
        Self {
            state: job_state(told.state()),
            job: told.job_id,
            name: told.name,
            namespace: told.namespace,
            counts: told.counts.into(),
            owner: optional(told.owner),
            message: optional(told.message),
            reasons: all(told.reasons),
            stages: told.stages.into_iter().map(stage).collect(),
            tasks: told.tasks.into_iter().map(task).collect(),
            more: !told.next_page_token.is_empty(),
            at_length: false,
        }
    }
}

/// Of a stage, so many tasks and the same reason.
#[derive(Serialize)]
struct StageRow<'a> {
    stage: &'a Stage,
    reason: &'a Reason,
}

impl Row for StageRow<'_> {
    fn name(&self) -> String {
        self.stage.stage.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["STAGE", "STATE", "TASKS", "WHY"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        let tasks = if self.reason.tasks > 0 { self.reason.tasks.to_string() } else { "-".to_owned() };
        vec![Cell::new(&self.stage.stage), state(self.stage.state), Cell::number(tasks), Cell::new(&self.reason.text)]
    }
}

#[derive(Serialize)]
struct TaskRow<'a> {
    task: &'a Task,
    reason: &'a Reason,
}

impl TaskRow<'_> {
    fn reference(&self) -> String {
        format!("{}/{}", self.task.stage, self.task.index)
    }
}

impl Row for TaskRow<'_> {
    fn name(&self) -> String {
        self.reference()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["TASK", "STATE", "ATTEMPT", "WHY"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        let attempt = self.task.attempt.map_or("-".to_owned(), |attempt| attempt.to_string());
        vec![Cell::new(self.reference()), state(self.task.state), Cell::number(attempt), Cell::new(&self.reason.text)]
    }
}

impl Detail for Explanation {
    fn name(&self) -> String {
        self.job.clone()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let mut facts = vec![
            ("Job", Cell::new(format!("{} ({})", self.job, self.name))),
            ("State", state(self.state)),
            ("Tasks", Cell::new(in_words(self.counts))),
        ];
        if let Some(message) = &self.message {
            facts.push(("Why", Cell::new(message)));
        }
        facts.extend(self.reasons.iter().map(|reason| ("Note", Cell::new(&reason.text))));
        page.facts(facts)?;
        let stages: Vec<StageRow<'_>> = self
            .stages
            .iter()
            .flat_map(|stage| stage.reasons.iter().map(move |reason| StageRow { stage, reason }))
            .collect();
        if !stages.is_empty() {
            page.headline("Stages")?;
            page.table(&stages)?;
        }
        let tasks: Vec<TaskRow<'_>> = self
            .tasks
            .iter()
            .flat_map(|task| task.reasons.iter().map(move |reason| TaskRow { task, reason }))
            .collect();
        if !tasks.is_empty() {
            page.headline("Tasks")?;
            page.table(&tasks)?;
        }
        // Of many tasks of one stage the same is said once, with the stage.
        let one_by_one = if self.stages.is_empty() { tasks.as_slice() } else { &[] };
        let of_stages = stages.iter().map(|row| (row.stage.stage.clone(), row.reason));
        let of_tasks = one_by_one.iter().map(|row| (row.reference(), row.reason));
        let of_job = self.reasons.iter().map(|reason| ("job".to_owned(), reason));
        let told: Vec<(String, &Reason)> = of_job.chain(of_stages).chain(of_tasks).collect();
        if self.at_length || page.is_wide() {
            list(page, "Because", &told, |reason| &reason.evidence)?;
        }
        list(page, "What would help", &told, |reason| &reason.remedies)
    }
}

fn list(
    page: &mut Page<'_>,
    headline: &str,
    told: &[(String, &Reason)],
    lines: impl Fn(&Reason) -> &Vec<String>,
) -> io::Result<()> {
    if told.iter().all(|(_, reason)| lines(reason).is_empty()) {
        return Ok(());
    }
    page.headline(headline)?;
    for (of, reason) in told {
        for line in lines(reason) {
            page.item(&Cell::new(format!("{of}: {line}")))?;
        }
    }
    Ok(())
}

fn kind(kind: v1::ReasonKind) -> &'static str {
    match kind {
        v1::ReasonKind::Unspecified => "unknown",
        v1::ReasonKind::CancelRequested => "cancel_requested",
        v1::ReasonKind::TimeUp => "time_up",
        v1::ReasonKind::AfterJob => "after_job",
        v1::ReasonKind::Moving => "moving",
        v1::ReasonKind::StoreFull => "store_full",
        v1::ReasonKind::StoreSilent => "store_silent",
        v1::ReasonKind::SafeMode => "safe_mode",
        v1::ReasonKind::Asking => "asking",
        v1::ReasonKind::ExecutorAway => "executor_away",
        v1::ReasonKind::Upstream => "upstream",
        v1::ReasonKind::Input => "input",
        v1::ReasonKind::Backoff => "backoff",
        v1::ReasonKind::Never => "never",
        v1::ReasonKind::NoExecutor => "no_executor",
        v1::ReasonKind::TooLarge => "too_large",
        v1::ReasonKind::Unavailable => "unavailable",
        v1::ReasonKind::NoRoom => "no_room",
        v1::ReasonKind::Starting => "starting",
        v1::ReasonKind::JobLimit => "job_limit",
        v1::ReasonKind::NamespaceLimit => "namespace_limit",
        v1::ReasonKind::Committing => "committing",
        v1::ReasonKind::Launching => "launching",
        v1::ReasonKind::WaitsThere => "waits_there",
        v1::ReasonKind::Preparing => "preparing",
        v1::ReasonKind::Running => "running",
        v1::ReasonKind::Successful => "successful",
        v1::ReasonKind::Failed => "failed",
        v1::ReasonKind::Cancelled => "cancelled",
        v1::ReasonKind::Skipped => "skipped",
    }
}
