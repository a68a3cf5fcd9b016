//! Schedulers over the memory store, with executors that run nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_integration::jobs::{client, finished, job, submit};
use muster_integration::simulated::{Simulated, succeed};
use muster_integration::{cluster, eventually};
use muster_proto::storage::ExecutorRecord;
use muster_proto::v1;
use muster_proto::v1::cluster_client::ClusterClient;
use muster_scheduler::options::OwnedMax;
use muster_scheduler::{Options, Scheduler};
use muster_state::faults::{Fault, Faulty, Operation};
use muster_state::{Keyspace, Memory, StateBackend, codec, keys};

fn memory() -> Arc<dyn StateBackend> {
    Arc::new(Memory::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_through_all_of_its_stages() -> anyhow::Result<()> {
    cluster::logs();
    let scheduler = cluster::scheduler("one", memory()).await?;
    let _executor = Simulated::start("e1", scheduler.address(), 4, succeed()).await?;
    let mut client = client(scheduler.address()).await?;
    let spec = job(
        "three",
        &[("a", 10, &[]), ("b", 10, &[("a", v1::InputKind::Each)]), ("c", 1, &[("b", v1::InputKind::All)])],
    );
    let id = submit(&mut client, spec, "").await?;
    let view = finished(&mut client, &id, 20).await?;
    assert_eq!(view.state(), v1::JobState::Successful, "{view:?}");
    assert_eq!(view.tasks.map(|counts| counts.successful), Some(21));
    // Over, and read from the store.
    let again = client.get_job(v1::GetJobRequest { job_id: id }).await?.into_inner();
    assert_eq!(again.stages.len(), 3);
    assert_eq!(again.tasks.map(|counts| counts.successful), Some(21));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_takes_no_more_than_it_may_own_until_something_is_over() -> anyhow::Result<()> {
    let owned_max = OwnedMax { jobs: 3, tasks: 10 };
    let options = Options { owned_max, ..cluster::scheduler_options("one", memory()) };
    let scheduler = Scheduler::start(options).await?;
    let mut client = client(scheduler.address()).await?;
    let first = submit(&mut client, job("first", &[("a", 8, &[])]), "").await?;
    // It counts as soon as it is in memory.
    let refused = eventually("a second one is refused", 20, async || {
        submit(&mut client.clone(), job("second", &[("a", 3, &[])]), "").await.err()
    })
    .await;
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("of 10 tasks (--max-jobs, --max-tasks)"), "{refused}");
    let refused = submit(&mut client, job("large", &[("a", 11, &[])]), "").await.expect_err("it never fits");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    let _executor = Simulated::start("e1", scheduler.address(), 8, succeed()).await?;
    finished(&mut client, &first, 20).await?;
    eventually("there is room again", 20, async || {
        submit(&mut client.clone(), job("third", &[("a", 3, &[])]), "").await.ok()
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_makes_one_job_and_refuses_another_spec() -> anyhow::Result<()> {
    let scheduler = cluster::scheduler("one", memory()).await?;
    let mut client = client(scheduler.address()).await?;
    let first = submit(&mut client, job("j", &[("a", 1, &[])]), "key").await?;
    let second = submit(&mut client, job("j", &[("a", 1, &[])]), "key").await?;
    assert_eq!(first, second);
    let other = submit(&mut client, job("j", &[("a", 2, &[])]), "key").await;
    assert_eq!(other.map_err(|status| status.code()), Err(tonic::Code::AlreadyExists));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_and_its_running_attempts_are_told_to() -> anyhow::Result<()> {
    let scheduler = cluster::scheduler("one", memory()).await?;
    let executor = Simulated::start("e1", scheduler.address(), 2, Arc::new(|_| None)).await?;
    let mut client = client(scheduler.address()).await?;
    let id = submit(&mut client, job("long", &[("a", 5, &[])]), "").await?;
    eventually("two attempts run", 10, || async { executor.seen(|seen| (seen.launches.len() == 2).then_some(())) })
        .await;
    client.cancel_job(v1::CancelJobRequest { job_id: id.clone(), reason: "enough".to_owned() }).await?;
    let view = finished(&mut client, &id, 10).await?;
    assert_eq!(view.state(), v1::JobState::Cancelled);
    assert_eq!(view.tasks.map(|counts| counts.cancelled), Some(5));
    assert!(view.message.contains("enough"), "{}", view.message);
    executor.seen(|seen| assert_eq!((seen.launches.len(), seen.cancels.len()), (2, 2)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_retried_in_place_and_runs_only_what_failed() -> anyhow::Result<()> {
    let scheduler = cluster::scheduler("one", memory()).await?;
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let decide = {
        let broken = Arc::clone(&broken);
        Arc::new(move |attempt: &v1::AttemptRef| {
            let fails = attempt.stage == 1 && broken.load(std::sync::atomic::Ordering::SeqCst);
            let outcome = if fails { v1::Outcome::Failed } else { v1::Outcome::Succeeded };
            Some(v1::AttemptFinished { outcome: outcome.into(), message: "broken".to_owned(), ..Default::default() })
        })
    };
    let executor = Simulated::start("e1", scheduler.address(), 2, decide).await?;
    let mut client = client(scheduler.address()).await?;
    let spec = job("flaky", &[("good", 3, &[]), ("bad", 1, &[("good", v1::InputKind::All)])]);
    let id = submit(&mut client, spec, "").await?;
    let view = finished(&mut client, &id, 10).await?;
    assert_eq!(view.state(), v1::JobState::Failed);
    assert_eq!(view.failures.len(), 1);
    assert_eq!(view.message, "bad/0: broken");
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    let answer = client.retry_job(v1::RetryJobRequest { job_id: id.clone() }).await?.into_inner();
    assert_eq!(answer.tasks, 1);
    let view = finished(&mut client, &id, 10).await?;
    assert_eq!(view.state(), v1::JobState::Successful, "{view:?}");
    executor.seen(|seen| assert_eq!(seen.launches.len(), 5, "three, one that failed, one again"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_scheduler_answers_for_a_job_of_another() -> anyhow::Result<()> {
    let state = memory();
    let one = cluster::scheduler("one", Arc::clone(&state)).await?;
    let two = cluster::scheduler("two", state).await?;
    let _executor = Simulated::start("e1", one.address(), 2, Arc::new(|_| None)).await?;
    let (mut first, mut second) = (client(one.address()).await?, client(two.address()).await?);
    let id = submit(&mut first, job("j", &[("a", 3, &[])]), "").await?;
    let view = second.get_job(v1::GetJobRequest { job_id: id.clone() }).await?.into_inner();
    assert_eq!(view.owner, one.address().to_string());
    second.cancel_job(v1::CancelJobRequest { job_id: id.clone(), reason: String::new() }).await?;
    let view = finished(&mut second, &id, 10).await?;
    assert_eq!(view.state(), v1::JobState::Cancelled);
    let listed = second.list_jobs(v1::ListJobsRequest::default()).await?.into_inner();
    assert_eq!(listed.jobs.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_scheduler_that_stopped_go_on_with_another_without_running_again() -> anyhow::Result<()> {
    let state = memory();
    let one = cluster::scheduler("one", Arc::clone(&state)).await?;
    let two = cluster::scheduler("two", state).await?;
    let executor = Simulated::start("e1", two.address(), 2, Arc::new(|_| None)).await?;
    let (mut first, mut second) = (client(one.address()).await?, client(two.address()).await?);
    let id = submit(&mut first, job("j", &[("a", 2, &[])]), "").await?;
    eventually("both run", 10, || async { executor.seen(|seen| (seen.launches.len() == 2).then_some(())) }).await;
    one.stop().await;
    eventually("the other scheduler owns the job", 20, || {
        let (mut second, id, address) = (second.clone(), id.clone(), two.address().to_string());
        async move {
            let view = second.get_job(v1::GetJobRequest { job_id: id }).await.ok()?.into_inner();
            (view.owner == address).then_some(())
        }
    })
    .await;
    second.cancel_job(v1::CancelJobRequest { job_id: id.clone(), reason: String::new() }).await?;
    let view = finished(&mut second, &id, 10).await?;
    assert_eq!(view.state(), v1::JobState::Cancelled);
    executor.seen(|seen| assert_eq!(seen.launches.values().sum::<u32>(), 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_failed_before_a_success_stay_listed() -> anyhow::Result<()> {
    let scheduler = cluster::scheduler("one", memory()).await?;
    let decide = Arc::new(|attempt: &v1::AttemptRef| {
        let outcome = if attempt.attempt < 3 { v1::Outcome::Failed } else { v1::Outcome::Succeeded };
        Some(v1::AttemptFinished { outcome: outcome.into(), message: "not yet".to_owned(), ..Default::default() })
    });
    let _executor = Simulated::start("e1", scheduler.address(), 2, decide).await?;
    let mut client = client(scheduler.address()).await?;
    let mut spec = job("third", &[("a", 2, &[])]);
    spec.stages[0].retries = Some(v1::Retries { failed: Some(2), backoff_ms: 1, ..Default::default() });
    let id = submit(&mut client, spec, "").await?;
    assert_eq!(finished(&mut client, &id, 20).await?.state(), v1::JobState::Successful);
    let request = v1::ListAttemptsRequest { job_id: id, stage: "a".to_owned(), index: Some(1), limit: 0 };
    let one = client.list_attempts(request.clone()).await?.into_inner();
    let seen: Vec<(u32, v1::TaskState)> = one.attempts.iter().map(|task| (task.attempt, task.state())).collect();
    assert_eq!(seen, [(1, v1::TaskState::Failed), (2, v1::TaskState::Failed), (3, v1::TaskState::Successful)]);
    let all = client.list_attempts(v1::ListAttemptsRequest { index: None, limit: 3, ..request }).await?.into_inner();
    assert_eq!((all.attempts.len(), all.more), (3, true), "four failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_small_jobs_from_many_clients_all_end_and_each_ran_once() -> anyhow::Result<()> {
    cluster::logs();
    let state = memory();
    let one = cluster::scheduler("one", Arc::clone(&state)).await?;
    let two = cluster::scheduler("two", state).await?;
    let executors = [
        Simulated::start("e1", one.address(), 8, succeed()).await?,
        Simulated::start("e2", two.address(), 8, succeed()).await?,
    ];
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..64u32 {
        let address = if number % 2 == 0 { one.address() } else { two.address() };
        clients.spawn(async move {
            let mut client = client(address).await?;
            for _ in 0..16 {
                let id = submit(&mut client, job("small", &[("a", 1, &[])]), "").await?;
                let view = finished(&mut client, &id, 60).await?;
                anyhow::ensure!(view.state() == v1::JobState::Successful, "{view:?}");
            }
            Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    println!("1,024 jobs of one task in {:?}", started.elapsed());
    let launched: usize = executors.iter().map(|executor| executor.seen(|seen| seen.launches.len())).sum();
    assert_eq!(launched, 1024);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_whose_commits_do_not_come_back_lets_its_jobs_go_to_a_peer() -> anyhow::Result<()> {
    cluster::logs();
    let state = memory();
    let slow = Arc::new(Faulty::new(Arc::clone(&state)));
    let one = cluster::scheduler("one", Arc::clone(&slow) as Arc<dyn StateBackend>).await?;
    let two = cluster::scheduler("two", state).await?;
    let executor = Simulated::start("e1", two.address(), 1, Arc::new(|_| None)).await?;
    let (mut first, mut second) = (client(one.address()).await?, client(two.address()).await?);
    let id = submit(&mut first, job("j", &[("a", 1, &[])]), "").await?;
    eventually("it runs", 10, || async { executor.seen(|seen| (seen.launches.len() == 1).then_some(())) }).await;
    // Its session is renewed as ever: only what writes to jobs does not come back.
    let for_ever = Fault::Delay(Duration::from_secs(3_600));
    let injected = slow.inject(Keyspace::ActiveJobs, Operation::Write, for_ever, usize::MAX);
    let cancel = v1::CancelJobRequest { job_id: id.clone(), reason: String::new() };
    let cancelling = tokio::spawn(async move { first.cancel_job(cancel).await });
    eventually("the peer owns the job", 40, || {
        let (mut second, id, address) = (second.clone(), id.clone(), two.address().to_string());
        async move {
            let view = second.get_job(v1::GetJobRequest { job_id: id }).await.ok()?.into_inner();
            (view.owner == address).then_some(())
        }
    })
    .await;
    assert_eq!(injected.fired(), 1);
    assert!(cancelling.await?.is_err(), "what was not committed is not acknowledged");
    second.cancel_job(v1::CancelJobRequest { job_id: id.clone(), reason: String::new() }).await?;
    let view = finished(&mut second, &id, 10).await?;
    assert_eq!(view.state(), v1::JobState::Cancelled);
    executor.seen(|seen| assert_eq!(seen.launches.values().sum::<u32>(), 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absence_that_the_store_tells_of_late_is_counted_from_then() -> anyhow::Result<()> {
    const LOST_AFTER: Duration = Duration::from_secs(3); // As `cluster::scheduler` says.
    let state = memory();
    let key = keys::executor("e1");
    let mut record = ExecutorRecord {
        executor_id: "e1".to_owned(),
        incarnation: 1,
        address: "127.0.0.1:9".to_owned(),
        home: "a-peer-not-heard-of".to_owned(),
        state: "ready".to_owned(),
        ..Default::default()
    };
    state.put(key.clone(), codec::encode(&record)?).await?;
    // Its list of executors is whole, and then the watch is silent.
    let deaf = Arc::new(Faulty::new(Arc::clone(&state)));
    let silence = Fault::Delay(Duration::from_secs(3_600));
    let injected = deaf.inject(Keyspace::Executors, Operation::Watch, silence, usize::MAX);
    let scheduler = cluster::scheduler("one", Arc::clone(&deaf) as Arc<dyn StateBackend>).await?;
    eventually("its watch is silent", 10, || async { (injected.fired() > 0).then_some(()) }).await;
    tokio::time::sleep(LOST_AFTER / 2).await;
    // Its home was there all the time, and says only now that it is out of reach.
    let away = Instant::now();
    (record.home, record.state) = (String::new(), "disconnected".to_owned());
    state.put(key.clone(), codec::encode(&record)?).await?;
    eventually("it is declared lost", 40, || async {
        let entry = state.get(&key).await.ok()??;
        let record: ExecutorRecord = codec::decode(&key, &entry.value).ok()?;
        (record.state == "lost").then_some(())
    })
    .await;
    assert!(away.elapsed() >= LOST_AFTER, "declared lost after {:?}", away.elapsed());
    drop(scheduler);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_hear_of_a_drain_that_the_store_did_not_take_when_it_began() -> anyhow::Result<()> {
    let state = memory();
    let flaky = Arc::new(Faulty::new(Arc::clone(&state)));
    let one = cluster::scheduler("one", Arc::clone(&flaky) as Arc<dyn StateBackend>).await?;
    let two = cluster::scheduler("two", state).await?;
    let at = |scheduler: std::net::SocketAddr| ClusterClient::connect(format!("http://{scheduler}"));
    let (mut first, second) = (at(one.address()).await?, at(two.address()).await?);
    for drains in [true, false] {
        let lost = flaky.inject(Keyspace::Schedulers, Operation::Read, Fault::Unavailable, usize::MAX);
        let drain = v1::DrainSchedulerRequest { scheduler_id: "one".to_owned(), undo: !drains };
        assert!(first.drain_scheduler(drain).await.is_err(), "the store does not answer");
        assert!(lost.fired() > 0);
        lost.clear();
        eventually("the peer knows", 20, || {
            let mut second = second.clone();
            async move {
                let schedulers = second.list_schedulers(v1::ListSchedulersRequest {}).await.ok()?.into_inner();
                let one = schedulers.schedulers.iter().find(|known| known.scheduler_id == "one")?;
                (one.draining == drains).then_some(())
            }
        })
        .await;
    }
    Ok(())
}
