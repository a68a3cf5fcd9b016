//! What a task waits for inside its job.

use super::*;

#[tokio::test]
async fn a_stage_waits_for_the_stages_before_it() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench
        .submit(1, spec(&[("a", 3, &[]), ("b", 2, &[("a", InputKind::All)]), ("c", 1, &[("b", InputKind::All)])]))
        .await;
    bench.commit_all().await;
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Succeeded).await;
    let why = bench.only(id, 1);
    assert_eq!((why.kind(), why.tasks, why.text.as_str()), (Kind::Upstream, 2, "waits for a (1 of 3 tasks done)"));
    assert_eq!(why.stages, ["a"]);
    says(&why.evidence, &format!("a: 1 pending, 1 assigned or running, 1 successful; see `muster explain {id}/a`"));
    assert_eq!(bench.task(id, 1, 1).text, why.text);
    says(&bench.only(id, 2).evidence, "b: 2 pending, 0 assigned or running, 0 successful, and itself waits for a");
    let told = bench.explain(id, Question::default());
    assert_eq!(told.stages.iter().map(|stage| stage.stage.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((told.state(), told.reasons.len(), told.owner.as_str()), (v1::JobState::Running, 0, "one:1"));
}

#[tokio::test]
async fn a_task_waits_for_its_own_input_alone() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let mut spec = spec(&[("a", 4, &[]), ("b", 4, &[("a", InputKind::Each)])]);
    spec.stages[0].retries.failed = 0;
    let id = bench.submit(1, spec).await;
    bench.commit_all().await;
    let why = bench.only(id, 1);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Input, "each waits for the same task of a (0 of 4 tasks done)"));
    let why = bench.task(id, 1, 1);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Input, "waits for its input a/1"));
    says(&why.evidence, "a/1 is assigned; see `muster explain");
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Succeeded).await;
    assert_eq!(kinds(&bench.stage(id, 1)), [(Kind::NoRoom, 1), (Kind::Input, 3)]);
    bench.ends(id, "e", (0, 1, 1), v1::Outcome::Failed).await;
    let why = bench.task(id, 1, 1);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Never, "will not run: its input a/1 has failed"));
    says(&why.remedies, "once the job is over, `muster retry");
    let failed = bench.task(id, 0, 1);
    assert_eq!((failed.kind(), failed.text.as_str()), (Kind::Failed, "attempt 1 failed on e, and no other follows"));
}

#[tokio::test]
async fn a_stage_whose_upstream_fails_is_told_before_that_is_over() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let mut spec = spec(&[("a", 2, &[]), ("b", 1, &[("a", InputKind::All)]), ("mend", 1, &[]), ("last", 1, &[])]);
    spec.stages[0].retries.failed = 0;
    spec.stages[2].after = vec!["a".to_owned()];
    spec.stages[2].when = When::OnFailure;
    spec.stages[3].after = vec!["a".to_owned()];
    spec.stages[3].when = When::Always;
    let id = bench.submit(1, spec).await;
    bench.commit_all().await;
    bench.ends(id, "e", (0, 1, 1), v1::Outcome::Failed).await;
    let why = bench.only(id, 1);
    let text = "will not run: stage a fails, for its task 1 has failed";
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Never, text));
    says(&why.remedies, "muster retry");
    assert_eq!(bench.only(id, 3).text, "waits for the end of a (1 of 2 tasks done)");
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Succeeded).await;
    let why = bench.only_of_over(id, 1);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Skipped, "skipped: stage a was not successful"));
    let why = bench.task(id, 1, 0);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Cancelled, "will not run: stage a was not successful"));
}

impl Bench {
    fn only_of_over(&self, id: JobId, stage: u32) -> v1::Reason {
        let why = self.only(id, stage);
        assert_eq!(why.tasks, 0);
        why
    }
}

#[tokio::test]
async fn a_condition_that_is_not_met_is_said_and_is_nothing_to_mend() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let mut spec = spec(&[("a", 1, &[]), ("mend", 1, &[]), ("other", 1, &[])]);
    spec.stages[1].after = vec!["a".to_owned()];
    spec.stages[1].when = When::OnFailure;
    let id = bench.submit(1, spec).await;
    bench.commit_all().await;
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Succeeded).await;
    let why = bench.only_of_over(id, 1);
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Skipped, "skipped: nothing failed"));
    assert_eq!(why.remedies, [] as [String; 0]);
    let done = bench.task(id, 0, 0);
    assert_eq!((done.kind(), done.executors), (Kind::Successful, vec!["e".to_owned()]));
}

#[tokio::test]
async fn a_backoff_says_how_long_and_how_often() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let mut spec = spec(&[("a", 1, &[])]);
    let retries = &mut spec.stages[0].retries;
    (retries.failed, retries.backoff, retries.backoff_max) = (3, Duration::from_secs(40), Duration::from_secs(40));
    let id = bench.submit(1, spec).await;
    bench.commit_all().await;
    bench.ends(id, "e", (0, 0, 1), v1::Outcome::Failed).await;
    let why = bench.only(id, 0);
    assert_eq!(kinds(std::slice::from_ref(&why)), [(Kind::Backoff, 1)]);
    // Half of it is chance.
    let left = why.until_ms - bench.now;
    assert!((20_000..=40_000).contains(&left), "{left}");
    assert_eq!(why.text, format!("backs off after a failed attempt; task 0 goes on in {} s", left / 1000));
    assert_eq!(why.evidence, ["task 0 failed 1 time; 3 are allowed"]);
    let why = bench.task(id, 0, 0);
    assert!(why.text.ends_with(&format!("attempt 2 may follow in {} s", left / 1000)), "{}", why.text);
    assert_eq!((why.until_ms - bench.now, why.evidence), (left, vec!["failed 1 time; 3 are allowed".to_owned()]));
    bench.now += left;
    bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(1000), running: 0, draining: false });
    bench.input(Input::Tick);
    assert_eq!(bench.only(id, 0).kind(), Kind::Committing);
}
