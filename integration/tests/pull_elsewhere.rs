//! Executors that fetch their work: at home with one scheduler, and jobs of others; and what an answer must bring.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use muster_integration::eventually;
use muster_integration::world::{World, client, ready, succeeded};
use muster_proto::v1;
use muster_state::Memory;
use muster_state::testing::Etcd;

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_executor_fetches_the_jobs_of_schedulers_that_are_not_its_home() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let one = world.scheduler("one", &etcd.url(), &[]).await;
    let two = world.scheduler("two", &etcd.url(), &[]).await;
    let _executor = world.executor("fetcher", "pull", &[one.address()], &["--cpus", "2"]).await;
    let (at_one, at_two) = (client(&[one.address()]).await, client(&[two.address()]).await);
    ready(&at_two, 1).await;
    let many = "name: elsewhere\nstages:\n  a: {tasks: 12, resources: {cpu: 1}, run: 'eval \"$NOTE\"'}\n  b: {inputs: {a: all}, run: 'eval \"$NOTE\"'}\n";
    let job = at_two.submit(world.job(many), None).await.unwrap().job;
    let view = at_two.get_job(job).await.unwrap();
    assert_eq!(view.owner, two.address().to_string(), "the job is not its home's");
    succeeded(&at_two, job).await;
    assert_eq!(world.starts_of("a"), 12);
    // And its home's own jobs still run.
    let job = at_one.submit(world.job(many), None).await.unwrap().job;
    succeeded(&at_one, job).await;
}

/// A slot for which everybody has more tasks than it can run.
#[tokio::test(flavor = "multi_thread")]
async fn all_schedulers_with_tasks_have_turns_at_a_pull_executor() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let home = world.scheduler("a", &etcd.url(), &[]).await;
    let greedy = world.scheduler("b", &etcd.url(), &[]).await;
    let other = world.scheduler("c", &etcd.url(), &[]).await;
    let _executor = world.executor("fetcher", "pull", &[home.address()], &["--cpus", "1"]).await;
    let (at_home, at_greedy) = (client(&[home.address()]).await, client(&[greedy.address()]).await);
    let at_other = client(&[other.address()]).await;
    ready(&at_other, 1).await;
    // Too long to be sent ahead.
    let tasks =
        |count: u32| world.job(&format!("{{name: turns, tasks: {count}, resources: {{cpu: 1}}, run: 'sleep 0.2'}}"));
    let mut long = Vec::new();
    for client in [&at_home, &at_greedy] {
        long.push((client, client.submit(tasks(120), None).await.unwrap().job));
    }
    for (client, job) in &long {
        eventually("it has run something", 60, || async {
            let view = client.get_job(*job).await.ok()?;
            view.tasks.is_some_and(|tasks| tasks.successful > 0).then_some(())
        })
        .await;
    }
    let job = at_other.submit(tasks(5), None).await.unwrap().job;
    succeeded(&at_other, job).await;
    for (client, job) in &long {
        let view = client.get_job(*job).await.unwrap();
        assert!(!muster_client::is_finished(&view), "five tasks had to wait for all of these: {view:?}");
    }
}

/// Otherwise an executor that is always told something, such as what to end, would tell the same results for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_something_to_do_brings_the_acknowledgements_too() {
    muster_integration::cluster::logs();
    let scheduler = muster_integration::cluster::scheduler("s", Arc::new(Memory::new())).await.unwrap();
    let at = format!("http://{}", scheduler.address());
    let mut calls = v1::executors_client::ExecutorsClient::connect(at).await.unwrap();
    let total = v1::Resources { cpu_milli: 2000, ..Default::default() };
    let registration = v1::RegisterRequest {
        executor_id: "p".to_owned(),
        incarnation: 1,
        address: "127.0.0.1:1".to_owned(),
        mode: v1::Mode::Pull.into(),
        total: Some(total.clone()),
        ..Default::default()
    };
    calls.register(registration).await.unwrap();
    let job = World::new().job("{name: two, tasks: 2, resources: {cpu: 1}, run: 'true'}");
    let job = client(&[scheduler.address()]).await.submit(job, None).await.unwrap().job;
    let poll = v1::PollWorkRequest {
        executor_id: "p".to_owned(),
        incarnation: 1,
        sequence: 1,
        free: Some(total),
        wait_ms: 20_000,
        ..Default::default()
    };
    let given = calls.poll_work(poll.clone()).await.unwrap().into_inner();
    assert_eq!(given.launches.iter().map(|group| group.attempts.len()).sum::<usize>(), 2, "{given:?}");
    let held = |index, attempt, state: v1::HeldState| v1::HeldAttempt {
        attempt: Some(v1::AttemptRef { job_id: job.to_string(), stage: 0, index, attempt }),
        state: state.into(),
    };
    let ended = held(0, 1, v1::HeldState::Finished);
    let result = v1::AttemptFinished { outcome: v1::Outcome::Succeeded.into(), ..Default::default() };
    let status = v1::AttemptStatus {
        sequence: 7,
        attempt: ended.attempt.clone(),
        what: Some(v1::attempt_status::What::Finished(result)),
    };
    // Nobody wants the last one, which still runs.
    let table = vec![ended, held(1, 1, v1::HeldState::Running), held(1, 0, v1::HeldState::Running)];
    let answer = v1::PollWorkRequest { sequence: 2, statuses: vec![status], held: table, wait_ms: 0, ..poll };
    let answer = calls.poll_work(answer).await.unwrap().into_inner();
    assert_eq!((answer.cancels.len(), answer.settled.as_slice()), (1, [7].as_slice()), "{answer:?}");
}
