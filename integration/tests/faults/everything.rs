//! Faults that concern the cluster as a whole, and answers that get lost.

use muster_integration::cluster_of_processes::{Cluster, Plan};
use muster_integration::eventually;
use muster_proto::v1;

use crate::scenario::{self, Scene};

#[test]
fn all_processes_are_killed_at_once() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        let cluster = &mut scene.cluster;
        for member in &mut cluster.etcd.members {
            member.kill().unwrap();
        }
        for member in &mut cluster.schedulers {
            member.kill();
        }
        for number in 0..cluster.executors.len() {
            cluster.kill_executor(number);
        }
        for member in &mut cluster.etcd.members {
            member.restart_unready().unwrap();
        }
        eventually("etcd has a leader", 60, || cluster.etcd.leader()).await;
        cluster.elected();
        cluster.start_all().await;
        scene.load.progress(3).await;
        scene.end().await;
    });
}

/// A third of the answers to launches, to statuses and to polls never arrive.
#[test]
fn acknowledgements_of_launches_and_statuses_are_lost() {
    scenario::run(async |network| {
        let mut plan = Plan::default();
        for executor in ["push0", "push1", "pull0", "pull1"] {
            plan = plan.failpoint(executor, "lose-launch-answer=30%return");
        }
        for scheduler in ["s0", "s1", "s2"] {
            plan = plan.failpoint(scheduler, "lose-status-answer=30%return;lose-poll-answer=30%return");
        }
        let scene = Scene::start(network, &plan).await;
        scene.load.progress(5).await;
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        let lost = |members: &[&str], what: &str| -> usize {
            let said = format!("an answer to {what} was lost");
            members.iter().map(|member| judged.world.log(member).matches(&said).count()).sum()
        };
        let lost = [
            lost(&["push0", "push1"], "launches"),
            lost(&["s0", "s1", "s2"], "statuses"),
            lost(&["s0", "s1", "s2"], "a poll"),
        ];
        // Launches come in groups, so there are fewest of them.
        assert!(lost.iter().all(|count| *count >= 3), "answers to launches, statuses and polls: {lost:?} were lost");
    });
}

/// Whoever is first: a job ends once, as successful or as cancelled, and both answers say the same.
#[test]
fn cancels_race_with_ends() {
    const AT_ONCE: usize = 16;
    let races = if muster_integration::is_soak() { 10_000 } else { 300 };
    scenario::run(async |network| {
        let cluster = Cluster::start(network, &Plan::default()).await;
        let spec = cluster.world.job("{name: race, resources: {cpu: 0.1}, run: 'true'}");
        let racers = (0..AT_ONCE).map(|racer| {
            let (client, spec) = (cluster.client.clone(), spec.clone());
            tokio::spawn(async move {
                let mut ends = [0_u32; 2];
                for number in 0..races / AT_ONCE {
                    let job = client.submit(spec.clone(), None).await.unwrap().job;
                    // Every pause from none to about as long as a task takes.
                    let pause = (number * AT_ONCE + racer) % 60;
                    tokio::time::sleep(std::time::Duration::from_millis(pause as u64)).await;
                    let told = client.cancel_job(job, "race").await.unwrap();
                    let end = client.wait(job).await.unwrap().state();
                    match end {
                        v1::JobState::Successful => ends[0] += 1,
                        v1::JobState::Cancelled => ends[1] += 1,
                        other => panic!("{job} ended as {other:?}"),
                    }
                    let over = [v1::JobState::Successful, v1::JobState::Cancelled].contains(&told);
                    assert!(!over || told == end, "{job}: the cancel said {told:?}, and it ended as {end:?}");
                }
                ends
            })
        });
        let racers: Vec<_> = racers.collect();
        let mut ends = [0, 0];
        for racer in racers {
            let [successful, cancelled] = racer.await.unwrap();
            ends = [ends[0] + successful, ends[1] + cancelled];
        }
        assert!(ends.iter().all(|count| *count > 0), "it was a race: {ends:?}");
        scenario::judge(cluster).await;
    });
}
