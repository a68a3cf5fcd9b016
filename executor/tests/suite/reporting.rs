//! Registration, the outbox, failover, disconnection, stopping.

use std::time::{Duration, Instant};

use muster_executor::Executor;
use muster_proto::v1::{self, HeldState, Outcome};

use crate::fake::{DEADLINE, Scheduler, key};
use crate::launcher::Launcher;
use crate::launching::start_when_free;
use crate::world::{Place, World, argv, assert_outcome, eventually, group, job, script};

#[tokio::test(flavor = "multi_thread")]
async fn results_outlive_the_executor_and_are_sent_until_settled() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    scheduler.with(|state| state.keep_unsettled = true);
    let handle = place.executor(&scheduler).await;
    let digest = scheduler.put_blob(&script("echo out > $MUSTER_OUTPUT_DIR/x"));
    let long = scheduler.put_blob(&script("sleep 100"));
    let mut launcher = Launcher::new(&handle).await;
    let done = launcher.launch_all(group(&scheduler, job(), &digest, 0..2)).await;
    let running = launcher.launch_all(group(&scheduler, job(), &long, 0..1)).await.remove(0);
    for attempt in &done {
        scheduler.result(attempt).await;
    }
    let again = |times| {
        let key = key(&done[0]);
        move |state: &crate::fake::State| (state.seen.deliveries[&key] >= times).then_some(())
    };
    scheduler.until("it is sent again", again(2)).await;
    handle.kill().await;
    drop((launcher, handle));

    let handle = start_when_free(place.options(&scheduler)).await;
    let held = scheduler
        .until("the second registration", |state| {
            let second = state.seen.registrations.iter().find(|request| request.incarnation == 2)?;
            Some(second.held.clone())
        })
        .await;
    let mut finished: Vec<_> = held.iter().map(|held| (key(held.attempt.as_ref().unwrap()), held.state())).collect();
    finished.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: Vec<_> = done.iter().map(|attempt| (key(attempt), HeldState::Finished)).collect();
    assert_eq!(finished, expected, "what ran at the crash is not held");
    scheduler.with(|state| state.keep_unsettled = false);
    let mut launcher = Launcher::new(&handle).await;
    let ask = v1::AskJobsRequest {
        jobs: [&done[0], &running]
            .iter()
            .map(|attempt| v1::JobFence {
                job_id: attempt.job_id.clone(),
                fence: Some(v1::Fence { epoch: 1, token: 10 }),
                owner_address: scheduler.address.to_string(),
            })
            .collect(),
        executor_incarnation: 1,
    };
    let until = Instant::now() + DEADLINE;
    // It answers once it has heard that it is registered.
    while !launcher.client.ask_jobs(ask.clone()).await.is_ok_and(|answer| answer.into_inner().held.is_empty()) {
        assert!(Instant::now() < until, "settled results leave the table");
    }
    handle.stop().await;
    let handle = place.executor(&scheduler).await;
    scheduler
        .until("a registration that holds nothing", |state| {
            state
                .seen
                .registrations
                .iter()
                .find(|request| request.incarnation == 3 && request.held.is_empty())
                .map(drop)
        })
        .await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_while_the_scheduler_is_down_and_moves_to_another() {
    let (first, second) = (Scheduler::start().await, Scheduler::start().await);
    first.with(|state| state.schedulers = vec![first.address.to_string(), second.address.to_string()]);
    let place = Place::new();
    let handle = place.executor(&first).await;
    let gate = place.path().join("gate");
    let work = script(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    let digest = first.put_blob(&work);
    let mut launcher = Launcher::new(&handle).await;
    let attempt = launcher.launch_all(group(&first, job(), &digest, 0..1)).await.remove(0);
    first.until("it runs", |state| state.seen.started.contains(&key(&attempt)).then_some(())).await;
    first.stop();
    let held = second
        .until("registered elsewhere", |state| state.seen.registrations.first().map(|request| request.held.clone()))
        .await;
    assert_eq!((held.len(), held[0].state()), (1, HeldState::Running));
    std::fs::write(&gate, "").unwrap();
    assert_outcome(&second.result(&attempt).await, Outcome::Succeeded);
    assert_eq!(first.with(|state| state.seen.finished.len()), 0);
    handle.stop().await;
    second.until("the good-bye", |state| state.seen.stopped.first().map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_follow_the_owner_that_a_scheduler_names() {
    let (owner, mut world) = (Scheduler::start().await, World::new().await);
    let job = job();
    world.scheduler.with(|state| {
        state.seen.forwarded_owner.insert(job.to_string(), owner.address.to_string());
    });
    let digest = world.scheduler.put_blob(&argv(&["true"]));
    let attempt = world.launcher.launch_all(group(&world.scheduler, job, &digest, 0..1)).await.remove(0);
    assert_outcome(&owner.result(&attempt).await, Outcome::Succeeded);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_not_taken_are_offered_until_they_are() {
    let mut world = World::new().await;
    world.scheduler.with(|state| state.refuse_statuses = true);
    let attempt = world.launch_script("exit 0").await;
    let room = world.place.path().join("outbox.log");
    let kept = std::fs::metadata(&room).unwrap().len();
    eventually("the result is on disk", || std::fs::metadata(&room).unwrap().len() > kept).await;
    world.scheduler.with(|state| state.refuse_statuses = false);
    assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Succeeded);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_scheduler_tasks_end_after_their_jobs_limit() {
    let mut world = World::new().await;
    let digest = world.scheduler.put_blob(&script("sleep 100"));
    let mut short = group(&world.scheduler, job(), &digest, 0..1);
    short.lost_after_ms = 1000;
    let mut long = group(&world.scheduler, job(), &digest, 0..1);
    long.lost_after_ms = 600_000;
    let ended = world.launcher.launch_all(short).await.remove(0);
    let stays = world.launcher.launch_all(long).await.remove(0);
    for attempt in [&ended, &stays] {
        let seen = key(attempt);
        world.scheduler.until("it runs", |state| state.seen.started.contains(&seen).then_some(())).await;
    }
    world.scheduler.stop();
    let journal = world.place.path().join("journal.jsonl");
    let is_over = |attempt: &v1::AttemptRef| {
        let text = std::fs::read_to_string(&journal).unwrap();
        text.lines().any(|line| line.contains("\"end\"") && line.contains(&attempt.job_id))
    };
    eventually("the short one is ended", || is_over(&ended)).await;
    assert!(!is_over(&stays));
    world.scheduler.restart().await;
    let finished = world.scheduler.result(&ended).await;
    assert_outcome(&finished, Outcome::ExecutorLost);
    assert!(finished.message.contains("no scheduler"), "{}", finished.message);
    world.launcher.cancel(std::slice::from_ref(&stays), 10).await.unwrap();
    assert_outcome(&world.scheduler.result(&stays).await, Outcome::Cancelled);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_little_patience_is_not_ended_by_heartbeats_that_are_far_apart() {
    let mut world = World::new().await;
    world.scheduler.until("its session is open", |state| (state.seen.heartbeats > 0).then_some(())).await;
    world.scheduler.with(|state| state.heartbeat_ms = Some(60_000));
    world.scheduler.stop();
    world.scheduler.restart().await;
    world.scheduler.until("it is back", |state| (state.seen.registrations.len() > 1).then_some(())).await;
    let digest = world.scheduler.put_blob(&script("sleep 100"));
    let mut short = group(&world.scheduler, job(), &digest, 0..1);
    short.lost_after_ms = 1000;
    let runs = world.launcher.launch_all(short).await.remove(0);
    // Ten for each second of its patience.
    let many = world.scheduler.with(|state| state.seen.heartbeats) + 40;
    world.scheduler.until("heartbeats follow it", |state| (state.seen.heartbeats > many).then_some(())).await;
    let seen = key(&runs);
    world.scheduler.with(|state| assert!(state.seen.started.contains(&seen) && state.seen.finished.is_empty()));
    world.launcher.cancel(std::slice::from_ref(&runs), 10).await.unwrap();
    assert_outcome(&world.scheduler.result(&runs).await, Outcome::Cancelled);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_work_end_and_a_stop_gives_it_back() {
    let mut world = World::new().await;
    let gate = world.place.path().join("gate");
    let attempt = world.launch_script(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display())).await;
    let request = v1::StopExecutorRequest { drain: true, ..Default::default() };
    world.launcher.client.stop_executor(request).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), world.handle.finished()).await.is_err());
    std::fs::write(&gate, "").unwrap();
    tokio::time::timeout(DEADLINE, world.handle.finished()).await.expect("it stops when it is done");
    assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Succeeded);
    assert_eq!(world.scheduler.with(|state| state.seen.stopped.len()), 1);

    // Its outputs are handed over before it goes; a limit ends that.
    for taken_back in [true, false] {
        let mut world = World::new().await;
        world.scheduler.with(|state| state.needed = vec!["a job".to_owned()]);
        let attempt = world.launch_script("exit 0").await;
        assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Succeeded);
        let request = v1::StopExecutorRequest { drain: true, within_ms: 2_000, ..Default::default() };
        world.launcher.client.stop_executor(request).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(500), world.handle.finished()).await.is_err());
        if taken_back {
            let request = v1::StopExecutorRequest { undo: true, ..Default::default() };
            world.launcher.client.stop_executor(request).await.unwrap();
            world.scheduler.with(|state| state.needed.clear());
            assert!(tokio::time::timeout(Duration::from_secs(3), world.handle.finished()).await.is_err());
            let (attempt, _) = world.run(&argv(&["true"])).await;
            assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Succeeded);
            let drained: Vec<bool> =
                world.scheduler.with(|state| state.seen.registrations.iter().map(|one| one.draining).collect());
            assert_eq!(drained, [false, true, false], "schedulers are told");
            world.handle.stop().await;
        } else {
            tokio::time::timeout(DEADLINE, world.handle.finished()).await.expect("it stops in time");
        }
        assert_eq!(world.scheduler.with(|state| state.seen.stopped.len()), 1);
    }

    let mut world = World::new().await;
    let attempt = world.launch_script("sleep 100").await;
    let request = v1::StopExecutorRequest::default();
    world.launcher.client.stop_executor(request).await.unwrap();
    tokio::time::timeout(DEADLINE, world.handle.finished()).await.expect("it stops soon");
    assert_outcome(&world.scheduler.result(&attempt).await, Outcome::ExecutorLost);
    assert_eq!(world.scheduler.with(|state| state.seen.stopped.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_says_what_ran() {
    let mut world = World::new().await;
    let (attempt, _) = world.run(&argv(&["true"])).await;
    world.handle.stop().await;
    let text = std::fs::read_to_string(world.place.path().join("journal.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let job = attempt.job_id.as_str();
    for (line, (event, job, token)) in
        lines.iter().zip([("begin", "", 0), ("fence", job, 10), ("start", job, 10), ("end", job, 10)])
    {
        assert_eq!((line["event"].as_str(), line["job"].as_str()), (Some(event), Some(job)));
        assert_eq!((line["incarnation"].as_u64(), line["token"].as_u64()), (Some(1), Some(token)));
    }
    let [_, heard, started, ended] = [0, 1, 2, 3].map(|line: usize| lines[line]["boot_us"].as_u64().unwrap());
    let admitted = lines[2]["admitted_us"].as_u64().unwrap();
    assert!(heard <= admitted && admitted <= started && started <= ended, "{text}");
    assert_eq!(lines[3]["outcome"], "OUTCOME_SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_served() {
    let world = World::new().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", world.handle.address()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "muster.v1.Executor".to_owned() };
    let status = health.check(request).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_finds_a_scheduler_that_comes_later() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    scheduler.stop();
    let handle = Executor::start(place.options(&scheduler)).await.unwrap();
    scheduler.restart().await;
    scheduler.until("it registers", |state| state.seen.registrations.first().map(drop)).await;
    scheduler.until("it has a session", |state| (state.seen.heartbeats > 1).then_some(())).await;
    handle.stop().await;
}
