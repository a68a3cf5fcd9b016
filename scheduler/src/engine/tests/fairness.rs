//! Namespaces that want the same executors, and limits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::explain::Question;
use crate::fairness::{Amount, Rules, Use};

impl Bench {
    async fn submit_in(&mut self, namespace: &str, number: u64, spec: JobSpec) -> JobId {
        self.submit(number, JobSpec { namespace: namespace.to_owned(), ..spec }).await
    }

    fn set_rules(&mut self, rules: &[(&str, v1::NamespaceRules)]) {
        let rules = rules.iter().map(|(name, rules)| ((*name).to_owned(), Rules::of(rules))).collect();
        self.input(Input::Rules(rules));
    }

    fn running(&self, job: JobId) -> u32 {
        self.engine.jobs[&job].graph.counts().held()
    }

    /// One of a job's tasks that run ends, and what is free is given to somebody.
    async fn end_one(&mut self, by: &ExecutorKey, job: JobId) {
        let graph = &self.engine.jobs[&job].graph;
        let (task, attempt) = graph.holds(&by.id).next().expect("one runs");
        let end = ended(1, (job, task.stage.0, task.index.0, attempt), v1::Outcome::Succeeded);
        drop(self.finish(by, &[end]));
        self.commit_all().await;
    }
}

fn weighing(weight: u32) -> v1::NamespaceRules {
    v1::NamespaceRules { weight: Some(weight), ..Default::default() }
}

fn question() -> Question {
    Question { limit: 10, ..Question::default() }
}

fn tasks(count: u32) -> JobSpec {
    spec(&[("a", count, &[])])
}

#[tokio::test]
async fn who_comes_later_gets_what_becomes_free_until_both_have_the_same() {
    let mut bench = Bench::new().await;
    let e = key("e", 1);
    bench.register(e.clone(), 4);
    let large = bench.submit_in("large", 1, tasks(100)).await;
    bench.commit_all().await;
    let small = bench.submit_in("small", 2, tasks(100)).await;
    for expected in [(3, 1), (2, 2), (2, 2), (2, 2)] {
        bench.end_one(&e, large).await;
        assert_eq!((bench.running(large), bench.running(small)), expected);
    }
}

#[tokio::test]
async fn an_idle_cluster_is_given_out_by_weight() {
    let mut bench = Bench::new().await;
    bench.set_rules(&[("heavy", weighing(300))]);
    let heavy = bench.submit_in("heavy", 1, tasks(100)).await;
    let light = bench.submit_in("light", 2, tasks(100)).await;
    bench.register(key("e", 1), 40);
    assert_eq!((bench.running(heavy), bench.running(light)), (30, 10));
}

#[tokio::test]
async fn what_peers_have_counts() {
    let mut bench = Bench::new().await;
    let e = key("e", 1);
    let one = bench.submit_in("one", 1, tasks(100)).await;
    let two = bench.submit_in("two", 2, tasks(100)).await;
    let mut in_use = Amount::default();
    in_use.add(&cpu(1000), 2);
    let told = Use { jobs: 1, running: 2, in_use, ..Use::default() };
    bench.input(Input::Usage([("peer".to_owned(), [("one".to_owned(), told)].into())].into()));
    bench.register(e, 6);
    assert_eq!((bench.running(one), bench.running(two)), (2, 4), "4 of 6 each");
}

#[tokio::test]
async fn what_fits_nowhere_costs_its_namespace_nothing_and_holds_nobody_up() {
    let mut bench = Bench::new().await;
    let e = key("e", 1);
    bench.register(e.clone(), 2);
    let filler = bench.submit_in("filler", 1, tasks(3)).await;
    bench.commit_all().await;
    let mut number = 2;
    for size in 0..100 {
        let mut huge = tasks(5);
        huge.stages[0].resources = cpu(99_000 + size);
        bench.submit_in("one", number, huge).await;
        number += 1;
    }
    let fits = bench.submit_in("one", number, tasks(2)).await;
    bench.end_one(&e, filler).await;
    assert_eq!((bench.running(filler), bench.running(fits)), (1, 1));
    bench.end_one(&e, filler).await;
    assert_eq!(
        (bench.running(filler), bench.running(fits)),
        (1, 1),
        "as much as the other one, that was served longer ago"
    );
}

