//! The cluster under measurement: real processes, with release's binary, on this machine: etcd's three members,
//! schedulers, and executors, real or simulated. A new one for each measurement, so that none pays for another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use muster_integration::processes::{Process, Setting};
use muster_proto::v1;
use muster_proto::v1::jobs_client::JobsClient;
use muster_state::testing::EtcdCluster;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::delay::Delay;
use crate::scrape;
use crate::simulation::{Simulation, Size};
use crate::written::Counters;

/// How long a job of a measurement may take: one that takes longer is a failure, not a figure.
const JOB_WITHIN_SECONDS: u64 = 900;

/// Where state lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store {
    /// In the memory of a single scheduler.
    Memory,
    /// In etcd.
    Etcd,
    /// In etcd, with so much more on each round trip to it.
    FarEtcd(Duration),
}

/// See the module. Dropping it ends everything.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// None: memory.
    pub(crate) etcd: Option<EtcdCluster>,
    _delays: Vec<Delay>,
    pub(crate) schedulers: Vec<Process>,
    metrics: Vec<String>,
    executors: Vec<Process>,
    logs: PathBuf,
    data: TempDir,
}

/// What was spent since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    counters: Option<Counters>,
    cpu: f64,
}

/// What a job has cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From its submit to its end, by the cluster's own clock.
    pub(crate) seconds: f64,
    /// Of all schedulers.
    pub(crate) cpu_seconds: f64,
    /// Of etcd; NaN where there is none.
    pub(crate) commits: f64,
    /// Written to etcd; NaN where there is none.
    pub(crate) bytes: f64,
}

/// The binary beside this program.
pub(crate) fn muster() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("muster");
    anyhow::ensure!(beside.exists(), "{} is not built: run it through make bench", beside.display());
    Ok(beside)
}

impl Cluster {
    /// Starts a store and `schedulers` schedulers, which log into `logs`.
    pub(crate) async fn start(store: Store, schedulers: usize, logs: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(logs)?;
        let (data, muster) = (TempDir::new()?, muster()?);
        let mut delays = Vec::new();
        let etcd = match store {
            Store::Memory => None,
            Store::Etcd | Store::FarEtcd(_) => Some(EtcdCluster::start().await?),
        };
        if let (Store::FarEtcd(round_trip), Some(etcd)) = (store, &etcd) {
            for endpoint in etcd.endpoints() {
                delays.push(Delay::start(endpoint, round_trip).await?);
            }
        }
        let url = match &etcd {
            None => "memory:".to_owned(),
            Some(etcd) if delays.is_empty() => etcd.url(),
            Some(_) => {
                let addresses: Vec<String> = delays.iter().map(|delay| delay.address.to_string()).collect();
                format!("etcd://{}", addresses.join(","))
            }
        };
        let mut cluster = Self {
            etcd,
            _delays: delays,
            schedulers: Vec::new(),
            metrics: Vec::new(),
            executors: Vec::new(),
            logs: logs.to_owned(),
            data,
        };
        for number in 0..schedulers {
            let (id, metrics) = (format!("s{number}"), free_address()?);
            let words = ["scheduler", "--id", &id, "--state", &url, "--listen", "127.0.0.1:0", "--metrics", &metrics];
            let process = cluster.process(&muster, &words, &id).await;
            cluster.schedulers.push(process);
            cluster.metrics.push(metrics);
        }
        Ok(cluster)
    }

    async fn process(&self, muster: &Path, words: &[&str], name: &str) -> Process {
        let arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
        let setting = Setting { program: Some(muster), ..Setting::default() };
        let log = self.logs.join(format!("{name}.log"));
        Process::start_in(setting, &arguments, &self.data.path().join(name), self.data.path(), &log).await
    }

