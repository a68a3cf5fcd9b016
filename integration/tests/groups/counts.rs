//! What groups count: each job once in each group around it, whoever ends it and whoever is killed meanwhile.

use std::time::Duration;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shows_what_its_whole_subtree_does() {
    let cluster = Cluster::start().await;
    cluster.create(&["a", "a/b", "c"]).await;
    let waits = format!("gate=first; {WAITS}");
    let live = cluster.submit("a/b", &waits).await;
    let done = cluster.submit("a", "true").await;
    let fails = cluster.submit("c", "[ -e \"$GATES/mended\" ]").await;
    is_over(&cluster.clients[0], done).await;
    is_over(&cluster.clients[0], fails).await;
    cluster.world.started("work", 1).await;
    let expected = |counts: [[u64; 4]; 4]| ["", "a", "a/b", "c"].map(str::to_owned).into_iter().zip(counts).collect();
    let shown: BTreeMap<String, [u64; 4]> = expected([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]);
    // At once, and by whichever scheduler.
    for client in &cluster.clients {
        assert_eq!(all(client).await, shown);
    }
    let (a, c) = (cluster.view("a").await, cluster.view("c").await);
    assert_eq!((a.state(), c.state()), (v1::GroupState::Running, v1::GroupState::Failed));
    assert_eq!(a.completed_at_ms, 0);
    assert_eq!(cluster.view("").await.state(), v1::GroupState::Failed, "failure over all else");
    eventually("the live job's task shows", 30, async || {
        let tasks = cluster.view("a").await.tasks.unwrap();
        (tasks.assigned + tasks.running == 1 && tasks.successful == 1).then_some(())
    })
    .await;

    // A retry makes the group live again, and what was counted of the job is taken back.
    std::fs::write(cluster.world.path("gates/mended"), "").unwrap();
    assert_eq!(cluster.clients[0].retry_job(fails).await.unwrap(), 1);
    let c = cluster.complete("c").await;
    assert_eq!((c.state(), jobs(&c)), (v1::GroupState::Successful, [0, 1, 0, 0]));
    let tasks = c.tasks.unwrap();
    assert_eq!((tasks.successful, tasks.failed), (1, 0));

    // Complete when all of the subtree is, and open again with the next job.
    cluster.world.open("first");
    is_over(&cluster.clients[0], live).await;
    let root = cluster.complete("").await;
    assert_eq!((root.state(), jobs(&root)), (v1::GroupState::Successful, [0, 3, 0, 0]));
    assert!(root.completed_at_ms > 0);
    assert!(root.spent.unwrap().run_ms > 0);
    let again = cluster.submit("a/b", &format!("gate=second; {WAITS}")).await;
    for path in ["", "a", "a/b"] {
        let view = cluster.view(path).await;
        assert_eq!((view.state(), view.completed_at_ms), (v1::GroupState::Running, 0), "{path}");
    }
    assert_eq!(jobs(&cluster.view("c").await), [0, 1, 0, 0]);
    cluster.world.open("second");
    is_over(&cluster.clients[0], again).await;
    assert_eq!(jobs(&cluster.complete("a/b").await), [0, 2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_equal_a_recount_through_the_deaths_of_their_keepers() {
    const JOBS: usize = 60;
    let mut cluster = Cluster::start().await;
    let addresses: Vec<_> = cluster.schedulers.iter().map(Process::address).collect();
    let both = client(&addresses).await;
    cluster.create(&["a", "a/b", "a/c"]).await;
    let submitting = {
        let (both, world) = (both.clone(), &cluster.world);
        let specs: Vec<v1::JobSpec> = (0..JOBS)
            .map(|number| {
                let (path, script) = (["a", "a/b", "a/c"][number % 3], if number % 5 == 0 { "false" } else { "true" });
                world.job(&format!("{{name: j{number}, group: {path}, stages: {{work: {{run: '{script}'}}}}}}"))
            })
            .collect();
        tokio::spawn(async move {
            let mut jobs = Vec::new();
            for spec in specs {
                jobs.push(both.submit(spec, None).await.unwrap().job);
            }
            jobs
        })
    };
    // Whoever keeps the groups is one of the two.
    for round in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let name = ["one", "two"][round];
        cluster.schedulers[round].kill();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let listen = addresses[round].to_string();
        let url = cluster.etcd.url();
        cluster.schedulers[round] = cluster.world.scheduler(name, &url, &["--listen", &listen]).await;
    }
    let submitted = submitting.await.unwrap();
    let mut recount: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
    for (number, job) in submitted.into_iter().enumerate() {
        let view = is_over(&both, job).await;
        let result = if view.state() == v1::JobState::Successful { 1 } else { 2 };
        for path in ["", "a", ["a", "a/b", "a/c"][number % 3]] {
            if path != "a" || number % 3 != 0 {
                recount.entry(path).or_default()[result] += 1;
            }
        }
        if number % 3 == 0 {
            recount.entry("a").or_default()[result] += 1;
        }
    }
    let shown = all(&both).await;
    for (path, counts) in recount {
        let mut shown = shown[path];
        // A submit whose answer was lost was sent again under its key, and is one job.
        assert_eq!(shown.iter().sum::<u64>(), counts.iter().sum::<u64>(), "{path}");
        shown[0] = 0;
        assert_eq!(shown, counts, "{path}");
    }
}
