//! The table of keys: the one list that the decoder, the JSON Schema and the tests of the documentation share.
//!
//! **Invariant.** The decoder opens every map of fixed keys with one of these tables: a key that is not in the table
//! is unknown, and (in debug builds) a key of the table that the decoder does not ask for is a panic. So neither can
//! have a key that the other lacks.

use serde_json::{Value, json};

use super::limits::{
    AFTER_JOBS_MAX, CPU_MILLI_MAX, LABELS_MAX, NAMED_RESOURCE_COUNT_MAX, NAMESPACE_CHARS_MAX, PARAMS_MAX,
    PREFERENCE_WEIGHT_MAX, STAGES_MAX, TASKS_PER_JOB_MAX, TASKS_PER_STAGE_MAX,
};
use super::params::TYPES;
use crate::groups::{GROUP_DEPTH_MAX, GROUP_NAME_CHARS_MAX};
use crate::ids::JOB_ID_LEN;

/// A key, what it is for, and the shape of its value.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) shape: fn() -> Value,
}

/// Keys of a job that runs alone. In a job that is a stage of another they would never count.
pub(super) const JOB_ALONE: &[Key] = &[
    Key { name: "name", about: "The job's name. Shown everywhere; need not be unique.", shape: || reference("name") },
    Key {
        name: "namespace",
        about: "The tenant. Default: default.",
        shape: || {
            let pattern = format!("^[a-z0-9]([a-z0-9-]{{0,{}}}[a-z0-9])?$", NAMESPACE_CHARS_MAX - 2);
            json!({"type": "string", "pattern": pattern})
        },
    },
    Key {
        name: "group",
        about: "The path of the group that it is in, such as nightly/2026. Default: the root.",
        shape: || {
            let name = format!("[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}", GROUP_NAME_CHARS_MAX - 1);
            let pattern = format!("^/?({name}(/{name}){{0,{}}})?$", GROUP_DEPTH_MAX - 1);
            json!({"type": "string", "pattern": pattern})
        },
    },
    Key {
        name: "after_jobs",
        about: "Jobs that have to end before it begins: ID, which means success, ID:failure or ID:any. If one ends otherwise, this one is \
                cancelled.",
        shape: || {
            let pattern = format!("^[0-9A-Za-z]{{{JOB_ID_LEN}}}(:(success|failure|any))?$");
            json!({"type": "array", "items": {"type": ["string", "number"], "pattern": pattern}, "maxItems": AFTER_JOBS_MAX})
        },
    },
    Key {
        name: "labels",
        about: "Free to use: for finding jobs again.",
        shape: || json!({"type": "object", "additionalProperties": reference("text"), "maxProperties": LABELS_MAX}),
    },
    Key {
        name: "priority",
        about: "Higher goes first inside a namespace: a point is worth an hour of waiting. Default: 0.",
        shape: || json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
    },
    Key {
        name: "timeout",
        about: "Of the whole job, from its first task's start. Default: none.",
        shape: || reference("duration"),
    },
    Key {
        name: "lost_after",
        about: "How long an executor may be out of reach before its tasks run elsewhere; never: they wait for it. \
                Default: the cluster's.",
        shape: || reference("duration_or_never"),
    },
    Key {
        name: "max_running",
        about: "How many of its tasks may run at the same time, of all stages. Default: as many as there is room for.",
        shape: || json!({"type": "integer", "minimum": 1, "maximum": TASKS_PER_JOB_MAX}),
    },
    Key {
        name: "params",
        about: "What can be given when it is run, by name: a type, or a map. A value {$param: NAME} stands for what is given.",
        shape: || {
            json!({"type": "object", "propertyNames": reference("param_name"), "additionalProperties": reference("param"),
                   "maxProperties": PARAMS_MAX})
        },
    },
];

/// Keys of every job, also of one that stands under a stage's `job`.
pub(super) const JOB: &[Key] = &[
    Key { name: "env", about: "Environment of every task of every stage.", shape: || reference("env") },
    Key {
        name: "placement",
        about: "On which executors its tasks may run, by label; a stage's own word wins.",
        shape: || reference("placement"),
    },
    Key {
        name: "takes",
        about: "Inputs that it reads from the job that it is a stage of; its stages name them in `inputs`.",
        shape: || json!({"type": "array", "items": reference("name")}),
    },
    Key {
        name: "outputs",
        about: "Whose output is read by who reads the stage that this job is: a stage, or a map of names to stages.",
        shape: || {
            json!({"oneOf": [
                reference("name"),
                {"type": "object", "additionalProperties": reference("name"), "minProperties": 1},
            ]})
        },
    },
    Key {
        name: "stages",
        about: "The stages: a map of names to stages, or a list of stages that have a `name`.",
        shape: || {
            json!({"oneOf": [
                {"type": "object", "additionalProperties": reference("stage"), "maxProperties": STAGES_MAX},
                {"type": "array", "items": reference("listed_stage"), "maxItems": STAGES_MAX},
            ]})
        },
    },
];

