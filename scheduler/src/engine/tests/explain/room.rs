//! Ready tasks that find no room.

use super::*;
use crate::options::LAUNCH_WINDOW;

#[tokio::test]
async fn without_executors_it_is_said_who_is_missing() {
    let mut bench = Bench::new().await;
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    let why = bench.only(id, 0);
    assert_eq!((why.kind(), why.tasks, why.text.as_str()), (Kind::NoExecutor, 2, "no executor is there"));
    says(&why.remedies, "`muster executor`");
    bench.commit_all().await;
    bench.register(key("e", 1), 1);
    bench.commit_all().await;
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Succeeded).await;
    bench.ends(id, "e", (0, 1, 1), v1::Outcome::Succeeded).await;
    let id = bench.submit(2, wanting(cpu(1000), 1)).await;
    bench.commit_all().await;
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Failed).await;
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    bench.now += 2_000;
    bench.input(Input::Tick);
    let why = bench.only(id, 0);
    assert_eq!(why.kind(), Kind::NoExecutor);
    assert_eq!(why.evidence, ["e is out of reach, for 2.0 s"]);
    says(&why.remedies, "fits on e, if that comes back");
}

#[tokio::test]
async fn what_is_too_large_is_told_by_how_much() {
    let mut bench = Bench::new().await;
    for (id, gib) in [("a", 14), ("b", 14), ("c", 14), ("small", 2)] {
        bench.register_offering(id, sized(4, gib));
    }
    let id = bench.submit(1, wanting(sized(2, 20), 3)).await;
    let why = bench.only(id, 0);
    let text = "no executor is large enough: a task wants 2 cores, 20 GiB of memory";
    assert_eq!((why.kind(), why.tasks, why.text.as_str()), (Kind::TooLarge, 3, text));
    says(&why.evidence, "it wants 20 GiB of memory; the largest executor offers 14 GiB of memory");
    assert_eq!(why.remedies[0], "fits on 3 executors if memory <= 14 GiB");
    let job = bench.engine.job(id).unwrap();
    assert_eq!(bench.engine.job_view(job).stages[0].reason, text, "the job's own page says the same");

    let mut many = sized(8, 20);
    many.named.insert("gpu".to_owned(), 1);
    let id = bench.submit(2, wanting(many, 1)).await;
    let why = bench.only(id, 0);
    says(&why.evidence, "it wants gpu: 1; the largest executor offers none");
    assert_eq!(why.remedies, ["an executor with 8 cores, 20 GiB of memory, gpu: 1 or more"]);

    let id = bench.submit(3, wanting(sized(8, 20), 1)).await;
    let why = bench.only(id, 0);
    says(&why.evidence, "even if one of its wants were less");
    assert_eq!(why.remedies[0], "fits on an executor if cpu <= 4 and memory <= 14 GiB");
}

#[tokio::test]
async fn one_that_is_large_enough_and_lost_is_named() {
    let mut bench = Bench::new().await;
    bench.register_offering("large", sized(8, 8));
    bench.register_offering("small", sized(1, 1));
    bench.input(Input::Lost(crate::engine::Loss { key: key("large", 1), record: 9, on_purpose: false }));
    let id = bench.submit(1, wanting(sized(4, 1), 1)).await;
    bench.now += 5_000;
    let why = bench.only(id, 0);
    assert_eq!(why.kind(), Kind::TooLarge);
    says(&why.evidence, "large is lost, for 5.0 s");
    says(&why.remedies, "fits on large, if that comes back");
    says(&why.remedies, "fits on 1 executor if cpu <= 1");
}

#[tokio::test]
async fn who_is_before_it_is_told_by_name_in_its_own_namespace_alone() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let first = bench.submit(1, spec(&[("a", 5, &[])])).await;
    let others = JobSpec { namespace: "secret".to_owned(), ..spec(&[("a", 7, &[])]) };
    let others = bench.submit(2, others).await;
    let id = bench.submit(3, spec(&[("a", 2, &[]), ("b", 4, &[])])).await;
    bench.commit_all().await;
    assert_eq!(kinds(&bench.stage(first, 0)), [(Kind::NoRoom, 3), (Kind::Launching, 2)]);
    let why = &bench.stage(first, 0)[0];
    let text =
        "no room: the only executor is busy; it is first in its namespace's line, and 1 other namespace goes first";
    assert_eq!(why.text, text);
    says(
        &why.evidence,
        "namespace default has 100.0 % of the cluster, with a weight of 100; who goes first has less for its weight",
    );
    assert_eq!(bench.only(others, 0).text, "no room: the only executor is busy; it is first in line");
    assert_eq!((why.executors.as_slice(), why.index), (["e".to_owned()].as_slice(), Some(2)));
    says(&why.evidence, "e: busy, 2 tasks are there; free at most: 0 cores");
    let why = bench.only(id, 1);
    assert!(why.text.ends_with("; 5 tasks are before it in line, and 1 other namespace goes first"), "{}", why.text);
    let line: Vec<&String> = why.evidence.iter().filter(|line| line.starts_with("before it")).collect();
    let own = format!("before it: 3 tasks of job {first} (job)");
    assert_eq!(line, [&own, "before it: 2 tasks of its own job"]);
    assert!(why.evidence.iter().all(|line| !line.contains("secret") && !line.contains(&others.to_string())));
    assert!(bench.task(id, 1, 3).text.contains("; 8 tasks are before it in line, "), "those of its stage too");
    assert_eq!(bench.only(id, 0).tasks, 2);
    let mut late = spec(&[("large", 3, &[]), ("a", 1, &[])]);
    late.stages[0].resources = cpu(99_000);
    let late = bench.submit(4, late).await;
    assert!(bench.only(late, 1).text.contains("; 9 tasks are before it in line, "), "not those that fit nowhere");
    let last = bench.submit(5, spec(&[("a", 1, &[])])).await;
    assert!(bench.only(last, 0).text.contains("; 10 tasks are before it in line, "));
    says(&bench.only(last, 0).evidence, "3 earlier tasks fit on no executor: that holds nobody up");
}

