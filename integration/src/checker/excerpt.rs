//! A violation's surroundings in words: the revisions that show it and those around them, as far as they are of its job.

use std::fmt::Write as _;

use muster_graph::ids::JobId;
use muster_state::keys;

use super::decode;
use super::history::Write;
use super::verdict::Violation;

/// Revisions of the same job shown before and after one that shows the violation.
const AROUND: usize = 3;
/// A record's words are cut here.
const LINE_BYTES_MAX: usize = 600;

/// What happened around a violation.
pub(super) fn around(violation: &Violation, writes: &[Write]) -> String {
    let of_job = |write: &&Write| {
        violation.job.is_none_or(|job| {
            let is_of_job = |change: &super::history::Change| keys::job_of(&change.name) == Some(job);
            write.changes.iter().any(is_of_job)
        })
    };
    let mine: Vec<&Write> = writes.iter().filter(of_job).collect();
    let mut shown: Vec<usize> = Vec::new();
    for revision in &violation.revisions {
        let place = mine.partition_point(|write| write.revision < *revision);
        shown.extend(place.saturating_sub(AROUND)..(place + AROUND + 1).min(mine.len()));
    }
    if violation.revisions.is_empty() {
        shown.extend(mine.len().saturating_sub(AROUND)..mine.len());
    }
    shown.sort_unstable();
    shown.dedup();
    let mut text = String::new();
    for write in shown.into_iter().map(|place| mine[place]) {
        let mark = if violation.revisions.contains(&write.revision) { '>' } else { ' ' };
        let _ = write!(text, "  {mark} {} at {} us", write.revision, write.at_us);
        for line in words(write, violation.job) {
            let end = line.floor_char_boundary(LINE_BYTES_MAX);
            let _ = write!(text, "\n      {}", &line[..end]);
        }
        text.push('\n');
    }
    text
}

/// A revision's records, in a line each; of one job, or all.
fn words(write: &Write, of: Option<JobId>) -> Vec<String> {
    let step = decode::step(write);
    let mut lines = Vec::new();
    lines.extend(step.sessions.iter().map(|(session, alive)| format!("session {session} {}", came(*alive))));
    for (executor, record) in &step.executors {
        let record = record.as_ref().map(|record| (&record.state, record.incarnation, &record.home));
        lines.push(format!("executor {executor}: {record:?}"));
    }
    lines.extend(step.keys.iter().map(|(key, record)| format!("key {key}: {record:?}")));
    for (id, job) in step.jobs.iter().filter(|(id, _)| of.is_none_or(|job| job == **id)) {
        for (keyspace, head) in &job.heads {
            let head = head.as_ref().map(|head| {
                let counts = head.tasks.unwrap_or_default();
                (head.state(), head.sequence, head.token, head.commit_id.as_str(), counts)
            });
            lines.push(format!("{id} head in {}: {head:?}", keyspace.name()));
        }
        if let Some(owner) = &job.owner {
            lines.push(format!("{id} owner: {:?}", owner.as_ref().map(|owner| &owner.session_id)));
        }
        for (sequence, commit) in &job.commits {
            let runs = commit.delta.tasks.iter().map(|run| {
                let task = &run.task;
                format!("{}/{}+{} attempt {} {:?}", run.stage.0, run.first, run.count, task.attempt, task.state)
            });
            let runs: Vec<String> = runs.collect();
            lines.push(format!("{id} delta {sequence} commit {} token {}: {runs:?}", commit.id, commit.token));
        }
        if !job.dropped.is_empty() {
            lines.push(format!("{id} deltas deleted: {:?}", job.dropped));
        }
        let marks = job.buckets.iter().map(|(part, bucket)| (part, bucket.as_ref().map(|bucket| bucket.folded_to)));
        let marks: Vec<_> = marks.collect();
        if !marks.is_empty() {
            lines.push(format!("{id} folded: {marks:?}"));
        }
        if !job.blobs.is_empty() {
            lines.push(format!("{id} blobs: {} pieces", job.blobs.len()));
        }
    }
    lines.extend(step.unreadable.iter().map(|(_, why)| format!("unreadable {why}")));
    lines
}

fn came(alive: bool) -> &'static str {
    if alive { "came" } else { "went" }
}
