//! etcd processes, killed by pid when they are dropped.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
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

/// Starts a process somewhere.
type Spawn = dyn Fn(&mut Command) -> io::Result<Child> + Send + Sync;

/// Where a member lives, and where others find it there.
#[derive(Clone)]
pub struct Place {
    host: String,
    client_port: u16,
    peer_port: u16,
    spawn: Arc<Spawn>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Place {
    /// A machine's address, all of whose ports are free, and the way to start a process there.
    #[must_use]
    pub fn at(host: String, spawn: Arc<Spawn>) -> Self {
        // etcd's own.
        Self { host, client_port: 2379, peer_port: 2380, spawn }
    }

    /// Ports of this machine's loopback that were free just now.
    fn here() -> io::Result<Self> {
        let (client_port, peer_port) = (free_port()?, free_port()?);
        Ok(Self { host: "127.0.0.1".to_owned(), client_port, peer_port, spawn: Arc::new(Command::spawn) })
    }

    fn peer_url(&self) -> String {
        format!("http://{}:{}", self.host, self.peer_port)
    }

    fn arguments(&self, name: &str, cluster: &str) -> Vec<String> {
        let client_url = format!("http://{}:{}", self.host, self.client_port);
        let peer_url = self.peer_url();
        vec![
            format!("--name={name}"),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster={cluster}"),
            "--initial-cluster-state=new".to_owned(),
            "--logger=zap".to_owned(),
        ]
    }
}

/// One member, alone or of a cluster.
#[derive(Debug)]
pub struct Etcd {
    child: Child,
    arguments: Vec<String>,
    place: Place,
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
            let place = Place::here()?;
            let mut arguments = place.arguments("m0", &format!("m0={}", place.peer_url()));
            arguments.extend(QUICK.iter().chain(more).map(|&argument| argument.to_owned()));
            let mut etcd = Self::spawn(arguments, place)?;
            match etcd.wait_until_ready().await {
                Ok(()) => return Ok(etcd),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn spawn(mut arguments: Vec<String>, place: Place) -> io::Result<Self> {
        let directory = TempDir::new()?;
        arguments.push(format!("--data-dir={}", directory.path().join("data").display()));
        let child = run(&place, &arguments, &directory)?;
        Ok(Self { child, arguments, place, directory, paused: false })
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
        format!("{}:{}", self.place.host, self.place.client_port)
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
        self.signal(Signal::STOP)?;
        // The signal takes a moment to reach all of its threads.
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
            if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
                return Ok(());
            }
            std::thread::yield_now();
        }
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
        self.restart_unready()?;
        self.wait_until_ready().await
    }

    /// The same, for a member that cannot serve yet: its cluster has no quorum.
    pub fn restart_unready(&mut self) -> io::Result<()> {
        self.child = run(&self.place, &self.arguments, &self.directory)?;
        self.paused = false;
        Ok(())
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
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
        Self::start_at((0..3).map(|_| Place::here()).collect::<io::Result<_>>()?, &[]).await
    }

    /// A member at each place, all ready, with more arguments.
    pub async fn start_at(places: Vec<Place>, more: &[&str]) -> io::Result<Self> {
        let cluster: Vec<String> =
            places.iter().enumerate().map(|(number, place)| format!("m{number}={}", place.peer_url())).collect();
        let cluster = cluster.join(",");
        let mut members = Vec::new();
        for (number, place) in places.into_iter().enumerate() {
            let mut arguments = place.arguments(&format!("m{number}"), &cluster);
            arguments.extend(more.iter().map(|&argument| argument.to_owned()));
            members.push(Etcd::spawn(arguments, place)?);
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

fn run(place: &Place, arguments: &[String], directory: &TempDir) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(directory.path().join("log"))?;
    let mut command = Command::new("etcd");
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    (place.spawn)(&mut command)
        .map_err(|error| io::Error::other(format!("etcd cannot be started (Debian's package is etcd-server): {error}")))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
