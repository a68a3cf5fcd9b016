//! How a job's changes become writes, and where its next write goes.
//!
//! A job of a few tasks is one record: its head holds all of its state and is rewritten by each commit. A larger job
//! appends one delta per commit; from time to time a commit also *folds*: it writes the present value of the parts that
//! have been dirty for longest, each noting up to which commit it is folded, and deletes the deltas that no part needs
//! any more. A fold needs no read and no transaction of its own, since the graph in memory is exactly what the
//! commit makes true.
//!
//! **Invariants.** Every write compares the epoch, the owner's token and the revision of the job's previous write (its
//! *predecessor*); every key that is overwritten is compared with the revision that is known of it; the newest delta is
//! never deleted.

use std::sync::Arc;

use muster_graph::execution::{JobState, PartSizes};
use muster_graph::ids::{JobId, Millis};
use muster_proto::v1;
use muster_state::codec::{self, Commit, Events};
use muster_state::keys::{self, StatePart};
use muster_state::{Guard, Key, Op, Revision};

mod folding;
mod stored;

pub(crate) use folding::Folding;
use folding::{cut, part_name};
pub(crate) use stored::Stored;

use crate::engine::{CommitName, GroupOfJob, Identity, Job, JobCommit, Landed, view};
use crate::faults;
use crate::groups::changes;

/// How many neighbours are stored together. Parts are named by their place, so these are for ever.
pub(crate) const PART_SIZES: PartSizes = PartSizes { executors: 256, stages: 256, tasks: 512 };
/// Events of one commit beyond this are left out of the log.
const EVENTS_BYTES_MAX: usize = 128 << 10;
/// A running job's head is written at least this often while it has commits, so that lists show its progress.
const HEAD_EVERY: Millis = 1_000;

/// Where a job's next write goes.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    /// The revision of the owner's record.
    pub(crate) token: Revision,
    /// The head's revision.
    pub(crate) head_revision: Revision,
    /// What the previous write wrote, and when.
    pub(crate) predecessor: (Key, Revision),
    /// Of the newest commit.
    pub(crate) sequence: u64,
    pub(crate) layout: Layout,
    /// The revision of a cancel mark that the graph knows of and no commit has carried out.
    pub(crate) cancel_mark: Option<Revision>,
    /// Marks up to this revision are known to the graph, or were carried out before.
    pub(crate) marks_known: Revision,
    head_written_at: Millis,
    pending: Option<Pending>,
}

/// Where a job's states are.
#[derive(Debug, Clone)]
pub(crate) enum Layout {
    /// In its head.
    Inline,
    /// In buckets and deltas.
    Packed(Folding),
}

/// What the transaction in flight will have changed.
#[derive(Debug, Clone)]
struct Pending {
    predecessor: Key,
    wrote_head: bool,
    folded: Vec<StatePart>,
    oldest_delta: Option<u64>,
    cancel_mark: Option<Revision>,
}

impl Cursor {
    /// Of a job whose head is all that was written.
    #[must_use]
    pub(crate) fn after_head(
        job: JobId,
        token: Revision,
        head_revision: Revision,
        sequence: u64,
        packed: bool,
    ) -> Self {
        let layout = if packed {
            Layout::Packed(Folding { oldest_delta: sequence + 1, ..Folding::default() })
        } else {
            Layout::Inline
        };
        Self {
            token,
            head_revision,
            predecessor: (keys::active_job(job), head_revision),
            sequence,
            layout,
            cancel_mark: None,
            marks_known: token.max(head_revision),
            head_written_at: 0,
            pending: None,
        }
    }
}

/// Where the head of a job in this state belongs.
#[must_use]
pub(crate) fn head_key(job: JobId, state: JobState) -> Key {
    match state {
        JobState::Queued | JobState::Running => keys::active_job(job),
        JobState::Successful => keys::completed_job(job),
        JobState::Failed | JobState::Cancelled => keys::failed_job(job),
    }
}

