//! Executors that die, stop, and lose their connections, for shorter and longer than `lost_after`.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_integration::cluster_of_processes::{Cluster, Plan};
use muster_integration::world::{self, World, succeeded};
use muster_integration::{eventually, journal};
use muster_proto::v1;

use crate::scenario::{self, Pinned, Scene};

/// Shorter than an executor's absence may be.
fn shorter(plan: &Plan) -> Duration {
    plan.lost_after * 2 / 5
}

#[test]
fn an_executor_is_killed_and_started_again() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for name in ["push0", "pull0"] {
            let number = scene.cluster.executor(name);
            let pinned = Pinned::start(&scene.cluster, name).await;
            scene.cluster.kill_executor(number);
            scene.load.progress(2).await;
            scene.cluster.start_executor(number).await;
            scene.cluster.executor_is(name, "ready").await;
            assert_eq!(pinned.end(&scene.cluster).await, 2 * Pinned::TASKS, "each runs once more");
        }
        scene.end().await;
    });
}

#[test]
fn an_executor_is_killed_for_good() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for name in ["push0", "pull0"] {
            let number = scene.cluster.executor(name);
            eventually("it runs something", 60, || async { scene.cluster.is_at_work(number).then_some(()) }).await;
            scene.cluster.kill_executor(number);
            scene.cluster.executor_is(name, "lost").await;
            scene.load.progress(2).await;
        }
        scene.end().await;
    });
}

#[test]
fn an_executor_is_stopped_for_a_while() {
    scenario::run(async |network| {
        let plan = Plan::default();
        let mut scene = Scene::start(network, &plan).await;
        for name in ["push0", "pull0"] {
            let number = scene.cluster.executor(name);
            let pinned = Pinned::start(&scene.cluster, name).await;
            scene.cluster.stop_executor(number);
            tokio::time::sleep(shorter(&plan)).await;
            scene.cluster.resume_executor(number);
            assert_eq!(pinned.end(&scene.cluster).await, Pinned::TASKS, "what ran went on");
            scene.load.progress(1).await;
        }
        let state = scene.cluster.state_of("push0").await;
        assert_eq!(state.as_deref(), Some("ready"), "it was never lost");
        scene.end().await;
    });
}

#[test]
fn an_executor_is_stopped_until_it_is_lost_and_comes_back() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for name in ["push0", "pull0"] {
            let number = scene.cluster.executor(name);
            let pinned = Pinned::start(&scene.cluster, name).await;
            scene.cluster.stop_executor(number);
            scene.cluster.executor_is(name, "lost").await;
            scene.load.progress(2).await;
            scene.cluster.resume_executor(number);
            scene.cluster.executor_is(name, "ready").await;
            assert_eq!(pinned.end(&scene.cluster).await, 2 * Pinned::TASKS, "each runs once more");
        }
        scene.end().await;
    });
}

#[test]
fn an_executor_is_cut_off_for_a_while() {
    scenario::run(async |network| {
        let plan = Plan::default();
        let mut scene = Scene::start(network, &plan).await;
        for name in ["push0", "pull0"] {
            let number = scene.cluster.executor(name);
            let pinned = Pinned::start(&scene.cluster, name).await;
            scene.cluster.cut_executor(number);
            tokio::time::sleep(shorter(&plan)).await;
            assert!(scene.cluster.heal_executor(number) > 0, "packets were dropped");
            assert_eq!(pinned.end(&scene.cluster).await, Pinned::TASKS, "what ran went on");
            scene.load.progress(1).await;
        }
        scene.end().await;
    });
}

#[test]
fn an_executor_is_cut_off_until_it_is_lost_and_comes_back() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for name in ["push0", "pull0"] {
            let number = scene.cluster.executor(name);
            let pinned = Pinned::start(&scene.cluster, name).await;
            scene.cluster.cut_executor(number);
            scene.cluster.executor_is(name, "lost").await;
            scene.load.progress(2).await;
            assert!(scene.cluster.heal_executor(number) > 0, "packets were dropped");
            scene.cluster.executor_is(name, "ready").await;
            assert_eq!(pinned.end(&scene.cluster).await, 2 * Pinned::TASKS, "each runs once more");
        }
        scene.end().await;
    });
}

/// Two tasks for each executor, which is then full. Each waits for its gate and then says which attempt it was.
fn waiting(world: &World, tasks: usize) -> v1::JobSpec {
    world.job(&format!(
        r#"
        name: waiting
        stages:
          wait:
            tasks: {tasks}
            resources: {{cpu: 2}}
            run: 'eval "$NOTE"; gate=$MUSTER_TASK_INDEX; eval "$WAIT"; echo $MUSTER_TASK_INDEX $MUSTER_ATTEMPT > $MUSTER_OUTPUT_DIR/n'
          all:
            inputs: {{wait: all}}
            run: 'cat $MUSTER_INPUT_DIR/wait/*/n > $MUSTER_OUTPUT_DIR/n'
        "#
    ))
}

