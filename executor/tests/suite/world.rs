//! The ways to drive an executor in a test: its place on disk, its options, tasks, launches, and waiting.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_executor::{Executor, Handle, Mode, Options, Resources};
use muster_graph::ids::JobId;
use muster_proto::v1::{self, AttemptRef, Outcome};

use crate::fake::{DEADLINE, Scheduler};
use crate::launcher::Launcher;

/// A data directory that is kept while the test runs.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        // Set RUST_LOG to see what the executor says.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn room(&self, attempt: &AttemptRef) -> PathBuf {
        let AttemptRef { job_id, stage, index, attempt } = attempt;
        self.path().join(format!("jobs/{job_id}/{stage}/{index}.{attempt}"))
    }

    /// Where an attempt runs, if it does: as its own process says.
    pub(crate) fn runs_in(&self, attempt: &AttemptRef) -> Option<PathBuf> {
        let AttemptRef { job_id, stage: _, index, attempt } = attempt;
        let its = [
            format!("MUSTER_JOB_ID={job_id}"),
            format!("MUSTER_TASK_INDEX={index}"),
            format!("MUSTER_ATTEMPT={attempt}"),
        ];
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|process| {
            let environ = std::fs::read_to_string(process.path().join("environ")).ok()?;
            let has = |wanted: &str| environ.split('\0').any(|variable| variable == wanted);
            let directory = environ.split('\0').find_map(|variable| variable.strip_prefix("TMPDIR="))?;
            (its.iter().all(|wanted| has(wanted)) && Path::new(directory).starts_with(self.path()))
                .then(|| directory.into())
        })
    }

    /// Where an attempt runs, once it does.
    pub(crate) async fn work(&self, attempt: &AttemptRef) -> PathBuf {
        let found = std::sync::OnceLock::new();
        eventually("it runs", || self.runs_in(attempt).is_some_and(|work| found.set(work).is_ok())).await;
        found.into_inner().unwrap()
    }

    pub(crate) fn options(&self, scheduler: &Scheduler) -> Options {
        let mut options = Options::new(self.path(), vec![scheduler.address.to_string()]);
        options.supervisor = vec![test_host().into(), "supervise".into()];
        options.resources = Resources { cpu_milli: 4000, memory_bytes: 1 << 30, ..Resources::default() };
        options
    }

    pub(crate) async fn executor(&self, scheduler: &Scheduler) -> Handle {
        Executor::start(self.options(scheduler)).await.unwrap()
    }

    pub(crate) async fn puller(&self, scheduler: &Scheduler) -> Handle {
        let mut options = self.options(scheduler);
        options.mode = Mode::Pull;
        Executor::start(options).await.unwrap()
    }
}

pub(crate) fn test_host() -> &'static str {
    env!("CARGO_BIN_EXE_muster-executor-test-host")
}

pub(crate) fn job() -> JobId {
    JobId::new(1_800_000_000_000, rand::random())
}

pub(crate) fn script(text: &str) -> v1::StageWork {
    work(v1::process::Run::Script(v1::Script { text: text.to_owned(), shell: vec!["/bin/sh".to_owned()] }))
}

pub(crate) fn argv(args: &[&str]) -> v1::StageWork {
    work(v1::process::Run::Argv(v1::Argv { args: args.iter().map(|arg| (*arg).to_owned()).collect() }))
}

fn work(run: v1::process::Run) -> v1::StageWork {
    v1::StageWork {
        job_name: "test".to_owned(),
        stage_name: "stage".to_owned(),
        work: Some(v1::stage_work::Work::Process(v1::Process { run: Some(run) })),
        task_count: 1,
        grace_ms: 500,
        ..v1::StageWork::default()
    }
}

/// Attempt 1 of tasks of stage 0 with one core each.
pub(crate) fn group(scheduler: &Scheduler, job: JobId, digest: &str, tasks: std::ops::Range<u32>) -> v1::LaunchGroup {
    v1::LaunchGroup {
        job_id: job.to_string(),
        fence: Some(v1::Fence { epoch: 1, token: 10 }),
        owner_address: scheduler.address.to_string(),
        stage: 0,
        spec_digest: digest.to_owned(),
        resources: Some(v1::Resources { cpu_milli: 1000, ..v1::Resources::default() }),
        attempts: tasks.map(|index| v1::AttemptLaunch { index, attempt: 1, each: Vec::new() }).collect(),
        ..v1::LaunchGroup::default()
    }
}

pub(crate) fn attempts(group: &v1::LaunchGroup) -> Vec<AttemptRef> {
    let of = |launch: &v1::AttemptLaunch| AttemptRef {
        job_id: group.job_id.clone(),
        stage: group.stage,
        index: launch.index,
        attempt: launch.attempt,
    };
    group.attempts.iter().map(of).collect()
}

/// One executor, one scheduler, one launch stream: what most tests need.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) scheduler: Scheduler,
    pub(crate) handle: Handle,
    pub(crate) launcher: Launcher,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let (place, scheduler) = (Place::new(), Scheduler::start().await);
        let mut options = place.options(&scheduler);
        change(&mut options);
        let handle = Executor::start(options).await.unwrap();
        let launcher = Launcher::new(&handle).await;
        Self { place, scheduler, handle, launcher }
    }

    /// Runs one task to its result.
    pub(crate) async fn run(&mut self, work: &v1::StageWork) -> (AttemptRef, v1::AttemptFinished) {
        let digest = self.scheduler.put_blob(work);
        let group = group(&self.scheduler, job(), &digest, 0..1);
        let attempt = self.launcher.launch_all(group).await.remove(0);
        let finished = self.scheduler.result(&attempt).await;
        (attempt, finished)
    }

    pub(crate) async fn launch_script(&mut self, text: &str) -> AttemptRef {
        let digest = self.scheduler.put_blob(&script(text));
        let group = group(&self.scheduler, job(), &digest, 0..1);
        self.launcher.launch_all(group).await.remove(0)
    }
}

#[track_caller]
pub(crate) fn assert_outcome(finished: &v1::AttemptFinished, outcome: Outcome) {
    assert_eq!(finished.outcome(), outcome, "{finished:?}");
}

/// Waits for a condition that nobody tells of.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
