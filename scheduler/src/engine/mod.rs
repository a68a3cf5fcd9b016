//! The heart of a scheduler: every job that it owns and every executor that it knows, in one place, moved by inputs
//! and answering with outputs. Synchronous and without I/O: the shell around it ([`crate::shell`]) performs the outputs
//! and brings the results back as inputs.
//!
//! **Invariant: nothing leaves before it is committed.** Launches, cancels, acknowledgements and answers to users wait
//! in their job's [`Consequences`](job::Consequences) until the transaction that makes them true has been committed;
//! if it is not, they are dropped with the job's copy in memory, which is read again from the store.
//!
//! **Invariant: one transaction per job is in flight.** Events go on moving the graph meanwhile; what they changed goes
//! into the job's next transaction, which names the previous one as its predecessor.

mod account;
mod commit;
mod executors;
mod inputs;
mod job;
mod launch;
mod losses;
mod messages;
mod place;
mod polls;
mod statuses;
mod takeover;
#[cfg(test)]
mod tests;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_graph::execution::Event;
use muster_graph::ids::{JobId, Millis};
use muster_proto::v1;
use tokio::sync::oneshot;

use crate::faults;
pub(crate) use commit::commit_id_of;
pub use commit::{CommitName, CommitResult, JobCommit, Landed};
pub use executors::{Executor, Link, Registration};
pub use job::{Changed, Job, Loaded};
pub use losses::Loss;
pub use messages::{Input, Output};
pub use statuses::StatusAnswer;
pub use view::{failure_view, head_view};

/// Before the store is told again that an executor has no session, if it did not take that.
const TELL_AGAIN_MS: Millis = 1_000;

/// Which life of the store this scheduler belongs to, and how others reach it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// This scheduler's session.
    pub session: muster_state::SessionId,
    /// How others reach it.
    pub address: String,
    /// The life of the store.
    pub epoch: u64,
    /// The revision of the epoch's record, which every commit compares.
    pub epoch_revision: muster_state::Revision,
}

/// See the module.
pub struct Engine {
    identity: Identity,
    lost_after: Millis,
    /// An executor at home here that has not been heard of for so long is out of reach.
    silent_after: Millis,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs with ready tasks, in the order in which they are owed: priority, then age.
    ready: BTreeSet<(std::cmp::Reverse<i32>, JobId)>,
    /// When jobs want to be woken.
    timers: BTreeSet<(Millis, JobId)>,
    /// When jobs give up executors that are away, each after its own time.
    absences: BTreeSet<(Millis, String, JobId)>,
    /// Jobs with changes that no transaction holds yet.
    dirty: BTreeSet<JobId>,
    executors: BTreeMap<String, Executor>,
    /// Sessions of the live schedulers: an executor at home with another one has no home.
    live_schedulers: BTreeSet<String>,
    /// Rises when an executor's address changes, so that places of outputs are looked up again.
    addresses_revision: u32,
    batches: HashMap<u64, statuses::Batch>,
    next_batch: u64,
    next_commit: u64,
    outputs: Vec<Output>,
    /// Told to those who watch a job's life from outside; rises with everything.
    watchers: HashMap<JobId, tokio::sync::watch::Sender<Changed>>,
}

impl Engine {
    /// An engine that owns nothing yet.
    #[must_use]
    pub fn new(identity: Identity, lost_after: Millis, silent_after: Millis) -> Self {
        Self {
            identity,
            lost_after,
            silent_after,
            jobs: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            absences: BTreeSet::new(),
            dirty: BTreeSet::new(),
            executors: BTreeMap::new(),
            live_schedulers: BTreeSet::new(),
            addresses_revision: 1,
            batches: HashMap::new(),
            next_batch: 0,
            next_commit: 0,
            outputs: Vec::new(),
            watchers: HashMap::new(),
        }
    }

