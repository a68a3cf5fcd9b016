//! Launch by reference: what a slow, missing or corrupt spec does to just the tasks that need it. A scheduler over a
//! store with faults, and a real executor, in this process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_client::{Client, JobId};
use muster_executor::Executor;
use muster_integration::processes::muster;
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_integration::{cluster, eventually, journal};
use muster_proto::v1;
use muster_proto::v1::executor_client::ExecutorClient;
use muster_state::faults::{Fault, Faulty};
use muster_state::{Keyspace, Memory, StateBackend as _, keys};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// As slow as the store is made.
const SLOW: Duration = Duration::from_secs(8);
/// What a launch, or anything else that does not read the store, may take on a busy machine: far less than `SLOW`.
const USUAL: Duration = Duration::from_secs(6);

struct Cluster {
    world: World,
    store: Faulty,
    scheduler: muster_scheduler::Handle,
    client: Client,
}

impl Cluster {
    async fn start() -> Self {
        cluster::logs();
        let store = Faulty::new(Arc::new(Memory::new()));
        let scheduler = cluster::scheduler("one", Arc::new(store.clone())).await.unwrap();
        let client = client(&[scheduler.address()]).await;
        Self { world: World::new(), store, scheduler, client }
    }

    /// An executor with 8 cores. Its tasks are children of the binary's supervisor.
    async fn executor(&self) -> muster_executor::Handle {
        let mut options =
            muster_executor::Options::new(self.world.path("executor"), vec![self.scheduler.address().to_string()]);
        options.supervisor = vec![muster().into(), "supervise".into()];
        options.resources.cpu_milli = 8000;
        let executor = Executor::start(options).await.unwrap();
        ready(&self.client, 1).await;
        executor
    }

    /// Submits a job, and waits until its stage's spec is stored. Answers the spec's digest.
    async fn submit(&self, yaml: &str) -> (JobId, String) {
        let job = self.client.submit(self.world.job(yaml), None).await.unwrap().job;
        let digest = eventually("the job is planned", 10, || async {
            let page = self.store.get_from_prefix(Keyspace::JobPlans, &keys::job_prefix(job)).await.ok()?;
            page.entries.first()?.name.split('/').nth(1).map(str::to_owned)
        })
        .await;
        (job, digest)
    }

    async fn state(&self, job: JobId) -> v1::JobState {
        self.client.get_job(job).await.unwrap().state()
    }
}

/// A launch stream to an executor, beside the scheduler's.
struct Launcher {
    client: ExecutorClient<tonic::transport::Channel>,
    requests: mpsc::Sender<v1::LaunchTasksRequest>,
    answers: tonic::Streaming<v1::LaunchTasksResponse>,
}

