//! Whatever happens to a job, what the store holds after each commit is the state in memory: deltas, cut ones, folds and
//! readings in between.

use muster_graph::execution::TaskState;
use muster_proto::v1;
use muster_state::{Keyspace, Scan};
use proptest::prelude::*;

use super::*;
use crate::engine::Loss;

/// Of one stage: three buckets.
const TASKS: u32 = 1_200;

/// Something that happens between two commits.
#[derive(Debug, Clone)]
enum Step {
    /// Some running attempts end: those whose index leaves `rest` when divided by `every`, from `first` on, at most `most`.
    End { first: u32, every: u32, most: usize, failed: bool },
    /// An executor is lost.
    Lose(usize),
    /// A new one comes.
    Join(u32),
    /// The job is claimed anew and read.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..TASKS, 1..4u32, prop_oneof![6 => 1..4usize, 1 => 500..1200usize], prop::bool::weighted(0.2))
            .prop_map(|(first, every, most, failed)| Step::End { first, every, most, failed }),
        1 => (0..4usize).prop_map(Step::Lose),
        1 => (1..1500u32).prop_map(Step::Join),
        1 => Just(Step::Read),
    ]
}

struct Run {
    bench: Bench,
    id: JobId,
    executors: Vec<ExecutorKey>,
    joined: u64,
    sequence: u64,
}

impl Run {
    async fn new(tasks: u32) -> Self {
        let mut bench = Bench::new().await;
        let reads = [("a", InputKind::Each)];
        let id = bench.submit(1, spec(&[("a", tasks, &[]), ("b", tasks, &reads)])).await;
        let mut run = Self { bench, id, executors: Vec::new(), joined: 0, sequence: 0 };
        run.join(tasks);
        run.bench.commit_all().await;
        run.answer_launches();
        run
    }

    fn join(&mut self, cores: u32) {
        self.joined += 1;
        let key = key(&format!("e{}", self.joined), 1);
        self.executors.push(key.clone());
        self.bench.register(key, cores);
    }

    /// Attempts under way: stage, index, attempt and executor.
    fn live(&self) -> Vec<(u32, u32, u32, ExecutorKey)> {
        let graph = &self.bench.engine.job(self.id).expect("it is not over").graph;
        let mut live = Vec::new();
        for (stage, _) in graph.stages() {
            for (index, task) in graph.tasks(stage, 0..u32::MAX) {
                if let TaskState::Assigned { on, .. } | TaskState::Running { on, .. } = task.state {
                    live.push((stage.0, index.0, task.attempt, graph.executor(on).unwrap().clone()));
                }
            }
        }
        live
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::End { first, every, most, failed } => {
                let outcome = if *failed { v1::Outcome::Failed } else { v1::Outcome::Succeeded };
                let live = self.live();
                let ends = live.iter().filter(|(_, index, ..)| index >= first && index % every == 0).take(*most);
                let mut by: std::collections::BTreeMap<&ExecutorKey, Vec<v1::AttemptStatus>> = Default::default();
                for (stage, index, attempt, on) in ends {
                    self.sequence += 1;
                    by.entry(on).or_default().push(ended(self.sequence, (self.id, *stage, *index, *attempt), outcome));
                }
                for (on, ends) in by {
                    drop(self.bench.finish(on, &ends));
                }
            }
            Step::Lose(which) if self.executors.len() > 1 => {
                let lost = self.executors.remove(which % self.executors.len());
                let record = self.bench.engine.executor(&lost.id).unwrap().record + 1;
                self.bench.input(Input::Lost(Loss { key: lost, record, on_purpose: false }));
            }
            Step::Lose(_) => {}
            Step::Join(cores) => self.join(*cores),
            Step::Read => {
                let live = self.live();
                self.bench.own(self.id).await;
                self.bench.load(self.id).await;
                for on in self.executors.clone() {
                    let held = live.iter().filter(|(.., by)| *by == on);
                    let held = held.map(|(s, i, a, _)| (self.id, muster_graph::ids::TaskId::new(*s, *i), *a)).collect();
                    self.bench.answer(&on, held);
                }
            }
        }
        self.bench.commit_all().await;
        // Backoffs end.
        self.bench.now += 10;
        self.bench.input(Input::Tick);
        self.bench.commit_all().await;
        self.answer_launches();
    }

    /// All launches arrive.
    fn answer_launches(&mut self) {
        let mut arrived = Vec::new();
        self.bench.outputs.retain(|output| {
            let Output::Launch { executor, groups } = output else { return true };
            arrived.push((executor.clone(), groups.iter().map(|group| group.attempts.len() as u32).sum::<u32>()));
            false
        });
        for (executor, count) in arrived {
            self.bench.input(Input::LaunchAnswered { executor, count, refused: Vec::new() });
        }
    }

    /// The store's state is the one in memory, and no more deltas are kept than a takeover should have to read.
    async fn check(&self) {
        let stored = load::head(&*self.bench.store, self.id).await.unwrap().expect("it is there");
        let (graph, ..) =
            load::graph(&*self.bench.store, self.id, &stored.head, stored.revision).await.expect("it can be read");
        if let Some(job) = self.bench.engine.job(self.id) {
            assert!(graph.snapshot() == job.graph.snapshot(), "the store and the memory differ");
            assert_eq!(graph.counts(), job.graph.counts());
        }
    }

    async fn stored(&self, keyspace: Keyspace) -> usize {
        let scan = Scan { prefix: keys::job_prefix(self.id), ..Scan::default() };
        self.bench.store.scan_keys(keyspace, scan).await.unwrap().entries.len()
    }
}

fn cases() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        // A case is some hundred commits, each read back whole.
        config.cases = 2;
    }
    config.max_shrink_iters = 64;
    config
}

proptest! {
    #![proptest_config(cases())]
    #[test]
    fn what_is_stored_is_what_is_in_memory(steps in prop::collection::vec(step(), 80..100)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new(TASKS).await;
            for step in &steps {
                if run.bench.engine.job(run.id).is_none() {
                    break;
                }
                run.take(step).await;
                let refused = run.bench.outputs.iter().any(|output| matches!(output, Output::Reload { .. }));
                assert!(!refused, "a transaction was refused after {step:?}");
                run.check().await;
            }
        });
    }
}

/// A commit that is cut into several deltas and folds every part that is dirty.
#[tokio::test]
async fn a_cut_commit_that_folds_everything_is_taken_by_the_store() {
    let mut run = Run::new(3_000).await;
    for index in 0..70 {
        run.take(&Step::End { first: index, every: 1, most: 1, failed: true }).await;
    }
    assert!(run.stored(Keyspace::JobStages).await > 0, "nothing was folded");
    // From here on no two neighbours are equal: whenever all of them change, 3,000 runs are cut into pieces.
    run.take(&Step::End { first: 0, every: 2, most: 3000, failed: true }).await;
    let sequence = |run: &Run| run.bench.engine.job(run.id).expect("it is not over").cursor.sequence;
    let before = sequence(&run);
    run.take(&Step::End { first: 0, every: 1, most: 3000, failed: true }).await;
    assert!(sequence(&run) >= before + 3, "the delta was not cut");
    for _ in 0..70 {
        run.take(&Step::End { first: 0, every: 1, most: 3000, failed: true }).await;
        let refused = run.bench.outputs.iter().any(|output| matches!(output, Output::Reload { .. }));
        assert!(!refused, "the transaction was refused");
        run.check().await;
    }
    assert!(run.stored(Keyspace::JobDeltas).await < 64 * 4, "deltas are not deleted");
}
