//! The table of attempts: the executor's own word on what it holds, and the one admission for all launches.
//!
//! Invariants:
//! - an attempt is in the table before its launch is answered, and stays until its result is settled or its job is
//!   forgotten;
//! - per task only the highest attempt heard of may be accepted, also after it is settled, so a launch that was
//!   delayed on its way starts nothing; and one that was refused for lack of room is refused for ever, since its owner
//!   goes by the first answer of several;
//! - resources in use never exceed the total: who does not hold its share does not start ([`shares`] says whose turn it is);
//! - the fence is compared under the table's lock, after [`crate::store::fences`] has raised it. So whoever asked for
//!   the table with a higher fence has seen every attempt that a lower one got in.

mod backlog;
pub(crate) mod shares;
mod shown;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::sync::{Notify, watch};

use crate::control::{Control, StopCause};
use crate::devices::Share;
use crate::faults;
use crate::group::Group;
use crate::keys::{AttemptKey, Fence};
use crate::resources::{Account, Resources};
use shares::Shares;

/// Attempts not yet finished that the table takes; beyond it the machine is swamped whatever they need.
const UNFINISHED_MAX: usize = 20_000;
/// Results that may wait for a scheduler before no more work is taken: the outbox is on disk, but not without end.
const FINISHED_MAX: usize = 500_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Loading, or waiting for resources.
    Waiting,
    /// A process was started.
    Running,
    /// The result is in the outbox.
    Finished,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    group: Option<Arc<Group>>,
    /// What it holds of the account.
    share: Option<Share>,
    /// The scheduler for which it does.
    holder: Arc<str>,
    control: Arc<Control>,
}

/// The highest attempt of a task that was heard of.
#[derive(Debug, Clone, Copy, Default)]
struct Highest {
    attempt: u32,
    /// It was not taken in.
    refused: bool,
}

/// The answer to one launch.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// New: its own task is to be started.
    Accepted(Arc<Control>),
    /// Known already: nothing is to be done.
    Known,
    /// Refused.
    Refused(v1::RefusalReason, String),
}

#[derive(Debug)]
struct Inside {
    entries: BTreeMap<AttemptKey, Entry>,
    /// Per task the highest attempt heard of.
    highest: HashMap<JobId, HashMap<(u32, u32), Highest>>,
    account: Account,
    shares: Shares,
    unfinished: usize,
    draining: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    backlog_max: usize,
    /// One short critical section per question; nothing waits while holding it.
    inside: Mutex<Inside>,
    /// Something changed that schedulers should hear of soon and that no result tells them.
    pub(crate) changed: Notify,
    /// There may be room for who reserves some.
    pub(crate) room_changed: watch::Sender<()>,
}

