//! From changed jobs to transactions, and from their outcomes to what may happen next.

use std::sync::Arc;

use muster_graph::groups::GroupPath;
use muster_graph::ids::{JobId, Millis};
use muster_proto::storage;
use muster_state::{Guard, Key, Op, Revision, codec};

use super::Engine;
use super::job::{Changed, Consequences};
use super::view;
use crate::groups::cancels::GroupCancels;
use crate::{faults, persist};

/// Names one commit of one job. A result is taken for the commit that it names and for no other: a job may have been
/// dropped and read again while its transaction was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitName {
    /// Which job.
    pub job: JobId,
    /// Which of the engine's commits.
    pub number: u64,
}

/// One job's part of a group commit.
#[derive(Debug, Clone)]
pub struct JobCommit {
    /// Which job and which commit.
    pub name: CommitName,
    /// The revision of the epoch's record.
    pub epoch: Revision,
    /// What must hold: the owner's token, the previous transaction, and every key that is overwritten.
    pub guards: Vec<Guard>,
    /// No cancel of a group is unknown to it.
    pub group: GroupOfJob,
    /// What is written.
    pub ops: Vec<Op>,
    /// Read if a guard of the group fails: from it follows what became of this job.
    pub landed: Landed,
}

/// The group of a job, and which cancels of groups were known when the commit was made.
#[derive(Debug, Clone)]
pub struct GroupOfJob {
    /// The group's, and the job's.
    pub namespace: Arc<str>,
    /// Which group.
    pub path: GroupPath,
    /// Cancels up to this revision of the namespace's head of cancels.
    pub as_of: Revision,
    /// The job is cancelled already: another cancel changes nothing for it.
    pub is_cancelled: bool,
}

/// How to tell, from what a refused transaction read, whether this job's part had landed before.
#[derive(Debug, Clone)]
pub struct Landed {
    /// The record that carries the commit's id: the head or the newest delta.
    pub key: Key,
    /// Its id.
    pub commit_id: String,
    /// The record is a head (otherwise a delta).
    pub is_head: bool,
    /// The owner's record.
    pub owner: Key,
    /// The revision that it must have.
    pub token: Revision,
    /// The record that the previous transaction wrote, and its revision: the predecessor.
    pub predecessor: (Key, Revision),
}

/// What became of it.
#[derive(Debug)]
pub enum CommitResult {
    /// It is in the store, at this revision.
    Committed(Revision),
    /// The owner key moved: somebody else advances the job now.
    OwnerMoved,
    /// The store began a new epoch, or came into doubt: nothing of before counts.
    EpochMoved,
    /// A cancel of a group around the job came before it, and this is all that is cancelled in its namespace.
    GroupCancelled(Arc<str>, Arc<GroupCancels>),
    /// Still ours, but the store is not as expected: read the job again.
    Conflict(String),
    /// The store refuses it for good (too large, no space): nothing follows, and the job is read again.
    Failed(String),
}

/// So long changes gather that nobody waits for: ends of tasks where the next ones wait already, and what is sent to wait there
/// after them. A fraction of what waits there takes ([`super::ahead`]), and some tens of tasks of the shortest kind.
pub(super) const GATHER_MS: Millis = 25;
/// Before a job is tried again whose transaction the store refused for good.
const FAILED_PAUSE_MS: Millis = 1_000;

impl Engine {
    /// The job has changed, and somebody or something waits for it.
    pub(super) fn commit_at_once(&mut self, id: JobId) {
        self.commit_by(id, 0);
    }

    /// The job has changed, and nothing begins or is answered by that: more may gather.
    pub(super) fn commit_soon(&mut self, id: JobId, now: Millis) {
        self.commit_by(id, now + GATHER_MS);
    }

