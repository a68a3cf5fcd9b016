//! Starts the binary in an environment of the test's own, and a cluster for it to talk to.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use muster_client::fake::{FakeCluster, FakeScheduler};
use muster_client::{JobId, v1};
use tempfile::TempDir;

pub(crate) const JOB: JobId = JobId(7);

/// A cluster with one scheduler, and a home directory for the binary.
pub(crate) struct World {
    pub(crate) cluster: FakeCluster,
    pub(crate) scheduler: FakeScheduler,
    pub(crate) home: TempDir,
}

/// What the binary did.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let cluster = FakeCluster::default();
        let scheduler = cluster.start_scheduler();
        Self { cluster, scheduler, home: tempfile::tempdir().unwrap() }
    }

    /// The binary, told of the cluster by the environment.
    pub(crate) fn muster(&self, arguments: &[&str]) -> Command {
        let mut command = bare(self.home.path(), arguments);
        command.env("MUSTER_SCHEDULERS", self.scheduler.address());
        command
    }

    /// Runs it to its end.
    pub(crate) fn say(&self, arguments: &[&str]) -> Said {
        said(self.muster(arguments))
    }

    /// Writes a file into the home directory and names it.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The binary, with nothing of this process's environment but where programs are.
pub(crate) fn bare(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn said(mut command: Command) -> Said {
    heard(command.spawn().unwrap())
}

pub(crate) fn heard(child: Child) -> Said {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

pub(crate) fn view(state: v1::JobState) -> v1::JobView {
    let tasks = Some(v1::Counts { successful: 2, ..Default::default() });
    let (job_id, name) = (JOB.to_string(), "sample".to_owned());
    v1::JobView { job_id, name, state: state.into(), tasks, submitted_at_ms: 1, ..Default::default() }
}

pub(crate) fn task(stage: &str, index: u32, attempt: u32) -> v1::TaskView {
    v1::TaskView { stage: stage.to_owned(), index, attempt, ..Default::default() }
}
