//! How attempts end, told apart.

use std::time::Duration;

use muster_proto::v1::{self, Outcome, exit::How};

use crate::world::{World, argv, assert_outcome, eventually, script};

fn exit(finished: &v1::AttemptFinished) -> Option<How> {
    finished.exit.and_then(|exit| exit.how)
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_signals_and_failures_to_start_are_told_apart() {
    let mut world = World::new().await;
    let (_, finished) = world.run(&argv(&["true"])).await;
    assert_outcome(&finished, Outcome::Succeeded);
    assert_eq!(exit(&finished), Some(How::Code(0)));
    assert_eq!(finished.output, Some(v1::Output::default()));
    assert!(finished.started_at_ms > 0 && finished.finished_at_ms >= finished.started_at_ms);

    let (_, finished) = world.run(&script("exit 7")).await;
    assert_outcome(&finished, Outcome::Failed);
    assert_eq!((exit(&finished), finished.message.as_str()), (Some(How::Code(7)), "exit code 7"));

    let (_, finished) = world.run(&script("exit 137")).await;
    assert_outcome(&finished, Outcome::Failed);
    assert_eq!(exit(&finished), Some(How::Code(137)), "137 is no proof of anything");

    let (_, finished) = world.run(&script("kill -SEGV $$")).await;
    assert_outcome(&finished, Outcome::Failed);
    assert_eq!(exit(&finished), Some(How::Signal(11)));
    assert!(finished.message.contains("SIGSEGV"), "{}", finished.message);

    for (work, words) in [
        (argv(&["no-such-program-anywhere"]), ["no-such-program-anywhere", "install it"]),
        (argv(&["./not-here"]), ["./not-here", "no such file"]),
        (argv(&["/etc/passwd"]), ["/etc/passwd", "chmod +x"]),
        (argv(&[]), ["argv is empty", "name a program"]),
    ] {
        let (_, finished) = world.run(&work).await;
        assert_outcome(&finished, Outcome::Failed);
        assert_eq!((exit(&finished), finished.started_at_ms), (None, 0), "no process was started");
        assert!(words.iter().all(|word| finished.message.contains(word)), "{}", finished.message);
    }
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_ends_the_whole_group_with_a_grace() {
    let mut world = World::new().await;
    // The task itself heeds SIGTERM; a child of it does not.
    let mut polite =
        script("trap 'echo bye; exit 3' TERM; sh -c 'trap \"\" TERM; sleep 100' & while :; do sleep 0.05; done");
    polite.timeout_ms = 300;
    let (attempt, finished) = world.run(&polite).await;
    assert_outcome(&finished, Outcome::TimedOut);
    assert_eq!(exit(&finished), Some(How::Code(3)), "it could clean up");
    assert_eq!(std::fs::read_to_string(world.place.room(&attempt).join("stdout")).unwrap(), "bye\n");
    let took = finished.finished_at_ms - finished.started_at_ms;
    assert!((300..20_000).contains(&took), "{took} ms from the start");

    let mut stubborn = script("trap '' TERM; while :; do sleep 0.05; done");
    (stubborn.timeout_ms, stubborn.grace_ms) = (200, 200);
    let (_, finished) = world.run(&stubborn).await;
    assert_outcome(&finished, Outcome::TimedOut);
    assert_eq!(exit(&finished), Some(How::Signal(9)));
    assert!(finished.finished_at_ms - finished.started_at_ms >= 400);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_runs_and_what_waits() {
    let mut world = World::with(|options| {
        options.resources.cpu_milli = 1000;
        options.backlog = 1;
    })
    .await;
    let running = world.launch_script("echo here; sleep 100").await;
    let waiting = world.launch_script("echo never").await;
    let stdout = world.place.room(&running).join("stdout");
    eventually("it runs", || stdout.exists()).await;
    world.launcher.cancel(std::slice::from_ref(&waiting), 10).await.unwrap();
    let finished = world.scheduler.result(&waiting).await;
    assert_outcome(&finished, Outcome::Cancelled);
    assert_eq!(finished.started_at_ms, 0);
    let stale = world.launcher.cancel(std::slice::from_ref(&running), 9).await.unwrap_err();
    assert_eq!(stale.code(), tonic::Code::FailedPrecondition, "{stale}");
    world.launcher.cancel(std::slice::from_ref(&running), 10).await.unwrap();
    let finished = world.scheduler.result(&running).await;
    assert_outcome(&finished, Outcome::Cancelled);
    assert_eq!(exit(&finished), Some(How::Signal(15)));
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_given_back_when_it_is_asked_for_and_what_runs_goes_on() {
    let mut world = World::with(|options| {
        options.resources.cpu_milli = 1000;
        options.backlog = 2;
    })
    .await;
    let running = world.launch_script("until [ -e go ]; do sleep 0.01; done").await;
    let waiting = world.launch_script("echo never").await;
    let next = world.launch_script("echo next").await;
    let stale = world.launcher.ask_back(std::slice::from_ref(&waiting), 9).await.unwrap_err();
    assert_eq!(stale.code(), tonic::Code::FailedPrecondition, "{stale}");
    for attempt in [&running, &waiting] {
        world.launcher.ask_back(std::slice::from_ref(attempt), 10).await.unwrap();
    }
    let finished = world.scheduler.result(&waiting).await;
    assert_outcome(&finished, Outcome::GivenBack);
    assert_eq!(finished.started_at_ms, 0);
    let work = world.place.work(&running).await;
    std::fs::write(work.join("go"), "").unwrap();
    assert_outcome(&world.scheduler.result(&running).await, Outcome::Succeeded);
    assert_outcome(&world.scheduler.result(&next).await, Outcome::Succeeded);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_is_what_the_cgroup_says() {
    let mut world = World::new().await;
    let digest = world.scheduler.put_blob(&argv(&["python3", "-c", "x = bytearray(300_000_000); print(len(x))"]));
    let mut group = crate::world::group(&world.scheduler, crate::world::job(), &digest, 0..1);
    group.resources = Some(v1::Resources { memory_bytes: 64 << 20, ..v1::Resources::default() });
    let attempt = world.launcher.launch_all(group).await.remove(0);
    let finished = world.scheduler.result(&attempt).await;
    if muster_executor::memory_limits_are_enforced() {
        assert_outcome(&finished, Outcome::OutOfMemory);
        assert_eq!(exit(&finished), Some(How::Signal(9)));
        // The same end by anybody else's hand is none for want of memory.
        let digest = world.scheduler.put_blob(&script("kill -9 $$"));
        let mut group = crate::world::group(&world.scheduler, crate::world::job(), &digest, 0..1);
        group.resources = Some(v1::Resources { memory_bytes: 64 << 20, ..v1::Resources::default() });
        let attempt = world.launcher.launch_all(group).await.remove(0);
        assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Failed);
    } else {
        eprintln!("no cgroups can be made here: the limit is not enforced, and the task runs as if there were none");
        assert_outcome(&finished, Outcome::Succeeded);
    }
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_kept_up_to_the_cap_and_the_task_is_not_blocked() {
    let mut world = World::with(|options| options.log_cap_bytes = 100_000).await;
    let (attempt, finished) = world.run(&script("head -c 3000000 /dev/zero; echo problem >&2")).await;
    assert_outcome(&finished, Outcome::Succeeded);
    let room = world.place.room(&attempt);
    assert_eq!(std::fs::metadata(room.join("stdout")).unwrap().len(), 100_000);
    assert!(room.join("stdout.truncated").exists() && !room.join("stderr.truncated").exists());
    assert_eq!(std::fs::read_to_string(room.join("stderr")).unwrap(), "problem\n");
    let chunks = crate::outputs::read_log(&world.handle, &attempt, v1::Stream::Unspecified, false, 0).await.unwrap();
    let of = |stream: v1::Stream| chunks.iter().filter(move |chunk| chunk.stream() == stream);
    assert_eq!(of(v1::Stream::Stdout).map(|chunk| chunk.data.len()).sum::<usize>(), 100_000);
    assert!(of(v1::Stream::Stdout).any(|chunk| chunk.truncated));
    assert!(of(v1::Stream::Stderr).all(|chunk| !chunk.truncated));
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_can_be_followed_while_the_task_runs() {
    let mut world = World::new().await;
    let gate = world.place.path().join("gate");
    let attempt = world
        .launch_script(&format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two", gate.display()))
        .await;
    let mut stream = crate::outputs::open_log(&world.handle, &attempt, v1::Stream::Stdout, true, 0).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(20), stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((&next.data[..], next.offset), (&b"one\n"[..], 0));
    std::fs::write(&gate, "").unwrap();
    let next = tokio::time::timeout(Duration::from_secs(20), stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((&next.data[..], next.offset), (&b"two\n"[..], 4));
    let end = tokio::time::timeout(Duration::from_secs(20), stream.message()).await.unwrap().unwrap();
    assert_eq!(end, None, "the log ends with its attempt");
    let again = crate::outputs::read_log(&world.handle, &attempt, v1::Stream::Stdout, false, 4).await.unwrap();
    assert_eq!(&again[0].data[..], b"two\n");
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_see_their_environment_and_nothing_else() {
    let mut world = World::new().await;
    let items = world.scheduler.put_blob(&v1::Items { values: vec!["first".to_owned(), "a b\n\"c\"".to_owned()] });
    let mut work = script("pwd; env | sort; ls -A; printf %s \"$MUSTER_ITEM\" > $MUSTER_OUTPUT_DIR/item");
    work.env.insert("COLOUR".to_owned(), "green".to_owned());
    work.task_count = 2;
    work.shuffle_parts = 5;
    work.items_per_chunk = 2;
    work.item_chunks = vec![items];
    let digest = world.scheduler.put_blob(&work);
    let attempt = world
        .launcher
        .launch_all(crate::world::group(&world.scheduler, crate::world::job(), &digest, 1..2))
        .await
        .remove(0);
    assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Succeeded);
    let room = world.place.room(&attempt);
    let text = std::fs::read_to_string(room.join("stdout")).unwrap();
    let work = text.lines().next().unwrap();
    let workspace = work.strip_suffix("/work").unwrap();
    assert!(workspace.starts_with(&world.place.path().join("workspaces").display().to_string()), "{text}");
    for line in [
        "COLOUR=green".to_owned(),
        format!("MUSTER_JOB_ID={}", attempt.job_id),
        "MUSTER_STAGE=stage".to_owned(),
        "MUSTER_STAGE_PATH=stage".to_owned(),
        "MUSTER_TASK_INDEX=1".to_owned(),
        "MUSTER_TASK_COUNT=2".to_owned(),
        "MUSTER_ATTEMPT=1".to_owned(),
        "MUSTER_SHUFFLE_PARTS=5".to_owned(),
        format!("MUSTER_OUTPUT_DIR={workspace}/output"),
        format!("MUSTER_INPUT_DIR={}", room.join("input").display()),
        format!("TMPDIR={work}"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("CARGO"), "nothing of the executor's own environment: {text}");
    assert_eq!(std::fs::read_to_string(room.join("published/item")).unwrap(), "a b\n\"c\"");
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_used_again_and_nothing_of_the_task_before_is_in_them() {
    let mut world = World::new().await;
    let until = std::time::Instant::now() + crate::fake::DEADLINE;
    let mut used = std::collections::BTreeSet::new();
    // Every second one leaves something in both of them, the others nothing.
    for number in 0.. {
        assert!(std::time::Instant::now() < until, "{} directories, and none of them twice", used.len());
        let deed = if number % 2 == 0 { "echo x > x; echo y > $MUSTER_OUTPUT_DIR/y" } else { ":" };
        let text = format!("echo $TMPDIR; ls -A . $MUSTER_OUTPUT_DIR | grep '^[xy]'; {deed}");
        let (attempt, finished) = world.run(&script(&text)).await;
        assert_outcome(&finished, Outcome::Succeeded);
        assert_eq!(finished.output.map(|output| output.files), Some(u32::from(number % 2 == 0)));
        let printed = std::fs::read_to_string(world.place.room(&attempt).join("stdout")).unwrap();
        assert_eq!(printed.lines().count(), 1, "it found something: {printed}");
        if !used.insert(printed) {
            break;
        }
    }
    world.handle.stop().await;
}
