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
mod adoption;
mod after;
mod ahead;
mod commit;
mod counts;
mod departures;
mod executors;
pub(crate) mod explain;
mod gathering;
mod groups;
mod handover;
mod inputs;
mod job;
mod launch;
mod losses;
mod messages;
mod place;
mod polls;
mod quarantine;
mod queues;
mod reach;
mod requests;
mod reservations;
mod statuses;
mod suspects;
mod takeover;
#[cfg(test)]
pub(crate) mod tests;
mod turns;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_graph::execution::{Effect, Event};
use muster_graph::ids::{Attempt, JobId, Millis};
use muster_state::Revision;

use crate::faults;
use crate::options::ATTEMPTS_PER_EPOCH;
pub(crate) use commit::commit_id_of;
pub use commit::{CommitName, CommitResult, GroupOfJob, JobCommit, Landed};
pub use counts::Counts;
pub use executors::{Executor, Link, Registration};
pub use handover::{Departing, Successor};
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
    /// Of all these jobs.
    tasks: u64,
    /// Jobs with ready tasks, and what each namespace has.
    queues: queues::Queues,
    /// When jobs want to be woken.
    timers: BTreeSet<(Millis, JobId)>,
    /// When jobs give up executors that are away, each after its own time.
    absences: BTreeSet<(Millis, String, JobId)>,
    /// Jobs with changes that no transaction holds yet.
    dirty: BTreeSet<JobId>,
    /// Cancelled groups, by namespace; without an entry: none is known of.
    group_cancels: groups::KnownCancels,
    /// Which jobs here wait for a job.
    awaited: after::Awaited,
    /// Nothing has to be committed before then.
    gather_until: Option<Millis>,
    executors: BTreeMap<String, Executor>,
    /// Sessions of the live schedulers: an executor at home with another one has no home.
    live_schedulers: BTreeSet<String>,
    /// The store's revision at which they were so: a later record may name a home that is not known yet.
    schedulers_as_of: Revision,
    /// Rises when an executor's address changes, so that places of outputs are looked up again.
    addresses_revision: u32,
    batches: HashMap<u64, statuses::Batch>,
    next_batch: u64,
    next_commit: u64,
    next_question: u64,
    outputs: Vec<Output>,
    counts: Counts,
    reservations: reservations::Reservations,
    room_gathers: gathering::RoomGathers,
    ends: quarantine::Ends,
    suspects: suspects::Suspects,
    /// Told to those who watch a job's life from outside; rises with everything.
    watchers: HashMap<JobId, tokio::sync::watch::Sender<Changed>>,
}

