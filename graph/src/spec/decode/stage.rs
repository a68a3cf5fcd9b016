//! One stage.

use std::time::Duration;

use super::Decoder;
use super::fields::Fields;
use super::job::ReadStage;
use crate::spec::finding::{Segment, shown};
use crate::spec::keys::{INPUT_KINDS, Key, RESOURCES, RETRIES, STAGE, STAGE_NAME, WHENS};
use crate::spec::limits::{NAMED_RESOURCE_COUNT_MAX, TASKS_PER_STAGE_MAX};
use crate::spec::model::{Input, InputKind, Resources, Retries, Run, StageSpec, Tasks, When, Work};
use crate::spec::node::{Entry, Kind, Node, Value};

/// Between SIGTERM and SIGKILL, unless the stage says otherwise.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// What a task gets of the processor unless the stage says otherwise: one core.
const DEFAULT_CPU_MILLI: u32 = 1_000;
/// The interpreter of a script unless the stage says otherwise.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-e"];
/// After how many failed tasks a stage starts no more, unless it says otherwise.
const DEFAULT_STOP_AFTER: u32 = 1;

const STAGE_HELP: &str = "write the stage's keys below it, at least `run`";
const ARGV_HELP: &str = "write for example [python3, train.py, --fast], or a script as text";

const LISTED: &[Key] = &[STAGE_NAME];

impl Decoder {
    /// A stage from its own map. `name` is its key, if it has one; otherwise it is a field.
    pub(super) fn stage(&mut self, node: &Node, name: Option<String>) -> ReadStage {
        let is_listed = name.is_none();
        let tables: &[_] = if is_listed { &[LISTED, STAGE] } else { &[STAGE] };
        let Some(mut fields) = self.fields(node, tables, "a stage, which is a map", STAGE_HELP) else {
            return ReadStage { spec: blank(name.unwrap_or_default()), is_sized: false, for_each: None, inner: None };
        };
        let name = name.unwrap_or_else(|| {
            let entry = fields.get("name");
            if entry.is_none() && fields.is_plainly_missing("name") {
                self.missing("name", "the stage has no name", "add `name`, for example name: map");
            }
            self.field(entry, "name", Self::text).unwrap_or_default()
        });
        self.stage_fields(&mut fields, name, false)
    }

    /// The fields of a stage. At the top level, `env`, `timeout` and `placement` are the job's, who has read
    /// them.
    pub(super) fn stage_fields(&mut self, fields: &mut Fields<'_>, name: String, is_top: bool) -> ReadStage {
        if let Some(job) = fields.get("job") {
            return self.job_stage(fields, job, name, is_top);
        }
        if let Some(with) = fields.get("with") {
            self.within(Segment::key("with"), |decoder| {
                let help = "name the job under `job`; variables for a process go into `env`";
                decoder.wrong(with.key_span, "`with` is for stages that are jobs", help);
            });
        }
        let mut spec = blank(name);
        let (run, shell) = (fields.get("run"), fields.get("shell"));
        if run.is_none() && fields.is_plainly_missing("run") {
            self.missing(
                "run",
                if is_top { "the job has no `run`" } else { "the stage has no `run`" },
                "add what its tasks do, for example run: [python3, train.py]; or `job`, for a stage that is a job",
            );
        }
        spec.work = Work::Process(self.run(run, shell));

        let (tasks, for_each) = (fields.get("tasks"), fields.get("for_each"));
        let mut is_sized = fields.is_plainly_missing("tasks") && fields.is_plainly_missing("for_each");
        if let Some(entry) = tasks {
            let count = |decoder: &mut Self, node: &Node| {
                decoder.whole::<u32>(node, "a number of tasks", 0, TASKS_PER_STAGE_MAX.into())
            };
            if let Some(count) = self.field(Some(entry), "tasks", count) {
                (spec.tasks, is_sized) = (Tasks::Count(count), for_each.is_none());
            }
        }
        let mut deferred = None;
        if let Some(entry) = for_each {
            if tasks.is_some() {
                self.within(Segment::key("for_each"), |decoder| {
                    decoder.wrong(
                        entry.key_span,
                        "a stage has either `tasks` or `for_each`",
                        "delete one: with `for_each`, the number of items is the number of tasks",
                    );
                });
            }
            match self.field(Some(entry), "for_each", Self::for_each) {
                Some(super::for_each::Found::Items(items)) => {
                    (spec.tasks, is_sized) = (Tasks::Items(items), tasks.is_none())
                }
                Some(super::for_each::Found::Later(source)) => {
                    (spec.tasks, deferred) = (Tasks::Items(Vec::new()), Some(source));
                }
                None => {}
            }
        }

        spec.inputs = self.field(fields.get("inputs"), "inputs", Self::inputs).unwrap_or_default();
        let after = |decoder: &mut Self, node: &Node| decoder.words(node, "write for example [prepare]");
        spec.after = self.field(fields.get("after"), "after", after).unwrap_or_default();
        spec.when = self.field(fields.get("when"), "when", Self::when).unwrap_or(spec.when);
        let (env, timeout, placement) = (fields.get("env"), fields.get("timeout"), fields.get("placement"));
        if !is_top {
            spec.env = self.field(env, "env", Self::env).unwrap_or_default();
            spec.timeout = self.field(timeout, "timeout", Self::duration);
            spec.placement = self.field(placement, "placement", Self::placement).unwrap_or_default();
        }
        if let Some(resources) = self.field(fields.get("resources"), "resources", Self::resources) {
            spec.resources = resources;
        }
        if let Some(retries) = self.field(fields.get("retries"), "retries", Self::retries) {
            spec.retries = retries;
        }
        spec.grace = self.field(fields.get("grace"), "grace", Self::duration).unwrap_or(spec.grace);
        let deterministic = self.field(fields.get("deterministic"), "deterministic", Self::truth);
        spec.deterministic = deterministic.unwrap_or(spec.deterministic);
        spec.stop_after =
            self.field(fields.get("stop_after"), "stop_after", Self::stop_after).unwrap_or(spec.stop_after);
        ReadStage { spec, is_sized, for_each: deferred, inner: None }
    }

