//! Everything that can be set on an executor, checked once before it starts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::network::Network;
use muster_proto::v1;

use crate::devices::{self, DeviceNames};
use crate::error::Error;
use crate::resources::Resources;
use crate::runtime::TaskRuntime;

/// How work comes to the executor. Everything else is the same in both modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Schedulers send it.
    Push,
    /// The executor asks for it.
    Pull,
}

impl Mode {
    pub(crate) fn to_wire(self) -> v1::Mode {
        match self {
            Self::Push => v1::Mode::Push,
            Self::Pull => v1::Mode::Pull,
        }
    }
}

/// Settings of an executor. [`Options::new`] gives the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// The executor's name; by default one that is made on the first start and kept in the data directory.
    pub id: Option<String>,
    /// Addresses of schedulers, `host:port` or `http://host:port`; one that answers is enough, it names the others.
    pub schedulers: Vec<String>,
    /// How work comes here.
    pub mode: Mode,
    /// Where to serve; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address that others reach this executor at, `host:port`; by default the one listened on.
    pub advertise: Option<String>,
    /// Where everything is kept. One executor at a time may use it.
    pub data_dir: PathBuf,
    /// What is offered; by default what the machine has.
    pub resources: Resources,
    /// Whole devices of named resources: a task is told which ones are its own. Their number is the resource's amount.
    pub devices: DeviceNames,
    /// For placement.
    pub labels: BTreeMap<String, String>,
    /// The argv that starts the supervisor; it must call [`crate::supervisor::run`].
    pub supervisor: Vec<OsString>,
    /// How much of an attempt's stdout is kept, and as much of its stderr, in bytes. The rest is dropped.
    pub log_cap_bytes: u64,
    /// Files of a job that has had no attempt here for this long are removed.
    pub cache_age: Duration,
    /// Above this many bytes the files of jobs without attempts here are removed, the oldest first.
    pub cache_bytes: u64,
    /// How many accepted attempts may wait here for resources in use by others, of all schedulers together. With 0, what
    /// does not fit now is refused; with more, short tasks follow each other without a round trip to a scheduler.
    pub backlog: usize,
    /// Listen beyond loopback although nobody is authenticated.
    pub allow_remote: bool,
    /// How it reaches others, and they it.
    pub network: Network,
    /// What runs tasks; by default processes, started by the supervisor.
    pub runtime: Option<Arc<dyn TaskRuntime>>,
}

/// 16 MiB of output is more than anybody reads.
const LOG_CAP_BYTES: u64 = 16 << 20;
/// Long enough to look into last week's failure.
const CACHE_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Enough for most shuffles, and small beside today's disks.
const CACHE_BYTES: u64 = 50 << 30;
/// A tenth of a second of tasks of a millisecond each on some ten slots: what schedulers send ahead is bounded by time.
const BACKLOG: usize = 1024;
/// Names go into paths and logs.
const ID_CHARS_MAX: usize = 63;

impl Options {
    /// The defaults, which listen on a free loopback port.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, schedulers: Vec<String>) -> Self {
        let program = std::env::current_exe().map_or_else(|_| OsString::from("muster"), PathBuf::into_os_string);
        Self {
            id: None,
            schedulers,
            mode: Mode::Push,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            data_dir: data_dir.into(),
            resources: Resources::detected(),
            devices: DeviceNames::new(),
            labels: BTreeMap::new(),
            supervisor: vec![program, OsString::from("supervise")],
            log_cap_bytes: LOG_CAP_BYTES,
            cache_age: CACHE_AGE,
            cache_bytes: CACHE_BYTES,
            backlog: BACKLOG,
            allow_remote: false,
            network: Network::Tcp,
            runtime: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |option, problem: String| Err(Error::BadOption { option, problem });
        if self.schedulers.is_empty() {
            return bad("schedulers", "no address given; name at least one scheduler, as host:port".to_owned());
        }
        if let Some(address) = self.schedulers.iter().find(|address| address.trim().is_empty()) {
            return bad("schedulers", format!("'{address}' is not an address; write host:port"));
        }
        if !self.listen.ip().is_loopback() && !self.allow_remote {
            return bad(
                "listen",
                format!(
                    "{} can be reached from other machines, and nobody is authenticated yet; \
                     listen on 127.0.0.1, or set allow_remote if the network is trusted",
                    self.listen
                ),
            );
        }
        if self.supervisor.is_empty() {
            return bad("supervisor", "empty; give the argv that starts the supervisor".to_owned());
        }
        if let Some(resource) = self.devices.keys().find(|resource| self.resources.named.contains_key(*resource)) {
            let problem = format!("{resource} is given as a number of pieces, too; keep one of the two");
            return bad("devices", problem);
        }
        if let Some(resource) = self.devices.keys().find(|resource| matches!(resource.as_str(), "" | "cpu" | "memory"))
        {
            return bad(
                "devices",
                format!("'{resource}' cannot name a resource made of devices; write for instance gpu"),
            );
        }
        if let Err(problem) = devices::check(&self.devices) {
            return bad("devices", problem);
        }
        if let Some(id) = &self.id {
            check_id(id)?;
        }
        Ok(())
    }
}

/// An executor's name: letters, digits, `-`, `_` and `.`, at most 63 of them.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > ID_CHARS_MAX || !id.chars().all(fine) {
        let problem = format!("'{id}' is not a name; use 1 to {ID_CHARS_MAX} letters, digits, '-', '_' or '.'");
        return Err(Error::BadOption { option: "id", problem });
    }
    Ok(())
}