    /// Addresses of all schedulers.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.schedulers.iter().map(|scheduler| scheduler.address().to_string()).collect()
    }

    /// Starts a real executor with two slots, and waits until all schedulers know it.
    pub(crate) async fn executor(&mut self) -> anyhow::Result<()> {
        let (schedulers, data) = (self.addresses().join(","), self.data.path().join("executor").display().to_string());
        let words = ["executor", "--id", "real", "--schedulers", &schedulers, "--data-dir", &data, "--cpus", "2"];
        let process = self.process(&muster()?, &words, "executor").await;
        self.executors.push(process);
        self.know(1).await
    }

    /// Starts simulated executors, and waits until all schedulers know them.
    pub(crate) async fn simulate(&self, size: Size, name: &str) -> anyhow::Result<Simulation> {
        let simulation = Simulation::start(size, &self.addresses().join(","), name, &self.logs)?;
        simulation.registered().await?;
        self.know(size.count as usize).await?;
        Ok(simulation)
    }

    /// Waits until every scheduler knows so many executors that take work.
    async fn know(&self, executors: usize) -> anyhow::Result<()> {
        for address in self.addresses() {
            let mut client = v1::cluster_client::ClusterClient::connect(format!("http://{address}")).await?;
            let waiting = async {
                loop {
                    let views = client.list_executors(v1::ListExecutorsRequest {}).await?.into_inner().executors;
                    if views.iter().filter(|view| view.state == "ready").count() >= executors {
                        return Ok::<(), tonic::Status>(());
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(120), waiting)
                .await
                .with_context(|| format!("the scheduler at {address} knows no {executors} executors"))??;
        }
        Ok(())
    }

    /// A client of one of the schedulers.
    pub(crate) async fn client(&self, scheduler: usize) -> anyhow::Result<JobsClient<Channel>> {
        muster_integration::jobs::client(self.schedulers[scheduler].address()).await
    }

    /// From here on it is counted what is spent.
    pub(crate) async fn spent(&self) -> anyhow::Result<Spent> {
        let counters = match &self.etcd {
            Some(etcd) => Some(Counters::read(etcd).await?),
            None => None,
        };
        Ok(Spent { counters, cpu: self.cpu_seconds()? })
    }

    /// Processor time of all schedulers that live.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.schedulers.iter().map(|scheduler| scrape::cpu_seconds(scheduler.pid())).sum()
    }

    /// The largest memory that a scheduler has had.
    pub(crate) fn peak_rss(&self) -> anyhow::Result<f64> {
        let peaks = self.schedulers.iter().map(|scheduler| scrape::peak_rss(scheduler.pid()));
        peaks.collect::<anyhow::Result<Vec<f64>>>().map(|peaks| peaks.into_iter().fold(0.0, f64::max))
    }

    /// Runs jobs that were submitted by `submit` to their ends, and counts what they cost together.
    pub(crate) async fn costs(&self, specs: Vec<v1::JobSpec>) -> anyhow::Result<(Cost, Spent)> {
        let before = self.spent().await?;
        let mut jobs = Vec::new();
        for (number, spec) in specs.into_iter().enumerate() {
            let tasks: u32 = spec.stages.iter().map(tasks_of).sum();
            let mut client = self.client(number % self.schedulers.len()).await?;
            let id = muster_integration::jobs::submit(&mut client, spec, "").await?;
            jobs.push((client, id, tasks));
        }
        let (mut first, mut last) = (u64::MAX, 0);
        for (mut client, id, tasks) in jobs {
            let view = muster_integration::jobs::finished(&mut client, &id, JOB_WITHIN_SECONDS).await?;
            let successful = view.tasks.as_ref().map_or(0, |counts| counts.successful);
            anyhow::ensure!(successful == tasks, "{successful} of {tasks} tasks were successful: {}", view.message);
            first = first.min(view.submitted_at_ms);
            last = last.max(view.finished_at_ms);
        }
        let after = self.spent().await?;
        let (commits, bytes) = match (after.counters, before.counters) {
            (Some(after), Some(before)) => after.since(before),
            _ => (f64::NAN, f64::NAN),
        };
        let seconds = Duration::from_millis(last.saturating_sub(first).max(1)).as_secs_f64();
        Ok((Cost { seconds, cpu_seconds: after.cpu - before.cpu, commits, bytes }, before))
    }

    /// What a counter of the schedulers says, over all of them.
    pub(crate) async fn counted(&self, name: &str) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for address in &self.metrics {
            sum += scrape::sum(&scrape::text(address).await?, name).unwrap_or(0.0);
        }
        Ok(sum)
    }
}

impl Spent {
    /// etcd's counters then; None where there is none.
    pub(crate) fn counters(&self) -> Option<Counters> {
        self.counters
    }
}

fn tasks_of(stage: &v1::StageSpec) -> u32 {
    match &stage.tasks {
        Some(v1::stage_spec::Tasks::Count(count)) => *count,
        Some(v1::stage_spec::Tasks::Items(items)) => u32::try_from(items.values.len()).unwrap_or(u32::MAX),
        None => 0,
    }
}

/// One that was free just now.
fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}
