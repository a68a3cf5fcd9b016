//! Tasks that were given to executors.

use muster_graph::spec::LostAfter;

use super::*;

#[tokio::test]
async fn an_assignment_is_followed_to_its_executor() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    assert_eq!(kinds(&[bench.only(id, 0)]), [(Kind::Committing, 1)]);
    assert!(bench.task(id, 0, 0).text.starts_with("that it goes to e is being committed"));
    bench.commit_all().await;
    bench.now += 3_000;
    let why = bench.only(id, 0);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Launching, "sent to e, not answered yet; the first 3.0 s ago"));
    let why = bench.task(id, 0, 0);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Launching, "sent to e, which has not answered yet, for 3.0 s"));
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 1, refused: Vec::new() });
    assert_eq!(kinds(&[bench.only(id, 0)]), [(Kind::Preparing, 1)]);
    assert_eq!(bench.task(id, 0, 0).text, "e has it, and fetches what it needs, for 3.0 s");
    let started = v1::AttemptStatus {
        sequence: 0,
        attempt: Some(v1::AttemptRef { job_id: id.to_string(), stage: 0, index: 0, attempt: 1 }),
        what: Some(v1::attempt_status::What::Started(v1::AttemptStarted { started_at_ms: bench.now })),
    };
    drop(bench.finish(&key("e", 1), &[started]));
    bench.now += 500;
    assert_eq!(bench.only(id, 0).text, "run on e");
    let why = bench.task(id, 0, 0);
    assert_eq!(
        (why.kind(), why.text.as_str(), why.since_ms),
        (Kind::Running, "runs on e, for 500 ms", bench.now - 500)
    );
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Succeeded).await;
}

#[tokio::test]
async fn work_that_was_sent_ahead_waits_there() {
    let mut bench = Bench::new().await;
    let home = bench.identity.session.0.clone();
    let held = Some(Vec::new());
    bench.input(Input::Registered(Registration {
        backlog: 3,
        home_here: true,
        held,
        ..registration(key("e", 1), 1, home, 1)
    }));
    let id = bench.submit(1, spec(&[("a", 9, &[])])).await;
    bench.commit_all().await;
    let mut status = ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded);
    if let Some(v1::attempt_status::What::Finished(finished)) = &mut status.what {
        (finished.started_at_ms, finished.finished_at_ms) = (1_000, 1_001);
    }
    drop(bench.finish(&key("e", 1), &[status]));
    bench.commit_all().await;
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 9, refused: Vec::new() });
    assert_eq!(kinds(&bench.stage(id, 0)), [(Kind::NoRoom, 4), (Kind::WaitsThere, 3), (Kind::Preparing, 1)]);
    says(&bench.stage(id, 0)[0].evidence, "e: busy, 4 tasks are there, of which 3 wait for what becomes free next");
    assert!(bench.task(id, 0, 2).text.starts_with("waits on e for what becomes free there, one of 3"));
}

#[tokio::test]
async fn an_executor_out_of_reach_is_waited_for_as_long_as_the_job_says() {
    for (policy, text) in [
        (None, "; if it is not back in 28 s, what it has runs elsewhere"),
        (Some(LostAfter::Time(Duration::from_secs(60))), "; if it is not back in 58 s, what it has runs elsewhere"),
        (Some(LostAfter::Never), "; the job's `lost_after: never` says to wait for it"),
    ] {
        let mut bench = Bench::new().await;
        bench.register(key("e", 1), 1);
        let mut spec = spec(&[("a", 1, &[])]);
        spec.lost_after = policy;
        let id = bench.submit(1, spec).await;
        bench.commit_all().await;
        bench.input(Input::SessionEnded { executor: key("e", 1) });
        bench.now += 2_000;
        let why = bench.task(id, 0, 0);
        let says_so = format!("1 task is on e, which is out of reach for 2.0 s{text}");
        assert!(why.text.starts_with(&says_so), "{}", why.text);
        assert_eq!((why.kind(), why.until_ms > 0), (Kind::ExecutorAway, policy != Some(LostAfter::Never)));
        assert_eq!(bench.of_job(id), [v1::Reason { text: says_so, index: None, since_ms: bench.now - 2_000, ..why }]);
        assert_eq!(bench.only(id, 0).kind(), Kind::ExecutorAway);
    }
}
