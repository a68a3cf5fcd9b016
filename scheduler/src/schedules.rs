//! Schedules: definitions that are run by themselves. What is due when is the rules' matter ([`muster_graph::schedule`]); here it is
//! kept in the store, and carried out by [`keeper`].
//!
//! Invariants:
//! - Each time of a schedule is decided once, whoever decides it: how far a schedule is, is written in the very transaction that
//!   accepts a time's job, and that compares the revision of the schedule's record. A job's idempotency key is made of the
//!   schedule's id and the time, too, so that even a record that was tampered with fires nothing twice.
//! - What is wrong with one schedule, or with its definition, is that schedule's matter: it is written into its record, and no
//!   other one waits for it.

pub(crate) mod keeper;

use muster_graph::ids::Millis;
use muster_graph::schedule::{Missed, Overlap, PassedOver, Progress, Rules, Timetable, TimetableError, Why};
use muster_proto::storage::ScheduleRecord;
use muster_proto::v1;

/// Times that never ran, as many as a record remembers.
const PASSED_OVER_KEPT: usize = 20;
/// Where no zone is named.
const ZONE_DEFAULT: &str = "UTC";

/// When a schedule is due.
pub(crate) fn timetable(schedule: &v1::Schedule) -> Result<Timetable, TimetableError> {
    let zone = if schedule.zone.is_empty() { ZONE_DEFAULT } else { &schedule.zone };
    Timetable::new(&schedule.cron, zone)
}

/// What a schedule wants for times that do not go smoothly. What a newer version may say is taken as if nothing were said.
pub(crate) fn rules(schedule: &v1::Schedule) -> Rules {
    Rules {
        overlap: match schedule.overlap() {
            v1::Overlap::Unspecified | v1::Overlap::Skip => Overlap::Skip,
            v1::Overlap::Queue => Overlap::Queue,
            v1::Overlap::Replace => Overlap::Replace,
        },
        missed: match schedule.missed() {
            v1::Missed::None => Missed::None,
            v1::Missed::Unspecified | v1::Missed::One => Missed::One,
            v1::Missed::All => Missed::All,
        },
        window: schedule.window_ms,
    }
}

/// How far a schedule is.
pub(crate) fn progress(record: &ScheduleRecord) -> Progress {
    Progress { decided_until: record.decided_until_ms, waiting: record.waiting_ms.clone() }
}

/// Writes how far a schedule is, and what was passed over on the way.
fn advance(record: &mut ScheduleRecord, progress: Progress, passed_over: &[PassedOver]) {
    record.decided_until_ms = progress.decided_until;
    record.waiting_ms = progress.waiting;
    record.passed_over.extend(passed_over.iter().map(|passed| v1::PassedOver {
        first_ms: passed.first,
        last_ms: passed.last,
        why: why(passed.why).to_owned(),
    }));
    let surplus = record.passed_over.len().saturating_sub(PASSED_OVER_KEPT);
    record.passed_over.drain(..surplus);
}

fn why(why: Why) -> &'static str {
    match why {
        Why::Overlap => "overlap",
        Why::QueueFull => "queue-full",
        Why::Missed => "missed",
        Why::MadeUpFor => "made-up-for",
    }
}

/// What makes the job of one time one.
fn idempotency_key(record: &ScheduleRecord, tick: Millis) -> String {
    format!("schedule {} at {tick}", record.id)
}
