//! An executor on which nothing works, and a task that takes executors down, in clusters of real processes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::Command;
use std::time::Duration;

use muster_client::{Client, JobId};
use muster_integration::eventually;
use muster_integration::processes::{Process, Setting, muster};
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_proto::v1;
use muster_state::testing::Etcd;

/// What the binary says.
fn told(scheduler: &Process, arguments: &[&str]) -> String {
    let mut command = Command::new(muster());
    command.env_clear().env("MUSTER_SCHEDULERS", scheduler.address().to_string());
    let told = command.args(arguments).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

/// Waits until the executor is in this state. What the operator is told of it.
async fn state(client: &Client, executor: &str, state: &str) -> v1::ExecutorView {
    eventually(&format!("{executor} is {state}"), 60, || async {
        let views = client.list_executors().await.ok()?;
        views.into_iter().find(|view| view.executor_id == executor && view.state == state)
    })
    .await
}

/// Attempts of all tasks of these jobs.
async fn attempts(client: &Client, jobs: &[JobId]) -> u32 {
    let mut attempts = 0;
    for job in jobs {
        attempts += tasks(client, *job, "main").await.iter().map(|task| task.attempt).sum::<u32>();
    }
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_on_which_nothing_works_swallows_no_jobs_and_is_back_when_it_is_mended() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let scheduler = world.scheduler("owner", &etcd.url(), &[]).await;
    // Its tasks find no programs, as if a mount were missing.
    let programs = world.path("programs");
    std::fs::create_dir(&programs).unwrap();
    let environment = [("PATH".to_owned(), programs.display().to_string())];
    let setting = Setting { environment: &environment, ..Setting::default() };
    let _bad = world.executor_in(setting, "bad", "push", &[scheduler.address()], &["--resource", "only=1"]).await;
    let _good = world.executor("good", "push", &[scheduler.address()], &[]).await;
    let client = client(&[scheduler.address()]).await;
    ready(&client, 2).await;

    let spec = |number: usize| {
        let yaml = format!("{{name: job-{number}, tasks: 2, retries: {{failed: 2, backoff: 1s}}, run: [sleep, 0.2]}}");
        world.job(&yaml)
    };
    let mut jobs = Vec::new();
    for number in 0..12 {
        jobs.push(client.submit(spec(number), None).await.unwrap().job);
    }
    let view = state(&client, "bad", "quarantined").await;
    assert!(view.problem.contains("others succeeded elsewhere meanwhile; the last one: "), "{}", view.problem);
    let row = |scheduler| {
        let rows = told(scheduler, &["executors"]);
        let row = rows.lines().find(|line| line.starts_with("bad") && line.contains("quarantined"))?;
        assert!(row.contains("others succeeded elsewhere"), "{row}");
        Some(row.to_owned())
    };
    let said = row(&scheduler).unwrap();
    assert!(!said.contains("sees it"), "{said}");
    let peer = world.scheduler("peer", &etcd.url(), &[]).await;
    let said = eventually("a peer tells of it", 30, || async { row(&peer) }).await;
    assert!(said.contains("as owner sees it: "), "{said}");
    // What comes is to be judged by who knows it.
    drop(peer);
    for job in &jobs {
        succeeded(&client, *job).await;
    }
    let wasted = attempts(&client, &jobs).await - 24;
    // Until something has succeeded elsewhere it may be that nothing can; then there is an end to it.
    assert!((1..=24).contains(&wasted), "{wasted} attempts in vain");

    // A task that only the bad one could take waits, and is told why.
    let picky =
        world.job("{name: picky, resources: {only: 1}, retries: {failed: 255, backoff: 100ms}, run: [sleep, 0.2]}");
    let picky = client.submit(picky, None).await.unwrap().job;
    let explained = eventually("its wait is explained", 60, || async {
        let text = told(&scheduler, &["explain", &format!("{picky}/main/0")]);
        text.contains("bad: in quarantine for ").then_some(text)
    })
    .await;
    assert!(explained.contains("once bad is mended, one task that succeeds there ends its quarantine"), "{explained}");

    let path = std::env::var_os("PATH").unwrap();
    let sleep = std::env::split_paths(&path).map(|folder| folder.join("sleep")).find(|program| program.exists());
    std::os::unix::fs::symlink(sleep.unwrap(), programs.join("sleep")).unwrap();
    succeeded(&client, picky).await;
    state(&client, "bad", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_takes_executors_down_is_given_up_though_its_budget_has_no_end() {
    let world = World::new();
    let scheduler = world.scheduler("s", "memory:", &["--lost-after", "60s"]).await;
    let names = ["a", "b", "c"];
    let mut executors = Vec::new();
    for name in names {
        executors.push(world.executor(name, "push", &[scheduler.address()], &["--cpus", "3"]).await);
    }
    let client = client(&[scheduler.address()]).await;
    ready(&client, 3).await;
    // The parent of a task is the supervisor, whose parent is the executor.
    let spec = world.job(
        r#"
        name: poison
        stages:
          poison:
            retries: {executor_lost: 255}
            run: |
              eval "$NOTE"
              kill -9 $(awk '/^PPid:/ { print $2 }' /proc/$PPID/status)
              sleep 100
          harmless:
            tasks: 5
            stop_after: never
            retries: {executor_lost: 255}
            run: 'eval "$NOTE"; gate=go; eval "$WAIT"'
        "#,
    );
    let job = client.submit(spec, None).await.unwrap().job;
    let (mut deaths, mut view) = (0, client.get_job(job).await.unwrap());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(150);
    while view.failures.is_empty() {
        for (executor, name) in executors.iter_mut().zip(names) {
            if executor.has_died() {
                deaths += 1;
                // As its keeper would.
                *executor = world.executor(name, "push", &[scheduler.address()], &["--cpus", "3"]).await;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "{deaths} deaths: {view:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        view = client.get_job(job).await.unwrap();
    }
    let failure = &view.failures[0];
    assert!(failure.message.starts_with("not tried again: its executor went down with it 4 times"), "{failure:?}");
    assert_eq!((failure.stage.as_str(), failure.outcome()), ("poison", v1::Outcome::ExecutorLost));
    assert_eq!((deaths, world.starts_of("poison")), (4, 4));
    world.open("go");
    let view = tokio::time::timeout(Duration::from_secs(120), client.wait(job)).await.unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Failed);
    let harmless = tasks(&client, job, "harmless").await;
    assert!(harmless.iter().all(|task| task.state() == v1::TaskState::Successful), "{harmless:?}");
}
