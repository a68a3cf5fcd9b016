//! A rolling restart of all schedulers delays nothing: small jobs come at a steady rate, whatever becomes of those before
//! them, and the wait of their tasks from ready to started is compared between a calm time and the restarts. The bound is
//! asserted in a soak alone, on a machine that is not busy with other tests.

use std::time::Duration;

use muster_client::Client;
use muster_integration::checker::{Submitted, Wait};
use muster_integration::cluster_of_processes::{Cluster, Plan};
use muster_integration::world::succeeded;
use muster_integration::{is_soak, recorder};
use muster_proto::v1;
use tokio_util::sync::CancellationToken;

use crate::scenario;

/// Between two jobs.
const EVERY: Duration = Duration::from_millis(100);
/// Between two restarts, at least: a second's jobs tell of each.
const RESTART_EVERY: Duration = Duration::from_secs(1);
/// By so much the wait may grow.
const GROWS_BY: Duration = Duration::from_secs(1);
const JOB: &str = "
name: steady
stages:
  one: {tasks: 2, resources: {cpu: 0.2}, run: 'sleep 0.1; echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/n'}
  two: {inputs: {one: all}, resources: {cpu: 0.2}, run: 'cat $MUSTER_INPUT_DIR/one/*/n > /dev/null'}
";

/// Submits a job at each beat until it is stopped, and waits for all of them. Nobody waits for the one before: a delay
/// must not thin out what would show it.
async fn steady(client: Client, spec: v1::JobSpec, stop: CancellationToken) -> Vec<Submitted> {
    let mut beat = tokio::time::interval(EVERY);
    let mut jobs = tokio::task::JoinSet::new();
    for number in 0_u32.. {
        beat.tick().await;
        if stop.is_cancelled() {
            break;
        }
        let (client, spec) = (client.clone(), spec.clone());
        jobs.spawn(async move {
            let (key, namespace, name) = (format!("steady-{number}"), spec.namespace.clone(), spec.name.clone());
            let job = client.submit(spec, Some(key.clone())).await.expect("every submit is acknowledged").job;
            let at_us = recorder::boot_us();
            succeeded(&client, job).await;
            Submitted { job, namespace, key, spec: name, at_us }
        });
    }
    jobs.join_all().await
}

/// The wait that all but one in a hundred of those stay below who became ready in a span of time; and how many there were.
fn p99(waits: &[Wait], from_us: u64, until_us: u64) -> (Duration, usize) {
    let within = waits.iter().filter(|wait| (from_us..until_us).contains(&wait.ready_us));
    let mut waits: Vec<u64> = within.map(|wait| wait.started_us.saturating_sub(wait.ready_us)).collect();
    waits.sort_unstable();
    let at = (waits.len() * 99).div_ceil(100).saturating_sub(1);
    (Duration::from_micros(*waits.get(at).expect("tasks were ready in that time")), waits.len())
}

#[test]
fn a_rolling_restart_delays_no_task() {
    let (calm, rounds) = if is_soak() { (Duration::from_secs(30), 10) } else { (Duration::from_secs(8), 2) };
    scenario::run(async |network| {
        let mut cluster = Cluster::start(network, &Plan::default()).await;
        let stop = CancellationToken::new();
        let load = tokio::spawn(steady(cluster.client.clone(), cluster.world.job(JOB), stop.clone()));
        // The first jobs find everything cold.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let calm_from = recorder::boot_us();
        tokio::time::sleep(calm).await;
        let calm_until = recorder::boot_us();
        for _ in 0..rounds {
            for number in 0..cluster.schedulers.len() {
                let next = tokio::time::Instant::now() + RESTART_EVERY;
                let session = cluster.session_of(number).await;
                cluster.schedulers[number].terminate().await;
                cluster.start_scheduler(number).await;
                cluster.live_schedulers(3).await;
                assert_ne!(cluster.session_of(number).await, session, "it is another life");
                tokio::time::sleep_until(next).await;
            }
        }
        let restarted = recorder::boot_us();
        stop.cancel();
        cluster.acknowledged.extend(load.await.expect("every job succeeds"));
        let judged = scenario::judge(cluster).await;
        let waits = &judged.verdict.statistics.waits;
        let (before, tasks_before) = p99(waits, calm_from, calm_until);
        let (during, tasks_during) = p99(waits, calm_until, restarted);
        scenario::remark(&format!(
            "99 of 100 tasks start within {} ms of being ready ({tasks_before} tasks), and within {} ms during {} restarts \
             of schedulers ({tasks_during} tasks)",
            before.as_millis(),
            during.as_millis(),
            3 * rounds
        ));
        let least = tasks_before.min(tasks_during);
        assert!(least >= 100, "{tasks_before} and {tasks_during} tasks tell nothing about one in a hundred");
        assert!(!is_soak() || during <= before + GROWS_BY, "{before:?} in calm, {during:?} during the restarts");
    });
}
