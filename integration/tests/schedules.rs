//! Schedules in real clusters: each time fires once, whoever is killed; and what they do with unfinished jobs, bad definitions and
//! the wishes of people.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_client::Client;
use muster_graph::schedule::{Timetable, in_words};
use muster_integration::processes::muster;
use muster_integration::world::{World, client};
use muster_integration::{cluster, eventually, is_soak};
use muster_proto::v1;
use muster_state::testing::Etcd;

/// Runs the binary; answers whether it succeeded, and what it said.
fn say(scheduler: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(muster());
    command.env_clear().env("MUSTER_SCHEDULERS", scheduler.to_string());
    let said = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (said.status.success(), text(said.stdout) + &text(said.stderr))
}

fn done(scheduler: SocketAddr, arguments: &[&str]) -> String {
    let (success, said) = say(scheduler, arguments);
    assert!(success, "{arguments:?}: {said}");
    said
}

/// A definition; nothing of it needs an executor unless it has tasks.
fn define(world: &World, scheduler: SocketAddr, name: &str, tasks: u32) {
    let file = world.path(&format!("{name}.yaml"));
    std::fs::write(&file, format!("{{name: {name}, tasks: {tasks}, run: 'true'}}")).unwrap();
    done(scheduler, &["define", file.to_str().unwrap()]);
}

