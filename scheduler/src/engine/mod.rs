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

mod commit;
mod executors;
mod job;
mod launch;
mod place;
mod statuses;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_graph::execution::{AnswerScope, Event};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};
use muster_proto::v1;
use tokio::sync::oneshot;

pub(crate) use commit::commit_id_of;
pub use commit::{CommitResult, JobCommit, Landed};
pub use executors::{Executor, Link, Registration};
pub use job::{Changed, Job, Loaded};
pub use statuses::StatusAnswer;
pub use view::{failure_view, head_view};

/// Something that reached the scheduler.
pub enum Input {
    /// The job is this scheduler's, and this is all of it.
    Adopted(Box<Loaded>),
    /// The job is not this scheduler's any more, or could not be read.
    Dropped {
        /// Which.
        job: JobId,
        /// Why, for those who wait for it.
        why: String,
    },
    /// An executor reports.
    Statuses {
        /// Who.
        executor: ExecutorKey,
        /// What.
        statuses: Vec<v1::AttemptStatus>,
        /// Answered when everything that concerns jobs owned here is committed.
        reply: oneshot::Sender<StatusAnswer>,
    },
    /// An executor is there, with a session at this scheduler or at a peer.
    Registered(Registration),
    /// Its session at this scheduler is alive.
    Heartbeat {
        /// Who.
        executor: ExecutorKey,
        /// What it has left, by its own account.
        free: muster_graph::spec::Resources,
        /// It takes no new work.
        draining: bool,
    },
    /// It has no session at this scheduler any more.
    SessionEnded {
        /// Who.
        executor: ExecutorKey,
    },
    /// It was declared lost, or stopped on purpose, and the store says so.
    Lost {
        /// Who, with all earlier incarnations.
        executor: ExecutorKey,
    },
    /// It said what it has of some jobs, and stored our fence before.
    Answered {
        /// Who.
        executor: ExecutorKey,
        /// The jobs that it was asked about.
        jobs: Vec<JobId>,
        /// What it has of them.
        held: Vec<(JobId, TaskId, Attempt)>,
        /// Jobs of which it has heard of a newer owner.
        refused: Vec<JobId>,
    },
    /// It answered a launch message.
    LaunchAnswered {
        /// Who.
        executor: ExecutorKey,
        /// How many attempts the message held.
        count: u32,
        /// Which of them it does not take.
        refused: Vec<v1::Refusal>,
    },
    /// A pull executor asks for work.
    Poll {
        /// The poll, its statuses already taken out.
        poll: Box<v1::PollWorkRequest>,
        /// Answered when there is work, or by [`Input::PollExpired`].
        reply: oneshot::Sender<v1::PollWorkResponse>,
    },
    /// The poll has waited long enough.
    PollExpired {
        /// Whose.
        executor: String,
        /// Which.
        sequence: u64,
    },
    /// A user wants the job to end.
    Cancel {
        /// Which.
        job: JobId,
        /// In the user's words.
        reason: String,
        /// Answered when committed; `None` if the job is not owned here.
        reply: oneshot::Sender<Option<v1::JobState>>,
    },
    /// Somebody waits for the retry for which the job was made active again.
    Retry {
        /// Which.
        job: JobId,
        /// Answered with the number of tasks when committed; `None` if the job is not owned here.
        reply: oneshot::Sender<Option<u32>>,
    },
    /// Look at the engine.
    Read(Box<dyn FnOnce(&mut Engine) + Send>),
    /// Transactions came back.
    Commits(Vec<(JobId, CommitResult)>),
    /// The session is lost: nothing here is ours any more.
    SessionLost,
    /// Time went on.
    Tick,
}