#[tokio::test]
async fn a_higher_priority_goes_first() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let running = bench.submit(1, spec(&[("a", 1, &[])])).await;
    let low = bench.submit(2, spec(&[("a", 1, &[])])).await;
    let high = bench.submit(3, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    assert!(bench.only(high, 0).text.ends_with("1 task is before it in line"));
    let job = &bench.engine.jobs[&high];
    bench.engine.queues.leave(&job.namespace, job.place());
    bench.engine.jobs.get_mut(&high).unwrap().head.priority = 1;
    bench.engine.refresh(high);
    assert!(bench.only(high, 0).text.ends_with("it is first in line"));
    assert!(bench.only(low, 0).text.ends_with("1 task is before it in line"));
    assert_eq!(bench.only(running, 0).kind(), Kind::Launching);
}

#[tokio::test]
async fn what_would_start_at_once_if_it_wanted_less_is_said() {
    let mut bench = Bench::new().await;
    bench.register_offering("e", sized(4, 8));
    bench.register_offering("f", sized(1, 8));
    bench.submit(1, wanting(sized(3, 1), 1)).await;
    let id = bench.submit(2, wanting(sized(2, 7), 1)).await;
    bench.commit_all().await;
    let why = bench.only(id, 0);
    assert!(why.text.starts_with("no room: the one of 2 executors that is large enough is busy"), "{}", why.text);
    assert_eq!(why.remedies, ["one would start now if cpu <= 1"]);
    says(&why.evidence, "e: busy, 1 task is there; free at most: 1 core, 7 GiB of memory");
    says(&why.evidence, "f: too small");
    let smaller = bench.submit(3, wanting(sized(1, 7), 1)).await;
    assert_eq!(bench.only(smaller, 0).kind(), Kind::Committing, "so it does");
}

#[tokio::test]
async fn executors_that_take_nothing_are_told_apart() {
    let mut bench = Bench::new().await;
    bench.connects = false;
    bench.register(key("unreached", 1), 1);
    bench.connects = true;
    for id in ["drains", "hangs", "full"] {
        bench.register(key(id, 1), 1);
    }
    bench.register_with(key("pulls", 1), 1, true, Vec::new());
    bench.input(Input::Heartbeat { executor: key("drains", 1), free: cpu(1000), running: 0, draining: true });
    bench.engine.executors.get_mut("hangs").unwrap().unanswered = LAUNCH_WINDOW;
    bench.engine.mark_full("full", bench.now);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    let why = bench.only(id, 0);
    let text = "all 5 executors take no tasks now; it is first in line";
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Unavailable, text));
    for part in [
        "drains: drains",
        "full: refused a task for lack of room",
        "hangs: has 4096 launches to answer",
        "pulls: does not ask this scheduler for work",
        "unreached: not reached from this scheduler, nor through its home, for 0 ms",
    ] {
        says(&why.evidence, part);
    }
    says(&why.remedies, "`muster executors drain drains --undo`");
    bench.commit_all().await;
    bench.register(key("busy", 1), 1);
    bench.commit_all().await;
    let late = bench.submit(2, spec(&[("a", 1, &[])])).await;
    let text = &bench.only(late, 0).text;
    let start = "no room: of 6 executors that are large enough 1 is busy, and 5 take no tasks now; it is first";
    assert!(text.starts_with(start), "{text}");
}

#[tokio::test]
async fn a_large_task_keeps_what_it_waits_for_from_being_sent_work_ahead() {
    let mut bench = Bench::new().await;
    let home = bench.identity.session.0.clone();
    let held = Some(Vec::new());
    let registration = Registration { backlog: 100, home_here: true, held, ..registration(key("e", 1), 2, home, 1) };
    bench.input(Input::Registered(registration));
    // Its tasks are short, as it turns out.
    let short = bench.submit(5, spec(&[("a", 50, &[])])).await;
    bench.commit_all().await;
    let large = bench.submit(2, wanting(cpu(2000), 1)).await;
    let mut status = ended(1, (short, 0, 0, 1), v1::Outcome::Succeeded);
    if let Some(v1::attempt_status::What::Finished(finished)) = &mut status.what {
        (finished.started_at_ms, finished.finished_at_ms) = (1_000, 1_009);
    }
    drop(bench.finish(&key("e", 1), &[status]));
    bench.commit_all().await;
    let why = &bench.stage(short, 0)[0];
    assert_eq!(why.kind(), Kind::NoRoom);
    says(&why.evidence, "e: a task before it waits for room there, so none after that is sent ahead");
    says(&why.evidence, &format!("before it: 1 task of job {large} (job)"));
    says(&bench.only(large, 0).evidence, "e: no task after it is sent ahead to wait there");
}
