//! What all scenarios share: a network, a runtime whose threads are on it, a cluster under load, and the verdict.

use std::io::Write as _;

use muster_client::JobId;
use muster_integration::checker::Statistics;
use muster_integration::cluster_of_processes::{Cluster, Judged, Plan};
use muster_integration::load::{self, Load, Size};
use muster_integration::network::{self, Network};
use muster_integration::world::succeeded;

/// Runs a scenario on a network of its own.
///
/// # Panics
/// When it fails; and where it cannot run, if nothing may be skipped.
pub(crate) fn run<F: Future<Output = ()>>(scenario: impl FnOnce(Network) -> F) {
    muster_integration::cluster::logs();
    if let Some(why) = network::missing() {
        assert!(std::env::var_os("CI").is_none(), "nothing is skipped in CI: {why}");
        eprintln!("SKIPPED: {why}");
        return;
    }
    let network = Network::enter().expect("it was found possible");
    // Its threads are started by this one, so they are at the hub too.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be made").block_on(scenario(network));
}

/// A cluster that is busy.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) load: Load,
    size: Size,
}

impl Scene {
    /// Starts the cluster and its load, and waits until it is in full swing.
    pub(crate) async fn start(network: Network, plan: &Plan) -> Self {
        Self::of(Cluster::start(network, plan).await).await
    }

    /// The same for a cluster that runs.
    pub(crate) async fn of(cluster: Cluster) -> Self {
        let size = Size::of_environment();
        let load = Load::start(&cluster.client, &cluster.world, size).await;
        cluster.world.started(load::HELD, load::HELD_TASKS).await;
        load.progress(2).await;
        Self { cluster, load, size }
    }

    /// The fault is over: everything must end well, and the past must bear being looked at.
    pub(crate) async fn end(self) -> Judged {
        let Self { mut cluster, load, size } = self;
        let tally = load.finish(&cluster.world, size).await;
        assert!(tally.finished >= 5, "{tally:?}");
        cluster.acknowledged.extend(tally.acknowledged);
        judge(cluster).await
    }
}

/// What ran when the fault struck went on, and was not run again.
pub(crate) fn assert_undisturbed(judged: &Judged) {
    assert_eq!(judged.world.starts_of(load::HELD), load::HELD_TASKS, "running tasks are not disturbed");
}

/// The fault cost somebody its session while it had jobs, and they went to others.
pub(crate) fn assert_taken_over(judged: &Judged) {
    assert!(!judged.verdict.statistics.takeovers.is_empty(), "no job was taken over");
}

/// Tasks that run on one executor, can run nowhere else, and wait.
pub(crate) struct Pinned {
    job: JobId,
    /// The stage and its gate.
    name: String,
}

impl Pinned {
    pub(crate) const TASKS: usize = 2;

    /// Starts them; each executor of a scenario can have them once.
    pub(crate) async fn start(cluster: &Cluster, executor: &str) -> Self {
        let name = format!("only-{executor}");
        let run = format!("eval \"$NOTE\"; gate={name}; eval \"$WAIT\"");
        let spec = cluster.world.job(&Self::spec(executor, &name, &run));
        let job = cluster.client.submit(spec, None).await.unwrap().job;
        cluster.world.started(&name, Self::TASKS).await;
        Self { job, name }
    }

    /// Such tasks, before all others.
    pub(crate) fn spec(executor: &str, stage: &str, run: &str) -> String {
        let resources = format!("{{cpu: 0.1, {executor}: 1}}");
        let tasks = Self::TASKS;
        let stage = format!("{{{stage}: {{tasks: {tasks}, resources: {resources}, run: '{run}'}}}}");
        format!("{{name: pinned, priority: 1, stages: {stage}}}")
    }

    pub(crate) async fn owner(&self, cluster: &Cluster) -> usize {
        cluster.owner(self.job).await
    }

    /// Lets them end, waits for it, and answers how often they were started.
    pub(crate) async fn end(self, cluster: &Cluster) -> usize {
        cluster.world.open(&self.name);
        succeeded(&cluster.client, self.job).await;
        cluster.world.starts_of(&self.name)
    }
}

/// Ends a cluster whose work is done. Its past must break no rule, and leave nothing undone.
pub(crate) async fn judge(cluster: Cluster) -> Judged {
    let judged = cluster.judge().await;
    judged.verdict.assert_clean();
    let figures = &judged.verdict.statistics;
    assert_eq!((figures.unfinished, figures.accepted_twice), (0, 0), "{}", judged.verdict);
    note(figures);
    judged
}

/// Adds the scenario's figures to what a soak makes its table of.
fn note(figures: &Statistics) {
    let ms = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| (us / 1000).to_string());
    let takeover = figures.takeover_us();
    add(&format!(
        "figures\t{}\t{}\t{}\t{}\t{}\t{}",
        name(),
        ms(takeover.map(|(median, _)| median)),
        ms(takeover.map(|(_, worst)| worst)),
        figures.run_more_than_once,
        figures.unfinished,
        figures.accepted_twice
    ));
}

/// Says something that was measured, here and below a soak's table.
pub(crate) fn remark(text: &str) {
    eprintln!("{text}");
    add(&format!("remark\t{}\t{text}", name()));
}

fn name() -> String {
    std::thread::current().name().unwrap_or("main").to_owned()
}

fn add(line: &str) {
    let Some(path) = std::env::var_os("MUSTER_FAULT_FIGURES") else { return };
    let file = std::fs::File::options().create(true).append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).expect("the file of figures can be written");
}
