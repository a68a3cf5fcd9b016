//! Processes of the `muster` binary, as a user starts them. Each tells its address in its first line of output, writes
//! its log into a file, and is killed by its pid when it is dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::network::Namespace;

/// How long a process may take to tell its address, or to end in good order.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, beside the folder of the test's own program. `make test` builds it first; where it is absent, it is
/// built here, once.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn muster() -> &'static Path {
    static MUSTER: OnceLock<PathBuf> = OnceLock::new();
    MUSTER.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own program");
        let folder = test.parent().and_then(Path::parent).expect("tests lie in a folder of the target's profile");
        let muster = folder.join("muster");
        if !muster.exists() {
            let target = folder.parent().expect("the profile's folder lies in the target folder");
            let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["build", "--quiet", "-p", "muster-cli", "--target-dir"])
                .arg(target)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo can be started");
            assert!(built.success() && muster.exists(), "`cargo build -p muster-cli` made no {}", muster.display());
        }
        muster
    })
}

/// Where a process lives, and what it finds there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setting<'a> {
    /// None: the test's own.
    pub network: Option<&'a Namespace>,
    /// More than every process gets here.
    pub environment: &'a [(String, String)],
    /// None: the binary of this build.
    pub program: Option<&'a Path>,
}

/// A running part of a cluster.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stopped: bool,
    address: SocketAddr,
    /// Its data directory, if it has one.
    pub data_dir: PathBuf,
}

impl Process {
    /// Starts `muster` with `arguments`, and waits until it has told its address. Its log is appended to `log`.
    ///
    /// # Panics
    /// When it ends or tells nothing; the message has its log.
    pub async fn start(arguments: &[String], data_dir: &Path, home: &Path, log: &Path) -> Self {
        Self::start_in(Setting::default(), arguments, data_dir, home, log).await
    }

    /// The same, in a setting.
    ///
    /// # Panics
    /// As [`Process::start`].
    pub async fn start_in(
        setting: Setting<'_>,
        arguments: &[String],
        data_dir: &Path,
        home: &Path,
        log: &Path,
    ) -> Self {
        let out = log.with_extension("out");
        let log_file = File::options().create(true).append(true).open(log).expect("the test's folder can be written");
        let mut command = Command::new(setting.program.unwrap_or_else(|| muster()));
        command
            .args(arguments)
            .env_clear()
            .env("MUSTER_OUTPUT", "jsonl")
            .env("HOME", home)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MUSTER_LOG", std::env::var_os("MUSTER_LOG").unwrap_or_else(|| "info".into()))
            .envs(setting.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("the test's folder can be written"))
            .stderr(log_file);
        let child = match setting.network {
            Some(namespace) => namespace.spawn(&mut command),
            None => command.spawn(),
        };
        let child = child.expect("the binary can be started");
        // From here on it is killed whatever happens.
        let mut process =
            Self { child, stopped: false, address: ([127, 0, 0, 1], 0).into(), data_dir: data_dir.to_owned() };
        let told = async {
            loop {
                let text = std::fs::read_to_string(&out).unwrap_or_default();
                if let Some((line, _)) = text.split_once('\n') {
                    let started: serde_json::Value = serde_json::from_str(line).expect("the first line is JSON");
                    let address = started["address"].as_str().expect("it tells its address");
                    break address.parse().expect("on loopback, host:port is an address");
                }
                if let Some(status) = process.child.try_wait().expect("our own child can be asked") {
                    panic!("muster {arguments:?} ended with {status}: {}", read(log));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        process.address = tokio::time::timeout(PATIENCE, told)
            .await
            .unwrap_or_else(|_| panic!("muster {arguments:?} told nothing within {PATIENCE:?}: {}", read(log)));
        process
    }

    /// The binary that it runs, as the system says.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/exe", self.child.id())).expect("it runs")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL. It is gone when this returns, and not before it was alive: the fault has happened.
    ///
    /// # Panics
    /// When it had ended already.
    pub fn kill(&mut self) {
        self.assert_alive();
        self.child.kill().expect("our own child can be killed");
        let status = self.child.wait().expect("our own child can be waited for");
        assert_eq!(status.signal(), Some(9), "it ended otherwise: {status}");
    }

    /// Waits until it has killed itself at a point that was set.
    ///
    /// # Panics
    /// When it does not, or ends otherwise.
    pub async fn dies(&mut self) {
        let status = self.ended().await;
        assert_eq!(status.signal(), Some(9), "it ended otherwise: {status}");
    }

    /// Whether it has killed itself at a point that was set.
    ///
    /// # Panics
    /// When it ended otherwise.
    pub fn has_died(&mut self) -> bool {
        let ended = self.child.try_wait().expect("our own child can be asked");
        if let Some(status) = ended {
            assert_eq!(status.signal(), Some(9), "it ended otherwise: {status}");
        }
        ended.is_some()
    }

    /// SIGSTOP: it is there, and does nothing. What it started goes on. Returns when the system says that it has stopped.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pause(&mut self) {
        self.assert_alive();
        self.signal(Signal::STOP);
        self.stopped = true;
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
            stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
        };
        while state() != Some('T') {
            std::thread::yield_now();
        }
    }

    /// SIGCONT: it goes on, as if no time had passed for it.
    ///
    /// # Panics
    /// When it was not stopped, or has ended.
    pub fn resume(&mut self) {
        assert!(self.stopped, "it was not stopped");
        self.assert_alive();
        self.stopped = false;
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, signal).expect("our own child can be sent signals");
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.assert_alive();
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child can be asked") {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "it did not end within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// # Panics
    /// When it has ended.
    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("our own child can be asked");
        assert!(ended.is_none(), "it has ended by itself: {ended:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}
