//! One job that this scheduler owns: its graph, where its next write goes, and what waits for that write.

use std::sync::Arc;

use muster_graph::execution::{Effect, Event, ExecutionGraph, FailureNote, JobEvent};
use muster_graph::groups::GroupPath;
use muster_graph::ids::{Attempt, JobId, Millis, TaskId};
use muster_graph::spec::AfterJob;
use muster_proto::{storage, v1};
use muster_state::{Op, Revision, SessionId};
use tokio::sync::oneshot;

use super::Successor;
use super::ahead::Pace;
use super::queues::{POINT_MS, Place};
use crate::fairness::Use;
use crate::persist::Cursor;

/// A job as it was claimed and read, or just accepted.
pub struct Loaded {
    /// Its id.
    pub id: JobId,
    /// The session of ours that owns it.
    pub session: SessionId,
    /// Its head, as stored.
    pub head: storage::JobHead,
    /// Its state.
    pub graph: ExecutionGraph,
    /// Where its next write goes.
    pub(crate) cursor: Cursor,
    /// To be written along with its first commit: blobs of a small job.
    pub with_first_commit: Vec<Op>,
    /// Planned just now: nothing has happened to it.
    pub fresh: bool,
    /// Jobs that have to end before it begins; none unless it is fresh.
    pub after: Vec<AfterJob>,
    /// The group that it is in.
    pub group: GroupPath,
    /// A cancel that was left in the store: the user's words, and the revision of the mark.
    pub cancel_mark: Option<(String, Revision)>,
    /// Who asked for the retry for which it was made active again: told how many tasks it concerns, when committed.
    pub retry: Option<oneshot::Sender<Option<u32>>>,
}

/// A change of a job, for those who watch it.
#[derive(Debug, Clone)]
pub enum Changed {
    /// Look again.
    Now,
    /// It is over, and this is the last that will be seen of it here.
    Over(Arc<v1::JobView>),
}

/// Somebody who waits for a commit.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A user's cancel.
    Cancelled(oneshot::Sender<Option<v1::JobState>>),
    /// A user's retry, and how many tasks it concerns.
    Retried(oneshot::Sender<Option<u32>>, u32),
}

/// What follows once a commit has landed.
#[derive(Debug, Default)]
pub(crate) struct Consequences {
    /// Launches, cancels, events.
    pub(crate) effects: Vec<Effect>,
    /// Statuses to acknowledge: batch and sequence.
    pub(crate) settled: Vec<(u64, u64)>,
    /// Answers.
    pub(crate) replies: Vec<Reply>,
}

/// Effects that wait for a commit, at most: beyond it the scheduler takes nothing more in until the store has caught up.
/// With what one more call may bring (STATUSES_PER_CALL_MAX) and the launches that follow, they fit into one transaction.
const WAITING_EFFECTS_MAX: usize = 4_096;

/// See the module.
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its head, as last written.
    pub head: storage::JobHead,
    /// Its state, ahead of the store by what `waiting` and `in_flight` are about.
    pub graph: ExecutionGraph,
    /// Where its next write goes.
    pub(crate) cursor: Cursor,
    pub(crate) with_first_commit: Vec<Op>,
    pub(crate) waiting: Consequences,
    /// The number of the commit in flight, and what waits for it.
    pub(crate) in_flight: Option<(u64, Consequences)>,
    /// When what changed since then is to be sent at the latest.
    pub(super) commit_by: Millis,
    pub(crate) timer: Option<Millis>,
    /// Its namespace's name.
    pub(crate) namespace: Arc<str>,
    /// The group that it is in.
    pub(crate) group: GroupPath,
    /// Jobs whose ends it waits for: as long as there are some, it has not begun.
    pub(crate) after: Vec<AfterJob>,
    /// What its namespace's queue knows of it.
    pub(super) standing: Use,
    /// The peer that it is to be handed over to.
    pub(crate) leaving: Option<Arc<Successor>>,
    /// Since when this copy is in memory.
    pub(crate) held_since: Millis,
    /// Rises when outputs moved from one executor to another, and when that was last.
    pub(super) places_revision: u32,
    pub(super) places_told_anew: Millis,
    /// How long its tasks take.
    pub(super) pace: Pace,
    /// How many tasks the retry concerns for which the job was made active again.
    pub(crate) retried: u32,
}

