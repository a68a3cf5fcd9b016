//! Places where a test may break this scheduler on purpose: to end it at a named moment, to delay or repeat a
//! message, to set its clock, or to leave a guard out and see that the proofs notice. In a release build there are none: every look is compiled out.
//!
//! The names are [`fail`]'s failpoints, set by `FAILPOINTS="name=return;other=1*return"` or `fail::cfg`.

/// Whether a test has set this point. A counted action (`1*return`) is used up by looking.
pub(crate) fn is_set(point: &str) -> bool {
    cfg!(debug_assertions) && fail::eval(point, |_| ()).is_some()
}

/// What a test has given this point (`return(value)`).
pub(crate) fn value_of(point: &str) -> Option<String> {
    if !cfg!(debug_assertions) {
        return None;
    }
    fail::eval(point, |value| value).flatten()
}

/// Waits while the file exists that a test has named here (`return(path)`), and says so by a file `path.reached`: what
/// is held here is a message that the network delays for as long as the test likes.
pub(crate) async fn hold_at(point: &str) {
    let Some(path) = value_of(point).map(std::path::PathBuf::from) else { return };
    while path.exists() {
        let _ = std::fs::write(path.with_extension("reached"), "");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
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
