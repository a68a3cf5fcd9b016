//! `muster executor`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use muster_executor::DeviceNames;

use super::daemon;
use crate::configuration::Mode;
use crate::context::Context;
use crate::embedded::{STOP_TIMEOUT, ended, late, not_started};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::metrics;
use crate::output::views::Started;
use crate::quantity;
use crate::signals::Signals;

/// Start an executor, which offers this machine to the cluster at --schedulers
///
/// Ctrl-C ends its tasks, which the cluster then runs elsewhere. Whatever ends it, not even its kill leaves a task's
/// processes behind.
#[derive(Debug, Args)]
pub(crate) struct Executor {
    /// How work comes here [default: push]
    #[arg(long, value_enum, env = "MUSTER_MODE", hide_env_values = true, value_name = "MODE")]
    mode: Option<Mode>,
    /// Where outputs, logs and launches are served; port 0 takes a free one [default: 127.0.0.1:0]
    #[arg(long, env = "MUSTER_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How others reach it, HOST:PORT [default: the address it listens on]
    #[arg(long, env = "MUSTER_ADVERTISE", hide_env_values = true, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Where everything is kept; one executor at a time may use it [default: ~/.local/share/muster/executor]
    #[arg(long, env = "MUSTER_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// This executor's name [default: a random one, kept in the data directory]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Cores to offer, for instance 4 or 0.5 [default: what the machine has]
    #[arg(long, value_parser = quantity::cpus, value_name = "CORES")]
    cpus: Option<u32>,
    /// Memory to offer, for instance 2GiB [default: what the machine has]
    #[arg(long, value_parser = quantity::memory, value_name = "SIZE")]
    memory: Option<u64>,
    /// A named resource to offer, for instance gpu=1; may be given several times
    #[arg(long = "resource", value_parser = quantity::named_amount, value_name = "NAME=NUMBER")]
    resources: Vec<(String, u32)>,
    /// Whole devices to offer as a named resource, for instance gpu=0,1,3: each task is told which ones are its own; may be
    /// given several times
    #[arg(long = "device", value_parser = quantity::named_devices, value_name = "NAME=ID,ID")]
    devices: Vec<(String, Vec<String>)>,
    /// A label, for placement; may be given several times
    #[arg(long = "label", value_parser = quantity::pair, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Serve metrics for Prometheus at http://ADDRESS/metrics [default: not at all]
    #[arg(long, env = "MUSTER_METRICS", hide_env_values = true, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Listen beyond this machine, though nobody is authenticated
    #[arg(long)]
    allow_remote: bool,
}

impl Executor {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut signals = Signals::listen()?;
        let file = &context.settings.file.executor;
        let data_dir = match self.data_dir {
            Some(named) => named,
            None => context.settings.data_dir(None)?.join("executor"),
        };
        let mut options = muster_executor::Options::new(&data_dir, context.settings.schedulers_or_default());
        options.mode = match self.mode.or(file.mode).unwrap_or(Mode::Push) {
            Mode::Push => muster_executor::Mode::Push,
            Mode::Pull => muster_executor::Mode::Pull,
        };
        options.listen = self.listen.or(file.listen).unwrap_or(options.listen);
        options.advertise = self.advertise.or_else(|| file.advertise.clone());
        options.id = self.id.or_else(|| file.id.clone());
        options.allow_remote = self.allow_remote || file.allow_remote.unwrap_or(false);
        options.resources.cpu_milli = self.cpus.or(file.cpus).unwrap_or(options.resources.cpu_milli);
        options.resources.memory_bytes = self.memory.or(file.memory).unwrap_or(options.resources.memory_bytes);
        options.resources.named.extend(file.resources.clone());
        options.resources.named.extend(self.resources);
        options.devices = devices(&file.devices, self.devices);
        options.labels.extend(file.labels.clone());
        options.labels.extend(self.labels);
        let port = metrics::Port::open(self.metrics.or(file.metrics), options.allow_remote).await?;
        let handle =
            muster_executor::Executor::start(options).await.map_err(|error| not_started("executor", &error))?;
        if let Some(port) = port {
            let shown = handle.clone();
            port.serve(move || shown.metrics());
        }
        context.output.one(&Started {
            what: "executor",
            id: Some(handle.executor_id().to_string()),
            address: handle.address().to_string(),
            data_dir: Some(data_dir.display().to_string()),
        })?;
        let ended = tokio::select! {
            biased;
            _ = signals.next() => Ok(()),
            () = handle.finished() => Err(ended("executor", "its log says why")),
        };
        let stopping = async { tokio::time::timeout(STOP_TIMEOUT, handle.stop()).await.map_err(|_| late()) };
        daemon::stop(context, &mut signals, stopping).await?;
        ended.map(|()| Exit::Success)
    }
}

/// What flags say of a resource stands in the place of what the file says; several flags for one resource add up.
fn devices(file: &DeviceNames, flags: Vec<(String, Vec<String>)>) -> DeviceNames {
    let mut given = DeviceNames::new();
    for (resource, names) in flags {
        given.entry(resource).or_default().extend(names);
    }
    let mut devices = file.clone();
    devices.extend(given);
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_devices_in_the_place_of_the_file_and_add_up() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let file = [("gpu".to_owned(), names(&["0"])), ("fpga".to_owned(), names(&["a"]))].into();
        let flags = vec![("gpu".to_owned(), names(&["1", "2"])), ("gpu".to_owned(), names(&["3"]))];
        let expected = [("gpu".to_owned(), names(&["1", "2", "3"])), ("fpga".to_owned(), names(&["a"]))].into();
        assert_eq!(devices(&file, flags), expected);
    }
}
