//! Every limit of a spec, with its reason. `docs/spec.md` lists them, and a test compares.
//!
//! Invariant: whatever passes these limits fits the store: a stage's blob stays under [`BLOB_BYTES_MAX`] by
//! construction, which a constant assertion below proves.

use std::time::Duration;

/// A spec's text. Room for a million short items written out; more belongs into a file of lines.
pub const SPEC_BYTES_MAX: usize = 32 << 20;
/// Values in a spec's text, keys not counted: what bounds the memory that reading takes.
pub const SPEC_VALUES_MAX: usize = 2_000_000;
/// How deep lists and maps may nest in a spec's text. The language needs seven, and three for each job in a job.
pub const SPEC_DEPTH_MAX: usize = 64;
/// Values that all YAML aliases of one text stand for: enough for shared settings, too few for a bomb.
pub const ALIAS_VALUES_MAX: usize = 100_000;
/// Bytes of text that all YAML aliases of one text stand for.
pub const ALIAS_BYTES_MAX: usize = 4 << 20;
/// Problems reported at once. Whoever has more is not reading them one by one.
pub const PROBLEMS_MAX: usize = 100;

/// Jobs that a job may wait for.
pub const AFTER_JOBS_MAX: usize = 100;
/// Stages of a job: a plan of that many still compiles in well under a second.
pub const STAGES_MAX: usize = 100_000;
/// Tasks of a stage: the design's largest job.
pub const TASKS_PER_STAGE_MAX: u64 = 1_000_000;
/// Tasks of all stages of a job together: some tens of megabytes of state.
pub const TASKS_PER_JOB_MAX: u64 = 1_000_000;
/// `inputs` and `after` of all stages of a job together.
pub const EDGES_MAX: usize = 1_000_000;

/// How deep jobs may stand in jobs: more levels than people keep apart, and few enough to walk by recursion.
pub const NESTING_DEPTH_MAX: u32 = 16;
/// Text of all stages but their items, once jobs are put in the places of the stages that name them: a small spec can stand for a
/// large one, and a stored record has at most 32 MiB.
pub const EXPANDED_BYTES_MAX: usize = 24 << 20;
/// Inputs that a job takes from around it, and outputs that it declares: each is a name that people deal with.
pub const BORDER_NAMES_MAX: usize = 1_000;

/// Bytes of a job's or stage's name: it is a part of paths and of every view.
pub const NAME_CHARS_MAX: usize = 128;
/// Characters of a namespace: it may become a DNS label, and those end at 63.
pub const NAMESPACE_CHARS_MAX: usize = 63;
/// Labels of a job.
pub const LABELS_MAX: usize = 64;
/// Characters of a label's key.
pub const LABEL_KEY_CHARS_MAX: usize = 63;
/// Bytes of a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;

/// Parameters of a spec. Whoever needs more passes a list, or a file's name.
pub const PARAMS_MAX: usize = 100;
/// Characters of a parameter's name: people type it on command lines.
pub const PARAM_NAME_CHARS_MAX: usize = 63;
/// All arguments of one job together, [`WORD_COST_BYTES`] counted on top of each value: they travel in one message.
pub const ARGUMENTS_BYTES_MAX: usize = 256 << 10;

/// A script. Longer ones belong into a file that the tasks can reach.
pub const SCRIPT_BYTES_MAX: usize = 64 << 10;
/// All words of an argv together, [`WORD_COST_BYTES`] counted on top of each. The same for `shell`.
pub const ARGV_BYTES_MAX: usize = 64 << 10;
/// All variables of a stage together, the job's included, [`WORD_COST_BYTES`] counted on top of each.
pub const ENV_BYTES_MAX: usize = 64 << 10;
/// What a word or variable costs on top of its bytes: its framing in a blob, and its pointer in the process.
pub const WORD_COST_BYTES: usize = 16;
/// One item. It becomes an environment variable, and Linux ends those at 128 KiB.
pub const ITEM_BYTES_MAX: usize = 16 << 10;
/// All items of a job together.
pub const ITEMS_BYTES_MAX: usize = 64 << 20;
/// A stage's encoded blob, and each chunk of its items: the store's largest value.
pub const BLOB_BYTES_MAX: usize = 256 << 10;

/// Thousandths of a core that one task may ask for: 1024 cores, more than one machine has.
pub const CPU_MILLI_MAX: u32 = 1_024_000;
/// Bytes of memory that one task may ask for: 64 TiB, more than one machine has.
pub const MEMORY_BYTES_MAX: u64 = 64 << 40;
/// Kinds of named resources that one task may ask for.
pub const NAMED_RESOURCES_MAX: usize = 32;
/// How many of one named resource a task may ask for.
pub const NAMED_RESOURCE_COUNT_MAX: u32 = 1_000_000;
/// What `placement` of job and stage says together, in bytes of labels and values, [`WORD_COST_BYTES`] counted on top of each:
/// it is compared with every executor each time something is placed.
pub const PLACEMENT_BYTES_MAX: usize = 4 << 10;
/// A label that executors bear, its key or its value: they may be called more than a job's labels may.
pub const EXECUTOR_LABEL_BYTES_MAX: usize = 256;
/// Of one preference: enough steps for people, and few enough that a hundred of them add up.
pub const PREFERENCE_WEIGHT_MAX: u32 = 1_000;
/// Characters of a resource's name.
pub const RESOURCE_NAME_CHARS_MAX: usize = 63;

/// `timeout` and `lost_after`: a year.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// `lost_after`, at least: an executor out of reach for so long has not merely had a hiccup. Below it, heartbeats and the
/// pauses between attempts to reconnect, which follow the limit, would have to be too close together.
pub const LOST_AFTER_MIN: Duration = Duration::from_secs(1);
/// `grace`: a machine that is drained waits for it.
pub const GRACE_MAX: Duration = Duration::from_secs(60 * 60);
/// `backoff` and `backoff_max`: a day.
pub const BACKOFF_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Digests of a stage's item chunks in its blob. A chunk holds at least 128 KiB unless it is the last one, and its
/// digest costs less than 80 bytes.
const CHUNK_DIGESTS_BYTES_MAX: usize = (ITEMS_BYTES_MAX / (128 << 10) + 1) * 80;
/// Names, numbers and framing of a blob.
const BLOB_REST_BYTES_MAX: usize = 4 << 10;
const _: () = assert!(
    SCRIPT_BYTES_MAX + ARGV_BYTES_MAX + ENV_BYTES_MAX + CHUNK_DIGESTS_BYTES_MAX + BLOB_REST_BYTES_MAX < BLOB_BYTES_MAX,
    "a stage within its limits must fit its blob"
);
