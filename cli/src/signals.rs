//! SIGINT and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;
use crate::failure::Failure;

/// Listens for both from its making on, so that none is missed between two waits.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let unable = |error| Failure::internal(format!("signals cannot be listened for: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(unable)?,
            terminate: signal(SignalKind::terminate()).map_err(unable)?,
        })
    }

    /// Waits for the next one: [`Exit::Interrupted`] or [`Exit::Terminated`]. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}