    /// Takes one input in. What has to be done about it comes out of [`Engine::settle`].
    pub fn handle(&mut self, input: Input, now: Millis) {
        match input {
            Input::Adopted(loaded) => self.adopted(*loaded, now),
            Input::Dropped { job, why } => self.dropped(job, &why),
            Input::Statuses { executor, statuses, reply } => self.statuses(&executor, statuses, reply, now),
            Input::Registered(registration) => self.registered(registration, now),
            Input::Heartbeat { executor, free, draining } => self.heartbeat(&executor, &free, draining, now),
            Input::SessionEnded { executor } => self.session_ended(&executor, now),
            Input::Lost(loss) => self.lost(loss, now),
            Input::Schedulers { live } => self.schedulers(live, now),
            Input::Answered { executor, jobs, held, refused } => {
                self.answered(&executor, &jobs, &held, &refused, now);
            }
            Input::LaunchAnswered { executor, count, refused } => self.launch_answered(&executor, count, refused, now),
            Input::Poll { poll, reply } => self.poll(*poll, reply, now),
            Input::PollExpired { executor, sequence } => self.poll_expired(&executor, sequence),
            Input::Cancel { job, reason, reply } => self.cancel(job, reason, reply, now),
            Input::Read(look) => look(self),
            Input::Commits(results) => {
                for (name, result) in results {
                    self.commit_came_back(name, result);
                }
            }
            Input::SessionLost => {
                let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
                for job in jobs {
                    self.drop_job(job, "this scheduler lost its session");
                }
            }
            Input::Tick => self.tick(now),
        }
    }

    /// Places what can be placed and answers with everything there is to do, and with the transactions to send.
    pub fn settle(&mut self, now: Millis) -> (Vec<Output>, Vec<JobCommit>) {
        self.place(now);
        let commits = self.collect_commits(now);
        self.answer_polls();
        (std::mem::take(&mut self.outputs), commits)
    }

