//! How single executors stand to tasks that want something, and what that is in words.

use muster_graph::ids::Millis;
use muster_graph::spec::{Placing, Resources};

use super::words::{LISTED_MAX, Thing, count_of, in_a_line, time};
use crate::engine::place::Closed;
use crate::engine::{Executor, Link};
use crate::options::LAUNCH_WINDOW;
use crate::placement::{self, Offer};

/// How an executor stands to tasks that want something, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Large enough; what is free of it is not.
    Busy,
    /// Large enough, and what is free of it is for tasks that wait there.
    Queueing,
    /// Large enough, with enough room but for what is kept for an earlier task.
    Kept,
    /// Large enough, and takes nothing now.
    Closed(Reluctance),
    /// It has no room for such a task, however idle it is.
    TooSmall,
    /// It has not the labels that the task requires.
    Barred,
    /// Large enough, and out of reach of all schedulers.
    Away,
    /// Large enough, and declared lost.
    Lost,
    /// Not to be reckoned with.
    Gone,
}

/// Why an executor takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reluctance {
    Refused,
    Window,
    Quarantined,
    Unheard,
    Draining,
}

impl Standing {
    pub(super) fn of(
        executor: &Executor,
        (wanted, placing): (&Resources, Placing<'_>),
        left: Option<&Result<Offer, Closed>>,
    ) -> Self {
        let is_admitted = placing.admits(&executor.labels);
        let is_large = is_admitted && placement::fits(wanted, &executor.total) > 0;
        match executor.link {
            Link::Gone if !executor.is_final() && is_large => return Self::Lost,
            Link::None if is_large => return Self::Away,
            Link::Gone | Link::None => return Self::Gone,
            Link::Home | Link::Peer if !is_admitted => return Self::Barred,
            Link::Home | Link::Peer if !is_large => return Self::TooSmall,
            Link::Home | Link::Peer => {}
        }
        match left {
            Some(Ok(offer)) if offer.has_room_but_for_what_is_kept(wanted) => Self::Kept,
            Some(Ok(offer)) if offer.window == 0 => Self::Closed(Reluctance::Window),
            Some(Ok(_)) | Some(Err(Closed::Full)) if executor.waiting() > 0 => Self::Queueing,
            Some(Ok(_)) | Some(Err(Closed::Full)) => Self::Busy,
            Some(Err(Closed::Window)) => Self::Closed(Reluctance::Window),
            Some(Err(Closed::Refused)) => Self::Closed(Reluctance::Refused),
            Some(Err(Closed::Quarantined)) => Self::Closed(Reluctance::Quarantined),
            Some(Err(Closed::Draining)) => Self::Closed(Reluctance::Draining),
            Some(Err(Closed::Unheard)) | None => Self::Closed(Reluctance::Unheard),
        }
    }
}

/// What is known of executors that stand alike.
pub(super) fn told(standing: Standing, some: &[&Executor], wanted: &Resources, now: Millis) -> Vec<String> {
    let names = || in_a_line(some.iter().map(|executor| executor.key.id.as_str()));
    let run = || {
        let run = some.iter().map(|executor| executor.running()).fold(0, u32::saturating_add);
        format!("{} there", count_of(run, "task is", "tasks are"))
    };
    let since = |what: &str| {
        let lines = some.iter().take(LISTED_MAX);
        lines
            .map(|executor| format!("{} {what} for {}", executor.key.id, time(now.saturating_sub(executor.since))))
            .collect()
    };
    match standing {
        Standing::Busy => {
            let most =
                some.iter().map(|executor| executor.left()).max_by_key(|left| left.cpu_milli).unwrap_or_default();
            let free: Vec<String> = Thing::all(wanted).map(|thing| thing.amount(thing.of(&most), false)).collect();
            vec![format!("{}: busy, {}; free at most: {}", names(), run(), free.join(", "))]
        }
        Standing::Queueing => {
            let wait: usize = some.iter().map(|executor| executor.waiting()).sum();
            vec![format!("{}: busy, {}, of which {wait} wait for what becomes free next", names(), run())]
        }
        Standing::Kept => vec![format!("{}: kept for a larger task that was before it in line", names())],
        Standing::Closed(Reluctance::Refused) => {
            vec![format!("{}: refused a task for lack of room a moment ago", names())]
        }
        Standing::Closed(Reluctance::Window) => {
            vec![format!("{}: has {LAUNCH_WINDOW} launches to answer, the most that are sent at once", names())]
        }
        Standing::Closed(Reluctance::Unheard) => {
            let (pull, push): (Vec<&Executor>, Vec<&Executor>) =
                some.iter().copied().partition(|executor| executor.pull);
            let mut lines: Vec<String> = Vec::new();
            if !pull.is_empty() {
                let names = in_a_line(pull.iter().map(|executor| executor.key.id.as_str()));
                lines.push(format!("{names}: does not ask this scheduler for work just now"));
            }
            for executor in push.iter().take(LISTED_MAX) {
                let since = executor.unreached_since.map_or(0, |since| now.saturating_sub(since));
                let how = "not reached from this scheduler, nor through its home,";
                lines.push(format!("{}: {how} for {}", executor.key.id, time(since)));
            }
            lines
        }
        Standing::Closed(Reluctance::Quarantined) => {
            let some = some.iter().take(LISTED_MAX).filter_map(|executor| Some((executor, executor.quarantine()?)));
            let told = some.map(|(executor, quarantine)| {
                let since = time(now.saturating_sub(quarantine.since()));
                let next = time(quarantine.until().saturating_sub(now));
                let (id, why) = (&executor.key.id, quarantine.why());
                format!("{id}: in quarantine for {since}, tries one task in {next}: {why}")
            });
            told.collect()
        }
        Standing::Closed(Reluctance::Draining) => vec![format!("{}: drains, and takes no new tasks", names())],
        Standing::TooSmall => vec![format!("{}: too small", names())],
        Standing::Barred => vec![format!("{}: without the labels required", names())],
        Standing::Away => since("is out of reach,"),
        Standing::Lost => since("is lost,"),
        Standing::Gone => Vec::new(),
    }
}

/// What somebody could do about executors that are large enough.
pub(super) fn remedy(standing: Standing, some: &[&Executor]) -> Option<String> {
    let first = some.first().map(|executor| executor.key.id.as_str())?;
    match standing {
        Standing::Closed(Reluctance::Draining) => {
            Some(format!("`muster executors drain {first} --undo` has {first} take tasks again"))
        }
        Standing::Closed(Reluctance::Quarantined) => Some(format!(
            "once {first} is mended, one task that succeeds there ends its quarantine; so does a restart of it"
        )),
        Standing::Away | Standing::Lost => Some(format!("fits on {first}, if that comes back")),
        _ => None,
    }
}
