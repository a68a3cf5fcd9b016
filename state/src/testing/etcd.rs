//! etcd processes, killed by pid when they are dropped.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{EtcdOptions, StateBackend as _};

/// How long a member may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A port that was free a moment ago may be taken by somebody else; then others are tried.
const START_ATTEMPTS: usize = 5;
/// Leases are at least one and a half elections long; with these they can be 1 s.
const QUICK: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];

/// One member, alone or of a cluster.
#[derive(Debug)]
pub struct Etcd {
    child: Child,
    arguments: Vec<String>,
    client_port: u16,
    directory: TempDir,
    paused: bool,
}

impl Etcd {
    /// A cluster of one, ready to be used. Needs `etcd` in PATH (Debian: `etcd-server`).
    pub async fn start() -> io::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more arguments, for instance `--quota-backend-bytes=…`.
    pub async fn start_with(more: &[&str]) -> io::Result<Self> {
        let mut last = io::Error::other("never tried");
        for _ in 0..START_ATTEMPTS {
            let (client_port, peer_port) = (free_port()?, free_port()?);
            let cluster = format!("m0=http://127.0.0.1:{peer_port}");
            let mut arguments = arguments("m0", client_port, peer_port, &cluster);
            arguments.extend(QUICK.iter().chain(more).map(|&argument| argument.to_owned()));
            let mut etcd = Self::spawn(arguments, client_port)?;
            match etcd.wait_until_ready().await {
                Ok(()) => return Ok(etcd),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn spawn(mut arguments: Vec<String>, client_port: u16) -> io::Result<Self> {
        let directory = TempDir::new()?;
        arguments.push(format!("--data-dir={}", directory.path().join("data").display()));
        let child = run(&arguments, &directory)?;
        Ok(Self { child, arguments, client_port, directory, paused: false })
    }

    async fn wait_until_ready(&mut self) -> io::Result<()> {
        let options = EtcdOptions::new([self.endpoint()]).map_err(io::Error::other)?;
        let options = EtcdOptions { call_timeout: Duration::from_millis(500), ..options };
        let store = crate::Etcd::new(options, "test").map_err(io::Error::other)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match store.revision().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(io::Error::other(format!("{error}: {}", self.log())));
                }
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("etcd ended with {status}: {}", self.log())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// `host:port` of every member: here, of one.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint()]
    }

    /// For `muster_state::open` and for `--state`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("etcd://{}", self.endpoint())
    }

    /// A store on it.
    #[must_use]
    pub fn store(&self, cluster: &str) -> crate::Etcd {
        store(&self.endpoints(), cluster)
    }

    /// Ends it in good order.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        self.child.wait().map(drop)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGSTOP: it is there, and says nothing.
    pub fn pause(&mut self) -> io::Result<()> {
        self.paused = true;
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> io::Result<()> {
        self.paused = false;
        self.signal(Signal::CONT)
    }

    /// Whether it was paused and not resumed.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Starts it again after `stop` or `kill`, on the same data and ports.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.child = run(&self.arguments, &self.directory)?;
        self.paused = false;
        self.wait_until_ready().await
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The arguments that it was started with.
    pub(super) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| io::Error::other("no pid"))?, signal)?;
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Errors mean that it has ended already. A stopped process can be killed too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three members.
#[derive(Debug)]
pub struct EtcdCluster {
    /// To be paused, killed and restarted one by one.
    pub members: Vec<Etcd>,
}

impl EtcdCluster {
    /// Three members, all ready.
    pub async fn start() -> io::Result<Self> {
        let mut last = io::Error::other("never tried");
        for _ in 0..START_ATTEMPTS {
            match Self::try_start().await {
                Ok(cluster) => return Ok(cluster),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn try_start() -> io::Result<Self> {
        const NAMES: [&str; 3] = ["m0", "m1", "m2"];
        let ports = NAMES.iter().map(|_| Ok((free_port()?, free_port()?))).collect::<io::Result<Vec<_>>>()?;
        let cluster: Vec<String> =
            NAMES.iter().zip(&ports).map(|(name, (_, peer))| format!("{name}=http://127.0.0.1:{peer}")).collect();
        let cluster = cluster.join(",");
        let mut members = Vec::new();
        for (name, &(client, peer)) in NAMES.iter().zip(&ports) {
            members.push(Etcd::spawn(arguments(name, client, peer, &cluster), client)?);
        }
        for member in &mut members {
            member.wait_until_ready().await?;
        }
        Ok(Self { members })
    }

    /// `host:port` of every member.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Etcd::endpoint).collect()
    }

    /// For `muster_state::open` and for `--state`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("etcd://{}", self.endpoints().join(","))
    }

    /// A store on all of them.
    #[must_use]
    pub fn store(&self, cluster: &str) -> crate::Etcd {
        store(&self.endpoints(), cluster)
    }
}

fn store(endpoints: &[String], cluster: &str) -> crate::Etcd {
    let options = EtcdOptions::new(endpoints).expect("our own addresses are well formed");
    crate::Etcd::new(options, cluster).expect("a test gives a usable cluster name")
}

fn arguments(name: &str, client: u16, peer: u16, cluster: &str) -> Vec<String> {
    vec![
        format!("--name={name}"),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster={cluster}"),
        "--initial-cluster-state=new".to_owned(),
        "--logger=zap".to_owned(),
    ]
}

fn run(arguments: &[String], directory: &TempDir) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(directory.path().join("log"))?;
    Command::new("etcd")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| io::Error::other(format!("etcd cannot be started (Debian's package is etcd-server): {error}")))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
