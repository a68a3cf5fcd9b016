//! Plans, as they are stored: protobuf, so that a later version with more fields still reads them.

use std::time::Duration;

use muster_graph::ids::StageIndex;
use muster_graph::plan::{Edge, LossPolicy, Plan, StagePlan, Upstream};
use muster_graph::spec;

use crate::convert::{self, Invalid};
use crate::{storage, v1};

impl From<&Plan> for storage::StoredPlan {
    fn from(plan: &Plan) -> Self {
        Self {
            stages: plan.stages.iter().map(stored_stage).collect(),
            timeout_ms: plan.timeout_ms.unwrap_or(0),
            lost_after_ms: match plan.lost_after {
                LossPolicy::Time(ms) => ms,
                LossPolicy::Cluster | LossPolicy::Never => 0,
            },
            priority: plan.priority,
            never_lost: plan.lost_after == LossPolicy::Never,
            placement: convert::to_placement(&plan.placement),
            max_running: plan.max_running,
        }
    }
}

fn stored_stage(stage: &StagePlan) -> storage::StoredStage {
    storage::StoredStage {
        name: stage.name.clone(),
        tasks: stage.tasks,
        upstreams: stage
            .upstreams
            .iter()
            .map(|upstream| {
                let edge = match upstream.edge {
                    Edge::All => storage::StoredEdge::All,
                    Edge::Each => storage::StoredEdge::Each,
                    Edge::Shuffle => storage::StoredEdge::Shuffle,
                    Edge::After => storage::StoredEdge::After,
                    Edge::Begin => storage::StoredEdge::Begin,
                };
                storage::StoredUpstream {
                    stage: upstream.stage.0,
                    edge: edge.into(),
                    seen_as: upstream.seen_as.clone(),
                }
            })
            .collect(),
        when: v1::When::from(stage.when).into(),
        resources: Some((&stage.resources).into()),
        retries: Some((&stage.retries).into()),
        nondeterministic: !stage.deterministic,
        stop_after: Some(v1::StopAfter { failures: stage.stop_after }),
        spec_digest: stage.spec_digest.clone(),
        placement: convert::to_placement(&stage.placement),
        gate: stage.gate.map_or(v1::Gate::Unspecified, v1::Gate::from).into(),
    }
}

impl TryFrom<storage::StoredPlan> for Plan {
    type Error = Invalid;

    fn try_from(stored: storage::StoredPlan) -> Result<Self, Invalid> {
        let mut stages = stored
            .stages
            .into_iter()
            .enumerate()
            .map(|(place, stage)| stage_plan(stage, &format!("plan.stages[{place}]")))
            .collect::<Result<Vec<_>, _>>()?;
        for reader in 0..stages.len() {
            let reader_index = StageIndex(u32::try_from(reader).expect("the number of stages is limited"));
            for at in 0..stages[reader].upstreams.len() {
                let upstream = stages[reader].upstreams[at].stage.0 as usize;
                let Some(upstream) = stages.get_mut(upstream) else {
                    return Err(Invalid::new(format!("plan.stages[{reader}].upstreams[{at}]"), "no such stage"));
                };
                upstream.downstreams.push(reader_index);
            }
        }
        let optional = |ms: u64| (ms > 0).then_some(ms);
        Ok(Self {
            stages,
            timeout_ms: optional(stored.timeout_ms),
            lost_after: match (stored.never_lost, optional(stored.lost_after_ms)) {
                (true, _) => LossPolicy::Never,
                (false, Some(ms)) => LossPolicy::Time(ms),
                (false, None) => LossPolicy::Cluster,
            },
            priority: stored.priority,
            placement: convert::placement(stored.placement, "plan.placement")?,
            max_running: stored.max_running,
        })
    }
}

fn stage_plan(stage: storage::StoredStage, at: &str) -> Result<StagePlan, Invalid> {
    let when = match v1::When::try_from(stage.when) {
        Ok(v1::When::OnSuccess | v1::When::Unspecified) => spec::When::OnSuccess,
        Ok(v1::When::OnFailure) => spec::When::OnFailure,
        Ok(v1::When::Always) => spec::When::Always,
        Err(_) => return Err(Invalid::new(format!("{at}.when"), "unknown to this version")),
    };
    let upstreams = stage
        .upstreams
        .into_iter()
        .map(|upstream| {
            let edge = match storage::StoredEdge::try_from(upstream.edge) {
                Ok(storage::StoredEdge::All) => Edge::All,
                Ok(storage::StoredEdge::Each) => Edge::Each,
                Ok(storage::StoredEdge::Shuffle) => Edge::Shuffle,
                Ok(storage::StoredEdge::After) => Edge::After,
                Ok(storage::StoredEdge::Begin) => Edge::Begin,
                Ok(storage::StoredEdge::Unspecified) | Err(_) => {
                    return Err(Invalid::new(format!("{at}.upstreams.edge"), "unknown to this version"));
                }
            };
            Ok(Upstream { stage: StageIndex(upstream.stage), edge, seen_as: upstream.seen_as })
        })
        .collect::<Result<_, _>>()?;
    let mut retries = stage.retries.as_ref().map_or_else(spec::Retries::default, spec::Retries::from);
    if let Some(stored) = &stage.retries {
        // Unlike in a user's spec, zero here means zero.
        retries.backoff = Duration::from_millis(stored.backoff_ms);
        retries.backoff_max = Duration::from_millis(stored.backoff_max_ms);
    }
    let gate = convert::gate(stage.gate, at)?;
    Ok(StagePlan {
        name: stage.name,
        gate,
        tasks: stage.tasks,
        upstreams,
        downstreams: Vec::new(),
        when,
        resources: stage.resources.as_ref().map(spec::Resources::from).unwrap_or_default(),
        retries,
        deterministic: !stage.nondeterministic,
        stop_after: stage.stop_after.map_or(Some(1), |stop| stop.failures),
        spec_digest: stage.spec_digest,
        placement: convert::placement(stage.placement, &format!("{at}.placement"))?,
    })
}
