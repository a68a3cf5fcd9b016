//! The state of one job, and the only way to move it: `apply(event) -> effects`.
//!
//! [`ExecutionGraph`] is a pure value. It has no clock, no randomness, no I/O and no lock: the same events at the same
//! times give the same states and effects, on every machine and after every restore. Whatever it is told, it never
//! panics: what does not fit is answered by [`Effect::Ignored`] with the reason, and changes nothing.
//!
//! # The rules
//!
//! **Stages.** A stage is *over* when it is successful, failed, cancelled or skipped.
//! - `on_success` resolves when every `all`, `shuffle` and `after` upstream is successful and every `each` upstream is at
//!   least resolved. Task i is ready only while task i of each `each` upstream is successful, and all tasks only while
//!   the other upstreams are. Once an upstream fails, is cancelled or is skipped for such a reason, a stage of which
//!   nothing was assigned is skipped; one that runs loses the pending tasks whose inputs will not come, ends what it
//!   has, and fails if it lost any.
//! - `on_failure` resolves when all upstreams are over and one of them was not successful; if none failed, it is skipped,
//!   and so is everything that needs it. That is decided when all upstreams are over, so that it does not depend on which
//!   came first, and taken back when a lost output reopens one of them. It never begins after a cancel.
//! - `always` resolves when all upstreams are over; a cancel or the job's time-out does not touch it.
//! - A stage is over when nothing of it is pending, assigned or running: failed if a task failed, else successful if all
//!   tasks were, else failed or cancelled as the cancelled ones' reason says. Tasks of a skipped stage are cancelled: in
//!   a stage that is over, no task is pending.
//!
//! **Nested jobs** lie between two stages without tasks, begin and end. Every stage inside waits for the begin, itself or through
//! others; an `on_failure` or `always` stage does so itself, and never runs if the begin was not successful. The end is over when all
//! inside is: skipped or cancelled if the begin was, else failed if a stage inside failed, else cancelled if one was cancelled,
//! else failed if one was skipped since something was not successful, else successful; and it opens again when something
//! inside does. A cancel or time-out touches nothing inside of a nested job that runs `always`.
//!
//! **Attempts.** Numbers only rise, over generations and retries. A report counts if its task is assigned or running with
//! that attempt on that executor, whose incarnation may have risen. A failure spends from the budget of its class; beyond it
//! the task fails, otherwise it is pending again after a backoff: doubling, cut at the maximum, then 50–100 % of it by a
//! hash of job, task and attempt. Losing an executor costs no time, a refusal at most a second. An executor that started again without an attempt of its
//! earlier life was lost with it, whether or not its start was told. An attempt that was asked back before it began spends nothing
//! and waits for nothing. One that is held to have taken its executor down waits as the scheduler says, or is the task's last,
//! whatever its budget. An unreadable input that is
//! gone is an output lost (below) and costs the reader nothing while its producer is asked for again, up to
//! [`FREE_REMAKES`] times; one that is out of reach costs nothing in a job that waits for its executors for ever. After `stop_after` failed tasks, pending ones are cancelled, running ones may finish, and no
//! attempt is retried: a failure of the task's own, or beyond its budget, is final, any other cancels the task.
//!
//! **Lost outputs.** An output is *needed* while a stage that reads it is not over (`each`: while the one task is not
//! over), or, if nothing reads it, while the job is not over: it is the job's result. Needed outputs on a lost
//! executor are given up: their tasks run again, a generation later, and consumers are judged before producers, so that
//! need travels upwards. An executor once lost stays marked until it is heard of again: what was not needed when it
//! went may be needed later. A stage that may start nothing (stopped, or being cancelled) makes nothing again. What
//! already runs goes on.
//! When the new output's checksum is not the old one's, or the old one is unknown, or the stage is not deterministic,
//! every consumer that has read the old one, or may have, runs again, and so on downwards.
//! `inputs_revision` of the readers rises with every new output, for it lies elsewhere.
//!
//! **Outputs that move** from an executor that leaves to another one stay what they are, and their readers go on. Whoever
//! looked for one where it lay before is tried again at once, and at no cost.
//!
//! **The end.** A job is over when all stages are: cancelled (or failed, on a time-out) if it was asked to end and a stage was
//! cancelled, failed if a stage failed, else successful. A retry then takes what failed or was cancelled, and everything
//! below it, back to the start; a stage below that does not merely go on where it stopped runs again as a whole.
//!
//! **Time** passes by the `at` of events, and never backwards. Backoffs end by any event at or after their end, the job's
//! time-out strikes by [`Event::TimerFired`] only.
//!
//! # The modules
//!
//! `graph` holds the state and answers questions; `tracking` is the only code that changes a task or a stage, so that
//! counts, readiness and changes to be stored follow of themselves; `resolution` moves stages (`nested` the ends of nested jobs), `attempts`, `executors`,
//! `outputs` and `requests` serve the events; `persistence` takes deltas and restores from them; `waiting` tells what a
//! pending task waits for, `spent` what the job took.
//!
//! **Architecture Invariant:** everything outside of what a [`Delta`] carries can be computed from it. Nothing here
//! remembers more than it stores.

mod attempts;
mod bits;
mod closeness;
mod delta;
mod event;
mod executors;
mod graph;
mod held;
mod nested;
mod outputs;
mod packed;
mod persistence;
mod requests;
mod resolution;
mod spent;
mod state;
mod topology;
mod tracking;
mod waiting;

pub use attempts::FREE_REMAKES;
pub use delta::*;
pub use event::*;
pub use graph::{ExecutionGraph, Ready};
pub use packed::TaskPhase;
pub use persistence::RestoreError;
pub use requests::FAILURES_MAX;
pub use state::*;