/// A job's next transaction; none if there is nothing to write.
/// Of the cancels of groups in its namespace those up to the revision `cancels` are known to the job.
pub(crate) fn prepare(
    job: &mut Job,
    identity: &Identity,
    name: CommitName,
    cancels: Revision,
    now: Millis,
) -> Option<JobCommit> {
    if !job.after.is_empty() {
        // It has not begun: whoever reads it has to find it as it was accepted.
        return None;
    }
    let commit_id = format!("{}:{}", identity.session.0, name.number);
    let delta = job.graph.take_delta();
    let id = job.id;
    let over = job.graph.is_over();
    let ends = over && job.head.finished_at_ms == 0;
    let cancel_mark = job.cursor.cancel_mark;
    if delta.is_empty() && job.with_first_commit.is_empty() && !ends && cancel_mark.is_none() {
        return None;
    }
    let mut write = Write {
        guards: vec![
            Guard::AtRevision(keys::owner(id), job.cursor.token),
            Guard::AtRevision(job.cursor.predecessor.0.clone(), job.cursor.predecessor.1),
        ],
        ops: std::mem::take(&mut job.with_first_commit),
    };
    // No commit lands that does not know of a cancel that was acknowledged.
    let mark = keys::cancel_mark(id);
    match cancel_mark {
        None => write.guards.push(Guard::Absent(mark)),
        Some(revision) => {
            write.guards.push(Guard::AtRevision(mark.clone(), revision));
            write.ops.push(Op::Delete(mark));
        }
    }
    let moved = ends || job.head.retry_requested || v1::JobState::from(job.graph.job().state) as i32 != job.head.state;
    let log = view::log_of(&job.waiting.effects);
    let first_sequence = job.cursor.sequence + 1;
    let inline = matches!(job.cursor.layout, Layout::Inline);

    let mut pending = Pending {
        predecessor: keys::active_job(id),
        wrote_head: true,
        folded: Vec::new(),
        oldest_delta: None,
        cancel_mark,
    };
    if inline {
        job.cursor.sequence = first_sequence;
    } else {
        let token = job.cursor.token;
        let touched = delta.parts_touched(PART_SIZES);
        for delta in cut(delta) {
            job.cursor.sequence += 1;
            let key = keys::delta(id, job.cursor.sequence);
            write.guards.push(Guard::Absent(key.clone()));
            write.put(key.clone(), &Commit { id: commit_id.clone(), token, at: now, delta });
            pending.predecessor = key;
        }
        let sequence = job.cursor.sequence;
        let Layout::Packed(folding) = &mut job.cursor.layout else { unreachable!("it is not inline") };
        for part in touched {
            folding.dirty_since.entry(part_name(part)).or_insert(first_sequence);
        }
        folding.fold(id, &job.graph, first_sequence..=sequence, &mut write, &mut pending);
        pending.wrote_head = moved || now >= job.cursor.head_written_at + HEAD_EVERY;
        // A head that was not the previous write has a revision of its own to be compared.
        if pending.wrote_head && job.cursor.predecessor.0 != keys::active_job(id) {
            write.guards.push(Guard::AtRevision(keys::active_job(id), job.cursor.head_revision));
        }
    }
    if pending.wrote_head {
        refresh_head(job, &commit_id, inline);
        job.cursor.head_written_at = now;
        let key = head_key(id, job.graph.job().state);
        if ends && job.head.counted {
            job.head.spent = Some(changes::to_spent(job.graph.spent()));
            write.ops.push(changes::ended(id, &job.head).expect("a record of counts is small"));
        }
        if over {
            write.ops.push(Op::Delete(keys::active_job(id)));
            write.ops.push(Op::Delete(keys::owner(id)));
            write.guards.push(Guard::Absent(key.clone()));
        }
        write.put(key.clone(), &job.head);
        if inline {
            pending.predecessor = key;
        }
    }
    if !log.is_empty() {
        write.put_events(id, job.cursor.sequence, log, now);
    }
    if faults::is_set("break-token-compare") {
        write.guards.retain(|guard| !matches!(guard, Guard::AtRevision(key, _) if *key == keys::owner(id)));
    }
    if faults::is_set("break-predecessor-compare") {
        let stays = |guard: &Guard| matches!(guard, Guard::AtRevision(key, _) if *key == keys::owner(id));
        write.guards.retain(stays);
    }
    let landed = Landed {
        key: pending.predecessor.clone(),
        commit_id,
        is_head: inline,
        owner: keys::owner(id),
        token: job.cursor.token,
        predecessor: job.cursor.predecessor.clone(),
    };
    job.cursor.pending = Some(pending);
    let group = GroupOfJob {
        namespace: Arc::clone(&job.namespace),
        path: job.group.clone(),
        as_of: cancels,
        is_cancelled: job.is_cancelled() && !job.assigns(),
    };
    Some(JobCommit { name, epoch: identity.epoch_revision, guards: write.guards, group, ops: write.ops, landed })
}

/// The transaction has landed.
pub(crate) fn committed(job: &mut Job, revision: Revision) {
    let cursor = &mut job.cursor;
    let Some(pending) = cursor.pending.take() else { return };
    cursor.predecessor = (pending.predecessor, revision);
    // A later one may have come meanwhile.
    cursor.cancel_mark.take_if(|mark| pending.cancel_mark == Some(*mark));
    if pending.wrote_head {
        cursor.head_revision = revision;
    }
    if let Layout::Packed(folding) = &mut cursor.layout {
        for part in pending.folded {
            folding.revisions.insert(part, revision);
        }
        if let Some(oldest) = pending.oldest_delta {
            folding.oldest_delta = oldest;
        }
    }
}

fn refresh_head(job: &mut Job, commit_id: &str, inline: bool) {
    let record = job.graph.job();
    job.head.state = v1::JobState::from(record.state).into();
    job.head.started_at_ms = record.started_at;
    job.head.finished_at_ms = record.finished_at;
    job.head.cancel_requested = record.cancel.is_some();
    job.head.tasks = Some(job.graph.counts().into());
    job.head.message = view::message(&job.graph);
    job.head.sequence = job.cursor.sequence;
    job.head.token = job.cursor.token;
    commit_id.clone_into(&mut job.head.commit_id);
    job.head.retry_requested = false;
    job.head.packed = !inline;
    job.head.states = if inline {
        codec::encode(&job.graph.snapshot()).expect("a job of INLINE_TASKS_MAX tasks is small").to_vec()
    } else {
        Vec::new()
    };
}

/// Writes of one job.
struct Write {
    guards: Vec<Guard>,
    ops: Vec<Op>,
}

impl Write {
    fn put<R: codec::Record>(&mut self, key: Key, record: &R) {
        let value = codec::encode(record).expect("records are cut to size before they come here");
        self.ops.push(Op::Put { key, value, session: None });
    }

    fn put_events(&mut self, id: JobId, sequence: u64, mut events: Vec<muster_graph::execution::JobEvent>, at: Millis) {
        loop {
            match codec::encode(&Events { at, events: events.clone() }) {
                Ok(value) if value.len() <= EVENTS_BYTES_MAX => {
                    self.ops.push(Op::Put { key: keys::events(id, sequence), value, session: None });
                    return;
                }
                _ => {
                    tracing::warn!(job = %id, events = events.len(), "too many events in one commit; the later half is left out of the log");
                    events.truncate(events.len() / 2);
                }
            }
        }
    }
}
