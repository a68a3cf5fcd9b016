//! Jobs that wait for others, in whichever group, at whichever scheduler.

use super::*;

/// Waits for others, and then does this.
async fn submit_after(cluster: &Cluster, into: &str, script: &str, after: &[(JobId, v1::AwaitedEnd)]) -> JobId {
    try_after(cluster, into, script, after).await.unwrap()
}

async fn try_after(
    cluster: &Cluster,
    into: &str,
    script: &str,
    after: &[(JobId, v1::AwaitedEnd)],
) -> Result<JobId, Error> {
    let text = format!("{{name: j, stages: {{work: {{run: {}}}}}}}", serde_json::json!(script));
    let mut job = cluster.world.job(&text);
    into.clone_into(&mut job.group);
    let waited = |(job, end): &(JobId, v1::AwaitedEnd)| v1::AfterJob { job_id: job.to_string(), end: (*end).into() };
    job.after_jobs = after.iter().map(waited).collect();
    // Each time at the other scheduler than those that it waits for, if these are in the other group.
    let at = usize::from(into.len() % 2 == 1);
    cluster.clients[at].submit(job, None).await.map(|submitted| submitted.job)
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_between_jobs_cross_groups_and_schedulers() {
    use v1::AwaitedEnd::{Any, Failure, Success};
    let cluster = Cluster::start().await;
    cluster.create(&["a", "bb"]).await;
    let first = cluster.submit("a", &format!("gate=first; {WAITS}")).await;
    let fails = cluster.submit("a", &format!("gate=first; {WAITS}; exit 1")).await;
    let then = submit_after(&cluster, "bb", "eval \"$NOTE\"", &[(first, Success), (fails, Any)]).await;
    let last = submit_after(&cluster, "a", "eval \"$NOTE\"", &[(then, Success)]).await;
    let mends = submit_after(&cluster, "bb", "eval \"$NOTE\"", &[(fails, Failure)]).await;
    let never = submit_after(&cluster, "bb", "eval \"$NOTE\"", &[(fails, Success)]).await;
    let neither = submit_after(&cluster, "a", "true", &[(never, Success)]).await;
    cluster.world.started("work", 2).await;
    for waiting in [then, last, mends, never] {
        let view = cluster.clients[1].get_job(waiting).await.unwrap();
        assert_eq!(view.state(), v1::JobState::Queued, "{waiting}");
    }
    let explained =
        cluster.clients[1].explain_page(v1::ExplainRequest { job_id: last.to_string(), ..Default::default() });
    let reasons = explained.await.unwrap().reasons;
    assert!(reasons.iter().any(|reason| reason.kind() == v1::ReasonKind::AfterJob), "{reasons:?}");
    cluster.world.open("first");
    for (job, state) in [
        (then, v1::JobState::Successful),
        (last, v1::JobState::Successful),
        (mends, v1::JobState::Successful),
        (never, v1::JobState::Cancelled),
        (neither, v1::JobState::Cancelled),
    ] {
        let view = is_over(&cluster.clients[0], job).await;
        assert_eq!(view.state(), state, "{job}: {}", view.message);
    }
    let why = cluster.clients[0].get_job(never).await.unwrap().message;
    assert!(why.contains(&format!("job {fails} failed")), "{why}");
    cluster.world.started("work", 5).await;
    // What is over already is not waited for.
    let at_once = submit_after(&cluster, "bb", "true", &[(last, Success)]).await;
    assert_eq!(is_over(&cluster.clients[0], at_once).await.state(), v1::JobState::Successful);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_waited_for_has_to_be_there() {
    let cluster = Cluster::start().await;
    let missing = try_after(&cluster, "", "true", &[(JobId(7), v1::AwaitedEnd::Any)]).await.unwrap_err();
    assert!(missing.to_string().contains("after_jobs[0]"), "{missing}");
    let job = cluster.submit("", "true").await;
    let mut elsewhere = cluster.world.job("{name: j, namespace: other, run: 'true'}");
    elsewhere.after_jobs = vec![v1::AfterJob { job_id: job.to_string(), end: 0 }];
    let refused = cluster.clients[0].submit(elsewhere, None).await.unwrap_err();
    assert!(refused.to_string().contains("namespace other"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_begins_though_its_scheduler_and_that_of_the_other_one_die() {
    let mut cluster = Cluster::start().await;
    let parent = cluster.submit("", &format!("gate=first; {WAITS}")).await;
    let waits = submit_after(&cluster, "", "true", &[(parent, v1::AwaitedEnd::Success)]).await;
    cluster.world.started("work", 1).await;
    // Both jobs were accepted by the first one.
    cluster.schedulers[0].kill();
    cluster.world.open("first");
    let view = is_over(&cluster.clients[1], waits).await;
    assert_eq!(view.state(), v1::JobState::Successful, "{}", view.message);
    assert_eq!(cluster.clients[1].get_job(parent).await.unwrap().state(), v1::JobState::Successful);
}
