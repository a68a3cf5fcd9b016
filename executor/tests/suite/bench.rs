//! How many short tasks an executor starts in a second, beside a plain loop of the same machine and minute.
//!
//! `cargo test -p muster-executor --release -- --ignored --nocapture starts_per_second`

use std::time::Instant;

use muster_proto::v1::Outcome;

use crate::world::{World, argv, assert_outcome, group, job};

/// Keeps two slots busy with tasks of `true`: launches as results come in. Returns tasks per second.
async fn tasks_per_second(count: u32, backlog: usize) -> f64 {
    let mut world = World::with(|options| {
        options.resources.cpu_milli = 2000;
        options.backlog = backlog;
    })
    .await;
    let digest = world.scheduler.put_blob(&argv(&["/bin/true"]));
    let job = job();
    let window = 2 + u32::try_from(backlog).unwrap();
    let began = Instant::now();
    let mut launched = 0;
    loop {
        let done = u32::try_from(world.scheduler.with(|state| state.seen.finished.len())).unwrap();
        if done == count {
            break;
        }
        let next = (done + window).min(count);
        if next > launched {
            assert_eq!(world.launcher.launch(group(&world.scheduler, job, &digest, launched..next)).await, []);
            launched = next;
        }
        world.scheduler.until("more results", |state| (state.seen.finished.len() > done as usize).then_some(())).await;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    world.scheduler.with(|state| state.seen.finished.values().for_each(|end| assert_outcome(end, Outcome::Succeeded)));
    world.handle.stop().await;
    rate
}

/// Two threads that start `true` and wait for it, and do nothing else.
fn plain_loop(count: u32) -> f64 {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..count / 2 {
                    assert!(std::process::Command::new("/bin/true").status().unwrap().success());
                }
            });
        }
    });
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// What this process and those that it has waited for have used, in milliseconds. The supervisor is among them once
/// it was stopped, and the tasks with it.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    // utime, stime, cutime, cstime, in hundredths of a second.
    fields[11..15].iter().map(|field| field.parse::<u64>().unwrap() * 10).sum()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: it wants the machine for itself"]
async fn starts_per_second() {
    const COUNT: u32 = 4000;
    for _ in 0..3 {
        let before = cpu_ms();
        let plain = plain_loop(COUNT);
        let between = cpu_ms();
        let ahead = tasks_per_second(COUNT, 256).await;
        let after = cpu_ms();
        let strict = tasks_per_second(COUNT / 4, 0).await;
        println!(
            "plain loop {plain:.0}/s ({} us of CPU each); executor, backlog 256 {ahead:.0}/s ({} us of CPU each, \
             the fake scheduler's included); executor, no backlog {strict:.0}/s",
            (between - before) * 1000 / u64::from(COUNT),
            (after - between) * 1000 / u64::from(COUNT),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_tasks_all_end_once() {
    assert!(tasks_per_second(300, 64).await > 0.0);
}