/// Keys of a stage. A stage in a list has a `name` besides.
pub(super) const STAGE: &[Key] = &[
    Key {
        name: "run",
        about: "What one task does: a program and its arguments as a list, or a script.",
        shape: || json!({"oneOf": [{"type": "string"}, reference("argv")]}),
    },
    Key {
        name: "shell",
        about: "The interpreter of a script, which gets the script's path as its last argument. \
                Default: [/bin/sh, -e].",
        shape: || reference("argv"),
    },
    Key {
        name: "job",
        about: "The job that the stage is: the name of a definition, NAME or NAME@REVISION, or the job itself.",
        shape: || json!({"oneOf": [reference("definition"), reference("inline_job")]}),
    },
    Key { name: "with", about: "Values of that definition's parameters.", shape: || json!({"type": "object"}) },
    Key {
        name: "tasks",
        about: "How many tasks. Default: 1.",
        shape: || json!({"type": "integer", "minimum": 0, "maximum": TASKS_PER_STAGE_MAX}),
    },
    Key {
        name: "for_each",
        about: "A task for each item, which it sees as MUSTER_ITEM.",
        shape: || reference("for_each"),
    },
    Key {
        name: "inputs",
        about: "Stages whose output is read: a map of stage to all, each or shuffle; a list means all. Of a stage that is a \
                job: a map of what the job takes to stages; a list where the names are the same.",
        shape: || {
            json!({"oneOf": [
                {"type": "object", "additionalProperties": reference("text")},
                {"type": "array", "items": reference("name")},
            ]})
        },
    },
    Key {
        name: "after",
        about: "Stages that are waited for without reading their output.",
        shape: || json!({"type": "array", "items": reference("name")}),
    },
    Key { name: "env", about: "Environment of the stage's tasks, on top of the job's.", shape: || reference("env") },
    Key { name: "resources", about: "What one task needs.", shape: || reference("resources") },
    Key {
        name: "placement",
        about: "On which executors its tasks may run, by label, on top of the job's word.",
        shape: || reference("placement"),
    },
    Key {
        name: "retries",
        about: "How often a task may fail: a number for its own failures, or a map of budgets by class.",
        shape: || json!({"oneOf": [reference("budget"), reference("retries")]}),
    },
    Key { name: "timeout", about: "Of one attempt. Default: none.", shape: || reference("duration") },
    Key { name: "grace", about: "Between SIGTERM and SIGKILL. Default: 10s.", shape: || reference("duration") },
    Key {
        name: "when",
        about: "On which outcome of the stages above this one runs. Default: on_success.",
        shape: || json!({"enum": WHENS}),
    },
    Key {
        name: "deterministic",
        about: "Whether a second run gives the same output. If false, all consumers of an output that was made \
                again run again. Default: true.",
        shape: || json!({"type": "boolean"}),
    },
    Key {
        name: "stop_after",
        about: "After how many failed tasks no further ones are started, or never. Default: 1.",
        shape: || json!({"oneOf": [{"type": "integer", "minimum": 1, "maximum": u32::MAX}, {"const": "never"}]}),
    },
];

/// The key that a stage in a list has besides.
pub(super) const STAGE_NAME: Key =
    Key { name: "name", about: "The stage's name, unique in the job.", shape: || reference("name") };

/// Keys of `retries` that are budgets, in the order of the model.
pub(super) const RETRIES: &[Key] = &[
    Key { name: "failed", about: "The task's own failures. Default: 0.", shape: || reference("budget") },
    Key { name: "timed_out", about: "Ran longer than `timeout`. Default: 0.", shape: || reference("budget") },
    Key { name: "out_of_memory", about: "Killed for memory. Default: 0.", shape: || reference("budget") },
    Key { name: "executor_lost", about: "Its executor went away. Default: 10.", shape: || reference("budget") },
    Key { name: "launch_refused", about: "Its executor did not take it. Default: 255.", shape: || reference("budget") },
    Key {
        name: "input_unreadable",
        about: "Its inputs could not be read. Default: 10.",
        shape: || reference("budget"),
    },
    Key {
        name: "backoff",
        about: "Before the first retry; doubles each time. Default: 1s.",
        shape: || reference("duration"),
    },
    Key { name: "backoff_max", about: "At most. Default: 60s.", shape: || reference("duration") },
];

