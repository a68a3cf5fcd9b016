//! Rules about one stage's own fields.

use std::collections::BTreeMap;

use super::job::{bad_name, env_bytes};
use super::{Form, Rules, Sizes, field, inside};
use crate::spec::finding::{Point, Segment, shown};
use crate::spec::limits::{
    ARGV_BYTES_MAX, BACKOFF_MAX, CPU_MILLI_MAX, ENV_BYTES_MAX, GRACE_MAX, ITEM_BYTES_MAX, ITEMS_BYTES_MAX,
    MEMORY_BYTES_MAX, NAMED_RESOURCE_COUNT_MAX, NAMED_RESOURCES_MAX, RESOURCE_NAME_CHARS_MAX, SCRIPT_BYTES_MAX,
    TASKS_PER_STAGE_MAX, TIMEOUT_MAX, WORD_COST_BYTES,
};
use crate::spec::model::{JobSpec, Resources, Run, StageSpec, Tasks, When, Work, resource_variable};
use crate::spec::quantity::{show_duration, show_memory};

/// What a stage's rules need of the whole job, looked at once.
pub(super) struct Whole {
    /// What the job itself says about placement.
    pub(super) placement_bytes: usize,
    /// Items of all stages so far.
    pub(super) items_bytes: usize,
}

impl Rules {
    pub(super) fn stage(
        &mut self,
        spec: &JobSpec,
        index: usize,
        stage: &StageSpec,
        whole: &mut Whole,
        sizes: &Sizes<'_>,
    ) {
        // In an expanded spec it is a path, whose names were looked at before.
        let bad = if self.form == Form::Written { bad_name(&stage.name, "stage") } else { None };
        if let Some((message, help)) = bad {
            // The path ends in `name`, so that a name that could not be read is not judged.
            self.at(Point::StageName, field(index, "name"), message, help);
        }
        match &stage.work {
            Work::Process(run) => {
                self.run(index, run);
                self.tasks(index, &stage.tasks, &mut whole.items_bytes);
            }
            Work::Job(nested) => self.nested(index, stage, nested, sizes),
            Work::Gate(_) => self.gate(index, stage),
        }
        self.env(Some(index), &stage.env);
        let both = env_bytes(&spec.env).saturating_add(env_bytes(&stage.env));
        if both > ENV_BYTES_MAX && env_bytes(&spec.env) <= ENV_BYTES_MAX && env_bytes(&stage.env) <= ENV_BYTES_MAX {
            self.at(
                Point::Key,
                field(index, "env"),
                format!("the variables of job and stage together take more than {} KiB", ENV_BYTES_MAX >> 10),
                "put large data into a file, and its name into a variable",
            );
        }
        self.resources(index, &stage.resources);
        self.placement(Some(index), &stage.placement, whole.placement_bytes);
        let retries = &stage.retries;
        self.at_most(inside(index, "retries", Segment::key("backoff")), retries.backoff, BACKOFF_MAX);
        self.at_most(inside(index, "retries", Segment::key("backoff_max")), retries.backoff_max, BACKOFF_MAX);
        if retries.backoff > retries.backoff_max {
            self.wrong(
                inside(index, "retries", Segment::key("backoff")),
                format!(
                    "the first backoff, {}, is longer than the longest, {}",
                    show_duration(retries.backoff),
                    show_duration(retries.backoff_max)
                ),
                "raise `backoff_max`, or lower `backoff`",
            );
        }
        self.time(field(index, "timeout"), stage.timeout, TIMEOUT_MAX);
        self.at_most(field(index, "grace"), stage.grace, GRACE_MAX);
        if stage.stop_after == Some(0) {
            self.wrong(field(index, "stop_after"), "a stage cannot stop after no failure", "write 1 or more, or never");
        }
        if stage.inputs.is_empty() && stage.after.is_empty() {
            // A gate's condition was looked at when it was still a stage that is a job.
            let (word, help) = match stage.when {
                _ if matches!(stage.work, Work::Gate(_)) => return,
                When::OnSuccess => return,
                When::OnFailure => ("on_failure", "name the stages it looks at in `after`, for example after: [build]"),
                When::Always => ("always", "delete `when`, or name the stages it waits for in `after`"),
            };
            let message = format!("`when: {word}` is about the stages above, and this stage has none");
            self.wrong(field(index, "when"), message, help);
        }
    }

    fn run(&mut self, index: usize, run: &Run) {
        match run {
            Run::Argv(words) => self.argv(index, "run", words),
            Run::Script { text, shell } => {
                if text.trim().is_empty() {
                    self.wrong(field(index, "run"), "the script is empty", "write what a task does");
                }
                if text.len() > SCRIPT_BYTES_MAX {
                    self.at(
                        Point::Key,
                        field(index, "run"),
                        format!("the script has more than {} KiB", SCRIPT_BYTES_MAX >> 10),
                        "put it into a file that the tasks can reach, and run that",
                    );
                }
                self.no_nul(text, || field(index, "run"));
                self.argv(index, "shell", shell);
            }
        }
    }

