//! Tasks that take executors down, and those that are only there when it happens.

use muster_graph::execution::TaskState;
use muster_graph::ids::TaskId;

use super::*;
use crate::engine::Loss;

/// How a life of an executor ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Restart,
    /// It registers with a peer afterwards, and has to be asked.
    RestartElsewhere,
    Lost,
    Stopped,
}

impl Bench {
    fn state(&self, id: JobId, index: u32) -> TaskState {
        self.engine.job(id).unwrap().graph.task(TaskId::new(0, index)).unwrap().state
    }

    fn is_held(&self, id: JobId, index: u32) -> bool {
        matches!(self.state(id, index), TaskState::Assigned { .. } | TaskState::Running { .. })
    }

    /// Waits for a task to be given to an executor. How long that took.
    async fn until_held(&mut self, id: JobId, index: u32) -> Millis {
        let since = self.now;
        while !self.is_held(id, index) {
            assert!(self.now < since + 120_000, "{:?}", self.state(id, index));
            self.wait(500).await;
        }
        self.now - since
    }

    /// An executor ends with all that it has, and is there again.
    async fn ends_and_begins(&mut self, id: &str, end: End) {
        let known = self.engine.executor(id).unwrap();
        let (next, record, home) =
            (key(id, known.key.incarnation + 1), known.record + 1, self.identity.session.0.clone());
        let cores = known.total.cpu_milli / 1000;
        if let End::Lost | End::Stopped = end {
            let (executor, on_purpose) = (known.key.clone(), end == End::Stopped);
            self.input(Input::Lost(Loss { key: executor, record, on_purpose }));
        }
        if end == End::RestartElsewhere {
            self.input(live(&["one", "two"]));
            self.input(Input::Registered(registration(next.clone(), cores, "two".to_owned(), record)));
            self.answer(&next, Vec::new());
            // And home again.
            let here = registration(next, cores, home, record + 1);
            self.input(Input::Registered(Registration { home_here: true, held: Some(Vec::new()), ..here }));
        } else {
            self.register(next, cores);
        }
        self.commit_all().await;
    }
}

/// Tasks that may be lost as often as they like, and never end by themselves.
fn tasks(number: u32) -> JobSpec {
    let mut spec = spec(&[("a", number, &[])]);
    spec.stages[0].retries.executor_lost = 255;
    spec
}

#[tokio::test]
async fn one_that_takes_executors_down_is_given_up_and_those_beside_it_are_not() {
    for end in [End::Restart, End::RestartElsewhere, End::Lost] {
        for (executors, takes, others, most) in
            [(1, 3_000, 4, 6), (3, 3_000, 4, 6), (1, 30_000, 1, 14), (3, 30_000, 1, 14)]
        {
            let mut bench = Bench::new().await;
            let names: Vec<String> = (0..executors).map(|number| format!("e{number}")).collect();
            for name in &names {
                bench.register(key(name, 1), 16);
            }
            let beside = bench.submit(1, tasks(others)).await;
            // With one that never ends, or its job would be over.
            let poison = bench.submit(2, tasks(2)).await;
            let later = bench.submit(3, tasks(others)).await;
            let (mut losses, mut waits) = (0, Vec::new());
            loop {
                bench.commit_all().await;
                if matches!(bench.state(poison, 0), TaskState::Failed(_)) {
                    break;
                }
                waits.push(bench.until_held(poison, 0).await);
                let TaskState::Assigned { on, .. } = bench.state(poison, 0) else { panic!("nobody says that it runs") };
                let on = bench.engine.job(poison).unwrap().graph.executor(on).unwrap().id.clone();
                // It takes a while.
                for _ in 0..takes / 1_000 {
                    bench.wait(1_000).await;
                }
                bench.ends_and_begins(&on, end).await;
                losses += 1;
                assert!(losses <= most, "{end:?}, {executors} executors, {takes} ms");
            }
            let graph = &bench.engine.job(poison).unwrap().graph;
            let failure = &graph.job().failures[0];
            assert!(failure.is_final && failure.message.starts_with("not tried again: "), "{failure:?}");
            assert!(losses >= 4 && waits[2] >= 5_000 && *waits.last().unwrap() >= 20_000, "{losses} {waits:?}");
            for (job, index) in [beside, later].into_iter().flat_map(|job| (0..others).map(move |index| (job, index))) {
                bench.until_held(job, index).await;
            }
        }
    }
}

#[tokio::test]
async fn an_executor_that_goes_down_without_it_too_says_nothing_of_a_task() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let first = bench.submit(1, tasks(1)).await;
    bench.commit_all().await;
    for round in 0..12 {
        bench.until_held(first, 0).await;
        bench.ends_and_begins("e", End::Restart).await;
        if round % 2 == 0 && !bench.is_held(first, 0) {
            bench.ends_and_begins("e", End::Restart).await;
        }
    }
    assert!(!matches!(bench.state(first, 0), TaskState::Failed(_)));
}

#[tokio::test]
async fn what_was_stopped_on_purpose_or_ran_for_long_before_is_held_against_nobody() {
    for (end, ran) in [(End::Stopped, 1_000), (End::Restart, 700_000)] {
        let mut bench = Bench::new().await;
        bench.register(key("e", 1), 4);
        let job = bench.submit(1, tasks(2)).await;
        bench.commit_all().await;
        for _ in 0..10 {
            assert!(bench.until_held(job, 0).await <= 500, "{end:?}");
            for _ in 0..ran / 1_000 {
                bench.wait(1_000).await;
            }
            bench.ends_and_begins("e", end).await;
        }
        assert!(bench.until_held(job, 0).await <= 500, "{end:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_ends_otherwise_clears_its_task() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let job = bench.submit(1, tasks(1)).await;
    bench.commit_all().await;
    for _ in 0..5 {
        for _ in 0..2 {
            bench.until_held(job, 0).await;
            bench.ends_and_begins("e", End::Restart).await;
        }
        bench.until_held(job, 0).await;
        let attempt = bench.engine.job(job).unwrap().graph.task(TaskId::new(0, 0)).unwrap().attempt;
        let by = bench.engine.executor("e").unwrap().key.clone();
        drop(bench.finish(&by, &[ended(1, (job, 0, 0, attempt), v1::Outcome::Failed)]));
        bench.commit_all().await;
    }
    assert!(!matches!(bench.state(job, 0), TaskState::Failed(_)));
}
