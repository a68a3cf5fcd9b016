//! How long the jobs of a scheduler that is gone wait: for new tasks, not only for a new owner. The bounds are asserted
//! in a soak alone: they are promises about machines that are not busy with other tests.

use std::time::Duration;

use muster_client::JobId;
use muster_integration::checker::{Change, Write};
use muster_integration::cluster_of_processes::{Cluster, Judged, Plan};
use muster_integration::network::Network;
use muster_integration::{is_soak, recorder};
use muster_state::codec::{self, Commit};
use muster_state::{Key, Keyspace};

use crate::scenario;

/// Short tasks, enough to be at it when the scheduler goes and long after.
const JOB: &str = "{name: steady, tasks: TASKS, resources: {cpu: 0.5}, run: 'sleep 0.2'}";

enum End {
    Killed,
    ToldToEnd,
}

struct Figures {
    /// From the end of the process until a task was launched by the successor's commit.
    after_end: Duration,
    /// From the end of its session in the store.
    after_session: Duration,
}

async fn measure(network: Network, ttl: Duration, end: End) -> Figures {
    let plan = Plan { session_ttl: ttl, ..Plan::default() };
    let mut cluster = Cluster::start(network, &plan).await;
    let tasks = if is_soak() { 2_000 } else { 400 } + 20 * u32::try_from(ttl.as_secs()).unwrap();
    let spec = cluster.world.job(&JOB.replace("TASKS", &tasks.to_string()));
    let job = cluster.client.submit(spec, None).await.unwrap().job;
    muster_integration::eventually("it runs", 60, || async {
        (cluster.client.get_job(job).await.ok()?.tasks?.successful > 10).then_some(())
    })
    .await;
    let owner = cluster.owner(job).await;
    let session = cluster.session_of(owner).await;
    let ended_us = recorder::boot_us();
    match end {
        End::Killed => cluster.schedulers[owner].kill(),
        End::ToldToEnd => cluster.schedulers[owner].terminate().await,
    }
    muster_integration::world::succeeded(&cluster.client, job).await;
    let judged = scenario::judge(cluster).await;
    let session_us = session_ended(&judged, &session).expect("it ended");
    let next_us = judged.writes.iter().find_map(|write| assigned_by_another(write, job, &session));
    let next_us = next_us.expect("somebody went on");
    Figures {
        after_end: Duration::from_micros(next_us.saturating_sub(ended_us)),
        after_session: Duration::from_micros(next_us.saturating_sub(session_us)),
    }
}

fn session_ended(judged: &Judged, session: &str) -> Option<u64> {
    let gone =
        |change: &Change| change.keyspace == Keyspace::Schedulers && change.name == session && change.value.is_none();
    judged.writes.iter().find(|write| write.changes.iter().any(gone)).map(|write| write.at_us)
}

/// When somebody else than the session assigned tasks of the job in this revision.
fn assigned_by_another(write: &Write, job: JobId, session: &str) -> Option<u64> {
    let prefix = job.to_string();
    write.changes.iter().find_map(|change| {
        let value = change
            .value
            .as_ref()
            .filter(|_| change.keyspace == Keyspace::JobDeltas && change.name.starts_with(&prefix))?;
        let key = Key::new(Keyspace::JobDeltas, change.name.clone());
        let commit: Commit = codec::decode(&key, value).ok()?;
        let (by, _) = commit.id.rsplit_once(':')?;
        let assigns = format!("{:?}", commit.delta).contains("Assigned");
        (by != session && assigns).then_some(write.at_us)
    })
}

fn report(what: &str, figures: &Figures) {
    let Figures { after_end, after_session } = figures;
    let (after_end, after_session) = (after_end.as_millis(), after_session.as_millis());
    scenario::remark(&format!(
        "{what}: new tasks {after_end} ms after the end of its process, {after_session} ms after that of its session"
    ));
}

#[test]
fn a_killed_schedulers_jobs_go_on_two_seconds_after_its_session() {
    scenario::run(async |network| {
        let figures = measure(network, Duration::from_secs(10), End::Killed).await;
        report("killed, sessions of 10 s", &figures);
        assert!(!is_soak() || figures.after_session <= Duration::from_secs(2), "{:?}", figures.after_session);
    });
}

#[test]
fn a_killed_schedulers_jobs_go_on_within_five_seconds_with_sessions_of_three() {
    scenario::run(async |network| {
        let figures = measure(network, Duration::from_secs(3), End::Killed).await;
        report("killed, sessions of 3 s", &figures);
        assert!(!is_soak() || figures.after_end <= Duration::from_secs(5), "{:?}", figures.after_end);
    });
}

#[test]
fn the_jobs_of_a_scheduler_that_is_told_to_end_go_on_at_once() {
    scenario::run(async |network| {
        let figures = measure(network, Duration::from_secs(10), End::ToldToEnd).await;
        report("told to end", &figures);
        assert!(!is_soak() || figures.after_end <= Duration::from_millis(500), "{:?}", figures.after_end);
    });
}
