//! Which scheduler is asked, how often, and what is said when none answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_client::fake::{FakeCluster, Fault};
use muster_client::{Client, Error, JobId, Options, v1};
use tonic::Status;

const JOB: JobId = JobId(7);

/// Short patience, so that a test of a deadline is quick.
fn options() -> Options {
    Options {
        first_contact_timeout: Duration::from_millis(500),
        try_timeout: Duration::from_millis(300),
        call_timeout: Duration::from_secs(5),
        backoff: Duration::from_millis(5),
        ..Options::default()
    }
}

fn cluster_with_a_job() -> FakeCluster {
    let cluster = FakeCluster::default();
    let state = v1::JobState::Running.into();
    cluster.state().views.push(v1::JobView { job_id: JOB.to_string(), state, ..Default::default() });
    cluster
}

fn script(cluster: &FakeCluster, call: &'static str, faults: impl IntoIterator<Item = Fault>) {
    cluster.state().faults.insert(call, faults.into_iter().collect::<VecDeque<_>>());
}

fn count(cluster: &FakeCluster, call: &str) -> usize {
    cluster.state().calls.iter().filter(|(name, _)| name == call).count()
}

/// An address on which nobody listens.
fn dead_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

#[tokio::test]
async fn one_living_address_is_enough_and_the_others_are_learnt_from_it() -> Result<()> {
    let cluster = cluster_with_a_job();
    let (first, second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let dead = dead_address()?;
    let client = Client::connect([dead.as_str(), first.address()], options()).await?;
    let known: Vec<String> = client.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(known, [dead.as_str(), first.address(), second.address()]);
    Ok(())
}

#[tokio::test]
async fn a_killed_scheduler_is_left_for_one_that_was_discovered() -> Result<()> {
    let cluster = cluster_with_a_job();
    let mut first = cluster.start_scheduler();
    let second = cluster.start_scheduler();
    let client = Client::connect([first.address()], options()).await?;
    client.get_job(JOB).await?;
    first.kill();
    assert_eq!(client.get_job(JOB).await?.job_id, JOB.to_string());
    let asked = cluster.state().calls.last().cloned().context("a call")?;
    assert_eq!(asked, ("get_job".to_owned(), second.address().to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_scheduler_that_hangs_costs_one_try_and_not_the_call() -> Result<()> {
    let cluster = cluster_with_a_job();
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    script(&cluster, "get_job", [Fault::Hang]);
    let began = Instant::now();
    client.get_job(JOB).await?;
    assert!(began.elapsed() >= Duration::from_millis(300), "the fault did not happen");
    assert_eq!(count(&cluster, "get_job"), 2);
    Ok(())
}

#[tokio::test]
async fn nobody_there_is_said_with_every_address_and_within_the_patience() -> Result<()> {
    let (one, two) = (dead_address()?, dead_address()?);
    let began = Instant::now();
    let error = Client::connect([&one, &two], options()).await.err().context("nobody listens")?;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let said = error.to_string();
    assert!(matches!(error, Error::Unavailable { .. }), "{said}");
    assert!(said.contains(&one) && said.contains(&two) && said.contains("refused"), "{said}");
    Ok(())
}

#[tokio::test]
async fn wrong_and_missing_addresses_are_refused_before_anything_is_tried() {
    let none: [&str; 0] = [];
    assert!(matches!(Client::connect(none, options()).await, Err(Error::NoAddress)));
    assert!(matches!(Client::connect(["nonsense"], options()).await, Err(Error::BadAddress(_))));
}

#[tokio::test]
async fn a_final_answer_is_not_asked_for_twice() -> Result<()> {
    let cluster = cluster_with_a_job();
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let error = client.get_job(JobId(8)).await.err().context("no such job")?;
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    assert_eq!(count(&cluster, "get_job"), 1);
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_waited_out_for_as_long_as_it_asks() -> Result<()> {
    let cluster = cluster_with_a_job();
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let mut busy = Status::resource_exhausted("SUBMITS_QUEUED_MAX = 8 reached");
    busy.metadata_mut().insert("grpc-retry-pushback-ms", "200".parse()?);
    script(&cluster, "submit", [Fault::Refuse(busy)]);
    let began = Instant::now();
    client.submit(v1::JobSpec::default(), None).await?;
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!(count(&cluster, "submit"), 2);
    Ok(())
}

#[tokio::test]
async fn a_refusal_longer_than_the_patience_is_reported_with_its_delay() -> Result<()> {
    let cluster = cluster_with_a_job();
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let mut busy = Status::resource_exhausted("the store is full");
    busy.metadata_mut().insert("grpc-retry-pushback-ms", "20000".parse()?);
    script(&cluster, "submit", [Fault::Refuse(busy)]);
    let error = client.submit(v1::JobSpec::default(), None).await.err().context("busy")?;
    let Error::Refused { retry_after, message } = error else { panic!("{error}") };
    assert_eq!((retry_after, message.as_str()), (Some(Duration::from_secs(20)), "the store is full"));
    assert!(cluster.state().accepted.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_submit_whose_answer_is_lost_makes_one_job_and_says_it_is_new() -> Result<()> {
    let cluster = cluster_with_a_job();
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    script(&cluster, "submit", [Fault::LoseAnswer, Fault::LoseAnswer]);
    let submitted = client.submit(v1::JobSpec { name: "n".to_owned(), ..Default::default() }, None).await?;
    assert_eq!(count(&cluster, "submit"), 3, "the faults did not happen");
    let state = cluster.state();
    assert_eq!(state.accepted.len(), 1);
    assert_eq!(state.accepted[0].job, submitted.job);
    assert_eq!(state.accepted[0].idempotency_key, submitted.idempotency_key);
    assert!(!submitted.existed, "it was this very submit that made the job");
    Ok(())
}

#[tokio::test]
async fn a_submit_that_never_gets_an_answer_is_unknown_and_names_its_key() -> Result<()> {
    let cluster = cluster_with_a_job();
    let scheduler = cluster.start_scheduler();
    let options = Options { call_timeout: Duration::from_millis(400), ..options() };
    let client = Client::connect([scheduler.address()], options).await?;
    script(&cluster, "submit", std::iter::repeat_n(Fault::LoseAnswer, 500));
    let error = client.submit(v1::JobSpec::default(), None).await.err().context("no answer")?;
    let Error::Unknown { call: "submit", idempotency_key: Some(key), .. } = error else { panic!("{error}") };
    assert_eq!(cluster.state().accepted[0].idempotency_key, key);
    Ok(())
}

#[tokio::test]
async fn the_callers_own_key_tells_a_job_that_existed_from_another_one() -> Result<()> {
    let cluster = cluster_with_a_job();
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let spec = v1::JobSpec { name: "n".to_owned(), ..Default::default() };
    let first = client.submit(spec.clone(), Some("nightly".to_owned())).await?;
    let second = client.submit(spec, Some("nightly".to_owned())).await?;
    assert_eq!((first.job, first.existed, second.existed), (second.job, false, true));
    let other = client.submit(v1::JobSpec::default(), Some("nightly".to_owned())).await;
    assert!(matches!(other, Err(Error::AlreadyExists(_))), "{other:?}");
    Ok(())
}

#[tokio::test]
async fn a_retry_whose_answer_is_lost_is_not_sent_again() -> Result<()> {
    let cluster = cluster_with_a_job();
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    script(&cluster, "retry_job", [Fault::LoseAnswer]);
    let error = client.retry_job(JOB).await.err().context("the answer was lost")?;
    assert!(matches!(error, Error::Unknown { call: "retry", .. }), "{error}");
    assert_eq!(cluster.state().retries, 1);
    Ok(())
}

#[tokio::test]
async fn a_retry_that_was_certainly_not_sent_goes_to_the_next_scheduler() -> Result<()> {
    let cluster = cluster_with_a_job();
    let scheduler = cluster.start_scheduler();
    let dead = dead_address()?;
    let client = Client::connect([dead.as_str(), scheduler.address()], options()).await?;
    assert_eq!(client.retry_job(JOB).await?, 2);
    let busy = Status::resource_exhausted("too many calls at once");
    script(&cluster, "retry_job", [Fault::Refuse(busy)]);
    assert_eq!(client.retry_job(JOB).await?, 2);
    assert_eq!(cluster.state().retries, 2);
    Ok(())
}

#[tokio::test]
async fn a_cancel_is_repeated_until_it_is_answered() -> Result<()> {
    let cluster = cluster_with_a_job();
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    script(&cluster, "cancel_job", [Fault::LoseAnswer]);
    assert_eq!(client.cancel_job(JOB, "enough").await?, v1::JobState::Cancelled);
    assert_eq!(cluster.state().cancels, ["enough", "enough"]);
    Ok(())
}

#[tokio::test]
async fn tasks_are_collected_over_all_pages_and_a_limit_says_that_there_are_more() -> Result<()> {
    let cluster = cluster_with_a_job();
    let task = |index| v1::TaskView { stage: "map".to_owned(), index, ..Default::default() };
    cluster.state().tasks.extend((0..12_345).map(task));
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let filter = muster_client::TaskFilter::default();
    let (all, more) = client.tasks(JOB, &filter, usize::MAX).await?;
    assert_eq!((all.len(), more, count(&cluster, "list_tasks")), (12_345, false, 2));
    let (some, more) = client.tasks(JOB, &filter, 10).await?;
    assert_eq!((some.len(), more), (10, true));
    let (exactly, more) = client.tasks(JOB, &filter, 12_345).await?;
    assert_eq!((exactly.len(), more), (12_345, false));
    assert_eq!(client.task(JOB, "map", 12_000).await?.index, 12_000);
    assert!(matches!(client.task(JOB, "map", 99_999).await, Err(Error::NotFound(_))));
    Ok(())
}

#[tokio::test]
async fn calls_can_be_made_from_spawned_tasks() -> Result<()> {
    let cluster = cluster_with_a_job();
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get_job(JOB).await })
        })
        .collect();
    for call in calls {
        call.await??;
    }
    Ok(())
}