    fn commit_by(&mut self, id: JobId, by: Millis) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.commit_by = if self.dirty.insert(id) { by } else { job.commit_by.min(by) };
    }

    /// Transactions of all jobs that changed and have none in flight, once one of them is due: the others go with it.
    pub(super) fn collect_commits(&mut self, now: Millis) -> Vec<JobCommit> {
        let ready: Vec<JobId> = self.dirty.iter().copied().filter(|id| self.jobs[id].in_flight.is_none()).collect();
        let due = ready.iter().map(|id| &self.jobs[id]).map(|job| if job.is_full() { 0 } else { job.commit_by }).min();
        self.gather_until = due.filter(|due| *due > now);
        if self.gather_until.is_some() {
            return Vec::new();
        }
        let mut commits = Vec::with_capacity(ready.len());
        for id in ready {
            self.dirty.remove(&id);
            let job = self.jobs.get_mut(&id).expect("dirty jobs are owned jobs");
            self.next_commit += 1;
            let name = CommitName { job: id, number: self.next_commit };
            let cancels = self.group_cancels.get(&job.namespace).map_or(0, |known| known.as_of());
            match persist::prepare(job, &self.identity, name, cancels, now) {
                Some(commit) => {
                    let mut consequences = std::mem::take(&mut job.waiting);
                    let too_early = faults::is_set("break-launch-after-commit");
                    let effects = if too_early { std::mem::take(&mut consequences.effects) } else { Vec::new() };
                    job.in_flight = Some((name.number, consequences));
                    commits.push(commit);
                    self.perform(id, effects, now);
                }
                None => {
                    // Nothing to write: what waits is true already.
                    let consequences = std::mem::take(&mut job.waiting);
                    self.follow(id, consequences, now);
                    self.depart(id);
                }
            }
        }
        commits
    }

    pub(super) fn commit_came_back(&mut self, name: CommitName, result: CommitResult, now: Millis) {
        let id = name.job;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some((_, consequences)) = job.in_flight.take_if(|(number, _)| *number == name.number) else {
            tracing::debug!(job = %id, number = name.number, "the commit was another copy's of this job");
            return;
        };
        match result {
            CommitResult::Committed(revision) => {
                persist::committed(job, revision);
                let over = job.graph.is_over() && job.head.finished_at_ms > 0;
                self.follow(id, consequences, now);
                if over {
                    self.over(id);
                } else if self.jobs.get(&id).is_some_and(|job| job.leaving.is_some()) {
                    self.commit_at_once(id);
                }
            }
            CommitResult::OwnerMoved => {
                tracing::warn!(job = %id, "commit fenced: another scheduler owns the job");
                self.abandon(consequences);
                self.drop_job(id, "another scheduler owns it now");
            }
            CommitResult::EpochMoved => {
                self.abandon(consequences);
                self.drop_job(id, "the store's epoch has moved");
            }
            CommitResult::GroupCancelled(namespace, known) => {
                tracing::info!(job = %id, "commit refused: a group around the job was cancelled; reading the job again");
                self.abandon(consequences);
                self.read_again(id, "a group around it was cancelled", 0);
                self.groups_cancelled(&namespace, known, now);
            }
            CommitResult::Conflict(why) => {
                tracing::warn!(job = %id, why, "commit refused; reading the job again");
                self.abandon(consequences);
                self.read_again(id, &why, 0);
            }
            CommitResult::Failed(why) => {
                tracing::error!(job = %id, why, "commit refused for good; reading the job again");
                self.abandon(consequences);
                self.read_again(id, &why, FAILED_PAUSE_MS);
            }
        }
    }

    /// Does what had to wait for the commit.
    fn follow(&mut self, id: JobId, consequences: Consequences, now: Millis) {
        let Consequences { effects, settled, replies } = consequences;
        self.settle_statuses(settled);
        self.perform(id, effects, now);
        self.answer_replies(id, replies);
    }

    /// The job's end is committed: it needs no owner any more.
    fn over(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut view = view::graph_view(id, &job.head, &job.graph);
        view.owner.clone_from(&self.identity.address);
        let view = Arc::new(view);
        tracing::info!(job = %id, name = job.head.name, state = ?job.graph.job().state, "job is over");
        if let Some(watcher) = self.watchers.remove(&id) {
            watcher.send_replace(Changed::Over(view));
        }
        // Asked for while the end was on its way to the store: what they wait for is true by now.
        let late = self.jobs.get_mut(&id).map(|job| std::mem::take(&mut job.waiting.replies)).unwrap_or_default();
        self.answer_replies(id, late);
        self.forget_job(id, "it is over");
    }
}

/// The id of the commit that wrote a record.
pub(crate) fn commit_id_of(stored: &[u8], is_head: bool, key: &Key) -> Option<String> {
    if is_head {
        codec::decode(key, stored).ok().map(|head: storage::JobHead| head.commit_id)
    } else {
        codec::decode(key, stored).ok().map(|commit: codec::Commit| commit.id)
    }
}
