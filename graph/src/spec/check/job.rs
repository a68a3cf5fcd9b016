//! Rules about the job's own fields.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Form, Rules, Sizes};
use crate::groups::GroupPath;
use crate::schedule::TICK_VARIABLE;
use crate::spec::finding::{FieldPath, Point, Segment, shown};
use crate::spec::limits::{
    AFTER_JOBS_MAX, ENV_BYTES_MAX, LABEL_KEY_CHARS_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LOST_AFTER_MIN,
    NAME_CHARS_MAX, NAMESPACE_CHARS_MAX, STAGES_MAX, TASKS_PER_JOB_MAX, TIMEOUT_MAX, WORD_COST_BYTES,
};
use crate::spec::model::{JobSpec, LostAfter};
use crate::spec::quantity::show_duration;

impl Rules {
    pub(super) fn job(&mut self, spec: &JobSpec, sizes: &Sizes<'_>) {
        let at = |key| FieldPath::job([Segment::key(key)]);
        if let Some((message, help)) = bad_name(&spec.name, "job") {
            self.wrong(at("name"), message, help);
        }
        if !is_namespace(&spec.namespace) {
            self.wrong(
                at("namespace"),
                format!("`{}` cannot name a namespace", shown(&spec.namespace)),
                format!(
                    "use 1 to {NAMESPACE_CHARS_MAX} of a-z, 0-9 and -, a letter or digit first and last, for example \
                     team-search"
                ),
            );
        }
        if let Err(error) = spec.group.parse::<GroupPath>() {
            self.wrong(
                at("group"),
                error.to_string(),
                "write a path such as nightly/2026, or leave the key out for the root",
            );
        }
        let jobs = spec.after_jobs.len();
        if jobs > AFTER_JOBS_MAX {
            self.wrong(
                at("after_jobs"),
                format!("{jobs} are more than the {AFTER_JOBS_MAX} jobs that a job may wait for"),
                "put a job without stages between: it waits for a part of them, and this one for it",
            );
        }
        self.labels(&spec.labels);
        self.env(None, &spec.env);
        self.time(at("timeout"), spec.timeout, TIMEOUT_MAX);
        if let Some(LostAfter::Time(time)) = spec.lost_after {
            self.lost_after(at("lost_after"), time);
        }
        if spec.max_running.is_some_and(|most| most == 0 || u64::from(most) > TASKS_PER_JOB_MAX) {
            self.wrong(
                at("max_running"),
                format!("{} is no number of tasks that may run at the same time", spec.max_running.unwrap_or(0)),
                format!("give 1 to {TASKS_PER_JOB_MAX}, or leave it out for as many as there is room for"),
            );
        }
        self.placement(None, &spec.placement, 0);
        let stages = spec.stages.len();
        if stages > STAGES_MAX {
            self.at(
                Point::Key,
                at("stages"),
                format!("{stages} stages are more than the {STAGES_MAX} that a job may have"),
                "turn stages that do the same into one stage with `tasks` or `for_each`",
            );
        }
        let tasks: u64 = (0..stages).filter_map(|stage| sizes.of(spec, stage)).map(u64::from).sum();
        // A single stage of that size has its own message.
        let is_one = (0..stages).any(|stage| u64::from(spec.stages[stage].tasks.count()) > TASKS_PER_JOB_MAX);
        if tasks > TASKS_PER_JOB_MAX && !is_one {
            self.at(
                Point::Key,
                at("stages"),
                format!("{tasks} tasks in all stages are more than the {TASKS_PER_JOB_MAX} that a job may have"),
                "let a task do more, or split the job",
            );
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        let at = |key: &str| FieldPath::job([Segment::key("labels"), Segment::Key(key.to_owned().into())]);
        if labels.len() > LABELS_MAX {
            self.at(
                Point::Key,
                FieldPath::job([Segment::key("labels")]),
                format!("{} labels are more than the {LABELS_MAX} that a job may have", labels.len()),
                "delete some; what is data for the tasks belongs into `env`",
            );
        }
        for (key, value) in labels {
            let is_key = (1..=LABEL_KEY_CHARS_MAX).contains(&key.len())
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b));
            if !is_key {
                self.at(
                    Point::Key,
                    at(key),
                    format!("`{}` cannot be the key of a label", shown(key)),
                    format!("use 1 to {LABEL_KEY_CHARS_MAX} of letters, digits and . _ / -"),
                );
            }
            if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
                self.wrong(
                    at(key),
                    "the label's value is too long or holds control characters",
                    format!("use at most {LABEL_VALUE_BYTES_MAX} bytes of text on one line"),
                );
            }
        }
    }

    /// The job's environment, or that of a stage.
    pub(super) fn env(&mut self, stage: Option<usize>, env: &BTreeMap<String, String>) {
        let at = |key: &str| FieldPath { stage, tail: vec![Segment::key("env"), Segment::Key(key.to_owned().into())] };
        for (name, value) in env {
            let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !starts_well || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                self.at(
                    Point::Key,
                    at(name),
                    format!("`{}` cannot name an environment variable", shown(name)),
                    "use letters, digits and _, and no digit first",
                );
            } else if name.starts_with("MUSTER_") && !(self.form == Form::Expanded && name == TICK_VARIABLE) {
                self.at(
                    Point::Key,
                    at(name),
                    format!("`{}` belongs to Muster", shown(name)),
                    "names that begin with MUSTER_ are set for each task: choose another name",
                );
            }
            self.no_nul(value, || at(name));
        }
        if env_bytes(env) > ENV_BYTES_MAX {
            self.at(
                Point::Key,
                FieldPath { stage, tail: vec![Segment::key("env")] },
                format!("the variables take more than {} KiB", ENV_BYTES_MAX >> 10),
                "put large data into a file, and its name into a variable",
            );
        }
    }

    /// A time that must not be zero.
    pub(super) fn time(&mut self, path: FieldPath, time: Option<Duration>, most: Duration) {
        match time {
            Some(time) if time < Duration::from_millis(1) => {
                self.wrong(path, "no time at all is not allowed", "leave the key out if no limit is meant");
            }
            Some(time) => self.at_most(path, time, most),
            None => {}
        }
    }

    fn lost_after(&mut self, path: FieldPath, time: Duration) {
        if time < LOST_AFTER_MIN {
            let least = show_duration(LOST_AFTER_MIN);
            let message = format!("this is shorter than {least}: a short hiccup of the network would be a loss");
            self.wrong(path, message, format!("write at least {least}, or leave the key out for the cluster's own"));
        } else {
            self.at_most(path, time, TIMEOUT_MAX);
        }
    }

    pub(super) fn at_most(&mut self, path: FieldPath, time: Duration, most: Duration) {
        if time > most {
            let most = show_duration(most);
            self.wrong(path, format!("this is longer than {most}"), format!("write at most {most}"));
        }
    }
}

/// What an environment counts against its limit.
pub(in crate::spec) fn env_bytes(env: &BTreeMap<String, String>) -> usize {
    env.iter().map(|(name, value)| name.len() + value.len() + WORD_COST_BYTES).sum()
}

/// Message and help, if the text cannot name a job or a stage. A name may hold whatever can be seen: in paths and directories
/// it is encoded.
pub(super) fn bad_name(name: &str, what: &str) -> Option<(String, String)> {
    let is_too_long = name.chars().nth(NAME_CHARS_MAX).is_some();
    // Besides control characters, what breaks a line in some programs.
    let is_unseen = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !name.is_empty() && !is_too_long && name.trim() == name && !name.contains(is_unseen) {
        return None;
    }
    let message = if name.is_empty() {
        format!("the {what}'s name is empty")
    } else if is_too_long {
        format!("the {what}'s name is longer than {NAME_CHARS_MAX} characters")
    } else {
        format!("`{}` cannot name a {what}", shown(name))
    };
    Some((message, format!("use 1 to {NAME_CHARS_MAX} characters on one line, and no space first or last")))
}

/// Whether it can name a namespace.
#[must_use]
pub fn is_namespace(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= NAMESPACE_CHARS_MAX
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
