//! What becomes of an executor that fails everything, seen from the launches that it gets.

use muster_proto::v1::Outcome;

use super::*;
use crate::engine::Loss;

impl Bench {
    /// Launches since this was last asked: where, and what.
    fn launched_where(&mut self) -> Vec<(ExecutorKey, (JobId, u32, u32, u32))> {
        let mut launches = Vec::new();
        self.outputs.retain(|output| {
            let Output::Launch { executor, groups } = output else { return true };
            for (job, stage, index, attempt) in groups.iter().flat_map(launched) {
                launches.push((executor.clone(), (job.parse().unwrap(), stage, index, attempt)));
            }
            false
        });
        launches
    }

    fn launched_at(&mut self, executor: &str) -> Vec<(JobId, u32, u32, u32)> {
        let launches = self.launched_where().into_iter();
        launches.filter(|(on, _)| on.id == executor).map(|(_, attempt)| attempt).collect()
    }

    async fn ends_at(&mut self, executor: &ExecutorKey, attempt: (JobId, u32, u32, u32), outcome: Outcome) {
        drop(self.finish(executor, &[ended(1, attempt, outcome)]));
        self.commit_all().await;
    }

    /// Has everything end that is launched, one end after the other, as executors do that are bad or not. Answers how many failed.
    async fn run(&mut self, bad: &[&str], is_enough: impl Fn(&Self) -> bool) -> usize {
        let mut failed = 0;
        for _ in 0..100 {
            if is_enough(self) {
                break;
            }
            for (executor, attempt) in self.launched_where() {
                let is_bad = bad.contains(&executor.id.as_str());
                failed += usize::from(is_bad);
                self.ends_at(&executor, attempt, if is_bad { Outcome::Failed } else { Outcome::Succeeded }).await;
            }
            self.wait(10).await;
        }
        failed
    }

    fn is_quarantined(&self, executor: &str) -> bool {
        self.engine.executor(executor).unwrap().quarantine().is_some()
    }
}

/// A cluster of `a`, which is bad, and `b`, which is good; `a` is in quarantine, and a job wants more than there is.
async fn a_is_in_quarantine() -> (Bench, JobId) {
    let mut bench = Bench::new().await;
    bench.register(key("a", 1), 2);
    bench.register(key("b", 1), 2);
    bench.submit(1, spec(&[("many", 1_000, &[])])).await;
    bench.commit_all().await;
    let failed = bench.run(&["a"], |bench| bench.is_quarantined("a")).await;
    assert!(bench.is_quarantined("a") && !bench.is_quarantined("b"));
    assert!(failed <= 7, "{failed}: five, and what was there besides");
    let mut waits = spec(&[("waits", 9, &[])]);
    waits.stages[0].resources = cpu(2000);
    let waiting = bench.submit(2, waits).await;
    bench.commit_all().await;
    (bench, waiting)
}

#[tokio::test]
async fn one_that_fails_everything_gets_one_attempt_after_pauses_that_double_until_one_succeeds() {
    let (mut bench, _) = a_is_in_quarantine().await;
    for pause in [5_000, 10_000, 20_000] {
        bench.wait(pause - 1_000).await;
        assert_eq!(bench.launched_at("a"), [], "not yet");
        assert!(bench.engine.next_wakeup().is_some_and(|at| at <= bench.now + 1_000), "it is not forgotten");
        bench.wait(1_000).await;
        let tried = bench.launched_at("a");
        assert_eq!(tried.len(), 1);
        bench.ends_at(&key("a", 1), tried[0], Outcome::Failed).await;
        assert_eq!(bench.launched_at("a"), []);
    }
    bench.wait(40_000).await;
    let tried = bench.launched_at("a");
    bench.ends_at(&key("a", 1), tried[0], Outcome::Succeeded).await;
    assert!(!bench.is_quarantined("a"));
    assert_eq!(bench.launched_at("a").len(), 2, "all of it is used again");
}

