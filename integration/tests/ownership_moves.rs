//! Jobs that move between living schedulers on etcd, and away from one that died or does not answer.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_client::{Client, JobId};
use muster_integration::eventually;
use muster_integration::simulated::Simulated;
use muster_integration::world::{World, client, ready, succeeded};
use muster_proto::v1;
use muster_state::testing::Etcd;

/// Two tasks that wait for a gate, and one that reads them.
fn waiting(world: &World, number: usize) -> v1::JobSpec {
    world.job(&format!(
        r#"
        name: waiting-{number}
        stages:
          wait-{number}:
            tasks: 2
            resources: {{cpu: 0.1}}
            run: |
              eval "$NOTE"
              gate=go; eval "$WAIT"
          after-{number}:
            inputs: {{wait-{number}: all}}
            resources: {{cpu: 0.1}}
            run: |
              eval "$NOTE"
        "#
    ))
}

/// A client that knows one scheduler and looks for no other.
async fn only(address: SocketAddr) -> Client {
    let options = muster_client::Options {
        discover: false,
        first_contact_timeout: Duration::from_secs(20),
        call_timeout: Duration::from_secs(10),
        ..muster_client::Options::default()
    };
    Client::connect([address.to_string()], options).await.unwrap()
}

/// How many jobs each live scheduler owns.
async fn owned(client: &Client) -> BTreeMap<String, u32> {
    let views = client.list_schedulers().await.unwrap_or_default();
    views.into_iter().map(|view| (view.scheduler_id, view.jobs)).collect()
}

async fn live(client: &Client, schedulers: usize) {
    eventually(&format!("{schedulers} schedulers are known"), 30, || async {
        (owned(client).await.len() == schedulers).then_some(())
    })
    .await;
}

async fn submit(client: &Client, world: &World, jobs: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for number in 0..jobs {
        ids.push(client.submit(waiting(world, number), None).await.unwrap().job);
    }
    ids
}

/// Jobs of one task each, which runs: nothing of them is left that would be evened out.
async fn submit_running(client: &Client, world: &World, jobs: u32) -> Vec<JobId> {
    let mut ids = Vec::new();
    for number in 0..jobs {
        let spec = world.job(&format!("{{name: 'job-{number}', run: 'true'}}"));
        ids.push(client.submit(spec, None).await.unwrap().job);
    }
    ids
}

/// Cancels jobs, which shows that each is in the memory of its owner, and waits for their ends.
async fn cancelled(client: &Client, jobs: &[JobId]) {
    for job in jobs {
        client.cancel_job(*job, "enough").await.unwrap();
    }
    for job in jobs {
        let view = tokio::time::timeout(Duration::from_secs(60), client.wait(*job)).await.unwrap().unwrap();
        assert_eq!(view.state(), v1::JobState::Cancelled);
    }
}

/// Waits until the tasks that wait have been started.
async fn all_started(world: &World, starts: usize) {
    eventually(&format!("{starts} tasks have started"), 60, || async {
        (world.starts().len() == starts).then_some(())
    })
    .await;
}

/// Lets all jobs end, and looks at what ran: every task once.
async fn all_end(world: &World, client: &Client, jobs: &[JobId]) {
    world.open("go");
    for job in jobs {
        succeeded(client, *job).await;
    }
    let starts = world.starts();
    assert_eq!(starts.len(), 3 * jobs.len(), "{starts:?}");
    assert!(starts.values().all(|attempts| *attempts == [1]), "{starts:?}");
}