impl Launcher {
    async fn new(executor: &muster_executor::Handle) -> Self {
        let mut client = ExecutorClient::connect(format!("http://{}", executor.address())).await.unwrap();
        let (requests, stream) = mpsc::channel(4);
        let answers = client.launch_tasks(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { client, requests, answers }
    }

    /// Launches, expects acceptance, and answers how long the acknowledgement took.
    async fn launch(&mut self, group: v1::LaunchGroup) -> Duration {
        let began = Instant::now();
        let request =
            v1::LaunchTasksRequest { sequence: 1, executor_incarnation: 1, groups: vec![group], reservation: None };
        self.requests.send(request).await.unwrap();
        let answer = tokio::time::timeout(SLOW * 4, self.answers.message()).await.expect("an answer").unwrap().unwrap();
        assert_eq!(answer.refused, []);
        began.elapsed()
    }
}

/// A launch of task 0 of stage 0, as the scheduler would send it.
fn group(cluster: &Cluster, job: JobId, digest: &str, token: u64) -> v1::LaunchGroup {
    v1::LaunchGroup {
        job_id: job.to_string(),
        fence: Some(v1::Fence { epoch: 1, token }),
        owner_address: cluster.scheduler.address().to_string(),
        spec_digest: digest.to_owned(),
        resources: Some(v1::Resources { cpu_milli: 100, ..Default::default() }),
        attempts: vec![v1::AttemptLaunch { index: 0, attempt: 1, each: Vec::new() }],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_missing_or_corrupt_spec_concerns_just_its_own_tasks() {
    let cluster = Cluster::start().await;
    // Different stages, so that none has the other's spec.
    let (slow, _) = cluster.submit(r#"{name: slow, tasks: 2, run: 'eval "$NOTE"; echo slow'}"#).await;
    let (missing, missing_digest) = cluster.submit("{name: missing, run: 'echo missing'}").await;
    let (corrupt, corrupt_digest) = cluster.submit("{name: corrupt, run: 'echo corrupt'}").await;
    let on = |job, fault| cluster.store.inject_reads(Keyspace::JobPlans, &keys::job_prefix(job), fault, usize::MAX);
    let faults = [on(slow, Fault::Delay(SLOW)), on(missing, Fault::Missing), on(corrupt, Fault::Corrupt)];

    let began = Instant::now();
    let executor = cluster.executor().await;
    // The launches of the slow ones are acknowledged: the executor has them.
    eventually("the slow tasks are assigned, and their spec is asked for", 10, || async {
        let assigned = cluster.client.get_job(slow).await.ok()?.tasks?.assigned;
        (assigned == 2 && faults[0].fired() > 0).then_some(())
    })
    .await;
    // Others go on meanwhile.
    let (healthy, _) = cluster.submit("{name: healthy, tasks: 20, run: 'true'}").await;
    succeeded(&cluster.client, healthy).await;
    assert!(began.elapsed() < SLOW, "the healthy job took {:?}", began.elapsed());
    assert_eq!(cluster.world.starts_of("main"), 0, "the slow ones wait for their spec");
    for (job, digest, word) in [(missing, missing_digest, "missing"), (corrupt, corrupt_digest, "corrupt")] {
        let view = tokio::time::timeout(SLOW * 4, cluster.client.wait(job)).await.unwrap().unwrap();
        assert_eq!(view.state(), v1::JobState::Failed);
        assert!(view.message.contains(&digest) && view.message.contains(word), "{word}: {}", view.message);
    }
    succeeded(&cluster.client, slow).await;
    assert!(began.elapsed() >= SLOW, "the slow spec came after {:?}", began.elapsed());
    assert_eq!(cluster.world.starts()["main/0"], [1], "a slow spec costs no attempt");
    assert!(faults.iter().all(|fault| fault.fired() > 0), "{faults:?}");
    executor.stop().await;
    cluster.scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_is_acknowledged_in_its_usual_time_and_a_cancel_takes_effect_during_the_load() {
    let cluster = Cluster::start().await;
    // Nobody offers that: the scheduler launches neither, the test does.
    let never = "resources: {nowhere: 1}";
    let (slow, slow_digest) = cluster.submit(&format!("{{name: slow, {never}, run: 'echo slow'}}")).await;
    let (quick, quick_digest) = cluster.submit(&format!("{{name: quick, {never}, run: 'echo quick'}}")).await;
    let fault = cluster.store.inject_reads(Keyspace::JobPlans, &keys::job_prefix(slow), Fault::Delay(SLOW), usize::MAX);
    let executor = cluster.executor().await;
    let mut launcher = Launcher::new(&executor).await;
    let usual = launcher.launch(group(&cluster, quick, &quick_digest, 1)).await;
    let with_slow_spec = launcher.launch(group(&cluster, slow, &slow_digest, 1)).await;
    assert!(usual < USUAL && with_slow_spec < USUAL, "{usual:?} {with_slow_spec:?}");
    eventually("the spec is asked for", 10, || async { (fault.fired() > 0).then_some(()) }).await;

    // One of the scheduler's own, cancelled while it loads. It meets a store that is slow from the start.
    let all = cluster.store.inject_reads(Keyspace::JobPlans, "", Fault::Delay(SLOW * 4), usize::MAX);
    let loading = cluster.client.submit(cluster.world.job("{name: again, run: 'echo again'}"), None).await.unwrap().job;
    eventually("the task is assigned, and its spec is asked for", 10, || async {
        let assigned = cluster.client.get_job(loading).await.ok()?.tasks?.assigned;
        (assigned == 1 && all.fired() > 0).then_some(())
    })
    .await;
    let began = Instant::now();
    cluster.client.cancel_job(loading, "enough").await.unwrap();
    let view = tokio::time::timeout(SLOW * 3, cluster.client.wait(loading)).await.unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Cancelled);
    assert!(began.elapsed() < USUAL, "the cancel took {:?}", began.elapsed());

    // And one on the executor itself.
    let began = Instant::now();
    let cancel = v1::CancelTasksRequest {
        job_id: slow.to_string(),
        fence: Some(v1::Fence { epoch: 1, token: 1 }),
        attempts: vec![v1::AttemptRef { index: 0, attempt: 1, ..Default::default() }],
        only_waiting: false,
    };
    launcher.client.cancel_tasks(cancel).await.unwrap();
    let slow = slow.to_string();
    let end = eventually("the attempt has ended", 10, || async {
        let lines = journal::read(&cluster.world.path("executor"));
        lines.into_iter().find(|line| line.event == "end" && line.job == slow)
    })
    .await;
    assert_eq!(end.outcome.as_deref(), Some("OUTCOME_CANCELLED"));
    assert!(began.elapsed() < USUAL, "{:?}", began.elapsed());
    executor.stop().await;
    cluster.scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_launch_of_an_attempt_changes_nothing() {
    let cluster = Cluster::start().await;
    let executor = cluster.executor().await;
    let (job, digest) = cluster.submit(r#"{name: j, run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}"#).await;
    cluster.world.started("main", 1).await;
    let owner = cluster.store.get(&keys::owner(job)).await.unwrap().expect("the job has an owner");
    let mut launcher = Launcher::new(&executor).await;
    let same = group(&cluster, job, &digest, owner.mod_revision);
    for _ in 0..2 {
        launcher.launch(same.clone()).await;
    }
    assert_eq!(cluster.state(job).await, v1::JobState::Running);
    cluster.world.open("go");
    let view = succeeded(&cluster.client, job).await;
    assert_eq!(view.tasks.map(|counts| counts.successful), Some(1));
    // Even when it is over.
    let late = v1::LaunchTasksRequest { sequence: 2, executor_incarnation: 1, groups: vec![same], reservation: None };
    launcher.requests.send(late).await.unwrap();
    let answer = tokio::time::timeout(SLOW, launcher.answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.sequence, 2);
    assert_eq!(tasks(&cluster.client, job, "main").await[0].attempt, 1);
    assert_eq!(cluster.world.starts()["main/0"], [1]);
    executor.stop().await;
    cluster.scheduler.stop().await;
}
