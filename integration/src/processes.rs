//! Processes of the `muster` binary, as a user starts them. Each tells its address in its first line of output, writes
//! its log into a file, and is killed by its pid when it is dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

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

/// A running part of a cluster.
#[derive(Debug)]
pub struct Process {
    child: Child,
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
        Self::start_with(arguments, &[], data_dir, home, log).await
    }

    /// The same with more in its environment than every process gets here.
    ///
    /// # Panics
    /// As [`Process::start`].
    pub async fn start_with(
        arguments: &[String],
        environment: &[(String, String)],
        data_dir: &Path,
        home: &Path,
        log: &Path,
    ) -> Self {
        let out = log.with_extension("out");
        let log_file = File::options().create(true).append(true).open(log).expect("the test's folder can be written");
        let child = Command::new(muster())
            .args(arguments)
            .env_clear()
            .env("MUSTER_OUTPUT", "jsonl")
            .env("HOME", home)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MUSTER_LOG", std::env::var_os("MUSTER_LOG").unwrap_or_else(|| "info".into()))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("the test's folder can be written"))
            .stderr(log_file)
            .spawn()
            .expect("the binary can be started");
        // From here on it is killed whatever happens.
        let mut process = Self { child, address: ([127, 0, 0, 1], 0).into(), data_dir: data_dir.to_owned() };
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
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it ended otherwise: {status}");
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// SIGSTOP: it is there, and does nothing. What it started goes on.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on, as if no time had passed for it.
    ///
    /// # Panics
    /// When it has ended.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        self.assert_alive();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, signal).expect("our own child can be sent a signal");
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