/// What a scheduler's log says of handovers.
fn pauses(world: &World, scheduler: &str) -> Vec<String> {
    let log = std::fs::read_to_string(world.path("logs").join(format!("{scheduler}.log"))).unwrap();
    log.lines()
        .filter(|line| line.contains("jobs handed over") || line.contains("with the peers"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_scheduler_hands_its_jobs_and_executors_over_and_stays_without() {
    const JOBS: usize = 8;
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let first = world.scheduler("first", &etcd.url(), &[]).await;
    let second = world.scheduler("second", &etcd.url(), &[]).await;
    let (at_first, at_second) = (only(first.address()).await, only(second.address()).await);
    live(&at_first, 2).await;
    // At home with the one that is drained; they learn of the other one from it.
    let _executors = [
        world.executor("pushed", "push", &[first.address()], &[]).await,
        world.executor("pulling", "pull", &[first.address()], &[]).await,
    ];
    ready(&at_first, 2).await;
    let jobs = submit(&at_first, &world, JOBS).await;
    all_started(&world, 2 * JOBS).await;
    // Somebody watches at the scheduler that gives the jobs away.
    let (watching, watched) = (at_first.clone(), jobs[0]);
    let watch = tokio::spawn(async move { watching.wait(watched).await });
    let left = at_second.drain_scheduler("first", false).await.unwrap();
    assert!(left as usize <= JOBS, "{left}");
    eventually("all jobs are with the second", 30, || async {
        (owned(&at_second).await == BTreeMap::from([("first".to_owned(), 0), ("second".to_owned(), JOBS as u32)]))
            .then_some(())
    })
    .await;
    eventually("the executors are at home with the second", 30, || async {
        let views = at_second.list_executors().await.ok()?;
        views.iter().all(|view| view.home == "second" && view.state == "ready").then_some(())
    })
    .await;
    let views = at_second.list_schedulers().await.unwrap();
    assert!(views.iter().all(|view| view.draining == (view.scheduler_id == "first")), "{views:?}");
    // It takes nothing new, and whoever knows both does not notice.
    let refused = at_first.submit(waiting(&world, JOBS), None).await;
    assert!(refused.is_err(), "{refused:?}");
    let both = client(&[first.address(), second.address()]).await;
    let late = both.submit(waiting(&world, JOBS), None).await.unwrap().job;
    assert_eq!(both.get_job(late).await.unwrap().owner, second.address().to_string());
    all_started(&world, 2 * JOBS + 2).await;
    all_end(&world, &at_first, &[jobs, vec![late]].concat()).await;
    let view = tokio::time::timeout(Duration::from_secs(30), watch).await.unwrap().unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Successful, "the watch went along with the job");
    at_first.drain_scheduler("first", true).await.unwrap();
    let job = at_first.submit(world.job("{name: again, run: 'true'}"), None).await.unwrap().job;
    succeeded(&at_first, job).await;
    assert!(at_first.list_schedulers().await.unwrap().iter().all(|view| !view.draining));
    eprintln!("{}", pauses(&world, "first").join("\n"));
    let unknown = at_first.drain_scheduler("third", false).await;
    assert!(unknown.unwrap_err().to_string().contains("'third'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_scheduler_gets_its_share_of_the_jobs() {
    const JOBS: usize = 12;
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let first = world.scheduler("first", &etcd.url(), &[]).await;
    let _executor = world.executor("e", "push", &[first.address()], &["--cpus", "4"]).await;
    let at_first = client(&[first.address()]).await;
    ready(&at_first, 1).await;
    let jobs = submit(&at_first, &world, JOBS).await;
    all_started(&world, 2 * JOBS).await;
    let second = world.scheduler("second", &etcd.url(), &[]).await;
    eventually("each has a half", 60, || async {
        let owned = owned(&at_first).await;
        owned.values().all(|&jobs| jobs as usize == JOBS / 2).then_some(())
    })
    .await;
    let at_second = client(&[second.address()]).await;
    all_end(&world, &at_second, &jobs).await;
    eprintln!("{}", pauses(&world, "first").join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_scheduler_that_is_told_to_end_are_with_its_peers_before_it_has_ended() {
    const JOBS: u32 = 100;
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    // Nobody waits for this session to run out.
    let mut first = world.scheduler("first", &etcd.url(), &["--session-ttl", "60s"]).await;
    let second = world.scheduler("second", &etcd.url(), &["--session-ttl", "60s"]).await;
    let (at_first, at_second) = (only(first.address()).await, only(second.address()).await);
    live(&at_first, 2).await;
    let executor = Simulated::start("e", second.address(), JOBS, Arc::new(|_| None)).await.unwrap();
    ready(&at_first, 1).await;
    let jobs = submit_running(&at_first, &world, JOBS).await;
    eventually("all run", 60, || async { executor.seen(|seen| (seen.launches.len() == jobs.len()).then_some(())) })
        .await;
    let told = Instant::now();
    assert!(first.terminate().await.success());
    eprintln!("ended after {:?}\n{}", told.elapsed(), pauses(&world, "first").join("\n"));
    assert_eq!(owned(&at_second).await, BTreeMap::from([("second".to_owned(), JOBS)]));
    cancelled(&at_second, &jobs).await;
    executor.seen(|seen| assert_eq!(seen.launches.values().sum::<u32>(), JOBS, "none was launched again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_acknowledged_while_the_owner_is_stopped_and_nothing_starts_when_it_goes_on() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    // Its session outlives its pause.
    let mut first = world.scheduler("first", &etcd.url(), &["--session-ttl", "60s"]).await;
    let second = world.scheduler("second", &etcd.url(), &["--session-ttl", "60s"]).await;
    let (at_first, at_second) = (only(first.address()).await, only(second.address()).await);
    live(&at_first, 2).await;
    let _executor = world.executor("e", "push", &[first.address()], &["--cpus", "1"]).await;
    ready(&at_first, 1).await;
    let spec = world.job(
        r#"
        name: one-after-another
        stages:
          wait:
            tasks: 3
            run: |
              eval "$NOTE"
              gate=go; eval "$WAIT"
          clean:
            after: [wait]
            when: always
            run: |
              eval "$NOTE"
        "#,
    );
    let job = at_first.submit(spec, None).await.unwrap().job;
    world.started("wait", 1).await;
    first.pause();
    let asked = Instant::now();
    at_second.cancel_job(job, "enough").await.unwrap();
    eprintln!("acknowledged after {:?}", asked.elapsed());
    // What runs ends meanwhile, so the owner has a task to assign and a place for it, and has not heard of the cancel.
    world.open("go");
    first.resume();
    let view = tokio::time::timeout(Duration::from_secs(60), at_second.wait(job)).await.unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Cancelled);
    assert!(view.message.contains("enough"), "{}", view.message);
    assert_eq!((world.starts_of("wait"), world.starts_of("clean")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_jobs_of_a_killed_scheduler_are_taken_over_by_two_survivors() {
    const JOBS: u32 = 300;
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let mut first = world.scheduler("first", &etcd.url(), &[]).await;
    let survivors =
        [world.scheduler("second", &etcd.url(), &[]).await, world.scheduler("third", &etcd.url(), &[]).await];
    let at_first = only(first.address()).await;
    live(&at_first, 3).await;
    let executor = Simulated::start("e", survivors[0].address(), JOBS, Arc::new(|_| None)).await.unwrap();
    ready(&at_first, 1).await;
    let jobs = submit_running(&at_first, &world, JOBS).await;
    eventually("all run", 60, || async { executor.seen(|seen| (seen.launches.len() == JOBS as usize).then_some(())) })
        .await;
    let before = owned(&at_first).await["first"];
    assert!(before > JOBS / 2, "{before}");
    first.kill();
    let killed = Instant::now();
    let at_second = only(survivors[0].address()).await;
    let shares = eventually("the survivors own all jobs", 30, || async {
        let owned = owned(&at_second).await;
        (!owned.contains_key("first") && owned.values().sum::<u32>() == JOBS).then_some(owned)
    })
    .await;
    eprintln!("{before} jobs were taken over {:?} after the kill: {shares:?}", killed.elapsed());
    assert!(shares.values().all(|share| *share > JOBS / 5), "{shares:?}");
    cancelled(&at_second, &jobs).await;
    executor.seen(|seen| assert_eq!(seen.launches.values().sum::<u32>(), JOBS, "none was launched again"));
}