impl Job {
    pub(crate) fn new(loaded: Loaded, namespace: Arc<str>, now: Millis) -> Self {
        let Loaded { id, head, graph, cursor, with_first_commit, group, after, .. } = loaded;
        Self {
            id,
            head,
            graph,
            cursor,
            with_first_commit,
            waiting: Consequences::default(),
            in_flight: None,
            commit_by: 0,
            timer: None,
            namespace,
            group,
            after,
            standing: Use::default(),
            places_revision: 0,
            places_told_anew: 0,
            leaving: None,
            held_since: now,
            pace: Pace::default(),
            retried: 0,
        }
    }

    /// Answers how much of it was ignored.
    pub(crate) fn apply(&mut self, event: Event, now: Millis) -> u64 {
        let mut ignored = 0;
        let before = self.waiting.effects.len();
        if matches!(event, Event::CancelRequested { .. }) && !self.after.is_empty() {
            // It waits no more, and begins to end: what always runs runs now.
            self.after.clear();
            self.graph.apply(Event::Submitted, now, &mut self.waiting.effects);
        }
        self.graph.apply(event, now, &mut self.waiting.effects);
        // Nothing has to be committed before it may be said that nothing happened.
        let mut at = before;
        while let Some(effect) = self.waiting.effects.get(at) {
            if let Effect::Ignored { why } = effect {
                tracing::debug!(job = %self.id, ?why, "event ignored");
                self.waiting.effects.remove(at);
                ignored += 1;
            } else {
                at += 1;
            }
        }
        ignored
    }

    /// How many tasks the retry just asked for concerns.
    pub(crate) fn tasks_to_retry(&self) -> u32 {
        let asked = |effect: &Effect| match effect {
            Effect::Emit(JobEvent::RetryRequested { tasks }) => Some(*tasks),
            _ => None,
        };
        self.waiting.effects.iter().rev().find_map(asked).unwrap_or(0)
    }

    /// How an attempt failed, if that is not in the job's log yet.
    pub(crate) fn unwritten_failure(&self, task: TaskId, attempt: Attempt) -> Option<&FailureNote> {
        let in_flight = self.in_flight.iter().flat_map(|(_, consequences)| &consequences.effects);
        in_flight.chain(&self.waiting.effects).find_map(|effect| match effect {
            Effect::Emit(JobEvent::AttemptFailed(note)) if note.task == task && note.attempt == attempt => Some(note),
            _ => None,
        })
    }

    /// Nothing of it is assigned any more but what always runs.
    pub(crate) fn is_cancelled(&self) -> bool {
        let record = self.graph.job();
        record.cancel.is_some() || record.timed_out
    }

    /// Whether its next commit assigns something.
    pub(crate) fn assigns(&self) -> bool {
        self.waiting.effects.iter().any(|effect| matches!(effect, Effect::Launch { .. }))
    }

    pub(crate) fn token(&self) -> u64 {
        self.cursor.token
    }

    /// Its place in its namespace's queue.
    pub(super) fn place(&self) -> Place {
        (i128::from(self.head.submitted_at_ms) - i128::from(self.head.priority) * POINT_MS, self.id)
    }

    /// How many more of its tasks may be with executors.
    pub(super) fn may_run(&self) -> u32 {
        self.graph.plan().max_running.map_or(u32::MAX, |most| most.saturating_sub(self.graph.counts().held()))
    }

    /// What it has.
    pub(super) fn count_use(&self) -> Use {
        let mut standing = Use { jobs: 1, ..Use::default() };
        for (stage, count) in self.graph.held_by_need() {
            standing.running += count;
            standing.in_use.add(&self.graph.plan().stages[stage.0 as usize].resources, count);
        }
        standing
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.effects.len() > WAITING_EFFECTS_MAX || self.waiting.settled.len() > WAITING_EFFECTS_MAX
    }
}
