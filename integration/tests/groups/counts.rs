//! What groups count: each job once in each group around it, whoever ends it and whoever is killed meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_graph::groups::GroupPath;
use muster_proto::storage::{GroupSums, JobHead};
use muster_state::{Keyspace, StateBackend as _, codec, keys};

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
    const PATHS: [&str; 3] = ["a", "a/b", "a/c"];
    let mut cluster = Cluster::start().await;
    let addresses: Vec<_> = cluster.schedulers.iter().map(Process::address).collect();
    let both = client(&addresses).await;
    cluster.create(&PATHS).await;
    let Cluster { world, etcd, schedulers, .. } = &mut cluster;
    let (world, url) = (&*world, etcd.url());
    let struck = AtomicBool::new(false);
    // Jobs come and end as long as keepers die.
    let submitting = async {
        let mut submitted = Vec::new();
        while !struck.load(Ordering::Relaxed) {
            let (path, script) = (PATHS[submitted.len() % 3], if submitted.len() % 5 == 0 { "false" } else { "true" });
            let spec = world.job(&format!("{{name: j, group: {path}, stages: {{work: {{run: '{script}'}}}}}}"));
            submitted.push((path, both.submit(spec, None).await.unwrap().job));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        submitted
    };
    // Each time the other one is the keeper then, if it was not before; and that one is the next to die.
    let striking = async {
        for (place, (heir, successor)) in [("two", "three"), ("three", "four")].into_iter().enumerate() {
            schedulers[place].kill();
            eventually("the other scheduler keeps the groups", 60, async || {
                world.log(heir).contains("this scheduler keeps the groups").then_some(())
            })
            .await;
            let listen = addresses[place].to_string();
            schedulers[place] = world.scheduler(successor, &url, &["--listen", &listen]).await;
        }
        struck.store(true, Ordering::Relaxed);
    };
    let (submitted, ()) = tokio::join!(submitting, striking);
    let mut recount: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for (path, job) in submitted {
        let result = if is_over(&both, job).await.state() == v1::JobState::Successful { 1 } else { 2 };
        let path: GroupPath = path.parse().unwrap();
        for around in path.outwards() {
            recount.entry(around.to_owned()).or_default()[result] += 1;
        }
    }
    assert_eq!(all(&both).await, recount);
    let audit = both.audit(false).await.unwrap();
    assert_eq!((audit.findings.as_slice(), audit.jobs), ([].as_slice(), recount[""].iter().sum()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_recounts_says_what_differs_and_repairs_it() {
    let cluster = Cluster::start().await;
    cluster.create(&["a", "a/b"]).await;
    let job = cluster.submit("a/b", "true").await;
    is_over(&cluster.clients[0], job).await;
    let live = cluster.submit("a", &format!("gate=end; {WAITS}")).await;
    cluster.world.started("work", 1).await;
    let shown = all(&cluster.clients[0]).await;
    let client = &cluster.clients[1];
    eventually("what was changed is added up", 30, async || {
        let waiting = cluster.store().get_from_prefix(Keyspace::GroupCounts, keys::GROUP_CHANGES).await.unwrap();
        waiting.entries.is_empty().then_some(())
    })
    .await;
    // A group loses its counts, one never had any, and a job says something else than its tasks.
    let store = cluster.store();
    assert!(store.delete(&keys::group_sums("default", "a")).await.unwrap());
    let (sums, head) = (keys::group_sums("default", "a/b"), keys::completed_job(job));
    let stored = store.get(&sums).await.unwrap().unwrap();
    let mut wrong: GroupSums = codec::decode(&sums, &stored.value).unwrap();
    (wrong.submitted, wrong.failed) = (7, 2);
    store.put(sums, codec::encode(&wrong).unwrap()).await.unwrap();
    let stored = store.get(&head).await.unwrap().unwrap();
    let mut other: JobHead = codec::decode(&head, &stored.value).unwrap();
    other.tasks = Some(v1::Counts { failed: 1, ..v1::Counts::default() });
    store.put(head, codec::encode(&other).unwrap()).await.unwrap();

    let looked = client.audit(false).await.unwrap();
    assert_eq!((looked.jobs, looked.groups, looked.repaired), (2, 3, 0));
    let differs = |group: &str, job_id: &str, what: &str, shown: u64, counted: u64| {
        let found = |found: &v1::AuditFinding| {
            (found.group.as_str(), found.job_id.as_str(), found.what.as_str()) == (group, job_id, what)
                && (found.shown, found.counted) == (shown, counted)
        };
        assert!(looked.findings.iter().any(found), "{group} {job_id} {what}: {:?}", looked.findings);
    };
    differs("a", "", "submitted", 0, 2);
    differs("a/b", "", "submitted", 7, 1);
    differs("a/b", "", "failed", 2, 0);
    differs("", &job.to_string(), "tasks.successful", 0, 1);
    assert_ne!(all(client).await, shown);

    assert!(client.audit(true).await.unwrap().repaired >= 3);
    for client in &cluster.clients {
        assert_eq!(all(client).await, shown);
    }
    cluster.world.open("end");
    is_over(client, live).await;
    assert_eq!(jobs(&cluster.complete("").await), [0, 2, 0, 0]);
    let again = client.audit(true).await.unwrap();
    assert_eq!((again.findings, again.repaired), (Vec::new(), 0));
}
