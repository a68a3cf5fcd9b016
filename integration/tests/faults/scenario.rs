//! What all scenarios share: a network, a runtime whose threads are on it, a cluster under load, and the verdict.

use std::io::Write as _;

use muster_integration::checker::Statistics;
use muster_integration::cluster_of_processes::{Cluster, Judged, Plan};
use muster_integration::load::{Load, Size};
use muster_integration::network::{self, Network};

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
        load.progress(2).await;
        Self { cluster, load, size }
    }

    /// The fault is over: everything must end well, and the past must bear being looked at.
    pub(crate) async fn end(self) -> Judged {
        let Self { mut cluster, load, size } = self;
        let tally = load.finish(&cluster.world, size).await;
        assert!(tally.finished >= 4, "{tally:?}");
        cluster.acknowledged.extend(tally.acknowledged);
        judge(cluster).await
    }
}

/// Ends a cluster whose work is done. Its past must break no rule, and leave nothing undone.
pub(crate) async fn judge(cluster: Cluster) -> Judged {
    let judged = cluster.judge().await;
    judged.verdict.assert_clean();
    let figures = &judged.verdict.statistics;
    assert_eq!((figures.unfinished, figures.accepted_twice), (0, 0), "{figures:?}");
    note(figures);
    judged
}

/// Adds the scenario's figures to the file that a soak makes its table of.
fn note(figures: &Statistics) {
    let Some(path) = std::env::var_os("MUSTER_FAULT_FIGURES") else { return };
    let thread = std::thread::current();
    let ms = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| (us / 1000).to_string());
    let takeover = figures.takeover_us();
    let line = format!(
        "{}\t{}\t{}\t{}\t{}\t{}\n",
        thread.name().unwrap_or("main"),
        ms(takeover.map(|(median, _)| median)),
        ms(takeover.map(|(_, worst)| worst)),
        figures.run_more_than_once,
        figures.unfinished,
        figures.accepted_twice
    );
    let file = std::fs::File::options().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of figures can be written");
}