/// Something for the shell to do.
#[derive(Debug)]
pub enum Output {
    /// Send these attempts to a push executor.
    Launch {
        /// Whom.
        executor: ExecutorKey,
        /// What.
        groups: Vec<v1::LaunchGroup>,
    },
    /// Tell an executor to end attempts.
    CancelAttempts {
        /// Whom.
        executor: ExecutorKey,
        /// Which.
        request: v1::CancelTasksRequest,
    },
    /// Ask an executor what it has of jobs that were taken over.
    Ask {
        /// Whom.
        executor: ExecutorKey,
        /// Its address.
        address: String,
        /// The jobs with our fence.
        jobs: Vec<v1::JobFence>,
    },
    /// Read the job again from the store, if it is still ours.
    Reload {
        /// Which.
        job: JobId,
    },
    /// An executor has had no session for too long: declare it lost by compare-and-set.
    DeclareLost {
        /// Who.
        executor: ExecutorKey,
    },
    /// Connect to an executor, or to its new incarnation.
    Connect {
        /// Whom.
        executor: ExecutorKey,
        /// Where.
        address: String,
    },
}

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
    /// Jobs with changes that no transaction holds yet.
    dirty: BTreeSet<JobId>,
    executors: BTreeMap<String, Executor>,
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
            dirty: BTreeSet::new(),
            executors: BTreeMap::new(),
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
            Input::Dropped { job, why } => self.drop_job(job, &why),
            Input::Statuses { executor, statuses, reply } => self.statuses(&executor, statuses, reply, now),
            Input::Registered(registration) => self.registered(registration, now),
            Input::Heartbeat { executor, free, draining } => self.heartbeat(&executor, &free, draining, now),
            Input::SessionEnded { executor } => self.session_ended(&executor, now),
            Input::Lost { executor } => self.lost(&executor, now),
            Input::Answered { executor, jobs, held, refused } => {
                self.answered(&executor, &jobs, &held, &refused, now);
            }
            Input::LaunchAnswered { executor, count, refused } => self.launch_answered(&executor, count, refused, now),
            Input::Poll { poll, reply } => self.poll(*poll, reply, now),
            Input::PollExpired { executor, sequence } => self.poll_expired(&executor, sequence),
            Input::Cancel { job, reason, reply } => self.cancel(job, reason, reply, now),
            Input::Retry { job, reply } => self.retry(job, reply),
            Input::Read(look) => look(self),
            Input::Commits(results) => {
                for (job, result) in results {
                    self.commit_came_back(job, result, now);
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
        job.into_iter().chain(executor).min()
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

    fn adopted(&mut self, loaded: Loaded, now: Millis) {
        let id = loaded.id;
        if self.jobs.contains_key(&id) {
            // Read again after a conflict: whatever the old copy was about to say is void.
            self.forget_job(id, "the job was read again from the store");
        }
        let fresh = loaded.fresh;
        let job = Job::new(loaded);
        self.jobs.insert(id, job);
        if fresh {
            self.apply(id, Event::Submitted, now);
            return;
        }
        self.ask_about(id, now);
        let job = self.jobs.get_mut(&id).expect("inserted above");
        if job.head.retry_requested {
            job.retried = job.graph.counts().failed + job.graph.counts().cancelled;
            self.apply(id, Event::RetryRequested, now);
        }
        self.dirty.insert(id);
        self.refresh(id);
    }

    /// A job that was taken over has attempts out there: asks their executors, and takes what they hold into account.
    fn ask_about(&mut self, id: JobId, now: Millis) {
        let job = &self.jobs[&id];
        let stages = &job.graph.plan().stages;
        for name in job.graph.holders() {
            let executor = self
                .executors
                .entry(name.to_owned())
                .or_insert_with(|| Executor::unheard_of(ExecutorKey { id: name.to_owned(), incarnation: 0 }, now));
            for (task, attempt) in job.graph.holds(name) {
                executor.hold((id, task, attempt), &stages[task.stage.0 as usize].resources);
            }
            executor.ask.insert(id);
        }
        self.ask_executors();
    }

    /// Sends the questions that are owed to executors whose address is known.
    fn ask_executors(&mut self) {
        for executor in self.executors.values_mut() {
            if executor.ask.is_empty() || executor.asking || !executor.is_reachable() {
                continue;
            }
            executor.asking = true;
            let jobs = executor
                .ask
                .iter()
                .filter_map(|id| self.jobs.get(id))
                .map(|job| v1::JobFence {
                    job_id: job.id.to_string(),
                    fence: Some(v1::Fence { epoch: self.identity.epoch, token: job.token() }),
                    owner_address: self.identity.address.clone(),
                })
                .collect();
            self.outputs.push(Output::Ask { executor: executor.key.clone(), address: executor.address.clone(), jobs });
        }
    }

    fn answered(
        &mut self,
        key: &ExecutorKey,
        jobs: &[JobId],
        held: &[(JobId, TaskId, Attempt)],
        refused: &[JobId],
        now: Millis,
    ) {
        for job in refused {
            self.outputs.push(Output::Reload { job: *job });
        }
        if let Some(executor) = self.executors.get_mut(&key.id) {
            executor.asking = false;
            for job in jobs {
                executor.ask.remove(job);
            }
        }
        for job in jobs {
            if refused.contains(job) || !self.jobs.contains_key(job) {
                continue;
            }
            let held: BTreeSet<(TaskId, Attempt)> =
                held.iter().filter(|(id, ..)| id == job).map(|&(_, task, attempt)| (task, attempt)).collect();
            if let Some(executor) = self.executors.get_mut(&key.id) {
                executor.release_where(|(id, task, attempt)| id == job && !held.contains(&(*task, *attempt)));
            }
            let event = Event::ExecutorAnswered { by: key.clone(), held, scope: AnswerScope::Everything };
            self.apply(*job, event, now);
        }
        self.ask_executors();
    }

    fn cancel(&mut self, id: JobId, reason: String, reply: oneshot::Sender<Option<v1::JobState>>, now: Millis) {
        if !self.jobs.contains_key(&id) {
            // The caller may have gone; then nobody wants the answer.
            let _ = reply.send(None);
            return;
        }
        self.apply(id, Event::CancelRequested { reason }, now);
        let job = self.jobs.get_mut(&id).expect("it was there a line above, and apply removes none");
        job.waiting.replies.push(job::Reply::Cancelled(reply));
        self.dirty.insert(id);
    }

    fn retry(&mut self, id: JobId, reply: oneshot::Sender<Option<u32>>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            let _ = reply.send(None);
            return;
        };
        // The retry itself came with the head when the job was adopted.
        let tasks = job.retried;
        job.waiting.replies.push(job::Reply::Retried(reply, tasks));
        self.dirty.insert(id);
    }

    fn tick(&mut self, now: Millis) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.apply(id, Event::TimerFired, now);
            // A timer that is not moved by having fired would be an endless loop.
            if self.timers.first() == Some(&(at, id)) {
                self.timers.remove(&(at, id));
            }
        }
        let (silent_after, lost_after) = (self.silent_after, self.lost_after);
        for executor in self.executors.values_mut() {
            if executor.wakeup(silent_after, lost_after).is_none_or(|at| at > now) {
                continue;
            }
            if executor.link == Link::Home {
                executor.fell_silent(now);
            } else {
                // Asked again after another while if the store does not answer.
                executor.since = now;
                self.outputs.push(Output::DeclareLost { executor: executor.key.clone() });
            }
        }
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
        }
        for consequences in [job.waiting, job.in_flight.unwrap_or_default()] {
            self.abandon(consequences);
        }
    }
}
