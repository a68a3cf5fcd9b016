//! Places where a test may break this scheduler on purpose: to end it at a named moment, or to leave a guard out and see
//! that the proofs notice. In a release build there are none: every look is compiled out.
//!
//! The names are [`fail`]'s failpoints, set by `FAILPOINTS="name=return;other=1*return"` or `fail::cfg`.

/// Whether a test has set this point. A counted action (`1*return`) is used up by looking.
pub(crate) fn is_set(point: &str) -> bool {
    cfg!(debug_assertions) && fail::eval(point, |_| ()).is_some()
}

/// Ends this process by SIGKILL if a test has set this point.
pub(crate) fn die_at(point: &str) {
    if is_set(point) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is on its way; nothing more may happen.
        loop {
            std::thread::park();
        }
    }
}
