//! Launch by reference, admission, fences.

use muster_executor::{Executor, Options};
use muster_proto::v1::{self, Outcome, RefusalReason};
use tonic::Code;

use crate::fake::{Answer, Scheduler, key};
use crate::launcher::Launcher;
use crate::world::{Place, World, argv, assert_outcome, eventually, group, job, script};

fn reasons(refused: &[v1::Refusal]) -> Vec<RefusalReason> {
    refused.iter().map(v1::Refusal::reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn launches_are_acknowledged_while_the_spec_store_is_down_and_other_tasks_go_on() {
    let mut world = World::new().await;
    let slow = world.scheduler.put_blob(&script("echo slow"));
    let content = world.scheduler.with(|state| state.blobs.insert(slow.clone(), Answer::Unavailable)).unwrap();
    let waiting = world.launcher.launch_all(group(&world.scheduler, job(), &slow, 0..2)).await;
    let (_, finished) = world.run(&argv(&["true"])).await;
    assert_outcome(&finished, Outcome::Succeeded);

    // One that is missing and one that is corrupt fail, with the reason, and alone.
    let missing = "0".repeat(64);
    let corrupt = "1".repeat(64);
    world.scheduler.with(|state| state.blobs.insert(corrupt.clone(), Answer::Content(b"nonsense".to_vec())));
    for (digest, word) in [(missing, "missing"), (corrupt, "is corrupt")] {
        let attempt = world.launcher.launch_all(group(&world.scheduler, job(), &digest, 0..1)).await.remove(0);
        let finished = world.scheduler.result(&attempt).await;
        assert_outcome(&finished, Outcome::Failed);
        assert!(finished.message.contains(&digest) && finished.message.contains(word), "{}", finished.message);
    }

    // A cancel during the load takes effect at once; the other one runs when the store is back.
    world.launcher.cancel(&waiting[..1], 10).await.unwrap();
    assert_outcome(&world.scheduler.result(&waiting[0]).await, Outcome::Cancelled);
    world.scheduler.with(|state| state.blobs.insert(slow, content));
    assert_outcome(&world.scheduler.result(&waiting[1]).await, Outcome::Succeeded);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_is_asked_for_once_and_kept_on_disk() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let digest = scheduler.put_blob(&argv(&["true"]));
    let questions = |scheduler: &Scheduler| scheduler.with(|state| state.seen.blob_questions);
    for round in 0..2 {
        let handle = place.executor(&scheduler).await;
        let mut launcher = Launcher::new(&handle).await;
        for attempt in launcher.launch_all(group(&scheduler, job(), &digest, 0..4)).await {
            assert_outcome(&scheduler.result(&attempt).await, Outcome::Succeeded);
        }
        handle.stop().await;
        assert_eq!(questions(&scheduler), 1, "after round {round}");
    }
    // What rots on disk is noticed and fetched again.
    std::fs::write(place.path().join("blobs").join(&digest), b"rotten").unwrap();
    let handle = place.executor(&scheduler).await;
    let attempt = Launcher::new(&handle).await.launch_all(group(&scheduler, job(), &digest, 0..1)).await.remove(0);
    assert_outcome(&scheduler.result(&attempt).await, Outcome::Succeeded);
    assert_eq!(questions(&scheduler), 2);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_launch_changes_nothing_and_a_higher_attempt_replaces() {
    let mut world = World::new().await;
    let digest = world.scheduler.put_blob(&script("echo $MUSTER_ATTEMPT >> ../../ran; sleep 100"));
    let launch = group(&world.scheduler, job(), &digest, 0..1);
    let first = world.launcher.launch_all(launch.clone()).await.remove(0);
    let ran = world.place.path().join("workspaces/ran");
    eventually("it runs", || ran.exists()).await;
    assert_eq!(world.launcher.launch(launch.clone()).await, []);
    let mut higher = launch.clone();
    higher.attempts[0].attempt = 3;
    let third = world.launcher.launch_all(higher).await.remove(0);
    assert_outcome(&world.scheduler.result(&first).await, Outcome::Cancelled);
    let mut lower = launch.clone();
    lower.attempts[0].attempt = 2;
    assert_eq!(reasons(&world.launcher.launch(lower).await), [RefusalReason::StaleAttempt]);
    eventually("the third runs", || std::fs::read_to_string(&ran).unwrap() == "1\n3\n").await;
    world.launcher.cancel(std::slice::from_ref(&third), 10).await.unwrap();
    world.scheduler.result(&third).await;
    // Settled and out of the table: still nothing starts from a launch that comes late.
    assert_eq!(reasons(&world.launcher.launch(launch).await), [RefusalReason::StaleAttempt]);
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "1\n3\n");
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_by_name() {
    let mut world = World::with(|options| {
        options.resources.named.insert("gpu".to_owned(), 1);
        options.backlog = 0;
    })
    .await;
    let digest = world.scheduler.put_blob(&script("sleep 100"));
    let mut gpu = group(&world.scheduler, job(), &digest, 0..2);
    gpu.resources.as_mut().unwrap().named.insert("gpu".to_owned(), 1);
    let refused = world.launcher.launch(gpu).await;
    assert_eq!(reasons(&refused), [RefusalReason::DoesNotFit]);
    assert!(refused[0].message.starts_with("gpu: 1 needed, 0 free"), "{}", refused[0].message);
    let refused = world.launcher.launch_as(77, vec![group(&world.scheduler, job(), &digest, 0..1)]).await;
    assert_eq!(reasons(&refused), [RefusalReason::OtherIncarnation]);
    world.handle.drain();
    let refused = world.launcher.launch(group(&world.scheduler, job(), &digest, 0..1)).await;
    assert_eq!(reasons(&refused), [RefusalReason::Draining]);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_is_a_fence_that_survives_a_crash() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let handle = place.executor(&scheduler).await;
    let mut launcher = Launcher::new(&handle).await;
    let digest = scheduler.put_blob(&script("sleep 100"));
    let job = job();
    let launched = launcher.launch_all(group(&scheduler, job, &digest, 0..1)).await;
    let ask = |token| v1::AskJobsRequest {
        jobs: vec![v1::JobFence {
            job_id: job.to_string(),
            fence: Some(v1::Fence { epoch: 1, token }),
            owner_address: String::new(),
        }],
        executor_incarnation: 1,
    };
    let answer = launcher.client.ask_jobs(ask(20)).await.unwrap().into_inner();
    let held: Vec<_> = answer.held.iter().map(|held| held.attempt.clone().unwrap()).collect();
    assert_eq!((answer.incarnation, held), (1, launched));
    let refused = launcher.launch(group(&scheduler, job, &digest, 1..2)).await;
    assert_eq!(reasons(&refused), [RefusalReason::StaleFence]);
    let answer = launcher.client.ask_jobs(ask(19)).await.unwrap().into_inner();
    assert_eq!((answer.held.len(), answer.refused), (0, vec![job.to_string()]));

    handle.kill().await;
    drop(launcher);
    drop(handle);
    let handle = start_when_free(place.options(&scheduler)).await;
    let mut launcher = Launcher::new(&handle).await;
    let refused = launcher.launch(group(&scheduler, job, &digest, 1..2)).await;
    assert_eq!(reasons(&refused), [RefusalReason::StaleFence]);
    handle.stop().await;
}

/// After a kill the data directory is free when the last of the old parts has gone.
pub(crate) async fn start_when_free(options: Options) -> muster_executor::Handle {
    let until = std::time::Instant::now() + crate::fake::DEADLINE;
    loop {
        match Executor::start(options.clone()).await {
            Ok(handle) => return handle,
            Err(muster_executor::Error::DataDirInUse(_)) if std::time::Instant::now() < until => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_options_are_refused_with_a_remedy() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let mut open = place.options(&scheduler);
    open.listen = "0.0.0.0:0".parse().unwrap();
    let error = Executor::start(open).await.unwrap_err().to_string();
    assert!(error.contains("listen") && error.contains("allow_remote"), "{error}");
    let mut alone = place.options(&scheduler);
    alone.schedulers.clear();
    let error = Executor::start(alone).await.unwrap_err().to_string();
    assert!(error.contains("schedulers"), "{error}");
    let handle = place.executor(&scheduler).await;
    let error = Executor::start(place.options(&scheduler)).await.unwrap_err().to_string();
    assert!(error.contains("in use by another executor"), "{error}");
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_not_obeyed() {
    let mut world = World::new().await;
    let mut bad = group(&world.scheduler, job(), "x", 0..1);
    bad.job_id = "../../etc".to_owned();
    let request = v1::CancelTasksRequest { job_id: bad.job_id.clone(), ..Default::default() };
    assert_eq!(world.launcher.client.cancel_tasks(request).await.unwrap_err().code(), Code::InvalidArgument);
    // A digest that is no digest never becomes a path.
    for digest in ["../../../etc/passwd", "", "XYZ"] {
        let attempt = world.launcher.launch_all(group(&world.scheduler, job(), digest, 0..1)).await.remove(0);
        assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Failed);
    }
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_gets_work_and_cancels_by_polls_and_a_lost_answer_is_harmless() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let handle = place.puller(&scheduler).await;
    let quick = scheduler.put_blob(&argv(&["true"]));
    let long = scheduler.put_blob(&script("sleep 100"));
    let (first, second) = (group(&scheduler, job(), &quick, 0..3), group(&scheduler, job(), &long, 0..1));
    let (quick_ones, long_one) = (crate::world::attempts(&first), crate::world::attempts(&second).remove(0));
    scheduler.with(|state| {
        state.lose_answers = 2;
        state.work = vec![first, second];
    });
    for attempt in &quick_ones {
        assert_outcome(&scheduler.result(attempt).await, Outcome::Succeeded);
    }
    scheduler.until("both answers were lost", |state| (state.lose_answers == 0).then_some(())).await;
    scheduler.until("the start is told", |state| state.seen.started.contains(&key(&long_one)).then_some(())).await;
    let cancel = v1::CancelTasksRequest {
        job_id: long_one.job_id.clone(),
        fence: Some(v1::Fence { epoch: 1, token: 10 }),
        attempts: vec![long_one.clone()],
        only_waiting: false,
    };
    scheduler.with(|state| state.cancels.push(cancel));
    assert_outcome(&scheduler.result(&long_one).await, Outcome::Cancelled);
    // What does not fit is told as a result, for a poll has no other answer.
    let mut large = group(&scheduler, job(), &quick, 0..1);
    large.resources.as_mut().unwrap().cpu_milli = 9000;
    let refused = crate::world::attempts(&large).remove(0);
    scheduler.with(|state| state.work = vec![large]);
    assert_outcome(&scheduler.result(&refused).await, Outcome::LaunchRefused);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_for_a_peer_that_is_not_reached_go_to_the_home_to_be_passed_on() {
    let (place, home) = (Place::new(), Scheduler::start().await);
    let handle = place.puller(&home).await;
    // Nobody listens there.
    let peer = "127.0.0.1:1";
    let quick = home.put_blob(&argv(&["true"]));
    let work = group(&home, job(), &quick, 0..1);
    let attempt = crate::world::attempts(&work).remove(0);
    home.with(|state| (state.peer, state.work) = (peer.to_owned(), vec![work]));
    assert_outcome(&home.result(&attempt).await, Outcome::Succeeded);
    home.until("the peer's turn comes here", |state| state.seen.passed_on_to.contains(peer).then_some(())).await;
    let seen = home.with(|state| state.seen.polls);
    home.until("the home has a turn of its own after that", |state| (state.seen.polls > seen).then_some(())).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_in_the_answer_to_a_poll_is_a_fence_and_the_next_poll_says_that_it_is_heeded() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let handle = place.puller(&scheduler).await;
    let quick = scheduler.put_blob(&argv(&["true"]));
    let job = job();
    let of_the_former_owner = group(&scheduler, job, &quick, 0..1);
    let mut of_the_new_one = group(&scheduler, job, &quick, 1..2);
    let former = of_the_former_owner.fence.unwrap();
    let fence = v1::Fence { token: former.token + 1, ..former };
    of_the_new_one.fence = Some(fence);
    let question =
        v1::JobFence { job_id: of_the_new_one.job_id.clone(), fence: Some(fence), owner_address: String::new() };
    scheduler.with(|state| state.ask = vec![question]);
    scheduler.until("the question is heeded", |state| (state.seen.heeded > 0).then_some(())).await;
    let (stale, fresh) =
        (crate::world::attempts(&of_the_former_owner).remove(0), crate::world::attempts(&of_the_new_one).remove(0));
    scheduler.with(|state| state.work = vec![of_the_former_owner, of_the_new_one]);
    assert_outcome(&scheduler.result(&fresh).await, Outcome::Succeeded);
    let seen =
        scheduler.with(|state| (state.seen.started.contains(&key(&stale)), state.seen.heeded < state.seen.polls));
    assert_eq!(seen, (false, true), "only the new owner's was started");
    handle.stop().await;
}
