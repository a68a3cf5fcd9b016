//! Where a stage's inputs lie, told in pages: a stage may read hundreds of thousands of outputs, and neither a message nor
//! the engine's time is without end.

use muster_graph::ids::{JobId, StageIndex, TaskId};
use muster_graph::plan::{Edge, Upstream};
use muster_graph::spec::path::own_name;
use muster_proto::v1;

use super::{Engine, Job};

/// Tasks looked at for one page. A place takes about a hundred bytes, so a page stays far below a message's limit.
pub(super) const PAGE_TASKS: u32 = 16_384;

fn kind(upstream: &Upstream) -> Option<v1::InputKind> {
    match upstream.edge {
        Edge::All => Some(v1::InputKind::All),
        Edge::Shuffle => Some(v1::InputKind::Shuffle),
        Edge::Each | Edge::After | Edge::Begin => None,
    }
}

/// Under which name its reader finds the output of a stage, and in which directories below that.
pub(super) fn seen_as(upstream: &Upstream, path: &str) -> (String, Vec<String>) {
    match upstream.seen_as.split_first() {
        None => (own_name(path).into_owned(), Vec::new()),
        Some((name, below)) => (name.clone(), below.to_vec()),
    }
}

impl Engine {
    /// A page of where everything is that a stage reads as a whole. `None`: not owned here; `Err`: the
    /// revision is not known here yet.
    #[must_use]
    pub fn stage_inputs(
        &self,
        id: JobId,
        stage: StageIndex,
        revision: u64,
        from: v1::InputsPage,
    ) -> Option<Result<v1::GetStageInputsResponse, u64>> {
        let job = self.jobs.get(&id)?;
        let described = job.graph.plan().stages.get(stage.0 as usize)?;
        let current = self.inputs_revision(job, stage);
        // The upper half only says that places are to be looked up again; it differs from owner to owner. Where things lie now is right
        // for an earlier revision, too: whoever must not read what is there now does not count any more.
        if (current as u32) < revision as u32 {
            return Some(Err(current));
        }
        let read = described.upstreams.iter().filter_map(|upstream| Some((upstream, kind(upstream)?)));
        Some(Ok(self.page(job, read.zip(0..), from)))
    }

    fn page<'a>(
        &self,
        job: &Job,
        read: impl Iterator<Item = ((&'a Upstream, v1::InputKind), u32)>,
        from: v1::InputsPage,
    ) -> v1::GetStageInputsResponse {
        let mut answer = v1::GetStageInputsResponse::default();
        let mut left = PAGE_TASKS;
        for ((edge, kind), upstream) in read.skip(from.upstream as usize) {
            let stage = edge.stage;
            let described = &job.graph.plan().stages[stage.0 as usize];
            let first = if upstream == from.upstream { from.index.min(described.tasks) } else { 0 };
            if left == 0 {
                answer.next = Some(v1::InputsPage { upstream, index: 0 });
                return answer;
            }
            let end = described.tasks.min(first.saturating_add(left));
            left -= end - first;
            let (stage_name, below) = seen_as(edge, &described.name);
            answer.upstreams.push(v1::UpstreamOutputs {
                stage_name,
                below,
                stage: stage.0,
                kind: kind.into(),
                locations: (first..end).filter_map(|at| self.location(job, TaskId::new(stage.0, at))).collect(),
            });
            if end < described.tasks {
                answer.next = Some(v1::InputsPage { upstream, index: end });
                return answer;
            }
        }
        answer
    }
}