impl Table {
    pub(crate) fn new(account: Account, backlog_max: usize) -> Self {
        let inside = Inside {
            entries: BTreeMap::new(),
            highest: HashMap::new(),
            account,
            shares: Shares::default(),
            unfinished: 0,
            draining: false,
        };
        Self { backlog_max, inside: Mutex::new(inside), changed: Notify::new(), room_changed: watch::Sender::new(()) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no holder of this lock panics")
    }

    /// Results of a former life, which are held until they are settled.
    pub(crate) fn adopt_finished(&self, keys: impl IntoIterator<Item = AttemptKey>) {
        let mut inside = self.inside();
        for key in keys {
            let control = Arc::new(Control::default());
            control.over.cancel();
            inside.heard_of(key, false);
            let holder = Arc::from("");
            inside.entries.insert(key, Entry { phase: Phase::Finished, group: None, share: None, holder, control });
        }
    }

    /// Decides on one launch. `highest` is the job's highest fence, read under the table's lock.
    pub(crate) fn admit(
        &self,
        group: &Arc<Group>,
        key: AttemptKey,
        highest: impl FnOnce() -> Option<Fence>,
    ) -> Verdict {
        use v1::RefusalReason as Reason;
        let mut inside = self.inside();
        let refuses = !faults::is_set("break-executor-refusal");
        if let Some(highest) = highest().filter(|highest| *highest > group.fence && refuses) {
            return Verdict::Refused(Reason::StaleFence, format!("fence {highest} was heard of"));
        }
        let Highest { attempt: known, refused } = inside.highest_attempt(key);
        if known > key.attempt {
            return Verdict::Refused(Reason::StaleAttempt, format!("attempt {known} was heard of"));
        }
        if known == key.attempt {
            return match refused {
                true => Verdict::Refused(Reason::DoesNotFit, "it was refused when it came first".to_owned()),
                false => Verdict::Known,
            };
        }
        let verdict = self.take_in(&mut inside, group, key);
        inside.heard_of(key, matches!(verdict, Verdict::Refused(..)));
        verdict
    }

    /// The same for one that is news, by an owner that counts.
    fn take_in(&self, inside: &mut Inside, group: &Arc<Group>, key: AttemptKey) -> Verdict {
        use v1::RefusalReason as Reason;
        if inside.draining {
            return Verdict::Refused(Reason::Draining, "the executor takes no more work".to_owned());
        }
        if let Err(what) = inside.account.fits_total(&group.need) {
            return Verdict::Refused(Reason::DoesNotFit, what);
        }
        if inside.unfinished >= UNFINISHED_MAX || inside.entries.len() - inside.unfinished >= FINISHED_MAX {
            return Verdict::Refused(Reason::DoesNotFit, "the table of attempts is full".to_owned());
        }
        let control = Arc::new(Control::default());
        if !inside.has_room(group) && inside.shares.waiting() >= self.backlog_max {
            let short = inside.account.fits_free(&group.need).err();
            let owed = || "what is free is owed to others, or to what waits already".to_owned();
            return Verdict::Refused(Reason::DoesNotFit, short.unwrap_or_else(owed));
        }
        let older = AttemptKey { attempt: 0, ..key }..key;
        for (_, entry) in inside.entries.range(older) {
            entry.control.stop(StopCause::Replaced);
        }
        inside.unfinished += 1;
        let holder = Arc::clone(&group.owner_address);
        inside.shares.enters(&holder);
        inside.shares.waits(&holder, key, &group.need);
        let group = Some(Arc::clone(group));
        let entry = Entry { phase: Phase::Waiting, group, share: None, holder, control: control.clone() };
        inside.entries.insert(key, entry);
        inside.let_go_on();
        Verdict::Accepted(control)
    }

    /// A process was started.
    pub(crate) fn set_running(&self, key: AttemptKey) {
        if let Some(entry) = self.inside().entries.get_mut(&key) {
            entry.phase = Phase::Running;
        }
    }

    /// A refusal that was told as a result: the attempt's number is never used again.
    pub(crate) fn refuse_for_good(&self, key: AttemptKey) {
        self.adopt_finished([key]);
    }

    /// The result is in the outbox.
    pub(crate) fn set_finished(&self, key: AttemptKey) {
        let mut inside = self.inside();
        let Some(entry) = inside.entries.get_mut(&key) else { return };
        if entry.phase != Phase::Finished {
            entry.phase = Phase::Finished;
            entry.control.over.cancel();
            let holder = Arc::clone(&entry.holder);
            inside.unfinished -= 1;
            inside.shares.leaves(&holder);
        }
    }

    /// The results of these are settled.
    pub(crate) fn remove_finished(&self, keys: &[AttemptKey]) {
        let mut inside = self.inside();
        for key in keys {
            if inside.entries.get(key).is_some_and(|entry| entry.phase == Phase::Finished) {
                inside.entries.remove(key);
            }
        }
    }

    /// Asks one attempt to end. False if it is not here.
    pub(crate) fn stop(&self, key: AttemptKey, cause: StopCause) -> bool {
        let inside = self.inside();
        let Some(entry) = inside.entries.get(&key) else { return false };
        entry.control.stop(cause);
        true
    }

    /// Asks all to end that `which` says of, by how long their job allows to be without a scheduler. Answers how many
    /// these were, and the shortest time that one allows of those that go on.
    pub(crate) fn stop_where(&self, cause: StopCause, which: impl Fn(u64) -> bool) -> (usize, Option<u64>) {
        let inside = self.inside();
        let mut count = 0;
        let mut shortest: Option<u64> = None;
        for entry in inside.entries.values().filter(|entry| entry.phase != Phase::Finished) {
            let lost_after_ms = entry.group.as_ref().map_or(0, |group| group.lost_after_ms);
            if entry.control.cause().is_some() {
                continue;
            }
            if which(lost_after_ms) {
                entry.control.stop(cause);
                count += 1;
            } else if lost_after_ms > 0 {
                shortest = Some(shortest.map_or(lost_after_ms, |known| known.min(lost_after_ms)));
            }
        }
        (count, shortest)
    }

    /// Drops all that is known of a job. What still runs is asked to end; its result interests nobody. Returns the
    /// controls of what still runs.
    pub(crate) fn forget(&self, job: JobId) -> Vec<Arc<Control>> {
        let mut inside = self.inside();
        inside.highest.remove(&job);
        let finished: Vec<AttemptKey> =
            inside.of_job(job).filter_map(|(key, entry)| (entry.phase == Phase::Finished).then_some(*key)).collect();
        for key in finished {
            inside.entries.remove(&key);
        }
        inside
            .of_job(job)
            .map(|(_, entry)| {
                entry.control.stop(StopCause::Cancelled);
                entry.control.clone()
            })
            .collect()
    }

    /// Given when the attempt is over; none if it is not in the table.
    pub(crate) fn control(&self, key: AttemptKey) -> Option<Arc<Control>> {
        self.inside().entries.get(&key).map(|entry| entry.control.clone())
    }

    /// Whether anything of the job is held.
    pub(crate) fn has_job(&self, job: JobId) -> bool {
        self.inside().of_job(job).next().is_some()
    }

    /// What is free now, whosever turn it is.
    pub(crate) fn free(&self) -> Resources {
        self.inside().account.free()
    }

    pub(crate) fn total(&self) -> Resources {
        self.inside().account.total().clone()
    }

    /// Attempts not yet finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.inside().unfinished
    }

    /// Whether that is a change.
    pub(crate) fn set_draining(&self, draining: bool) -> bool {
        let was = std::mem::replace(&mut self.inside().draining, draining);
        self.changed.notify_one();
        was != draining
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.inside().draining
    }
}

impl Entry {
    fn is_unfinished(&self) -> bool {
        self.phase != Phase::Finished
    }
}

impl Inside {
    fn highest_attempt(&self, key: AttemptKey) -> Highest {
        self.highest.get(&key.job).and_then(|tasks| tasks.get(&(key.stage, key.index))).copied().unwrap_or_default()
    }

    fn heard_of(&mut self, key: AttemptKey, refused: bool) {
        let highest = self.highest.entry(key.job).or_default().entry((key.stage, key.index)).or_default();
        if highest.attempt <= key.attempt {
            *highest = Highest { attempt: key.attempt, refused };
        }
    }

    fn of_job(&self, job: JobId) -> impl Iterator<Item = (&AttemptKey, &Entry)> {
        let first = AttemptKey { job, stage: 0, index: 0, attempt: 0 };
        self.entries.range(first..).take_while(move |(key, _)| key.job == job)
    }
}

#[cfg(test)]
mod tests;
