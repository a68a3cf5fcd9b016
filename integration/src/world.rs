//! One test's folder, the cluster that it starts there, and what the cluster's tasks left in it.
//!
//! Tasks are scripts that wait for files: a test opens a gate by making one, so it decides what runs at the moment of a
//! fault. Each task notes its start in a file of the test's, whatever becomes of executors and schedulers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use muster_client::Client;
use muster_graph::spec::{Format, NoFiles};
use muster_proto::v1;
use tempfile::TempDir;

use crate::checker::{Evidence, Scenario, Write};
use crate::processes::{Process, Setting};
use crate::{journal, recorder};

/// The end of each log that a failing test shows.
const LOG_LINES: usize = 60;

/// One test's folder. When the test fails, the logs of everything that ran in it are printed.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let logs = std::fs::read_dir(self.path("logs")).into_iter().flatten().flatten().map(|entry| entry.path());
        for log in logs.filter(|path| path.extension().is_some_and(|ending| ending == "log")) {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- {}\n{}", log.file_name().unwrap_or_default().display(), end.join("\n"));
        }
        eprintln!("--- starts\n{:?}", self.starts());
    }
}

impl World {
    /// An empty folder.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["logs", "gates"] {
            std::fs::create_dir(folder.path().join(name)).expect("the test's folder can be written");
        }
        Self { folder }
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a process of this name has logged so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("logs").join(format!("{name}.log"))).unwrap_or_default()
    }

    async fn start(&self, name: &str, arguments: Vec<String>) -> Process {
        self.start_in(Setting::default(), name, arguments).await
    }

    async fn start_in(&self, setting: Setting<'_>, name: &str, arguments: Vec<String>) -> Process {
        let log = self.path("logs").join(format!("{name}.log"));
        Process::start_in(setting, &arguments, &self.path(name), self.folder.path(), &log).await
    }

    /// `muster scheduler` on a store. Its sessions live for 2 s, unless `more` says otherwise.
    pub async fn scheduler(&self, name: &str, state: &str, more: &[&str]) -> Process {
        let mut arguments: Vec<String> = ["scheduler", "--state", state, "--id", name].map(str::to_owned).into();
        for usual in [["--listen", "127.0.0.1:0"], ["--session-ttl", "2s"]] {
            if !more.contains(&usual[0]) {
                arguments.extend(usual.map(str::to_owned));
            }
        }
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        self.start(name, arguments).await
    }

    /// `muster executor` with this name and 2 cores, unless `more` says otherwise. Its data directory bears the name.
    pub async fn executor(&self, name: &str, mode: &str, schedulers: &[SocketAddr], more: &[&str]) -> Process {
        self.executor_in(Setting::default(), name, mode, schedulers, more).await
    }

    /// The same, in a setting.
    pub async fn executor_in(
        &self,
        setting: Setting<'_>,
        name: &str,
        mode: &str,
        schedulers: &[SocketAddr],
        more: &[&str],
    ) -> Process {
        let schedulers: Vec<String> = schedulers.iter().map(ToString::to_string).collect();
        let data_dir = self.path(name).display().to_string();
        let mut arguments: Vec<String> =
            ["executor", "--mode", mode, "--schedulers", &schedulers.join(","), "--data-dir", &data_dir]
                .map(str::to_owned)
                .into();
        for usual in [["--id", name], ["--cpus", "2"]] {
            if !more.contains(&usual[0]) {
                arguments.extend(usual.map(str::to_owned));
            }
        }
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        self.start_in(setting, name, arguments).await
    }

    /// `muster up` on the data directory `name`.
    pub async fn up(&self, name: &str) -> Process {
        let data_dir = self.path(name).display().to_string();
        let arguments = ["up", "--listen", "127.0.0.1:0", "--data-dir", &data_dir].map(str::to_owned).into();
        self.start(name, arguments).await
    }

    /// A job from YAML. Its tasks find this test's gates in `$GATES`, and note their starts by `eval "$NOTE"`.
    ///
    /// # Panics
    /// When the spec is wrong.
    #[must_use]
    pub fn job(&self, yaml: &str) -> v1::JobSpec {
        let spec = muster_graph::spec::read(yaml, Format::Yaml)
            .and_then(|draft| draft.resolve(&NoFiles))
            .unwrap_or_else(|problems| panic!("{problems}"));
        let mut spec = v1::JobSpec::from(&spec);
        spec.env.extend(self.env());
        spec
    }

    /// What tasks of this test need to know: see [`World::job`].
    #[must_use]
    pub fn env(&self) -> [(String, String); 4] {
        // One write of a line to a file that is open for appending is whole.
        // An executor of a version before jobs in jobs knows the stage's name alone.
        let note = r#"echo "$MUSTER_JOB_ID ${MUSTER_STAGE_PATH:-$MUSTER_STAGE}/$MUSTER_TASK_INDEX $MUSTER_ATTEMPT" >> "$STARTS""#;
        // A task that outlives its test for some reason ends with the test's folder.
        let wait = r#"while [ ! -e "$GATES/$gate" ]; do [ -d "$GATES" ] || exit 9; sleep 0.02; done"#;
        [
            ("GATES", self.path("gates").display().to_string()),
            ("STARTS", self.path("starts").display().to_string()),
            ("NOTE", note.to_owned()),
            ("WAIT", wait.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// Lets tasks through that wait for the gate.
    ///
    /// # Panics
    /// When the test's folder cannot be written.
    pub fn open(&self, gate: &str) {
        std::fs::write(self.path("gates").join(gate), "").expect("the test's folder can be written");
    }

    /// Closes all gates, and forgets who started.
    ///
    /// # Panics
    /// When the test's folder cannot be written.
    pub fn forget(&self) {
        for gate in std::fs::read_dir(self.path("gates")).expect("the test's folder can be read").flatten() {
            std::fs::remove_file(gate.path()).expect("the test's folder can be written");
        }
        std::fs::write(self.path("starts"), "").expect("the test's folder can be written");
    }

    /// The attempts of each task (`stage/index`) that were started, in the order of their starts, as the tasks noted.
    #[must_use]
    pub fn starts(&self) -> BTreeMap<String, Vec<u32>> {
        let text = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        let mut starts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(task), Some(Ok(attempt))) = (words.next(), words.next().map(str::parse)) else {
                panic!("'{line}' is no start");
            };
            starts.entry(task.to_owned()).or_default().push(attempt);
        }
        starts
    }

    /// How often tasks of a stage were started.
    #[must_use]
    pub fn starts_of(&self, stage: &str) -> usize {
        let of_stage = |task: &str| task.rsplit_once('/').is_some_and(|(name, _)| name == stage);
        self.starts().iter().filter(|(task, _)| of_stage(task)).map(|(_, attempts)| attempts.len()).sum()
    }

    /// Waits until tasks of a stage were started so often.
    pub async fn started(&self, stage: &str, times: usize) {
        crate::eventually(&format!("{times} starts in stage {stage}"), 60, || async {
            (self.starts_of(stage) >= times).then_some(())
        })
        .await;
    }

    /// What is known of this test's cluster: the store's past, and what these executors (by the names of their data
    /// directories) recorded.
    #[must_use]
    pub fn evidence(&self, writes: Vec<Write>, executors: &[&str]) -> Evidence {
        let of = |name: &&str| ((*name).to_owned(), journal::read(&self.path(name)));
        Evidence {
            writes,
            executors: executors.iter().map(of).collect(),
            scenario: Scenario { ended_at_us: recorder::boot_us(), ..Scenario::default() },
            ..Evidence::default()
        }
    }

    /// What the only file of a task's output says.
    ///
    /// # Panics
    /// When it cannot be had.
    pub async fn output(&self, client: &Client, job: muster_client::JobId, stage: &str, file: &str) -> String {
        let into = self.path(&format!("result-{job}-{stage}"));
        client.download(job, stage, 0, &into).await.expect("the output can be had");
        std::fs::read_to_string(into.join(file)).expect("the output has the file")
    }
}