    /// When [`Input::Tick`] is wanted.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        let job = self.timers.first().map(|(at, _)| *at);
        let executor = self.executors.values().filter_map(|e| e.wakeup(self.silent_after, self.lost_after)).min();
        let absence = self.absences.first().map(|(at, ..)| *at);
        job.into_iter().chain(executor).chain(absence).min()
    }

    /// Whether so much waits to be committed that nothing more should be taken in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.dirty.iter().any(|job| self.jobs[job].is_full())
    }

    /// Jobs owned now.
    #[must_use]
    pub fn jobs_owned(&self) -> usize {
        self.jobs.len()
    }

    /// The ids of the jobs owned now.
    pub fn job_ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }

    /// Goes on under a new session.
    pub fn take_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// A job owned here.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)
    }

    /// The executors known here.
    pub fn executors(&self) -> impl Iterator<Item = &Executor> {
        self.executors.values()
    }

    /// An executor known here.
    #[must_use]
    pub fn executor(&self, id: &str) -> Option<&Executor> {
        self.executors.get(id)
    }

    /// Tells what becomes of a job. The channel ends when the job is not owned here any more.
    pub fn watch(&mut self, job: JobId) -> Option<tokio::sync::watch::Receiver<Changed>> {
        self.jobs.get(&job)?;
        Some(self.watchers.entry(job).or_insert_with(|| tokio::sync::watch::channel(Changed::Now).0).subscribe())
    }

    fn adopted(&mut self, mut loaded: Loaded, now: Millis) {
        let id = loaded.id;
        let retry = loaded.retry.take();
        if let Some(known) = self.jobs.get(&id) {
            // Read twice under one token (by the scan, while it was being planned, for instance): the copy in memory
            // is the newer one, for nobody else writes. Under a newer token it was over, or ours no more, meanwhile.
            if known.token() >= loaded.cursor.token {
                tracing::debug!(job = %id, "the job is held already");
                return self.answer_retry(id, retry);
            }
            self.forget_job(id, "it was claimed anew");
        }
        let fresh = loaded.fresh;
        let job = Job::new(loaded);
        self.jobs.insert(id, job);
        if fresh {
            self.apply(id, Event::Submitted, now);
            return;
        }
        if self.jobs[&id].head.retry_requested {
            self.apply(id, Event::RetryRequested, now);
            let job = self.jobs.get_mut(&id).expect("inserted above, and apply removes none");
            job.retried = job.tasks_to_retry();
        }
        self.answer_retry(id, retry);
        self.ask_about(id, now);
        self.tell_of_losses(id, now);
        self.dirty.insert(id);
        self.refresh(id);
    }

    /// It could not be read. A copy that came into memory since then is not concerned.
    fn dropped(&mut self, id: JobId, why: &str) {
        if !self.jobs.contains_key(&id) {
            tracing::info!(job = %id, why, "job let go");
            // Those who watch it look for its new owner.
            self.watchers.remove(&id);
        }
    }

    /// What is in memory is in doubt: it is dropped, and read again.
    fn read_again(&mut self, id: JobId, why: &str, after_ms: Millis) {
        self.forget_job(id, why);
        self.outputs.push(Output::Reload { job: id, after_ms });
    }

    fn cancel(&mut self, id: JobId, reason: String, reply: oneshot::Sender<Option<v1::JobState>>, now: Millis) {
        if !self.jobs.contains_key(&id) {
            // The caller may have gone; then nobody wants the answer.
            let _ = reply.send(None);
            return;
        }
        self.apply(id, Event::CancelRequested { reason }, now);
        self.stop_waiting(id, now);
        let job = self.jobs.get_mut(&id).expect("it was there a line above, and apply removes none");
        job.waiting.replies.push(job::Reply::Cancelled(reply));
        self.dirty.insert(id);
    }

    /// With the commit of what follows next, and so not before the retry itself is committed.
    fn answer_retry(&mut self, id: JobId, reply: Option<oneshot::Sender<Option<u32>>>) {
        let (Some(reply), Some(job)) = (reply, self.jobs.get_mut(&id)) else { return };
        job.waiting.replies.push(job::Reply::Retried(reply, job.retried));
        self.dirty.insert(id);
    }

    fn tick(&mut self, now: Millis) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.apply(id, Event::TimerFired, now);
            self.stop_waiting(id, now);
            // A timer that is not moved by having fired would be an endless loop.
            if self.timers.first() == Some(&(at, id)) {
                self.timers.remove(&(at, id));
            }
        }
        let (silent_after, lost_after) = (self.silent_after, self.lost_after);
        if self.is_full() {
            // Nothing is taken in, heartbeats neither: silence says nothing now.
            for executor in self.executors.values_mut() {
                executor.since = now;
                executor.away_since = executor.away_since.map(|_| now);
            }
        }
        let mut silent = Vec::new();
        for executor in self.executors.values_mut() {
            if executor.wakeup(silent_after, lost_after).is_none_or(|at| at > now) {
                continue;
            }
            if executor.link == Link::Home {
                executor.fell_silent(now);
                silent.push(executor.key.clone());
            } else if executor.tell_at.is_some_and(|at| at <= now) {
                // Told again after another while if the store does not take it.
                executor.tell_at = Some(now + TELL_AGAIN_MS);
                self.outputs.push(Output::TellAway { executor: executor.key.clone() });
            } else {
                // Asked again after another while if the store does not answer.
                executor.since = now;
                self.outputs.push(Output::DeclareLost { executor: executor.key.clone() });
            }
        }
        for executor in silent {
            self.tell_jobs_of(&executor.id, now);
            if faults::is_set("break-silence") {
                self.lost(Loss { key: executor, record: 0, on_purpose: false }, now);
            }
        }
        self.end_absences(now);
    }

    /// Moves a job and keeps everything that depends on it up to date.
    fn apply(&mut self, id: JobId, event: Event, now: Millis) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // A start is a hint for viewers: it goes along with the next commit, and is not worth one of its own.
        let hint = matches!(event, Event::AttemptStarted { .. });
        job.apply(event, now);
        if !hint {
            self.dirty.insert(id);
        }
        self.refresh(id);
    }

    /// Puts the job into the indices where it belongs now.
    fn refresh(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let place = (std::cmp::Reverse(job.head.priority), id);
        if job.graph.ready().next().is_some() {
            self.ready.insert(place);
        } else {
            self.ready.remove(&place);
        }
        let timer = job.graph.next_timer();
        if timer != job.timer {
            if let Some(old) = job.timer {
                self.timers.remove(&(old, id));
            }
            if let Some(new) = timer {
                self.timers.insert((new, id));
            }
            job.timer = timer;
        }
        if let Some(watcher) = self.watchers.get(&id) {
            // Not modified in value: every send wakes the watchers, who look for themselves.
            watcher.send_replace(Changed::Now);
        }
    }

    /// The job is not ours any more.
    fn drop_job(&mut self, id: JobId, why: &str) {
        self.forget_job(id, why);
        self.watchers.remove(&id);
    }

    fn forget_job(&mut self, id: JobId, why: &str) {
        let Some(job) = self.jobs.remove(&id) else { return };
        tracing::info!(job = %id, why, "job dropped from memory");
        self.ready.remove(&(std::cmp::Reverse(job.head.priority), id));
        if let Some(at) = job.timer {
            self.timers.remove(&(at, id));
        }
        self.dirty.remove(&id);
        for executor in self.executors.values_mut() {
            executor.ask.remove(&id);
            executor.release_where(|(held, ..)| *held == id);
            let name = id.to_string();
            executor.to_fetch.launches.retain(|group| group.job_id != name);
        }
        self.abandon(job.waiting);
        if let Some((_, consequences)) = job.in_flight {
            self.abandon(consequences);
        }
    }
}
