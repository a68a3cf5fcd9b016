//! How a group comes along, said on standard error: a bar on a terminal, a line now and then elsewhere, nothing when
//! nothing should be said.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::context::Console;
use crate::output::group::Group;
use crate::progress::{DRAWS_PER_SECOND, style};

/// How many parts of its jobs make a line: a group of a million is not to fill a log.
const LINES: u64 = 20;
/// A pace that was measured for less is chance.
const MEASURED_SECONDS_MIN: f64 = 2.0;

/// Says it.
#[derive(Debug)]
pub(crate) enum GroupProgress {
    Bar { bar: ProgressBar, pace: Pace },
    Lines { console: Console, pace: Pace, told: Option<(&'static str, u64)> },
    Silent,
}

/// How fast jobs end, over the time in which that was seen.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the first view came, and how many jobs were over in it.
    first: Option<(Instant, u64)>,
}

impl Pace {
    /// Jobs a second, if it can be said.
    fn next(&mut self, over: u64, at: Instant) -> Option<f64> {
        let (began, before) = *self.first.get_or_insert((at, over));
        let seconds = at.saturating_duration_since(began).as_secs_f64();
        (seconds >= MEASURED_SECONDS_MIN).then(|| over.saturating_sub(before) as f64 / seconds)
    }
}

impl GroupProgress {
    pub(crate) fn new(console: Console) -> Self {
        let pace = Pace::default();
        if console.is_quiet() {
            Self::Silent
        } else if console.terminal {
            let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
            let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style(console.color));
            Self::Bar { bar, pace }
        } else {
            Self::Lines { console, pace, told: None }
        }
    }

    pub(crate) fn silent() -> Self {
        Self::Silent
    }

    pub(crate) fn update(&mut self, group: &Group) {
        let over = group.jobs.over();
        match self {
            Self::Bar { bar, pace } => {
                bar.set_length(group.jobs.total);
                bar.set_position(over);
                bar.set_prefix(group.group.clone());
                bar.set_message(message(group, pace.next(over, Instant::now())));
            }
            Self::Lines { console, pace, told } => {
                let pace = pace.next(over, Instant::now());
                let part = over.saturating_mul(LINES).checked_div(group.jobs.total).unwrap_or(0);
                if told.replace((group.state, part)) != Some((group.state, part)) {
                    let jobs = format!("{over} of {} jobs over", group.jobs.total);
                    console.note(&format!("{}: {jobs}, {}", group.group, message(group, pace)));
                }
            }
            Self::Silent => {}
        }
    }

    /// Clears the bar away, so that what is printed next stands on clean ground.
    pub(crate) fn finish(&mut self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

/// `running, 2 failed, 1.5 jobs/s`.
fn message(group: &Group, pace: Option<f64>) -> String {
    let mut text = group.state.to_owned();
    for (number, what) in [(group.jobs.failed, "failed"), (group.jobs.cancelled, "cancelled")] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    if let Some(pace) = pace {
        text.push_str(&format!(", {pace:.1} jobs/s"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_client::v1;

    use super::*;

    #[test]
    fn a_pace_is_told_once_it_was_measured_and_counts_from_the_first_view() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        assert_eq!(pace.next(100, began), None);
        assert_eq!(pace.next(110, began + Duration::from_secs(1)), None, "too short");
        assert_eq!(pace.next(110, began + Duration::from_secs(4)), Some(2.5));
        assert_eq!(pace.next(90, began + Duration::from_secs(5)), Some(0.0), "jobs were retried");
    }

    #[test]
    fn what_failed_and_how_fast_it_goes_is_said_beside_the_state() {
        let jobs = Some(v1::JobCounts { live: 3, failed: 2, cancelled: 1, ..Default::default() });
        let view = v1::GroupView { state: v1::GroupState::Failed.into(), jobs, ..Default::default() };
        assert_eq!(message(&Group::from(view.clone()), Some(1.25)), "failed, 2 failed, 1 cancelled, 1.2 jobs/s");
        let running = v1::GroupView { state: v1::GroupState::Running.into(), jobs: None, ..view };
        assert_eq!(message(&Group::from(running), None), "running");
    }
}