    pub(super) fn when(&mut self, node: &Node) -> Option<When> {
        self.word(node, WHENS, &[When::OnSuccess, When::OnFailure, When::Always])
    }

    pub(super) fn env(&mut self, node: &Node) -> Option<std::collections::BTreeMap<String, String>> {
        self.texts(node, "write for example {LANG: C.UTF-8}")
    }

    /// `run` and `shell` belong together. Where `run` cannot be read, something empty stands in.
    fn run(&mut self, run: Option<&Entry>, shell: Option<&Entry>) -> Run {
        let argv = |decoder: &mut Self, node: &Node| decoder.words(node, "write a list, for example [bash, -eu]");
        let interpreter = self.field(shell, "shell", argv);
        let Some(run) = run else { return Run::Argv(Vec::new()) };
        if let Value::Scalar(Kind::Text, text) = &run.value.value {
            if shell.is_none()
                && let Some(line) = text.strip_prefix("#!")
            {
                let words: Vec<&str> = line.lines().next().unwrap_or_default().split_whitespace().collect();
                let help = format!("delete the line, and name the interpreter: shell: [{}]", shown(&words.join(", ")));
                self.within(Segment::key("run"), |decoder| {
                    decoder.wrong(run.value.span, "the script's `#!` line would not be looked at", help);
                });
            }
            let shell = interpreter.unwrap_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec());
            return Run::Script { text: text.to_string(), shell };
        }
        if let Some(shell) = shell
            && matches!(run.value.value, Value::List(_))
        {
            self.within(Segment::key("shell"), |decoder| {
                decoder.wrong(
                    shell.key_span,
                    "`shell` is for scripts, and `run` is a list here",
                    "delete `shell`, or write `run` as text",
                );
            });
        }
        self.within(Segment::key("run"), |decoder| {
            let words = decoder.list(&run.value, "a list or a script", ARGV_HELP, String::new, Self::text);
            Run::Argv(words.unwrap_or_default())
        })
    }

    fn inputs(&mut self, node: &Node) -> Option<Vec<Input>> {
        const HELP: &str = "write for example {map: shuffle}, or [prepare, fetch] to read all output of these";
        if matches!(node.value, Value::List(_)) {
            let names = self.words(node, HELP)?;
            return Some(names.into_iter().map(|stage| Input::of(stage, InputKind::All)).collect());
        }
        let entries = self.entries(node, "a map or a list of stages", HELP)?;
        let kinds = [InputKind::All, InputKind::Each, InputKind::Shuffle];
        let mut inputs = Vec::with_capacity(entries.len());
        for (_, entry) in entries {
            let name = entry.key.to_string();
            let read = |decoder: &mut Self| decoder.word(&entry.value, INPUT_KINDS, &kinds);
            // Another kind may stand in: it only matters to rules that compare sizes.
            let kind = self.within(Segment::Key(name.clone().into()), read).unwrap_or(InputKind::All);
            inputs.push(Input::of(name, kind));
        }
        Some(inputs)
    }

    fn resources(&mut self, node: &Node) -> Option<Resources> {
        const HELP: &str = "write for example {cpu: 2, memory: 4GiB, gpu: 1}";
        let mut resources = Resources { cpu_milli: DEFAULT_CPU_MILLI, ..Resources::default() };
        for (_, entry) in self.entries(node, "a map", HELP)? {
            let known = RESOURCES.iter().find(|key| *key.name == *entry.key);
            let name = entry.key.to_string();
            self.within(Segment::Key(name.clone().into()), |decoder| match known.map(|key| key.name) {
                Some("cpu") => resources.cpu_milli = decoder.cpu(&entry.value).unwrap_or(resources.cpu_milli),
                Some("memory") => resources.memory_bytes = decoder.memory(&entry.value).unwrap_or_default(),
                Some(other) => debug_assert!(false, "the decoder does not know the resource `{other}`"),
                None => {
                    let most = NAMED_RESOURCE_COUNT_MAX.into();
                    match decoder.whole::<u32>(&entry.value, "a whole number of pieces", 0, most) {
                        // Zero of something is no demand at all.
                        Some(0) | None => {}
                        Some(count) => {
                            resources.named.insert(name, count);
                        }
                    }
                }
            });
        }
        Some(resources)
    }

    fn retries(&mut self, node: &Node) -> Option<Retries> {
        const HELP: &str = "write a number from 0 to 255, or a map such as {failed: 2, timed_out: 1, backoff: 5s}";
        let budget =
            |decoder: &mut Self, node: &Node| decoder.whole::<u8>(node, "a number of retries", 0, u8::MAX.into());
        let mut retries = Retries::default();
        if matches!(node.value, Value::Scalar(Kind::Number, _)) {
            retries.failed = budget(self, node)?;
            return Some(retries);
        }
        let mut fields = self.fields(node, &[RETRIES], "a number or a map", HELP)?;
        for (name, place) in [
            ("failed", &mut retries.failed),
            ("timed_out", &mut retries.timed_out),
            ("out_of_memory", &mut retries.out_of_memory),
            ("executor_lost", &mut retries.executor_lost),
            ("launch_refused", &mut retries.launch_refused),
            ("input_unreadable", &mut retries.input_unreadable),
        ] {
            *place = self.field(fields.get(name), name, budget).unwrap_or(*place);
        }
        retries.backoff = self.field(fields.get("backoff"), "backoff", Self::duration).unwrap_or(retries.backoff);
        let backoff_max = self.field(fields.get("backoff_max"), "backoff_max", Self::duration);
        // Who asks for a long first backoff has not asked for a shorter longest one.
        retries.backoff_max = backoff_max.unwrap_or(retries.backoff_max.max(retries.backoff));
        Some(retries)
    }

    fn stop_after(&mut self, node: &Node) -> Option<Option<u32>> {
        match &node.value {
            Value::Scalar(Kind::Text, text) if &**text == "never" => Some(None),
            Value::Scalar(Kind::Number, _) => {
                self.whole(node, "a number of failed tasks", 1, u32::MAX.into()).map(Some)
            }
            _ => {
                self.mismatch(node, "a number of failed tasks", "write a number from 1 on, or never");
                None
            }
        }
    }
}

/// A stage of which nothing is known but its name.
pub(super) fn blank(name: String) -> StageSpec {
    StageSpec {
        name,
        work: Work::Process(Run::Argv(Vec::new())),
        tasks: Tasks::Count(1),
        inputs: Vec::new(),
        after: Vec::new(),
        when: When::OnSuccess,
        env: Default::default(),
        resources: Resources { cpu_milli: DEFAULT_CPU_MILLI, ..Resources::default() },
        placement: Default::default(),
        retries: Retries::default(),
        timeout: None,
        grace: DEFAULT_GRACE,
        deterministic: true,
        stop_after: Some(DEFAULT_STOP_AFTER),
    }
}
