//! A spec, compiled: names resolved to positions, durations to milliseconds, defaults filled in. Immutable.
//!
//! A plan holds what *deciding* needs and nothing of what *running* needs: argv, scripts, environment and items are in
//! content-addressed blobs that only executors read; here is just their digest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Millis, StageIndex};
use crate::spec::{
    Gate, InputKind, JobSpec, LostAfter, Names, Placement, Placing, Problem, Resources, Retries, SpecEdge, When, Work,
    check_expanded,
};

/// A compiled job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of the spec.
    pub stages: Vec<StagePlan>,
    /// Of the whole job, from its first assignment; `None`: none.
    pub timeout_ms: Option<u64>,
    /// When what an executor had is run elsewhere because it is out of reach.
    pub lost_after: LossPolicy,
    /// Higher goes first inside a namespace.
    pub priority: i32,
    /// How many of its tasks may be with executors at the same time; `None`: any number.
    pub max_running: Option<u32>,
    /// Of every stage; read it with [`Plan::placing`].
    pub placement: Placement,
}

/// When a job gives up what an executor had that is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LossPolicy {
    /// When the cluster declares the executor lost.
    #[default]
    Cluster,
    /// When it has been out of reach for so many milliseconds, whatever the cluster says.
    Time(u64),
    /// When it has stopped, or an operator says that it will not come back.
    Never,
}

/// A compiled stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Unique in the job: its path, see [`crate::spec::path`].
    pub name: String,
    /// One of a nested job's borders, and no stage of its own. Those of one job come in the order begin, what is inside, end.
    pub gate: Option<Gate>,
    /// How many tasks; may be 0: such a stage is successful as soon as its conditions hold.
    pub tasks: u32,
    /// What it waits for, each stage once.
    pub upstreams: Vec<Upstream>,
    /// Who waits for it; the reverse of `upstreams`.
    pub downstreams: Vec<StageIndex>,
    /// On which outcome of its upstreams it runs.
    pub when: When,
    /// Of one task.
    pub resources: Resources,
    /// On top of the job's.
    pub placement: Placement,
    /// Budgets and backoff.
    pub retries: Retries,
    /// See [`crate::spec::StageSpec::deterministic`].
    pub deterministic: bool,
    /// See [`crate::spec::StageSpec::stop_after`].
    pub stop_after: Option<u32>,
    /// Digest of the blob with everything that running a task needs.
    pub spec_digest: String,
}

/// An edge of the graph, seen from its lower end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The stage above.
    pub stage: StageIndex,
    /// What is read of it.
    pub edge: Edge,
    /// Where below the directory of inputs its output is found; empty: by the stage's own name.
    pub seen_as: Vec<String>,
}

/// What is read of an upstream stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edge {
    /// Every output; waits for the whole stage.
    All,
    /// Task i's output; waits for task i only.
    Each,
    /// Part j of every output; waits for the whole stage.
    Shuffle,
    /// Nothing; waits for the whole stage.
    After,
    /// Nothing; waits for the begin of the nested job that the stage is in. Without that one's success the stage never runs,
    /// whatever its condition. It is the first of the stage's edges.
    Begin,
}

impl Plan {
    /// Compiles an expanded spec, after checking it. `digest_of` answers the digest of a stage's blob, by the stage's position;
    /// it is asked once for each stage that is no gate, in order, and only if the spec has no problem.
    ///
    /// # Errors
    /// What [`check_expanded`] found. Nothing else can go wrong.
    pub fn compile(spec: &JobSpec, mut digest_of: impl FnMut(usize) -> String) -> Result<Self, Vec<Problem>> {
        let problems = check_expanded(spec);
        if !problems.is_empty() {
            return Err(problems);
        }
        let names = Names::of(spec);
        let mut downstreams = vec![Vec::new(); spec.stages.len()];
        let mut stages = Vec::with_capacity(spec.stages.len());
        for (index, stage) in spec.stages.iter().enumerate() {
            let mut upstreams: Vec<Upstream> = SpecEdge::all(spec, index)
                .map(|edge| {
                    let upstream = names.get(edge.name).expect("check found every name");
                    downstreams[upstream].push(position(index));
                    let kind = match edge.kind {
                        Some(InputKind::All) => Edge::All,
                        Some(InputKind::Each) => Edge::Each,
                        Some(InputKind::Shuffle) => Edge::Shuffle,
                        None if spec.stages[upstream].work == Work::Gate(Gate::Begin) => Edge::Begin,
                        None => Edge::After,
                    };
                    Upstream { stage: position(upstream), edge: kind, seen_as: edge.seen_as.to_vec() }
                })
                .collect();
            // A nested job as a whole says more about why something does not run than a stage in it.
            upstreams.sort_by_key(|upstream| match spec.stages[upstream.stage.0 as usize].work {
                Work::Gate(Gate::Begin) => 0,
                Work::Gate(Gate::End) => 1,
                Work::Process(_) | Work::Job(_) => 2,
            });
            stages.push(StagePlan {
                name: stage.name.clone(),
                gate: match stage.work {
                    Work::Gate(gate) => Some(gate),
                    Work::Process(_) | Work::Job(_) => None,
                },
                tasks: stage.tasks.count(),
                upstreams,
                downstreams: Vec::new(),
                when: stage.when,
                resources: stage.resources.clone(),
                placement: stage.placement.clone(),
                retries: stage.retries.clone(),
                deterministic: stage.deterministic,
                stop_after: stage.stop_after,
                spec_digest: if matches!(stage.work, Work::Gate(_)) { String::new() } else { digest_of(index) },
            });
        }
        for (stage, downstreams) in stages.iter_mut().zip(downstreams) {
            stage.downstreams = downstreams;
        }
        Ok(Self {
            stages,
            timeout_ms: spec.timeout.map(millis),
            lost_after: match spec.lost_after {
                None => LossPolicy::Cluster,
                Some(LostAfter::Time(time)) => LossPolicy::Time(millis(time)),
                Some(LostAfter::Never) => LossPolicy::Never,
            },
            priority: spec.priority,
            max_running: spec.max_running,
            placement: spec.placement.clone(),
        })
    }

    /// On which executors the tasks of a stage may run.
    ///
    /// # Panics
    /// If there is no such stage.
    #[must_use]
    pub fn placing(&self, stage: StageIndex) -> Placing<'_> {
        Placing::of(&self.placement, &self.stages[stage.0 as usize].placement)
    }

    /// The tasks of all stages together.
    #[must_use]
    pub fn task_count(&self) -> u64 {
        self.stages.iter().map(|stage| u64::from(stage.tasks)).sum()
    }

    /// The stage of that name. Looks at one after the other: for people's questions, not for the hot path.
    #[must_use]
    pub fn stage_named(&self, name: &str) -> Option<StageIndex> {
        self.stages.iter().position(|stage| stage.name == name).map(position)
    }
}

fn position(index: usize) -> StageIndex {
    StageIndex(u32::try_from(index).expect("check allows no more stages than STAGES_MAX"))
}

/// Never 0 for a time that is not: 0 means "none" in some places where plans go.
fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
