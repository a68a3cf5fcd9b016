//! Jobs that are made of definitions: each of what was there at one moment, whatever is edited later.

use std::sync::Arc;

use muster_client::{Error, v1};
use muster_graph::spec::{Format, NoFiles};
use muster_integration::eventually;
use muster_integration::simulated::{Simulated, succeed};

use super::{cluster_of_one, define, made_of, referring, request, run, text, undefine};

#[tokio::test(flavor = "multi_thread")]
async fn a_diamond_of_references_is_not_a_cycle_and_a_bomb_of_them_is_refused_by_name() {
    let (_scheduler, client) = cluster_of_one().await;
    let diamond = vec![
        referring("top", &["left", "right"]),
        referring("left", &["bottom"]),
        referring("right", &["bottom"]),
        referring("bottom", &[]),
    ];
    assert_eq!(define(&client, diamond).await, Ok(vec![1, 1, 1, 1]));
    let job = run(&client, "top").await;
    assert_eq!(made_of(&client, job).await, ["top@1", "bottom@1", "left@1", "right@1"]);

    let level = |n: usize| format!("level-{n}");
    let mut bomb = vec![referring(&level(0), &[])];
    bomb.extend((1..=20).map(|n| referring(&level(n), &[&level(n - 1), &level(n - 1)])));
    let refused = define(&client, bomb).await.unwrap_err();
    assert!(refused.contains("_MAX"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_edits_give_all_old_or_all_new() {
    let (_scheduler, client) = cluster_of_one().await;
    // Each edit changes both children in one call, so their revisions are always the same.
    let children = |n: u32| {
        let child = |name: &str| text(&format!("{{name: {name}, run: 'true', env: {{N: {n}}}}}"));
        vec![child("left"), child("right")]
    };
    define(&client, children(1)).await.unwrap();
    define(&client, vec![referring("root", &["left", "right"])]).await.unwrap();
    let edits = async {
        for n in 2..40 {
            assert_eq!(define(&client, children(n)).await, Ok(vec![n, n]));
        }
    };
    let runs = async {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let job = run(&client, "root").await;
            let made_of = made_of(&client, job).await;
            let (left, right) = (made_of[1].split_once('@').unwrap().1, made_of[2].split_once('@').unwrap().1);
            assert_eq!(left, right, "{made_of:?}");
            seen.insert(left.to_owned());
        }
        seen
    };
    let ((), seen) = tokio::join!(edits, runs);
    assert!(seen.len() > 1, "no edit came between two runs: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_job_though_the_definition_was_edited_meanwhile() {
    let (_scheduler, client) = cluster_of_one().await;
    define(&client, vec![text("{name: etl, run: 'true', params: {day: text}, env: {DAY: {$param: day}}}")])
        .await
        .unwrap();
    let word = |day: &str| v1::Argument { value: Some(v1::argument::Value::Word(day.to_owned())) };
    let mut asked = v1::RunDefinitionRequest { idempotency_key: "once".to_owned(), ..request("etl") };
    asked.arguments.insert("day".to_owned(), word("monday"));
    let first = client.run_definition(asked.clone()).await.unwrap();
    define(&client, vec![text("{name: etl, run: 'false', params: {day: text}, env: {DAY: {$param: day}}}")])
        .await
        .unwrap();
    let again = client.run_definition(asked.clone()).await.unwrap();
    assert_eq!((again.job, again.existed), (first.job, true));
    undefine(&client, "etl", false).await.unwrap();
    assert_eq!(client.run_definition(asked.clone()).await.unwrap().job, first.job);
    asked.arguments.insert("day".to_owned(), word("tuesday"));
    assert!(matches!(client.run_definition(asked).await, Err(Error::AlreadyExists(_))), "that is another request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_spec_may_refer_to_definitions_and_its_key_stands_for_what_was_written() {
    let (_scheduler, client) = cluster_of_one().await;
    define(&client, vec![referring("clean", &[])]).await.unwrap();
    let yaml = "{name: report, stages: {clean: {job: clean}, top: {run: 'true', after: [clean]}}}";
    let spec = muster_graph::spec::read(yaml, Format::Yaml).unwrap().resolve(&NoFiles).unwrap();
    let spec = v1::JobSpec::from(&spec);
    let first = client.submit(spec.clone(), Some("once".to_owned())).await.unwrap();
    assert_eq!(made_of(&client, first.job).await, ["clean@1"]);
    define(&client, vec![text("{name: clean, run: 'false'}")]).await.unwrap();
    assert_eq!(client.submit(spec.clone(), Some("once".to_owned())).await.unwrap().job, first.job);
    let second = client.submit(spec, None).await.unwrap();
    assert_eq!(made_of(&client, second.job).await, ["clean@2"], "run again, it takes a new snapshot");
    assert_eq!(made_of(&client, first.job).await, ["clean@1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_judged_by_the_definition_that_is_run() {
    let (_scheduler, client) = cluster_of_one().await;
    let definition = "{name: etl, run: 'true', params: {n: {type: int, min: 1}, day: text}, tasks: {$param: n}}";
    define(&client, vec![text(definition)]).await.unwrap();
    let word = |text: &str| v1::Argument { value: Some(v1::argument::Value::Word(text.to_owned())) };
    let mut asked = request("etl");
    asked.arguments = [("n".to_owned(), word("0")), ("dya".to_owned(), word("x"))].into();
    let refused = client.run_definition(asked.clone()).await.unwrap_err().to_string();
    for said in [
        "params.dya: there is no parameter `dya`",
        "did you mean `day`?",
        "`0` is out of range",
        "params.day: the parameter has no value",
    ] {
        assert!(refused.contains(said), "{said}: {refused}");
    }
    asked.arguments = [("n".to_owned(), word("3")), ("day".to_owned(), word("x"))].into();
    let job = client.run_definition(asked).await.unwrap().job;
    assert_eq!(client.get_job(job).await.unwrap().tasks.unwrap().pending, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn editing_renaming_and_deleting_a_child_during_a_run_changes_nothing_and_the_next_run_sees_it() {
    let (scheduler, client) = cluster_of_one().await;
    define(&client, vec![referring("clean", &[]), referring("etl", &["clean"])]).await.unwrap();
    let running = run(&client, "etl").await;
    define(&client, vec![text("{name: clean, stages: {other: {run: 'true'}, more: {run: 'true'}}}")]).await.unwrap();
    let next = run(&client, "etl").await;
    let rename = v1::RenameDefinitionRequest {
        name: "clean".to_owned(),
        to: "scrub".to_owned(),
        force: true,
        ..v1::RenameDefinitionRequest::default()
    };
    client.rename_definition(rename).await.unwrap();
    undefine(&client, "scrub", false).await.unwrap();
    // Only now is there anybody to run anything.
    let _executor = Simulated::start("e1", scheduler.address(), 4, succeed()).await.unwrap();
    for (job, revision, tasks) in [(running, 1, 2), (next, 2, 3)] {
        let view = eventually("it is over", 30, async || {
            let view = client.get_job(job).await.unwrap();
            (view.finished_at_ms > 0).then_some(view)
        })
        .await;
        assert_eq!(view.state(), v1::JobState::Successful, "{}", view.message);
        assert_eq!(made_of(&client, job).await, ["etl@1".to_owned(), format!("clean@{revision}")]);
        assert_eq!(view.tasks.unwrap().successful, tasks);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_uses_the_snapshot_of_the_job_and_running_again_takes_a_new_one() {
    let (scheduler, client) = cluster_of_one().await;
    define(&client, vec![referring("clean", &[]), referring("etl", &["clean"])]).await.unwrap();
    let job = run(&client, "etl").await;
    let gate = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let open = Arc::clone(&gate);
    let decide = move |_: &v1::AttemptRef| {
        let good = open.load(std::sync::atomic::Ordering::Relaxed);
        let outcome = if good { v1::Outcome::Succeeded } else { v1::Outcome::Failed };
        Some(v1::AttemptFinished { outcome: outcome.into(), finished_at_ms: 1, ..Default::default() })
    };
    let _executor = Simulated::start("e1", scheduler.address(), 4, Arc::new(decide)).await.unwrap();
    let ended = async |job, state: v1::JobState| {
        eventually("it has ended", 30, async || {
            let view = client.get_job(job).await.unwrap();
            (view.state() == state).then_some(view)
        })
        .await
    };
    ended(job, v1::JobState::Failed).await;
    define(&client, vec![text("{name: clean, stages: {other: {run: 'true'}, more: {run: 'true'}}}")]).await.unwrap();
    gate.store(true, std::sync::atomic::Ordering::Relaxed);
    client.retry_job(job).await.unwrap();
    let view = ended(job, v1::JobState::Successful).await;
    assert_eq!(
        (view.tasks.unwrap().successful, made_of(&client, job).await),
        (2, vec!["etl@1".to_owned(), "clean@1".to_owned()])
    );
    let again = run(&client, "etl").await;
    let view = ended(again, v1::JobState::Successful).await;
    assert_eq!(
        (view.tasks.unwrap().successful, made_of(&client, again).await),
        (3, vec!["etl@1".to_owned(), "clean@2".to_owned()])
    );
}