fn started_on(cluster: &Cluster, executor: usize, job: muster_client::JobId) -> BTreeSet<u32> {
    let (lines, job) = (journal::read(cluster.executors[executor].data_dir()), job.to_string());
    lines.iter().filter(|line| line.event == "start" && line.job == job).map(|line| line.index).collect()
}

/// The executor comes back while the replacements of its tasks run (`early`), or when they are done. Whatever its tasks
/// did in the meantime, what counts is what the replacements made.
async fn comes_back(cluster: &mut Cluster, name: &str, early: bool) {
    let tasks = 2 * cluster.executors.len();
    let spec = waiting(&cluster.world, tasks);
    let job = cluster.client.submit(spec, None).await.unwrap().job;
    cluster.world.started("wait", tasks).await;
    let number = cluster.executor(name);
    // A task says that it runs a moment before its executor writes that down.
    let recorded = &*cluster;
    let mine = eventually("each executor runs two", 20, || async {
        let mine = started_on(recorded, number, job);
        (mine.len() == 2).then_some(mine)
    })
    .await;
    let open = |cluster: &Cluster, whose: bool| {
        let gates = (0..tasks).filter(|index| mine.contains(&(*index as u32)) == whose);
        gates.for_each(|gate| cluster.world.open(&gate.to_string()));
    };
    cluster.cut_executor(number);
    cluster.executor_is(name, "lost").await;
    // Room for the replacements.
    open(cluster, false);
    cluster.world.started("wait", tasks + mine.len()).await;
    if early {
        assert!(cluster.heal_executor(number) > 0, "packets were dropped");
        cluster.executor_is(name, "ready").await;
        open(cluster, true);
        succeeded(&cluster.client, job).await;
    } else {
        open(cluster, true);
        succeeded(&cluster.client, job).await;
        let executor = cluster.executors[number].data_dir().clone();
        eventually("its own attempts have ended too", 60, || async {
            let lines = journal::read(&executor);
            let name = job.to_string();
            let ended = lines.iter().filter(|line| line.event == "end" && line.job == name).count();
            (ended >= mine.len()).then_some(())
        })
        .await;
        assert!(cluster.heal_executor(number) > 0, "packets were dropped");
        cluster.executor_is(name, "ready").await;
    }
    let text = cluster.world.output(&cluster.client, job, "all", "n").await;
    let attempts: Vec<(u32, u32)> = text
        .lines()
        .map(|line| line.split_once(' ').map(|(i, a)| (i.parse().unwrap(), a.parse().unwrap())).unwrap())
        .collect();
    assert_eq!(attempts.len(), tasks);
    for (index, attempt) in attempts {
        assert_eq!(attempt > 1, mine.contains(&index), "task {index}: attempt {attempt}, replaced {mine:?}");
    }
}

#[test]
fn an_executor_comes_back_while_its_replacement_runs() {
    scenario::run(async |network| {
        for_both(network, true).await;
    });
}

#[test]
fn an_executor_comes_back_when_its_replacement_is_done() {
    scenario::run(async |network| {
        for_both(network, false).await;
    });
}

async fn for_both(network: muster_integration::network::Network, early: bool) {
    let mut cluster = Cluster::start(network, &Plan::default()).await;
    for name in ["push0", "pull0"] {
        cluster.world.forget();
        comes_back(&mut cluster, name, early).await;
    }
    scenario::judge(cluster).await;
}

#[test]
fn the_last_executor_is_lost_and_another_one_comes() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for number in 0..scene.cluster.executors.len() {
            scene.cluster.kill_executor(number);
        }
        for name in ["push0", "push1", "pull0", "pull1"] {
            scene.cluster.executor_is(name, "lost").await;
        }
        let last = scene.cluster.executor("pull1");
        scene.cluster.start_executor(last).await;
        scene.load.progress(2).await;
        scene.end().await;
    });
}

/// A task that kills whatever runs it is given up after as many deaths as it may cost, and costs nobody else anything.
#[test]
fn a_task_that_kills_its_executors_is_given_up() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        let cluster = &mut scene.cluster;
        // The parent of a task is the supervisor, and its parent is the executor.
        let spec = cluster.world.job(
            r#"
            name: poison
            retries: {executor_lost: 2, backoff: 100ms}
            run: 'eval "$NOTE"; kill -9 $(cut -d " " -f 4 /proc/$PPID/stat); sleep 60'
            "#,
        );
        let job = cluster.client.submit(spec, None).await.unwrap().job;
        let mut deaths = 0;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        let view = loop {
            for number in 0..cluster.executors.len() {
                if cluster.executor_died(number) {
                    deaths += 1;
                    // As its keeper would.
                    cluster.start_executor(number).await;
                }
            }
            let view = cluster.client.get_job(job).await.unwrap();
            if muster_client::is_finished(&view) {
                break view;
            }
            assert!(tokio::time::Instant::now() < deadline, "{view:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(view.state(), v1::JobState::Failed, "{view:?}");
        assert_eq!(deaths, 3, "one attempt and two retries");
        world::ready(&cluster.client, cluster.executors.len()).await;
        scene.end().await;
    });
}
