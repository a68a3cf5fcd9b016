//! Plans by hand, for tests of the graph alone.

use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::StageIndex;
use muster_graph::plan::{Edge, LossPolicy, Plan, StagePlan, Upstream};
use muster_graph::spec::{Placement, Resources, Retries, When};

/// A stage of so many tasks that runs on success, fails at once, and never stops early.
pub(crate) fn stage(tasks: u32) -> StagePlan {
    StagePlan {
        name: String::new(),
        gate: None,
        tasks,
        upstreams: Vec::new(),
        downstreams: Vec::new(),
        when: When::OnSuccess,
        resources: Resources::default(),
        placement: Placement::default(),
        retries: Retries {
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_millis(400),
            ..Retries::default()
        },
        deterministic: true,
        stop_after: None,
        spec_digest: String::new(),
    }
}

/// Adds an edge from an upstream stage.
#[allow(dead_code, reason = "not every test binary that includes this module has edges")]
pub(crate) fn reading(mut stage: StagePlan, edge: Edge, upstream: u32) -> StagePlan {
    stage.upstreams.push(Upstream { stage: StageIndex(upstream), edge, seen_as: Vec::new() });
    stage
}

/// A plan of these stages, with names and downstreams filled in.
pub(crate) fn plan(stages: impl IntoIterator<Item = StagePlan>) -> Plan {
    let mut stages: Vec<StagePlan> = stages.into_iter().collect();
    for index in 0..stages.len() {
        stages[index].name = format!("stage-{index}");
        for upstream in stages[index].upstreams.clone() {
            stages[upstream.stage.0 as usize].downstreams.push(StageIndex(index as u32));
        }
    }
    Plan {
        stages,
        timeout_ms: None,
        lost_after: LossPolicy::Cluster,
        priority: 0,
        max_running: None,
        placement: Placement::default(),
    }
}

/// The same, shared.
#[allow(dead_code, reason = "not every test binary that includes this module changes the plan first")]
pub(crate) fn shared(stages: impl IntoIterator<Item = StagePlan>) -> Arc<Plan> {
    Arc::new(plan(stages))
}