    fn argv(&mut self, index: usize, key: &'static str, words: &[String]) {
        match words.first() {
            None => self.wrong(field(index, key), "the list is empty", "its first element is the program to start"),
            Some(program) if program.is_empty() => self.wrong(
                inside(index, key, Segment::Index(0)),
                "the program's name is empty",
                "the first element is the program to start",
            ),
            Some(_) => {}
        }
        if words.iter().map(|word| word.len() + WORD_COST_BYTES).sum::<usize>() > ARGV_BYTES_MAX {
            self.at(
                Point::Key,
                field(index, key),
                format!("the arguments take more than {} KiB", ARGV_BYTES_MAX >> 10),
                "put long lists into a file, and its name into the arguments",
            );
        }
        for (position, word) in words.iter().enumerate() {
            self.no_nul(word, || inside(index, key, Segment::Index(position)));
        }
    }

    fn tasks(&mut self, index: usize, tasks: &Tasks, items_bytes: &mut usize) {
        let (key, count) = match tasks {
            Tasks::Count(count) => ("tasks", u64::from(*count)),
            Tasks::Items(items) => ("for_each", items.len() as u64),
        };
        if count > TASKS_PER_STAGE_MAX {
            self.at(
                Point::Key,
                field(index, key),
                format!("{count} tasks are more than the {TASKS_PER_STAGE_MAX} that a stage may have"),
                "let a task do more, or split the job",
            );
        }
        let Tasks::Items(items) = tasks else { return };
        let bytes_before = *items_bytes;
        for (position, item) in items.iter().enumerate() {
            *items_bytes = items_bytes.saturating_add(item.len() + WORD_COST_BYTES);
            let at = || inside(index, "for_each", Segment::Index(position));
            if item.len() > ITEM_BYTES_MAX {
                self.wrong(
                    at(),
                    format!("item {position} has more than {} KiB", ITEM_BYTES_MAX >> 10),
                    "put it into a file, and use the file's name as the item",
                );
            }
            self.no_nul(item, at);
        }
        if bytes_before <= ITEMS_BYTES_MAX && *items_bytes > ITEMS_BYTES_MAX {
            self.at(
                Point::Key,
                field(index, "for_each"),
                format!("with this stage, the job's items take more than {} MiB", ITEMS_BYTES_MAX >> 20),
                "use shorter items, such as names of files, or split the job",
            );
        }
    }

    fn resources(&mut self, index: usize, resources: &Resources) {
        let at = |key: &str| inside(index, "resources", Segment::Key(key.to_owned().into()));
        if resources.cpu_milli > CPU_MILLI_MAX {
            let cores = CPU_MILLI_MAX / 1000;
            let message = format!("no executor has more than {cores} cores");
            self.wrong(at("cpu"), message, format!("ask for at most {cores}; a task runs on one machine"));
        }
        if resources.memory_bytes > MEMORY_BYTES_MAX {
            let most = show_memory(MEMORY_BYTES_MAX);
            let message = format!("no executor has more than {most} of memory");
            self.wrong(at("memory"), message, "ask for less; a task runs on one machine");
        }
        if resources.named.len() > NAMED_RESOURCES_MAX {
            self.at(
                Point::Key,
                field(index, "resources"),
                format!("{} named resources are more than the {NAMED_RESOURCES_MAX} allowed", resources.named.len()),
                "ask only for what the tasks need",
            );
        }
        let mut variables = BTreeMap::new();
        for (name, &count) in &resources.named {
            if let Some(other) = variables.insert(resource_variable(name), name) {
                self.at(
                    Point::Key,
                    at(name),
                    format!("tasks would find `{}` and `{}` in one variable", shown(other), shown(name)),
                    "rename one of them; characters other than letters and digits become _ there",
                );
            }
            let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.len() <= RESOURCE_NAME_CHARS_MAX
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-/".contains(&b));
            // In the model these two have fields of their own.
            if !is_name || name == "cpu" || name == "memory" {
                self.at(
                    Point::Key,
                    at(name),
                    format!("`{}` cannot name a resource", shown(name)),
                    format!(
                        "use 1 to {RESOURCE_NAME_CHARS_MAX} of a-z, 0-9 and _ . - /, a letter first, for example gpu"
                    ),
                );
            }
            if count > NAMED_RESOURCE_COUNT_MAX {
                let message = format!("no executor has more than {NAMED_RESOURCE_COUNT_MAX} of `{}`", shown(name));
                self.wrong(at(name), message, "ask for less; a task runs on one machine");
            }
        }
    }
}