/// A client that knows these schedulers and finds the others.
///
/// # Panics
/// When none answers.
pub async fn client(schedulers: &[SocketAddr]) -> Client {
    let options = muster_client::Options {
        first_contact_timeout: Duration::from_secs(20),
        try_timeout: Duration::from_secs(5),
        ..muster_client::Options::default()
    };
    Client::connect(schedulers.iter().map(ToString::to_string), options).await.expect("a scheduler answers")
}

/// Waits until a job is over, and expects success.
///
/// # Panics
/// When it takes too long, or ends otherwise.
pub async fn succeeded(client: &Client, job: muster_client::JobId) -> v1::JobView {
    let view = tokio::time::timeout(Duration::from_secs(90), client.wait(job))
        .await
        .unwrap_or_else(|_| panic!("job {job} was not over in time"))
        .expect("the job can be watched");
    assert_eq!(view.state(), v1::JobState::Successful, "{view:?}");
    view
}

/// Waits until so many executors are ready.
pub async fn ready(client: &Client, executors: usize) {
    crate::eventually(&format!("{executors} executors are ready"), 30, || async {
        let views = client.list_executors().await.ok()?;
        (views.iter().filter(|view| view.state == "ready").count() == executors).then_some(())
    })
    .await;
}

/// The tasks of a stage, by their executors.
///
/// # Panics
/// When they cannot be listed.
pub async fn tasks(client: &Client, job: muster_client::JobId, stage: &str) -> Vec<v1::TaskView> {
    let filter = muster_client::TaskFilter { stage: Some(stage.to_owned()), ..Default::default() };
    client.tasks(job, &filter, 10_000).await.expect("the tasks can be listed").0
}
