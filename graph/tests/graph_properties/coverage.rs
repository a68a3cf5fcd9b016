//! Which (state × event) pairs were met.
//!
//! An event that names a task meets the state of that task and of its stage; one that names an executor or the whole job
//! meets those of all tasks and stages.

use std::fmt;

use muster_graph::execution::{Event, ExecutionGraph};

const EVENTS: [&str; 13] = [
    "Submitted",
    "Assigned",
    "LaunchRefused",
    "AttemptStarted",
    "AttemptFinished",
    "ExecutorAnswered",
    "ExecutorLost",
    "WentDown",
    "OutputLost",
    "OutputMoved",
    "CancelRequested",
    "RetryRequested",
    "TimerFired",
];
const TASKS: [&str; 6] = ["Pending", "Assigned", "Running", "Successful", "Failed", "Cancelled"];
const STAGES: [&str; 7] = ["Unresolved", "Resolved", "Running", "Successful", "Failed", "Cancelled", "Skipped"];

#[derive(Default)]
pub(crate) struct Table {
    tasks: [[u64; 6]; 13],
    stages: [[u64; 7]; 13],
}

impl Table {
    pub(crate) fn count(&mut self, graph: &ExecutionGraph, event: &Event) {
        let row = match event {
            Event::Submitted => 0,
            Event::Assigned { .. } => 1,
            Event::LaunchRefused { .. } => 2,
            Event::AttemptStarted { .. } => 3,
            Event::AttemptFinished { .. } => 4,
            Event::ExecutorAnswered { .. } => 5,
            Event::ExecutorLost { .. } => 6,
            Event::WentDown { .. } => 7,
            Event::OutputLost { .. } => 8,
            Event::OutputMoved { .. } => 9,
            Event::CancelRequested { .. } => 10,
            Event::RetryRequested => 11,
            Event::TimerFired => 12,
        };
        let (stage, task) = match event {
            Event::Assigned { stage, .. } => (Some(*stage), None),
            Event::LaunchRefused { task, .. }
            | Event::AttemptStarted { task, .. }
            | Event::AttemptFinished { task, .. }
            | Event::WentDown { task, .. }
            | Event::OutputLost { task, .. }
            | Event::OutputMoved { task, .. } => (Some(task.stage), Some(task.index)),
            _ => (None, None),
        };
        for (index, record) in graph.stages().filter(|(index, _)| stage.is_none_or(|stage| stage == *index)) {
            self.stages[row][record.state as usize] += 1;
            let range = task.map_or(0..u32::MAX, |task| task.0..task.0.saturating_add(1));
            for (_, task) in graph.tasks(index, range) {
                self.tasks[row][task.state.phase() as usize] += 1;
            }
        }
    }

    pub(crate) fn plus(mut self, other: Self) -> Self {
        let add = |mine: &mut u64, theirs: u64| *mine += theirs;
        self.tasks.iter_mut().flatten().zip(other.tasks.into_iter().flatten()).for_each(|(m, t)| add(m, t));
        self.stages.iter_mut().flatten().zip(other.stages.into_iter().flatten()).for_each(|(m, t)| add(m, t));
        self
    }

    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (row, event) in EVENTS.iter().enumerate() {
            let tasks = TASKS.iter().zip(self.tasks[row]).map(|(name, met)| (format!("task {name}"), met));
            let stages = STAGES.iter().zip(self.stages[row]).map(|(name, met)| (format!("stage {name}"), met));
            missing
                .extend(tasks.chain(stages).filter(|(_, met)| *met == 0).map(|(name, _)| format!("{name} × {event}")));
        }
        missing
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut part = |title: &str, names: &[&str], rows: Vec<&[u64]>| -> fmt::Result {
            write!(f, "{title:<18}")?;
            names.iter().try_for_each(|name| write!(f, "{name:>12}"))?;
            for (event, row) in EVENTS.iter().zip(rows) {
                write!(f, "\n{event:<18}")?;
                row.iter().try_for_each(|met| write!(f, "{met:>12}"))?;
            }
            writeln!(f)
        };
        part("task ×", &TASKS, self.tasks.iter().map(|row| &row[..]).collect())?;
        part("stage ×", &STAGES, self.stages.iter().map(|row| &row[..]).collect())
    }
}
