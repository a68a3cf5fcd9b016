//! How a job comes along, said on standard error: bars on a terminal, a line for each change of a stage's state
//! elsewhere, nothing when nothing should be said.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use muster_client::v1::{Gate, JobView, StageState, StageView};

use crate::context::Console;
use crate::output::views::{self, Counts};

/// Stages that get a bar of their own; a terminal has not many more lines. The others share the first bar, the job's.
const BARS_MAX: usize = 16;
/// Redraws a second.
pub(crate) const DRAWS_PER_SECOND: u8 = 10;

/// Says it.
#[derive(Debug)]
pub(crate) enum Progress {
    Bars(Box<Bars>),
    Lines(Lines),
    Silent,
}

impl Progress {
    pub(crate) fn new(console: Console) -> Self {
        if console.is_quiet() {
            Self::Silent
        } else if console.terminal {
            Self::Bars(Box::new(Bars::new(console.color)))
        } else {
            Self::Lines(Lines { console, told: BTreeMap::new() })
        }
    }

    pub(crate) fn silent() -> Self {
        Self::Silent
    }

    pub(crate) fn update(&mut self, view: &JobView) {
        match self {
            Self::Bars(bars) => bars.update(view),
            Self::Lines(lines) => lines.update(view),
            Self::Silent => {}
        }
    }

    /// Clears the bars away, so that what is printed next stands on clean ground.
    pub(crate) fn finish(&mut self) {
        if let Self::Bars(bars) = self {
            bars.all.clear().ok();
        }
    }
}

/// One bar for the job, and one for each of the first stages.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    job: ProgressBar,
    stages: BTreeMap<u32, ProgressBar>,
    color: bool,
}

impl Bars {
    fn new(color: bool) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        let job = all.add(ProgressBar::new(0).with_style(style(color)));
        Self { all, job, stages: BTreeMap::new(), color }
    }

    fn update(&mut self, view: &JobView) {
        draw(&self.job, &view.name, views::job_state(view.state()), view.tasks.into());
        for stage in view.stages.iter().filter(|stage| is_shown(stage)).take(BARS_MAX) {
            let bar = self
                .stages
                .entry(stage.stage)
                .or_insert_with(|| self.all.add(ProgressBar::new(0).with_style(style(self.color))));
            draw(bar, &stage.name, views::state_of(stage), stage.tasks.into());
        }
    }
}

/// A nested job is told as a whole, and what is in it only where it failed.
fn is_shown(stage: &StageView) -> bool {
    let is_inside = stage.name.contains('/');
    stage.gate() != Gate::Begin && (!is_inside || stage.state() == StageState::Failed)
}

fn draw(bar: &ProgressBar, name: &str, state: &str, counts: Counts) {
    bar.set_length(counts.total.into());
    bar.set_position(counts.over().into());
    bar.set_prefix(name.to_owned());
    bar.set_message(match counts.failed {
        0 => format!("{state}, {} running", counts.running),
        failed => format!("{state}, {} running, {failed} failed", counts.running),
    });
}

pub(crate) fn style(color: bool) -> ProgressStyle {
    let bar = if color { "{bar:24.cyan/blue}" } else { "{bar:24}" };
    let template = format!("{{prefix:20!}} {bar} {{pos:>7}}/{{len:<7}} {{msg}}");
    ProgressStyle::with_template(&template).expect("the template is fixed and right").progress_chars("━╸ ")
}

/// A line when a stage's state changes.
#[derive(Debug)]
pub(crate) struct Lines {
    console: Console,
    /// By stage: the state last told.
    told: BTreeMap<u32, &'static str>,
}

impl Lines {
    fn update(&mut self, view: &JobView) {
        for stage in view.stages.iter().filter(|stage| is_shown(stage)) {
            let state = views::state_of(stage);
            if self.told.insert(stage.stage, state) != Some(state)
                && let Some(line) = line(stage)
            {
                self.console.note(&line);
            }
        }
    }
}

/// What is worth a line: a stage that begins or ends.
fn line(stage: &StageView) -> Option<String> {
    let counts = Counts::from(stage.tasks);
    let state = views::state_of(stage);
    let because = if stage.reason.is_empty() { String::new() } else { format!(": {}", stage.reason) };
    match state {
        "running" => Some(format!("{}: running, {} tasks", stage.name, counts.total)),
        "unresolved" | "resolved" | "unknown" => None,
        over => {
            Some(format!("{}: {over}, {} of {} tasks successful{because}", stage.name, counts.successful, counts.total))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_client::v1;

    #[test]
    fn only_the_beginning_and_the_end_of_a_stage_are_worth_a_line() {
        let tasks = Some(v1::Counts { successful: 2, failed: 1, ..Default::default() });
        let stage = |state: StageState, reason: &str| StageView {
            name: "map".to_owned(),
            state: state.into(),
            reason: reason.to_owned(),
            tasks,
            ..Default::default()
        };
        assert_eq!(line(&stage(StageState::Unresolved, "")), None);
        assert_eq!(line(&stage(StageState::Running, "")).as_deref(), Some("map: running, 3 tasks"));
        assert_eq!(
            line(&stage(StageState::Failed, "task 1 failed")).as_deref(),
            Some("map: failed, 2 of 3 tasks successful: task 1 failed")
        );
    }
}
