//! The executors' own record of what they ran.

use std::path::Path;

use serde::Deserialize;

/// A line of an executor's journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// `begin` of a life of the executor; `start` and `end` of an attempt; `keep`: the executor has all of another one's attempt's output; `fence`: an owner was heard of that is newer than
    /// all before.
    pub event: String,
    /// When, in microseconds since the machine started.
    pub boot_us: u64,
    /// The executor's life.
    pub incarnation: u64,
    /// The job. Of a beginning: empty.
    pub job: String,
    /// Position of the stage. Of a fence or a beginning: 0, as the two below.
    pub stage: u32,
    /// The task.
    pub index: u32,
    /// The attempt.
    pub attempt: u32,
    /// The life of the cluster's store.
    pub epoch: u64,
    /// The owner's proof.
    pub token: u64,
    /// Of a start: when its launch came to be admitted, before the fence was compared.
    #[serde(default)]
    pub admitted_us: u64,
    /// How it ended.
    pub outcome: Option<String>,
}

/// The journal in an executor's data directory, so far.
///
/// # Panics
/// When a whole line cannot be understood.
#[must_use]
pub fn read(data_dir: &Path) -> Vec<Line> {
    let part = |name: &str| std::fs::read_to_string(data_dir.join(name)).unwrap_or_default();
    // What was set aside when it had grown large comes first.
    let text = part("journal.1.jsonl") + &part("journal.jsonl");
    // A line without its end is being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// How many attempts of a job the executor started.
#[must_use]
pub fn starts(data_dir: &Path, job: muster_client::JobId) -> usize {
    let job = job.to_string();
    read(data_dir).iter().filter(|line| line.event == "start" && line.job == job).count()
}