/// Attempts that are begun in an epoch have numbers above this.
fn first_attempt_of(epoch: u64) -> Attempt {
    let earlier = u32::try_from(epoch.saturating_sub(1)).unwrap_or(u32::MAX);
    earlier.saturating_mul(ATTEMPTS_PER_EPOCH)
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
            tasks: 0,
            queues: queues::Queues::default(),
            timers: BTreeSet::new(),
            absences: BTreeSet::new(),
            dirty: BTreeSet::new(),
            group_cancels: groups::KnownCancels::new(),
            awaited: after::Awaited::new(),
            gather_until: None,
            executors: BTreeMap::new(),
            live_schedulers: BTreeSet::new(),
            schedulers_as_of: 0,
            addresses_revision: 1,
            batches: HashMap::new(),
            next_batch: 0,
            next_commit: 0,
            next_question: 1,
            outputs: Vec::new(),
            counts: Counts::default(),
            reservations: reservations::Reservations::default(),
            room_gathers: gathering::RoomGathers::default(),
            ends: quarantine::Ends::default(),
            suspects: suspects::Suspects::default(),
            watchers: HashMap::new(),
        }
    }

    /// Takes one input in. What has to be done about it comes out of [`Engine::settle`].
    pub fn handle(&mut self, input: Input, now: Millis) {
        match input {
            Input::Adopted(loaded) => self.adopted(*loaded, now),
            Input::Dropped { job, why } => self.dropped(job, &why),
            Input::NotOurs { jobs, as_of } => self.not_ours(jobs, as_of),
            Input::Statuses { executor, statuses, reply } => self.statuses(&executor, statuses, reply, now),
            Input::Registered(registration) => self.registered(registration, now),
            Input::Heartbeat { executor, free, running, draining } => {
                self.heartbeat(&executor, &free, running, draining, now);
            }
            Input::Account { executor, account } => self.account(&executor, &account),
            Input::SessionEnded { executor } => self.session_ended(&executor, now),
            Input::Reached { executor, way } => self.reached(&executor, way, now),
            Input::Lost(loss) => self.lost(loss, now),
            Input::Schedulers { live, revision } => self.schedulers(live, revision, now),
            Input::Answered { executor, question, held, refused } => {
                self.answered(&executor, question, &held, &refused, now);
            }
            Input::LaunchAnswered { executor, count, refused } => self.launch_answered(&executor, count, refused, now),
            Input::Poll { poll, reply } => self.poll(*poll, reply, now),
            Input::PollExpired { executor, sequence } => self.poll_expired(&executor, sequence),
            Input::CancelMarked { job, reason, mark } => self.cancel_marked(job, reason, mark, now),
            Input::GroupsCancelled { namespace, known } => self.groups_cancelled(&namespace, known, now),
            Input::JobsChanged(jobs) => self.jobs_changed(jobs),
            Input::JobsEnded(ends) => self.jobs_ended(&ends, now),
            Input::HandOver { jobs, to } => self.hand_over(jobs, to),
            Input::Cancel { job, reason, reply } => self.cancel(job, reason, reply, now),
            Input::Read(look) => look(self),
            Input::Commits(results) => {
                for (name, result) in results {
                    self.commit_came_back(name, result, now);
                }
            }
            Input::Usage(peers) => self.queues.set_elsewhere(peers),
            Input::Rules(rules) => self.queues.set_rules(rules),
            Input::SessionLost => self.drop_all_jobs("this scheduler lost its session"),
            Input::StoreDoubted => self.drop_all_jobs("the store may have been restored from a backup"),
            Input::Tick => self.tick(now),
        }
    }

    /// Places what can be placed and answers with everything there is to do, and with the transactions to send.
    pub fn settle(&mut self, now: Millis) -> (Vec<Output>, Vec<JobCommit>) {
        self.place(now);
        self.reserve(now);
        self.ask_back(now);
        let commits = self.collect_commits(now);
        self.answer_polls();
        (std::mem::take(&mut self.outputs), commits)
    }

    /// When [`Input::Tick`] is wanted.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        let job = self.timers.first().map(|(at, _)| *at);
        let executor = self.executors.values().filter_map(|e| e.wakeup(self.silent_after, self.lost_after)).min();
        let waiting = self.executors.values().filter_map(|e| e.ask_back_at(self.schedulers_sharing())).min();
        let absence = self.absences.first().map(|(at, ..)| *at);
        let reservation = self.reservations.look_at();
        let tried = self.executors.values().filter_map(Executor::try_at).min().filter(|_| !self.queues.is_empty());
        let due = self.gather_until;
        job.into_iter().chain(due).chain(executor).chain(waiting).chain(absence).chain(reservation).chain(tried).min()
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

    /// Their tasks, in whichever state.
    #[must_use]
    pub fn tasks_owned(&self) -> u64 {
        self.tasks
    }

    /// The ids of the jobs owned now.
    pub fn job_ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
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
                executor.unreached_since = executor.unreached_since.map(|_| now);
            }
        }
        let mut silent = Vec::new();
        for executor in self.executors.values_mut() {
            if executor.wakeup(silent_after, lost_after).is_none_or(|at| at > now) {
                continue;
            }
            if executor.link == Link::Home {
                let is_silent = executor.since + silent_after <= now;
                executor.fell_silent(now);
                silent.push((executor.key.clone(), is_silent));
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
        for (executor, is_silent) in silent {
            if !is_silent {
                // It is heard and cannot be reached. To have a home it must be reached from there: it has to look for one.
                tracing::warn!(
                    executor = executor.id,
                    "no connection to an executor at home here; it has to register again"
                );
                self.sever(&executor.id);
            }
            self.tell_jobs_of(&executor.id, now);
            if is_silent && faults::is_set("break-silence") {
                self.lost(Loss { key: executor, record: 0, on_purpose: false }, now);
            }
        }
        self.end_absences(now);
        self.executors.values_mut().for_each(|executor| executor.looked_at(now));
    }

    /// Moves a job and keeps everything that depends on it up to date.
    fn apply(&mut self, id: JobId, event: Event, now: Millis) {
        self.apply_for(id, event, true, now);
    }

    /// The same; unless it makes something begin or end, nothing waits for it here.
    fn apply_for(&mut self, id: JobId, event: Event, at_once: bool, now: Millis) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // A start is a hint for viewers: it goes along with the next commit, and is not worth one of its own.
        let is_hint = matches!(event, Event::AttemptStarted { .. });
        let before = job.waiting.effects.len();
        self.counts.events_ignored += job.apply(event, now);
        let nobody_waits = job.waiting.effects[before..].iter().all(|effect| matches!(effect, Effect::Emit(_)));
        let is_over = job.graph.is_over();
        if !at_once && nobody_waits && !is_over {
            self.commit_soon(id, now);
        } else if !is_hint {
            self.commit_at_once(id);
        }
        self.refresh(id);
    }

    /// Puts the job into the indices where it belongs now.
    fn refresh(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let place = job.place();
        if job.leaving.is_none() && job.may_run() > 0 && job.graph.ready().next().is_some() {
            self.queues.enter(&job.namespace, place);
        } else {
            self.queues.leave(&job.namespace, place);
        }
        let standing = job.count_use();
        if standing != job.standing {
            self.queues.changed(&job.namespace, &job.standing, &standing);
            job.standing = standing;
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
}
