//! A scheduler or an executor: a process that can be killed, stopped and started again on the same node and data.

use std::path::PathBuf;

use crate::network::Node;
use crate::processes::{Process, Setting};
use crate::world::World;

/// A scheduler or an executor.
#[derive(Debug)]
pub struct Member {
    /// Its id, too.
    pub name: String,
    /// Where it lives.
    pub node: Node,
    /// Points that are set in it at its next start.
    pub failpoints: String,
    /// Its binary at its next start; none: this build's.
    pub older: Option<PathBuf>,
    pub(super) arguments: Vec<String>,
    pub(super) data_dir: PathBuf,
    pub(super) process: Option<Process>,
}

impl Member {
    pub(super) async fn start(&mut self, world: &World) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let environment = [("FAILPOINTS".to_owned(), self.failpoints.clone())];
        let network = Some(&*self.node.namespace);
        let setting = Setting { network, environment: &environment, program: self.older.as_deref() };
        let log = world.path("logs").join(format!("{}.log", self.name));
        let home = world.path("");
        self.process = Some(Process::start_in(setting, &self.arguments, &self.data_dir, &home, &log).await);
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} is not running", self.name))
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it was dead already.
    pub fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// Waits until it has died at a point that was set.
    ///
    /// # Panics
    /// When it does not.
    pub async fn dies(&mut self) {
        self.process().dies().await;
        self.process = None;
        // Its next life is a healthy one.
        self.failpoints.clear();
    }

    /// Whether it has died at a point that was set.
    ///
    /// # Panics
    /// When it has ended otherwise.
    pub fn has_died(&mut self) -> bool {
        let died = self.process.as_mut().is_none_or(Process::has_died);
        if died {
            self.process = None;
            self.failpoints.clear();
        }
        died
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Panics
    /// When it does not end in good order.
    pub async fn terminate(&mut self) {
        let status = self.process().terminate().await;
        assert!(status.success(), "{} ended with {status}", self.name);
        self.process = None;
    }

    /// SIGSTOP.
    ///
    /// # Panics
    /// When it is dead.
    pub fn stop(&mut self) {
        self.process().pause();
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it was not stopped.
    pub fn resume(&mut self) {
        self.process().resume();
    }

    /// The binary that it runs, as the system says.
    ///
    /// # Panics
    /// When it is dead.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.process.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name)).program()
    }

    /// Whether it has a process.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Where an executor keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> &PathBuf {
        &self.data_dir
    }
}
