//! The process that starts the tasks, and ends them when the executor is gone.
//!
//! Why it is a process of its own: a task must not outlive its executor, even one killed with `kill -9`; and starting
//! a process from a small single-threaded parent is cheap. It is started from the executor's own binary by a hidden
//! subcommand that calls [`run`], and speaks over a socket that is its standard input.
//!
//! Invariants:
//! - every process of every task ends: those that left their process group or daemonised come to the supervisor, which
//!   is a child subreaper, and are ended with the attempt they came from;
//! - when the executor's end of the socket closes, everything is ended (SIGTERM, a short grace, SIGKILL), and then the
//!   supervisor exits;
//! - one supervisor at a time works on a data directory: it holds a lock, so a new one starts nothing before all
//!   processes of the one before it are gone;
//! - a process id is signalled only while it cannot have been given to somebody else: before it is reaped.
//!
//! It must not decide anything: time-outs, retries and what an exit means are the executor's.

mod descendants;
mod event_loop;
mod log_file;
mod program;
pub(crate) mod wire;

pub(crate) use descendants::{MARK_VARIABLE, children, marked_run};
pub(crate) use log_file::TRUNCATED_SUFFIX;

/// Runs the supervisor on standard input until the executor goes, and returns when no process of any task is left.
///
/// # Errors
///
/// When standard input is not a socket, or the kernel refuses what the supervisor is made of.
pub fn run() -> std::io::Result<()> {
    event_loop::EventLoop::on_standard_input()?.run()
}
