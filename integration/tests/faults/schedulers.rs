//! Schedulers that die, stop, lose their connections, and have the wrong time.

use muster_integration::cluster_of_processes::{Cluster, Plan};
use muster_integration::world::succeeded;
use muster_integration::{eventually, jobs};

use crate::scenario::{self, Pinned, Scene};

#[test]
fn a_scheduler_is_killed() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        let owner = scene.cluster.owner(scene.load.held).await;
        scene.cluster.schedulers[owner].kill();
        scene.load.progress(3).await;
        scene.cluster.start_scheduler(owner).await;
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

/// The job's first scheduler, which the client asks first, dies when it has passed the point some times.
fn dies_at(point: &str) {
    scenario::run(async |network| {
        let plan = Plan::default().failpoint("s0", format!("{point}=30*off->1*return"));
        let mut scene = Scene::start(network, &plan).await;
        scene.cluster.schedulers[0].dies().await;
        scene.load.progress(3).await;
        scene.cluster.start_scheduler(0).await;
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

#[test]
fn a_scheduler_dies_before_a_commit() {
    dies_at("before-commit");
}

#[test]
fn a_scheduler_dies_after_a_commit_and_before_its_acknowledgement() {
    dies_at("after-commit-before-acknowledgement");
}

#[test]
fn a_scheduler_dies_after_a_commit_and_before_its_launches() {
    dies_at("after-commit-before-launch");
}

#[test]
fn a_scheduler_dies_while_it_takes_over() {
    scenario::run(async |network| {
        let plan = Plan::default().failpoint("s1", "mid-takeover=1*return").failpoint("s2", "mid-takeover=1*return");
        let mut scene = Scene::start(network, &plan).await;
        scene.cluster.schedulers[0].kill();
        let died = eventually("a successor died", 60, || {
            let died = scene.cluster.schedulers[1..].iter_mut().any(|member| member.has_died());
            async move { died.then_some(()) }
        });
        died.await;
        scene.cluster.start_scheduler(0).await;
        // The other one may have died as well, or dies yet.
        scene.load.progress(3).await;
        for number in [1, 2] {
            if scene.cluster.schedulers[number].has_died() {
                scene.cluster.start_scheduler(number).await;
            }
        }
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

#[test]
fn a_scheduler_is_stopped_for_three_sessions_and_goes_on() {
    scenario::run(async |network| {
        let plan = Plan::default();
        let mut scene = Scene::start(network, &plan).await;
        let owner = scene.cluster.owner(scene.load.held).await;
        scene.cluster.schedulers[owner].stop();
        tokio::time::sleep(plan.session_ttl * 3).await;
        scene.cluster.live_schedulers(2).await;
        scene.load.progress(1).await;
        scene.cluster.schedulers[owner].resume();
        scene.cluster.live_schedulers(3).await;
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

#[test]
fn a_scheduler_is_cut_off_from_etcd() {
    scenario::run(async |network| {
        let scene = Scene::start(network, &Plan::default()).await;
        let cluster = &scene.cluster;
        let owner = &cluster.schedulers[cluster.owner(scene.load.held).await].node;
        let etcd: Vec<_> = cluster.etcd_nodes.iter().collect();
        cluster.cut(owner, &etcd);
        cluster.live_schedulers(2).await;
        scene.load.progress(3).await;
        assert!(cluster.heal(owner, &etcd) > 0, "packets were dropped");
        cluster.live_schedulers(3).await;
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

/// Only one direction, each in turn: what is sent arrives and is never answered, or is answered and never asked.
#[test]
fn a_scheduler_is_cut_off_from_etcd_in_one_direction() {
    scenario::run(async |network| {
        let scene = Scene::start(network, &Plan::default()).await;
        let cluster = &scene.cluster;
        for answers in [true, false] {
            let owner = &cluster.schedulers[0].node;
            let ways = cluster.etcd_nodes.iter().map(|etcd| if answers { (etcd, owner) } else { (owner, etcd) });
            let ways: Vec<_> = ways.collect();
            for (from, to) in &ways {
                cluster.network.cut(from, to).unwrap();
            }
            cluster.live_schedulers(2).await;
            scene.load.progress(2).await;
            let dropped: u64 = ways.iter().map(|(from, to)| cluster.network.heal(from, to).unwrap()).sum();
            assert!(dropped > 0, "packets were dropped");
            cluster.live_schedulers(3).await;
        }
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

/// While it lasts, what runs there is not disturbed and ends, and what can run nowhere else starts there and ends, too.
#[test]
fn a_scheduler_is_cut_off_from_one_executor() {
    scenario::run(async |network| {
        let plan = Plan::default();
        let scene = Scene::start(network, &plan).await;
        let cluster = &scene.cluster;
        for name in ["push0", "pull0"] {
            let pinned = Pinned::start(cluster, name).await;
            let owner = &cluster.schedulers[pinned.owner(cluster).await].node;
            let executor = &cluster.executors[cluster.executor(name)].node;
            cluster.cut(owner, &[executor]);
            tokio::time::sleep(plan.lost_after * 2).await;
            assert_eq!(cluster.state_of(name).await.as_deref(), Some("ready"), "it has a home that reaches it");
            // To the very scheduler that does not reach the only executor for it.
            let mut asked = jobs::client((owner.address, 7077).into()).await.unwrap();
            let spec = cluster.world.job(&Pinned::spec(name, "later", "eval \"$NOTE\""));
            let later = jobs::submit(&mut asked, spec, &format!("later-{name}")).await.unwrap();
            succeeded(&cluster.client, later.parse().unwrap()).await;
            assert_eq!(pinned.end(cluster).await, Pinned::TASKS, "what ran went on");
            scene.load.progress(1).await;
            assert!(cluster.heal(owner, &[executor]) > 0, "packets were dropped");
        }
        scenario::assert_undisturbed(&scene.end().await);
    });
}

/// Its jobs move to peers with the right time and back: nothing that it wrote may make them wait for an hour.
fn has_the_wrong_time(wrong_by_ms: i64) {
    scenario::run(async |network| {
        let plan = Plan::default().failpoint("s0", format!("clock-wrong-by-ms=return({wrong_by_ms})"));
        let mut scene = Scene::start(network, &plan).await;
        let told = submitted_at(&scene.cluster, 0).await;
        let off = told - wall_ms();
        assert!((off - wrong_by_ms).abs() < 600_000, "its clock is wrong by {off} ms");
        scene.cluster.schedulers[0].kill();
        scene.load.progress(3).await;
        scene.cluster.start_scheduler(0).await;
        for number in [1, 2] {
            scene.cluster.schedulers[number].terminate().await;
            scene.load.progress(1).await;
            scene.cluster.start_scheduler(number).await;
        }
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

/// What a scheduler takes the time for.
async fn submitted_at(cluster: &Cluster, scheduler: usize) -> i64 {
    let address = (cluster.schedulers[scheduler].node.address, 7077).into();
    let mut client = jobs::client(address).await.unwrap();
    let spec = cluster.world.job("{name: clock, run: 'true'}");
    let job = jobs::submit(&mut client, spec, "clock").await.unwrap();
    let view = cluster.client.get_job(job.parse().unwrap()).await.unwrap();
    view.submitted_at_ms.try_into().unwrap()
}

#[test]
fn a_schedulers_clock_is_an_hour_fast() {
    has_the_wrong_time(3_600_000);
}

#[test]
fn a_schedulers_clock_is_an_hour_slow() {
    has_the_wrong_time(-3_600_000);
}

#[test]
fn all_schedulers_are_restarted_one_after_the_other() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for number in 0..3 {
            scene.cluster.schedulers[number].terminate().await;
            scene.load.progress(1).await;
            scene.cluster.start_scheduler(number).await;
            scene.cluster.live_schedulers(3).await;
        }
        scenario::assert_undisturbed(&scene.end().await);
    });
}

/// Submits whose answer is lost with their scheduler are repeated, to whoever is there.
#[test]
fn submits_are_repeated_across_a_crash() {
    scenario::run(async |network| {
        let plan = Plan::default().failpoint("s0", "after-accept-before-answer=3*off->1*return");
        let mut cluster = Cluster::start(network, &plan).await;
        let spec = cluster.world.job("{name: twice, run: 'true'}");
        let submits = (0..8).map(|number| {
            let (client, spec) = (cluster.client.clone(), spec.clone());
            tokio::spawn(async move {
                let key = format!("twice-{number}");
                let first = client.submit(spec.clone(), Some(key.clone())).await.unwrap();
                let second = client.submit(spec, Some(key)).await.unwrap();
                assert_eq!(first.job, second.job, "one key, one job");
                first.job
            })
        });
        let submits: Vec<_> = submits.collect();
        cluster.schedulers[0].dies().await;
        let mut jobs = std::collections::BTreeSet::new();
        for submit in submits {
            jobs.insert(submit.await.unwrap());
        }
        assert_eq!(jobs.len(), 8);
        for job in jobs {
            succeeded(&cluster.client, job).await;
        }
        let all = cluster.client.list_jobs(Default::default()).await.unwrap();
        assert_eq!(all.jobs.len(), 8, "no job was made twice");
        scenario::judge(cluster).await;
    });
}