#[tokio::test]
async fn a_long_try_is_followed_by_another_one() {
    let (mut bench, _) = a_is_in_quarantine().await;
    bench.wait(5_000).await;
    assert_eq!(bench.launched_at("a").len(), 1);
    bench.wait(4_999).await;
    assert_eq!(bench.launched_at("a"), []);
    bench.wait(1).await;
    assert_eq!(bench.launched_at("a").len(), 1);
}

#[tokio::test]
async fn nobody_is_woken_for_a_try_when_nothing_is_to_be_tried() {
    let (mut bench, _) = a_is_in_quarantine().await;
    bench.input(Input::StoreDoubted);
    bench.wait(100).await;
    let tries = bench.engine.executors().filter_map(|executor| executor.try_at()).min();
    assert!(tries.is_some() && bench.engine.next_wakeup() > tries);
}

#[tokio::test]
async fn a_new_life_begins_without_an_opinion_and_so_do_reports_that_come_twice() {
    let (mut bench, _) = a_is_in_quarantine().await;
    bench.register(key("a", 2), 2);
    bench.commit_all().await;
    assert!(!bench.is_quarantined("a"));
    assert_eq!(bench.launched_at("a").len(), 2);

    let mut bench = Bench::new().await;
    bench.register(key("a", 1), 2);
    bench.register(key("b", 1), 2);
    bench.submit(1, spec(&[("many", 1_000, &[])])).await;
    bench.commit_all().await;
    let launches = bench.launched_where();
    let (good, bad): (Vec<_>, Vec<_>) = launches.into_iter().partition(|(on, _)| on.id == "b");
    for (on, attempt) in good {
        bench.ends_at(&on, attempt, Outcome::Succeeded).await;
    }
    for _ in 0..20 {
        bench.ends_at(&key("a", 1), bad[0].1, Outcome::Failed).await;
    }
    assert!(!bench.is_quarantined("a"), "one failure, told twenty times");
}

#[tokio::test]
async fn no_more_than_half_of_them_are_in_quarantine() {
    for (executors, allowed) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let names: Vec<String> = (0..executors).map(|number| format!("e{number}")).collect();
        let mut bench = Bench::new().await;
        for name in &names {
            bench.register(key(name, 1), 1);
        }
        bench.submit(1, spec(&[("many", 10_000, &[])])).await;
        bench.commit_all().await;
        // All but the last one are bad, or the only one is.
        let bad: Vec<&str> = names.iter().take((executors - 1).max(1)).map(String::as_str).collect();
        bench.run(&bad, |_| false).await;
        assert_eq!(bench.engine.executors_quarantined(), allowed, "of {executors}");
    }
}

#[tokio::test]
async fn what_failed_last_is_where_a_task_goes_last() {
    let mut bench = Bench::new().await;
    bench.register(key("a", 1), 2);
    let first = bench.submit(1, spec(&[("one", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launched_at("a"), [(first, 0, 0, 1)]);
    bench.register(key("b", 1), 1);
    bench.ends_at(&key("a", 1), (first, 0, 0, 1), Outcome::Failed).await;
    bench.wait(2).await;
    assert_eq!(bench.launched_where(), [(key("b", 1), (first, 0, 0, 2))], "though `a` is roomier");
    let second = bench.submit(2, spec(&[("one", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launched_at("a"), [(second, 0, 0, 1)], "rather than wait");
}

#[tokio::test]
async fn it_is_said_of_whom_a_task_waits_for() {
    let (mut bench, waiting) = a_is_in_quarantine().await;
    bench.input(Input::Lost(Loss { key: key("b", 1), record: 9, on_purpose: false }));
    let question = crate::engine::explain::Question { limit: 10, ..Default::default() };
    let job = bench.engine.job(waiting).unwrap();
    let told = bench.engine.explain(job, &question, bench.now);
    let why = &told.stages[0].reasons[0];
    assert_eq!(why.kind(), v1::ReasonKind::Unavailable, "{why:?}");
    let line = why.evidence.iter().find(|line| line.starts_with("a: in quarantine for ")).unwrap();
    assert!(line.contains("others succeeded elsewhere meanwhile"), "{line}");
    assert!(why.remedies.iter().any(|line| line.starts_with("once a is mended")), "{why:?}");
}
