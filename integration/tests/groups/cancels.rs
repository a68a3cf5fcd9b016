//! What a cancel of a group strikes, and what it does not.

use super::*;

/// Tasks that wait, one of which is to follow whenever another ends; and one that tidies up in any case.
const STAGES: &str = r#"work: {tasks: 20, run: 'eval "$NOTE"; gate=GATE; eval "$WAIT"'}, tidy: {after: [work], when: always, run: 'eval "$NOTE"'}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_strikes_the_subtree_and_nothing_else() {
    let cluster = Cluster::start().await;
    let [one, two] = &cluster.clients;
    cluster.create(&["a", "a/b", "a/b/c", "a/d", "z"]).await;
    let struck = [
        cluster.submit_stages("a/b", &STAGES.replace("GATE", "struck")).await.unwrap(),
        cluster.submit_stages("a/b/c", &STAGES.replace("GATE", "struck")).await.unwrap(),
    ];
    cluster.world.started("work", 8).await;
    let spared =
        [cluster.submit("a/d", "true").await, cluster.submit("", "true").await, cluster.submit("z", "true").await];

    // By the one, whoever owns the jobs.
    one.cancel_group("", "a/b", "enough").await.unwrap();
    let begun = cluster.world.starts_of("work");
    for job in struck {
        let view = is_over(two, job).await;
        assert_eq!(view.state(), v1::JobState::Cancelled);
        assert_eq!(view.message, "cancelled: group a/b: enough");
        let tidy = view.stages.iter().find(|stage| stage.name == "tidy").unwrap();
        assert_eq!(tidy.state(), v1::StageState::Successful, "`always` stages run");
    }
    assert_eq!(cluster.world.starts_of("work"), begun, "nothing else was begun after the acknowledgement");
    assert_eq!(cluster.world.starts_of("tidy"), 2);
    for job in spared {
        assert_eq!(is_over(two, job).await.state(), v1::JobState::Successful);
    }
    let marked = async || {
        let views = two.list_groups("", "", 0).await.unwrap();
        let text = |view: &v1::GroupView| format!("{}:{}:{}", view.path, view.is_cancelled, view.cancelled_by);
        views.iter().map(text).collect::<Vec<_>>()
    };
    let once = [":false:", "a:false:", "a/b:true:a/b", "a/b/c:true:a/b", "a/d:false:", "z:false:"];
    assert_eq!(marked().await, once);
    assert_eq!(jobs(&cluster.view("a").await), [0, 1, 0, 2]);

    // Twice is once, and nothing new gets in: neither jobs nor groups nor retries.
    two.cancel_group("", "a/b", "once more").await.unwrap();
    assert_eq!(cluster.view("a/b").await.cancelled.unwrap().reason, "enough");
    let refusals = [
        cluster.submit_stages("a/b/c", "work: {run: 'true'}").await.map(drop).unwrap_err(),
        two.create_group(group("a/b/e", v1::GroupSpec::default())).await.map(drop).unwrap_err(),
        one.retry_job(struck[0]).await.map(drop).unwrap_err(),
    ];
    for refusal in refusals {
        assert!(
            matches!(&refusal, Error::Precondition(why) if why.contains("group a/b is cancelled (enough)")),
            "{refusal:?}"
        );
    }
    assert_eq!(is_over(two, cluster.submit("a/d", "true").await).await.state(), v1::JobState::Successful);

    // The parent after its child, and a child of what is cancelled: each group is there once, under the outermost.
    one.cancel_group("", "a", "all of it").await.unwrap();
    two.cancel_group("", "a/b/c", "").await.unwrap();
    let nested = [":false:", "a:true:a", "a/b:true:a", "a/b/c:true:a", "a/d:true:a", "z:false:"];
    assert_eq!(marked().await, nested);
    // It was complete, and is so still; it takes nothing new.
    let refusal = cluster.submit_stages("a/d", "work: {run: 'true'}").await.unwrap_err();
    assert!(matches!(refusal, Error::Precondition(_)), "{refusal:?}");
    let missing = one.cancel_group("", "nowhere", "").await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_)), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_cancels_itself_after_so_many_failures_in_its_subtree_and_no_other() {
    let cluster = Cluster::start().await;
    let after = |cancel_after_failures| v1::GroupSpec { cancel_after_failures, ..Default::default() };
    for (path, failures) in [("a", 3), ("a/b", 2), ("a/c", 0)] {
        cluster.clients[0].create_group(group(path, after(failures))).await.unwrap();
    }
    let waits = format!("gate=never; {WAITS}");
    let inside = cluster.submit("a/b", &waits).await;
    let beside = cluster.submit("a/c", &waits).await;
    let outside = cluster.submit("", &format!("gate=end; {WAITS}")).await;
    cluster.world.started("work", 3).await;
    let fail = async |path: &str| {
        let job = cluster.submit(path, "false").await;
        assert_eq!(is_over(&cluster.clients[1], job).await.state(), v1::JobState::Failed);
    };
    fail("a/b").await;
    assert!(!cluster.view("a/b").await.is_cancelled);
    fail("a/b").await;
    let view = is_over(&cluster.clients[1], inside).await;
    assert_eq!(view.message, "cancelled: group a/b: 2 of its jobs failed");
    let b = cluster.complete("a/b").await;
    assert!(b.cancelled.as_ref().unwrap().by_failures);
    assert_eq!((b.state(), jobs(&b)), (v1::GroupState::Failed, [0, 0, 2, 1]));
    // Its failures count toward those of the group around it.
    assert!(!cluster.view("a").await.is_cancelled);
    fail("a/c").await;
    assert_eq!(is_over(&cluster.clients[1], beside).await.message, "cancelled: group a: 3 of its jobs failed");
    assert!(!cluster.view("").await.is_cancelled);
    cluster.world.open("end");
    assert_eq!(is_over(&cluster.clients[1], outside).await.state(), v1::JobState::Successful);
}
