//! Schedulers on etcd that are killed, told to end, or doubled, while executors go on.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use muster_client::{Client, JobId};
use muster_integration::processes::Process;
use muster_integration::recorder::Etcd as Recorder;
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_integration::{checker, eventually, is_soak, journal, recorder};
use muster_proto::v1;
use muster_state::testing::Etcd;

/// Tasks that wait, each for a gate of its own, and a sum that reads them.
fn waiting(world: &World, tasks: u32) -> v1::JobSpec {
    world.job(&format!(
        r#"
        name: waiting
        stages:
          wait:
            tasks: {tasks}
            run: |
              eval "$NOTE"
              gate=$MUSTER_TASK_INDEX; eval "$WAIT"
              echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/n
          sum:
            inputs: {{wait: all}}
            run: |
              eval "$NOTE"
              cat $MUSTER_INPUT_DIR/wait/*/n | awk '{{ s += $1 }} END {{ print s }}' > $MUSTER_OUTPUT_DIR/n
        "#
    ))
}

fn open_all(world: &World, tasks: u32) {
    for gate in 0..tasks {
        world.open(&gate.to_string());
    }
}

/// Every task was started once, as its first attempt.
fn assert_all_ran_once(world: &World, expected: usize) {
    let starts = world.starts();
    assert_eq!(starts.len(), expected, "{starts:?}");
    assert!(starts.values().all(|attempts| *attempts == [1]), "{starts:?}");
}

async fn running(client: &Client, job: JobId, count: u32) {
    eventually(&format!("{count} tasks run"), 30, || async {
        (client.get_job(job).await.ok()?.tasks?.running == count).then_some(())
    })
    .await;
}

async fn owner(client: &Client, job: JobId) -> String {
    client.get_job(job).await.unwrap().owner
}

/// Waits until a scheduler has heard of its peer.
async fn knows_both(client: &Client) {
    eventually("both schedulers are known", 30, || async {
        (client.list_schedulers().await.ok()?.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_tasks_outlive_a_killed_scheduler_and_are_not_started_again() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "default");
    let mut first = world.scheduler("first", &etcd.url(), &[]).await;
    let address = first.address();
    let executors = [
        world.executor("pushed", "push", &[address], &[]).await,
        world.executor("pulling", "pull", &[address], &[]).await,
    ];
    let client = client(&[address]).await;
    ready(&client, 2).await;
    let job = client.submit(waiting(&world, 5), None).await.unwrap().job;
    running(&client, job, 4).await;
    world.started("wait", 4).await;
    first.kill();
    let gone = tokio::net::TcpStream::connect(address).await;
    assert!(gone.is_err(), "nobody is there to answer");

    // One on each executor ends while there is no scheduler; its result waits on disk.
    let on = |executor: &Process| {
        let lines = journal::read(&executor.data_dir);
        lines.iter().find(|line| line.event == "start").expect("each runs two").index
    };
    for executor in &executors {
        world.open(&on(executor).to_string());
    }
    eventually("both have ended", 30, || async {
        let ended = |executor: &Process| journal::read(&executor.data_dir).iter().any(|line| line.event == "end");
        executors.iter().all(ended).then_some(())
    })
    .await;

    let second = world.scheduler("second", &etcd.url(), &["--listen", &address.to_string()]).await;
    assert_eq!(second.address(), address);
    // Two of four are done, the fifth takes a free place: it never had one before.
    world.started("wait", 5).await;
    open_all(&world, 5);
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "sum", "n").await, "10\n");
    assert_all_ran_once(&world, 6);
    let journals: usize = executors.iter().map(|executor| journal::starts(&executor.data_dir, job)).sum();
    assert_eq!(journals, 6);
    let verdict = checker::check(&world.evidence(recorder.finish().await.unwrap(), &["pushed", "pulling"]));
    verdict.assert_clean();
    assert_eq!((verdict.statistics.accepted, verdict.statistics.takeovers.len()), (6, 1), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_takes_a_killed_schedulers_job_over_within_its_session_and_a_scan() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let mut first = world.scheduler("first", &etcd.url(), &[]).await;
    let second = world.scheduler("second", &etcd.url(), &[]).await;
    let at_first = client(&[first.address()]).await;
    knows_both(&at_first).await;
    // It knows only the one that will die: it learns of the other one from it.
    let _executor = world.executor("e", "push", &[first.address()], &[]).await;
    ready(&at_first, 1).await;
    let job = at_first.submit(waiting(&world, 2), Some("once".to_owned())).await.unwrap().job;
    running(&at_first, job, 2).await;
    assert_eq!(owner(&at_first, job).await, first.address().to_string());
    first.kill();
    let killed = std::time::Instant::now();
    let at_second = client(&[second.address()]).await;
    eventually("the job has moved", 20, || async {
        let view = at_second.get_job(job).await.ok()?;
        (view.owner == second.address().to_string()).then_some(())
    })
    .await;
    // The session's 2 s, which etcd may see out for a little longer, and a scan.
    let took = killed.elapsed();
    assert!(!is_soak() || took < Duration::from_secs(8), "{took:?}");
    // The answer to the submit may have been lost with the scheduler: the same submit names the same job.
    let again = at_second.submit(waiting(&world, 2), Some("once".to_owned())).await.unwrap();
    assert_eq!((again.job, again.existed), (job, true));
    let other = at_second.submit(waiting(&world, 3), Some("once".to_owned())).await;
    assert!(matches!(other, Err(muster_client::Error::AlreadyExists(_))), "{other:?}");
    open_all(&world, 2);
    succeeded(&at_second, job).await;
    assert_eq!(world.output(&at_second, job, "sum", "n").await, "1\n");
    assert_all_ran_once(&world, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_scheduler_beside_the_first_does_no_harm() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let first = world.scheduler("first", &etcd.url(), &[]).await;
    let second = world.scheduler("second", &etcd.url(), &[]).await;
    // At home at one of the two only, and both use it.
    let _executor = world.executor("e", "push", &[first.address()], &["--cpus", "4"]).await;
    let clients = [client(&[first.address()]).await, client(&[second.address()]).await];
    for client in &clients {
        ready(client, 1).await;
        knows_both(client).await;
    }
    let mut jobs = Vec::new();
    for (client, address) in clients.iter().zip([first.address(), second.address()]) {
        let alone = muster_client::Options { discover: false, ..muster_client::Options::default() };
        let alone = Client::connect([address.to_string()], alone).await.unwrap();
        let job = alone.submit(waiting(&world, 2), None).await.unwrap().job;
        assert_eq!(owner(client, job).await, address.to_string());
        jobs.push((job, alone));
    }
    // Both jobs run at the same time, and each scheduler answers for both.
    for (job, _) in &jobs {
        for (_, alone) in &jobs {
            running(alone, *job, 2).await;
            assert_eq!(tasks(alone, *job, "wait").await.len(), 2);
        }
    }
    open_all(&world, 2);
    for (job, _) in &jobs {
        for (_, alone) in &jobs {
            succeeded(alone, *job).await;
            let outputs = alone.list_outputs(*job, None).await.unwrap();
            assert_eq!(outputs.len(), 1, "{outputs:?}");
        }
        // Through the one that it was not submitted to.
        let other = jobs.iter().find(|(id, _)| id != job).map(|(_, alone)| alone).expect("there are two");
        assert_eq!(world.output(other, *job, "sum", "n").await, "1\n");
    }
    let starts = world.starts();
    assert_eq!(starts["wait/0"], [1, 1], "once in each job: {starts:?}");
    assert_eq!(starts["sum/0"], [1, 1], "once in each job: {starts:?}");
    // A job whose owner is the first is cancelled through the second.
    let job = jobs[0].1.submit(world.job("{name: long, run: 'sleep 600'}"), None).await.unwrap().job;
    running(&jobs[1].1, job, 1).await;
    jobs[1].1.cancel_job(job, "enough").await.unwrap();
    let view = tokio::time::timeout(Duration::from_secs(30), jobs[1].1.wait(job)).await.unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_told_to_end_hands_its_jobs_over_at_once() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    // Nobody waits for this session to run out.
    let long = ["--session-ttl", "60s"];
    let mut first = world.scheduler("first", &etcd.url(), &long).await;
    let second = world.scheduler("second", &etcd.url(), &long).await;
    let both = [first.address(), second.address()];
    let _executor = world.executor("e", "push", &both, &[]).await;
    let at_first = client(&both[..1]).await;
    ready(&at_first, 1).await;
    let job = at_first.submit(waiting(&world, 2), None).await.unwrap().job;
    running(&at_first, job, 2).await;
    assert_eq!(owner(&at_first, job).await, first.address().to_string());
    assert!(first.terminate().await.success());
    let at_second = client(&both[1..]).await;
    // Long before its session would have run out.
    eventually("the job has moved", 30, || async {
        (at_second.get_job(job).await.ok()?.owner == second.address().to_string()).then_some(())
    })
    .await;
    open_all(&world, 2);
    succeeded(&at_second, job).await;
    assert_all_ran_once(&world, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_took_outlives_its_executor_too() {
    for mode in ["push", "pull"] {
        let world = World::new();
        let etcd = Etcd::start().await.unwrap();
        let recorder = Recorder::start(&etcd.endpoints(), "default");
        let mut scheduler = world.scheduler("first", &etcd.url(), &[]).await;
        let address = scheduler.address();
        let mut executor = world.executor("e", mode, &[address], &[]).await;
        let client = client(&[address]).await;
        ready(&client, 1).await;
        let job = client.submit(waiting(&world, 2), None).await.unwrap().job;
        running(&client, job, 2).await;
        world.started("wait", 2).await;
        scheduler.kill();
        world.open("0");
        // On its disk, and nowhere else: the log of results is where it grows.
        let outbox = executor.data_dir.join("outbox.log");
        let size = || std::fs::metadata(&outbox).map_or(0, |metadata| metadata.len());
        let before = size();
        eventually("the result is on disk", 30, || async {
            let ended = journal::read(&executor.data_dir).iter().any(|line| line.event == "end");
            (ended && size() > before).then_some(())
        })
        .await;
        executor.kill();
        let executor = world.executor("e", mode, &[address], &[]).await;
        let _scheduler = world.scheduler("second", &etcd.url(), &["--listen", &address.to_string()]).await;
        world.open("1");
        succeeded(&client, job).await;
        assert_eq!(world.output(&client, job, "sum", "n").await, "1\n");
        let starts = world.starts();
        assert_eq!(starts["wait/0"], [1], "{mode}: it was finished: {starts:?}");
        assert_eq!(starts["wait/1"], [1, 2], "{mode}: it ended with its executor: {starts:?}");
        assert_eq!(starts["sum/0"], [1], "{mode}: {starts:?}");
        assert_eq!(journal::starts(&executor.data_dir, job), 4);
        let verdict = checker::check(&world.evidence(recorder.finish().await.unwrap(), &["e"]));
        verdict.assert_clean();
        assert_eq!((verdict.statistics.accepted, verdict.statistics.run_more_than_once), (3, 1), "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submits_under_way_at_a_kill_make_one_job_each() {
    const JOBS: usize = 100;
    const KILL_AT: usize = 20;
    const AT_ONCE: usize = 8;
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "default");
    let first = world.scheduler("first", &etcd.url(), &[]).await;
    let second = world.scheduler("second", &etcd.url(), &[]).await;
    let addresses = [first.address(), second.address()];
    let _executor = world.executor("e", "push", &addresses, &["--cpus", "4"]).await;
    // The one that will die is asked first.
    let all = client(&addresses).await;
    ready(&all, 1).await;
    let answered = AtomicUsize::new(0);
    let first = std::sync::Mutex::new(first);
    let submit = async |number: usize| {
        let spec = world.job(&format!("{{name: 'job-{number}', run: 'gate=go; eval \"$WAIT\"'}}"));
        let job = all.submit(spec, Some(format!("key-{number}"))).await.unwrap().job;
        if answered.fetch_add(1, Ordering::SeqCst) == KILL_AT {
            assert_eq!(owner(&all, job).await, addresses[0].to_string());
            // Those beside this one are somewhere between their sending and their answer.
            first.lock().unwrap().kill();
        }
        job
    };
    let jobs: Vec<JobId> = futures::stream::iter(0..JOBS).map(submit).buffered(AT_ONCE).collect().await;
    let distinct: BTreeSet<JobId> = jobs.iter().copied().collect();
    assert_eq!(distinct.len(), JOBS);
    world.open("go");
    let at_second = client(&addresses[1..]).await;
    for job in &jobs {
        succeeded(&at_second, *job).await;
    }
    let listed = at_second.list_jobs(v1::ListJobsRequest { limit: 1000, ..Default::default() }).await.unwrap();
    let listed: BTreeSet<JobId> = listed.jobs.iter().map(|view| view.job_id.parse().unwrap()).collect();
    assert_eq!(listed, distinct, "no job without an answer, no answer without a job");
    // The same keys give the same jobs for as long as keys are remembered.
    for (number, job) in jobs.iter().enumerate().take(KILL_AT + AT_ONCE) {
        assert_eq!(submit(number).await, *job);
    }
    let mut evidence = world.evidence(recorder.finish().await.unwrap(), &["e"]);
    let told = |(number, job): (usize, &JobId)| checker::Submitted {
        job: *job,
        namespace: "default".to_owned(),
        key: format!("key-{number}"),
        spec: number.to_string(),
        at_us: recorder::boot_us(),
    };
    evidence.clients.submitted = jobs.iter().enumerate().map(told).collect();
    let verdict = checker::check(&evidence);
    verdict.assert_clean();
    assert_eq!((verdict.statistics.jobs_over, verdict.statistics.unfinished), (JOBS, 0), "{verdict}");
}
