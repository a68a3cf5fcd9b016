//! What one transaction of a job changes for the groups that it is in.

use muster_graph::groups::{self, ChangeKind, Correction, JobEnd, TaskTally};
use muster_graph::ids::JobId;
use muster_proto::storage::{GroupChange, JobHead};
use muster_proto::v1;
use muster_state::{Error, Key, Op, codec, keys};

/// A job is accepted.
pub(crate) fn submitted(id: JobId, head: &JobHead) -> Result<Op, Error> {
    put(id, head, "accepted", &GroupChange { group: head.group.clone(), submitted: 1, ..GroupChange::default() })
}

/// The same, but it counts once this update is committed.
pub(crate) fn staged(id: JobId, head: &JobHead, update: &str) -> Result<Op, Error> {
    let change =
        GroupChange { group: head.group.clone(), submitted: 1, update: update.to_owned(), ..GroupChange::default() };
    put(id, head, STAGED, &change)
}

/// Where it is written that a job is staged.
pub(crate) fn staging(namespace: &str, id: JobId) -> Key {
    keys::group_change(namespace, id, STAGED)
}

/// Whether a change of this name counts only once an update is committed.
pub(crate) fn is_staging(name: &str) -> bool {
    name.rsplit_once('/').is_some_and(|(_, of)| of == STAGED)
}

const STAGED: &str = "staged";

/// A job is over: what its head says of it now counts.
pub(crate) fn ended(id: JobId, head: &JobHead) -> Result<Op, Error> {
    put(id, head, &format!("{:016x}", head.sequence), &end_of(head))
}

/// A job that was over is active again: what its head said of it does not count any more.
pub(crate) fn returned(id: JobId, over: &JobHead) -> Result<Op, Error> {
    let counted = end_of(over);
    let change = GroupChange {
        successful: -counted.successful,
        failed: -counted.failed,
        cancelled: -counted.cancelled,
        taken_back: true,
        ..counted
    };
    put(id, over, &format!("{:016x}r", over.sequence), &change)
}

fn put(id: JobId, head: &JobHead, of: &str, change: &GroupChange) -> Result<Op, Error> {
    let key = keys::group_change(&head.namespace, id, of);
    Ok(Op::Put { key, value: codec::encode(change)?, session: None })
}

fn end_of(head: &JobHead) -> GroupChange {
    let one = |state: v1::JobState| i64::from(head.state == i32::from(state));
    GroupChange {
        group: head.group.clone(),
        successful: one(v1::JobState::Successful),
        failed: one(v1::JobState::Failed),
        cancelled: one(v1::JobState::Cancelled),
        tasks: head.tasks,
        spent: head.spent.clone(),
        ..GroupChange::default()
    }
}

/// All that a job, as its head tells of it, has changed for its groups so far.
pub(crate) fn of_job(head: &JobHead) -> impl Iterator<Item = groups::Change> {
    let accepted = GroupChange { submitted: 1, ..GroupChange::default() };
    // Of one that is not over that is no change.
    [accepted, end_of(head)].into_iter().filter_map(read).map(|(_, change)| change)
}

/// What a recount found of a group.
pub(crate) fn corrected(group: &str, correction: Correction) -> GroupChange {
    GroupChange { group: group.to_owned(), correction: correction.by, ..GroupChange::default() }
}

/// What a stored change means, and for which group. `None`: nothing that this version knows.
pub(crate) fn read(change: GroupChange) -> Option<(String, groups::Change)> {
    if !change.correction.is_empty() {
        let kind = ChangeKind::Corrected(Correction { by: change.correction });
        let (tasks, spent) = (TaskTally::default(), groups::Spent::default());
        return Some((change.group, groups::Change { kind, tasks, spent }));
    }
    let end = match (change.successful, change.failed, change.cancelled) {
        (1 | -1, 0, 0) => Some(JobEnd::Successful),
        (0, 1 | -1, 0) => Some(JobEnd::Failed),
        (0, 0, 1 | -1) => Some(JobEnd::Cancelled),
        _ => None,
    };
    let kind = match (change.submitted, end, change.taken_back) {
        (1, None, false) => ChangeKind::Submitted,
        (0, Some(end), false) => ChangeKind::Ended(end),
        (0, Some(end), true) => ChangeKind::Returned(end),
        _ => return None,
    };
    let tasks = change.tasks.unwrap_or_default();
    let tasks = TaskTally {
        // What a job does not get to stays pending.
        pending: u64::from(tasks.pending) + u64::from(tasks.assigned) + u64::from(tasks.running),
        successful: tasks.successful.into(),
        failed: tasks.failed.into(),
        cancelled: tasks.cancelled.into(),
    };
    Some((change.group, groups::Change { kind, tasks, spent: spent(change.spent.unwrap_or_default()) }))
}

/// The change in a stored value, and the update that has to be committed for it to count, if there is one.
pub(crate) fn decode(name: &str, value: &[u8]) -> Result<(Option<(String, groups::Change)>, String), Error> {
    let key = Key::new(muster_state::Keyspace::GroupCounts, name);
    let mut change: GroupChange = codec::decode(&key, value)?;
    let update = std::mem::take(&mut change.update);
    let read = read(change);
    if read.is_none() {
        tracing::error!(name, "a change of a group's counts cannot be meant; it is passed over");
    }
    Ok((read, update))
}

pub(crate) fn spent(stored: v1::Spent) -> groups::Spent {
    groups::Spent {
        run_ms: stored.run_ms,
        cpu_ms: stored.cpu_ms,
        memory_mib_ms: stored.memory_mib_ms,
        named_ms: stored.named_ms,
    }
}

pub(crate) fn to_spent(spent: groups::Spent) -> v1::Spent {
    v1::Spent {
        run_ms: spent.run_ms,
        cpu_ms: spent.cpu_ms,
        memory_mib_ms: spent.memory_mib_ms,
        named_ms: spent.named_ms,
    }
}