/// Keys of `resources` with a unit; all others are counted by name.
pub(super) const RESOURCES: &[Key] = &[
    Key {
        name: "cpu",
        about: "Cores: 2, 0.5 or \"500m\". Default: 1.",
        shape: || {
            json!({"oneOf": [
                {"type": "number", "minimum": 0, "maximum": CPU_MILLI_MAX / 1000},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?m?$"},
            ]})
        },
    },
    Key {
        name: "memory",
        about: "Bytes: 2GiB, 512MB, or a number. Default: 0.",
        shape: || {
            json!({"oneOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? *(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$"},
            ]})
        },
    },
];

/// Keys of a parameter.
pub(super) const PARAM: &[Key] = &[
    Key {
        name: "type",
        about: "text, int, number, bool or list. Default: as `default` says, or text.",
        shape: || json!({"enum": TYPES}),
    },
    Key {
        name: "of",
        about: "What a list's elements are. Default: text.",
        shape: || json!({"enum": TYPES[..TYPES.len() - 1]}),
    },
    Key {
        name: "default",
        about: "What holds when nothing is given. Default: something must be given.",
        shape: || reference("argument"),
    },
    Key { name: "min", about: "The least number; of a list, of elements.", shape: || json!({"type": "number"}) },
    Key { name: "max", about: "The largest number; of a list, of elements.", shape: || json!({"type": "number"}) },
    Key {
        name: "choices",
        about: "What it can be; of a list, what its elements can be.",
        shape: || json!({"type": "array", "items": reference("text"), "minItems": 1}),
    },
    Key { name: "help", about: "What it is for.", shape: || reference("text") },
];

/// Keys of `for_each` as a map; exactly one is given.
pub(super) const FOR_EACH: &[Key] = &[
    Key {
        name: "lines",
        about: "A file with an item on each line; empty lines are left out.",
        shape: || json!({"type": "string", "minLength": 1}),
    },
    Key {
        name: "glob",
        about: "A pattern of paths, of which each is an item.",
        shape: || json!({"type": "string", "minLength": 1}),
    },
    Key {
        name: "matrix",
        about: "Lists by name; each combination is an item, as a JSON object on one line.",
        shape: || {
            let value = json!({"anyOf": [{"type": ["string", "number", "boolean", "null"]}, reference("mark")]});
            let axis = json!({"anyOf": [{"type": "array", "minItems": 1, "items": value}, reference("mark")]});
            json!({"type": "object", "minProperties": 1, "additionalProperties": axis})
        },
    },
];

/// Keys of `placement`.
pub(super) const PLACEMENT: &[Key] = &[
    Key {
        name: "require",
        about: "What labels an executor must have: a map of label to rule.",
        shape: || json!({"type": "object", "additionalProperties": reference("label_rule")}),
    },
    Key {
        name: "prefer",
        about: "What labels count in an executor's favour.",
        shape: || json!({"type": "array", "items": reference("preference")}),
    },
    Key {
        name: "policy",
        about: "How tasks spread over equally good executors. Default: spread.",
        shape: || json!({"enum": POLICIES}),
    },
];

/// Keys of an element of `prefer`.
pub(super) const PREFERENCE: &[Key] = &[
    Key { name: "label", about: "The label's key.", shape: || reference("text") },
    Key { name: "is", about: "What it should be.", shape: || reference("label_rule") },
    Key {
        name: "weight",
        about: "How much that counts. Default: 1.",
        shape: || json!({"type": "integer", "minimum": 1, "maximum": PREFERENCE_WEIGHT_MAX}),
    },
];

/// Keys of a label's rule as a map; exactly one is given.
pub(super) const LABEL_RULE: &[Key] = &[
    Key {
        name: "not",
        about: "None of these values; an executor without the label is fine.",
        shape: || json!({"oneOf": [reference("text"), reference("texts")]}),
    },
    Key {
        name: "exists",
        about: "Whether the label is there, whatever its value.",
        shape: || json!({"type": "boolean"}),
    },
];

/// Words of `policy`.
pub(super) const POLICIES: &[&str] = &["spread", "pack"];
/// Words of `inputs`.
pub(super) const INPUT_KINDS: &[&str] = &["all", "each", "shuffle"];
/// Words of `when`.
pub(super) const WHENS: &[&str] = &["on_success", "on_failure", "always"];

/// A reference to one of the schema's definitions.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// How many of a named resource.
pub(super) fn named_resource() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": NAMED_RESOURCE_COUNT_MAX})
}