async fn jobs(client: &Client) -> Vec<v1::JobView> {
    let mut jobs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListJobsRequest { limit: 1000, page_token, ..Default::default() };
        let page = client.list_jobs(request).await.unwrap();
        jobs.extend(page.jobs);
        if page.next_page_token.is_empty() {
            return jobs;
        }
        page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_time_of_each_schedule_fires_once_through_ten_kills() {
    const CRON: &str = "*/4 * * * * *";
    const KILLS: usize = 10;
    let schedules = if is_soak() { 1_000 } else { 100 };
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    const NAMES: [&str; 3] = ["one", "two", "three"];
    // How often somebody became the keeper.
    let keepers = || -> usize {
        NAMES.iter().map(|name| world.log(name).matches("this scheduler keeps the schedules").count()).sum()
    };
    let mut schedulers = Vec::new();
    for name in NAMES {
        schedulers.push(world.scheduler(name, &etcd.url(), &[]).await);
    }
    let addresses: Vec<SocketAddr> = schedulers.iter().map(|scheduler| scheduler.address()).collect();
    define(&world, addresses[0], "nothing", 0);
    let client = client(&addresses).await;
    let setting = futures::stream::iter(0..schedules).map(|number| {
        let run = v1::RunDefinitionRequest { name: "nothing".to_owned(), ..Default::default() };
        let schedule = v1::Schedule {
            cron: CRON.to_owned(),
            run: Some(run),
            overlap: v1::Overlap::Queue.into(),
            missed: v1::Missed::All.into(),
            ..Default::default()
        };
        let name = format!("s{number}");
        let request = v1::SetScheduleRequest { name, schedule: Some(schedule), ..Default::default() };
        let client = client.clone();
        async move { client.set_schedule(request).await.unwrap() }
    });
    let set: Vec<v1::ScheduleView> = setting.buffer_unordered(16).collect().await;

    for kill in 0..KILLS {
        let which = kill % schedulers.len();
        let before = jobs(&client).await.len();
        eventually("times go on firing", 90, async || (jobs(&client).await.len() > before).then_some(())).await;
        let (name, address) = (NAMES[which], addresses[which].to_string());
        schedulers[which].kill();
        schedulers[which] = world.scheduler(name, &etcd.url(), &["--listen", &address]).await;
    }

    // The kills struck: one keeper after the other is gone.
    assert!(keepers() > KILLS / 2, "only {} keepers for {KILLS} kills", keepers());

    // What is due by now is decided before anything is counted.
    let until = set.iter().map(|view| view.set_at_ms).max().unwrap() + 40_000;
    let decided = eventually("all times up to the last kill are decided", 180, async || {
        let views = client.list_schedules("").await.ok()?;
        let next = |view: &v1::ScheduleView| view.next_at_ms.first().copied().unwrap_or(0);
        views.iter().all(|view| next(view) > until && view.waiting_at_ms.is_empty()).then_some(views)
    })
    .await;
    assert_eq!(decided.len(), schedules);
    for view in &decided {
        client.pause_schedule("", &view.name, false).await.unwrap();
    }
    let decided = client.list_schedules("").await.unwrap();
    let mut fired: BTreeMap<(String, String), usize> = BTreeMap::new();
    for job in jobs(&client).await {
        let label = |name: &str| job.labels.get(name).unwrap_or_else(|| panic!("{job:?} has no {name}")).clone();
        *fired.entry((label("muster/schedule"), label("muster/tick"))).or_default() += 1;
    }
    let twice: Vec<_> = fired.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "fired more than once: {twice:?}");
    let table = Timetable::new(CRON, "UTC").unwrap();
    let mut expected = 0;
    for view in decided {
        assert_eq!((&*view.problem, &*view.passed_over), ("", &[][..]), "{view:?}");
        for tick in table.between(view.set_at_ms, view.last_tick_ms) {
            expected += 1;
            let text = in_words(tick);
            assert!(fired.contains_key(&(view.name.clone(), text.clone())), "{} did not fire at {text}", view.name);
        }
    }
    assert_eq!(fired.len(), expected, "more times than the calendar has");
    assert!(expected >= schedules * 8, "{expected} times are too few to say anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_set_pause_run_and_delete_schedules() {
    let world = World::new();
    let state: Arc<dyn muster_state::StateBackend> = Arc::new(muster_state::Memory::new());
    let scheduler = cluster::scheduler("one", state).await.unwrap();
    let address = scheduler.address();
    define(&world, address, "nothing", 0);
    let set = done(
        address,
        &["schedules", "set", "nightly", "--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--run", "nothing"],
    );
    assert!(set.contains("30 2 * * *  (Europe/Berlin)"), "{set}");
    let shown = done(address, &["schedules", "show", "nightly", "--times", "400", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["next"].as_array().unwrap().len(), 400, "over both changes of the clocks");

    for (wrong, told) in [
        (["--cron", "61 * * * *", "--run", "nothing"], "cron: '61 * * * *'"),
        (["--cron", "* * * * *", "--run", "missing"], "missing"),
    ] {
        let (success, said) = say(address, &[&["schedules", "set", "bad"][..], &wrong].concat());
        assert!(!success && said.contains(told), "{said}");
    }

    done(address, &["schedules", "pause", "nightly"]);
    let paused = done(address, &["schedules"]);
    assert!(paused.lines().any(|line| line.contains("nightly") && line.contains("paused")), "{paused}");
    done(address, &["schedules", "resume", "nightly"]);
    done(address, &["schedules", "run", "nightly"]);
    let client = client(&[address]).await;
    assert_eq!(jobs(&client).await.len(), 1);
    done(address, &["schedules", "delete", "nightly"]);
    assert!(!done(address, &["schedules"]).contains("nightly"));
    assert!(!say(address, &["schedules", "delete", "nightly"]).0, "there is none any more");
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_definition_never_stops_the_others() {
    let world = World::new();
    let state: Arc<dyn muster_state::StateBackend> = Arc::new(muster_state::Memory::new());
    let scheduler = cluster::scheduler("one", state).await.unwrap();
    let address = scheduler.address();
    define(&world, address, "good", 0);
    define(&world, address, "bad", 0);
    for name in ["bad", "good"] {
        done(address, &["schedules", "set", name, "--cron", "* * * * * *", "--run", name]);
    }
    done(address, &["undefine", "bad", "--force"]);
    let client = client(&[address]).await;
    let bad = eventually("the bad one says what is wrong", 60, async || {
        let view = client.schedule("", "bad", 1).await.ok()?;
        (!view.problem.is_empty()).then_some(view)
    })
    .await;
    assert!(bad.problem.contains("bad"), "{bad:?}");
    let last = client.schedule("", "good", 1).await.unwrap().last_tick_ms;
    eventually("the good one goes on", 60, async || {
        (client.schedule("", "good", 1).await.ok()?.last_tick_ms > last + 2_000).then_some(())
    })
    .await;
    // Mended: it goes on by itself.
    define(&world, address, "bad", 0);
    eventually("what was mended runs again", 60, async || {
        client.schedule("", "bad", 1).await.ok()?.problem.is_empty().then_some(())
    })
    .await;
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_meets_an_unfinished_job_is_passed_over_waits_or_replaces_it() {
    let world = World::new();
    let state: Arc<dyn muster_state::StateBackend> = Arc::new(muster_state::Memory::new());
    let scheduler = cluster::scheduler("one", state).await.unwrap();
    let address = scheduler.address();
    // There is no executor: its job is never over.
    define(&world, address, "long", 1);
    for overlap in ["skip", "queue", "replace"] {
        done(address, &["schedules", "set", overlap, "--cron", "* * * * * *", "--run", "long", "--overlap", overlap]);
    }
    let client = client(&[address]).await;
    let when = async |name: &str, holds: fn(&v1::ScheduleView) -> bool| {
        eventually(&format!("{name} is as it should be"), 60, async || {
            client.schedule("", name, 1).await.ok().filter(holds)
        })
        .await
    };
    let skipped = when("skip", |view| view.passed_over.len() >= 3).await;
    assert!(skipped.passed_over.iter().all(|passed| passed.why == "overlap"), "{skipped:?}");
    when("queue", |view| view.waiting_at_ms.len() >= 3).await;
    let before = when("replace", |view| !view.last_job.is_empty()).await.last_job;
    let before = before.parse().unwrap();
    let view = tokio::time::timeout(Duration::from_secs(60), client.wait(before)).await.unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Cancelled, "{view:?}");
    for name in ["skip", "queue"] {
        let of = |job: &&v1::JobView| job.labels.get("muster/schedule").is_some_and(|schedule| schedule == name);
        assert_eq!(jobs(&client).await.iter().filter(of).count(), 1, "{name}: one at a time");
    }
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_childs_own_schedule_and_runs_are_untouched_by_the_runs_that_it_is_nested_in() {
    let world = World::new();
    let state: Arc<dyn muster_state::StateBackend> = Arc::new(muster_state::Memory::new());
    let scheduler = cluster::scheduler("one", state).await.unwrap();
    let address = scheduler.address();
    // There is no executor, so what runs goes on running.
    define(&world, address, "child", 1);
    let file = world.path("parent.yaml");
    std::fs::write(&file, "{name: parent, stages: {first: {job: child}, second: {job: child, after: [first]}}}")
        .unwrap();
    done(address, &["define", file.to_str().unwrap()]);
    done(address, &["schedules", "set", "own", "--cron", "0 0 1 1 *", "--run", "child"]);
    let client = client(&[address]).await;
    let before = client.schedule("", "own", 1).await.unwrap();

    let submit = |name: &str| done(address, &["submit", name, "-o", "name"]).trim().parse().unwrap();
    let (alone, nested) = (submit("child"), submit("parent"));
    client.cancel_job(nested, "enough").await.unwrap();
    let over = tokio::time::timeout(Duration::from_secs(60), client.wait(nested)).await.unwrap().unwrap();
    assert_eq!(over.state(), v1::JobState::Cancelled, "{over:?}");
    let alone = client.get_job(alone).await.unwrap();
    assert_eq!((alone.cancel_requested, alone.finished_at_ms), (false, 0), "{alone:?}");
    let made_of = |view: &v1::JobView| view.made_of.iter().map(|used| used.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (made_of(&alone), made_of(&over)),
        (vec!["child".to_owned()], vec!["parent".to_owned(), "child".to_owned()])
    );
    assert_eq!(client.schedule("", "own", 1).await.unwrap(), before);
    scheduler.stop().await;
}