#[tokio::test]
async fn who_needs_all_of_the_cluster_finds_its_time() {
    let mut bench = Bench::new().await;
    let e = key("e", 1);
    bench.register(e.clone(), 2);
    let small = bench.submit_in("a-small", 1, tasks(100)).await;
    let mut all = tasks(1);
    all.stages[0].resources = cpu(2000);
    bench.commit_all().await;
    let large = bench.submit_in("large", 2, all).await;
    // Both end in one message: for a moment the cluster is empty, and nobody has anything.
    let holds: Vec<_> = bench.engine.jobs[&small].graph.holds("e").collect();
    let end = |(task, attempt): &(muster_graph::ids::TaskId, u32)| {
        ended(u64::from(task.index.0), (small, 0, task.index.0, *attempt), v1::Outcome::Succeeded)
    };
    let ends: Vec<v1::AttemptStatus> = holds.iter().map(end).collect();
    drop(bench.finish(&e, &ends));
    bench.commit_all().await;
    assert_eq!((bench.running(small), bench.running(large)), (0, 1));
}

#[tokio::test]
async fn limits_of_a_namespace_hold_for_all_of_its_jobs_until_they_are_lifted() {
    let mut bench = Bench::new().await;
    let e = key("e", 1);
    let max_in_use = Some(v1::Amount { cpu_milli: Some(5000), ..Default::default() });
    let rules = v1::NamespaceRules { max_running: Some(4), max_in_use, ..Default::default() };
    bench.set_rules(&[("limited", rules)]);
    let one = bench.submit_in("limited", 1, tasks(3)).await;
    let mut large = tasks(3);
    large.stages[0].resources = cpu(2000);
    let two = bench.submit_in("limited", 2, large).await;
    let free = bench.submit_in("free", 3, tasks(2)).await;
    bench.register(e.clone(), 16);
    assert_eq!([one, two, free].map(|job| bench.running(job)), [3, 1, 2], "4 tasks, and 5 cores");
    bench.commit_all().await;
    let why = bench.engine.explain(bench.engine.job(two).unwrap(), &question(), bench.now);
    let text = &why.stages[0].reasons[0].text;
    assert_eq!(text, "namespace limited is at its limit: 4 tasks run of 4, 5 of 5 cores are in use");
    assert_eq!(why.stages[0].reasons[0].kind(), v1::ReasonKind::NamespaceLimit);
    bench.end_one(&e, one).await;
    assert_eq!([one, two].map(|job| bench.running(job)), [2, 1], "one core is left, and it needs two");
    bench.set_rules(&[]);
    assert_eq!([one, two].map(|job| bench.running(job)), [2, 3]);
    assert_eq!(bench.engine.quota_reached("limited", 1), None);
    bench.set_rules(&[("limited", v1::NamespaceRules { max_jobs: Some(2), ..Default::default() })]);
    assert_eq!(bench.engine.quota_reached("limited", 1), Some((2, 2)));
    assert_eq!(bench.engine.quota_reached("free", 1), None);
}

#[tokio::test]
async fn schedulers_that_share_a_limit_go_by_parts_of_it() {
    let mut bench = Bench::new().await;
    let rules = || v1::NamespaceRules { max_running: Some(5), ..Default::default() };
    bench.set_rules(&[("limited", rules())]);
    let told = |running| Use { jobs: 1, running, ready: 9, ..Use::default() };
    let peer = |running| Input::Usage([("peer".to_owned(), [("limited".to_owned(), told(running))].into())].into());
    bench.input(peer(0));
    let job = bench.submit_in("limited", 1, tasks(9)).await;
    bench.register(key("e", 1), 16);
    // By turns one of the two has the odd one.
    for _ in 0..6 {
        assert!([2, 3].contains(&bench.running(job)), "{} run", bench.running(job));
        bench.now += 2_000;
        bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(13_000), running: 3, draining: false });
    }
    assert_eq!(bench.running(job), 3);
    bench.input(Input::Usage(BTreeMap::new()));
    assert_eq!(bench.running(job), 5, "the peer has no more jobs of it");
}

#[tokio::test]
async fn no_more_of_a_jobs_tasks_run_than_it_wants() {
    let mut bench = Bench::new().await;
    let e = key("e", 1);
    bench.register(e.clone(), 16);
    let mut wanted = spec(&[("a", 10, &[]), ("b", 10, &[])]);
    wanted.max_running = Some(3);
    let job = bench.submit(1, wanted).await;
    assert_eq!(bench.running(job), 3);
    bench.commit_all().await;
    assert!(!bench.engine.has_unmet_demand(), "nobody else could help");
    let why = bench.engine.explain(bench.engine.job(job).unwrap(), &question(), bench.now);
    let text = &why.stages[1].reasons[0].text;
    assert_eq!(text, "3 tasks run of the job, as many as may at the same time (`max_running`)");
    for _ in 0..5 {
        bench.end_one(&e, job).await;
        assert_eq!(bench.running(job), 3);
    }
}

#[tokio::test]
async fn a_point_of_priority_is_worth_an_hour_of_waiting() {
    let mut bench = Bench::new().await;
    for (number, (hours, priority)) in [(0, 0), (3, 2), (3, 4), (0, 1)].into_iter().enumerate() {
        let id = bench.submit(number as u64, tasks(1)).await;
        let engine = &mut bench.engine;
        let job = &engine.jobs[&id];
        engine.queues.leave(&job.namespace, job.place());
        let head = &mut engine.jobs.get_mut(&id).unwrap().head;
        (head.submitted_at_ms, head.priority) = (hours * 3_600_000, priority);
        engine.refresh(id);
    }
    let order: Vec<u64> = bench.engine.queues.ready_after("default", None).map(|(_, id)| id.0).collect();
    assert_eq!(order, [2, 3, 0, 1]);
}

proptest! {
    /// Namespaces of tasks of one size: what an idle cluster gives out is divided as max-min fairness says, and all of it is
    /// given out as long as somebody wants it.
    #[test]
    fn an_idle_cluster_is_divided_fairly(
        wants in prop::collection::vec((1u32..60, 1u32..400), 1..6),
        cores in 1u32..64,
        in_jobs in 1u32..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            let names: Vec<String> = (0..wants.len()).map(|index| format!("n{index}")).collect();
            let rules: Vec<_> = names.iter().zip(&wants).map(|(name, (_, weight))| (name.as_str(), weighing(*weight))).collect();
            bench.set_rules(&rules);
            let mut number = 0;
            for (name, (count, _)) in names.iter().zip(&wants) {
                for job in 0..in_jobs {
                    let count = count / in_jobs + u32::from(job < count % in_jobs);
                    if count > 0 {
                        number += 1;
                        bench.submit_in(name, number, tasks(count)).await;
                    }
                }
            }
            bench.register(key("e", 1), cores);
            let usage = bench.engine.usage();
            let has: Vec<u32> = names.iter().map(|name| usage[name].running).collect();
            let all: u32 = wants.iter().map(|(count, _)| count).sum();
            prop_assert_eq!(has.iter().sum::<u32>(), all.min(cores));
            // A turn goes on for a step of the whole at the default weight.
            let step = f64::from(cores) / 256.0 / 100.0;
            for (one, (count, weight)) in wants.iter().enumerate() {
                for (other, (_, other_weight)) in wants.iter().enumerate() {
                    // Whoever wants more has no less for its weight than another one before that got its last task.
                    let mine = f64::from(has[one]) / f64::from(*weight);
                    let theirs = (f64::from(has[other]) - 1.0) / f64::from(*other_weight);
                    prop_assert!(has[one] == *count || mine >= theirs - step, "{has:?} of {cores} for {wants:?}");
                }
            }
            Ok(())
        })?;
    }
}
