//! Why tasks are not running: the engine's word on it, with what it cannot know: how the store is, and what the job's log
//! says of an attempt that failed.

use std::time::Duration;

use muster_graph::execution::{ExecutionGraph, FailureNote};
use muster_graph::ids::{JobId, StageIndex, TaskId};
use muster_proto::v1;
use muster_state::Keyspace;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use v1::ReasonKind as Kind;

use super::tasks::{no_task, stages_named};
use super::{Api, Place, forwarded, from_peer, is_forwarded, job_id, moved};
use crate::accept::{retry_later, store};
use crate::engine::explain::{self, Question};
use crate::load;

/// Stages or tasks in one answer, when the caller does not say.
const LIMIT_DEFAULT: u32 = 100;
/// A commit that takes longer is worth a word: a busy store answers within some tens of milliseconds.
const COMMIT_IS_SLOW: Duration = Duration::from_secs(1);
/// An engine that has taken nothing in for so long waits for the store: that is an answer, too. A client's try lasts longer.
const ENGINE_PATIENCE: Duration = Duration::from_secs(2);

/// What a request is about, by the job's own stages.
fn question(graph: &ExecutionGraph, message: &v1::ExplainRequest) -> Result<Question, Status> {
    let from = match message.page_token.as_str() {
        "" => 0,
        token => {
            token.parse().map_err(|_| Status::invalid_argument("page_token: not one that an explanation has given"))?
        }
    };
    let limit = if message.limit == 0 { LIMIT_DEFAULT } else { message.limit } as usize;
    let (stage, index) = match message.stage.as_str() {
        "" => (None, message.index),
        // The last of a nested job's is its end.
        name => {
            stages_named(graph, name, message.index).map(|(stages, index)| (Some(StageIndex(stages.end - 1)), index))?
        }
    };
    if let (Some(stage), Some(index)) = (stage, index) {
        let tasks = graph.plan().stages[stage.0 as usize].tasks;
        if index >= tasks {
            return Err(no_task(&message.stage, index, tasks));
        }
    }
    Ok(Question { stage, index, tasks: message.tasks, limit, from })
}

impl Api {
    pub(super) async fn explanation(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::Explanation>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        if message.stage.is_empty() && (message.index.is_some() || message.tasks) {
            return Err(Status::invalid_argument("stage: say of which stage the tasks are"));
        }
        if tokio::time::timeout(ENGINE_PATIENCE, self.shared.engine.read(|_| ())).await.is_err() {
            let mut why = format!("the scheduler at {} takes nothing in", self.shared.address);
            self.of_the_store().iter().for_each(|reason| why.push_str(&format!("; {}", reason.text)));
            return Err(retry_later(why));
        }
        let doubted = self.shared.health.why_doubted().map(|why| {
            let remedy = "`muster admin recover`, once it is clear that the store is as it should be";
            explain::reason_of_all(Kind::SafeMode, format!("safe mode: {why}"), remedy)
        });
        let place = match &doubted {
            Some(_) => self.in_store(id).await?,
            None => self.place_of(id, forward).await?,
        };
        if let Place::Peer(address) = &place {
            return self.jobs_at(address)?.explain(forwarded(message)).await.map_err(from_peer);
        }
        if let (Place::Over(stored), Some(why)) = (&place, &doubted)
            && stored.head.plan.is_none()
        {
            return Ok(Response::new(explain::unplanned(id, &stored.head, why.clone())));
        }
        let is_active = matches!(&place, Place::Over(stored) if stored.keyspace == Keyspace::ActiveJobs);
        let stands_still = doubted.filter(|_| is_active);
        let is_stored = matches!(place, Place::Over(_));
        let now = self.shared.now();
        let (stage, mut explanation) = self
            .look(id, &place, move |engine, head, graph| {
                let question = question(graph, &message)?;
                let told = match engine.job(id) {
                    Some(job) if !is_stored => engine.explain(job, &question, now),
                    _ => explain::stored(id, head, graph, &question, stands_still, now),
                };
                Ok::<_, Status>((question.stage, told))
            })
            .await?
            .ok_or_else(|| moved(id))??;
        if !is_stored {
            explanation.reasons.extend(self.of_the_store());
        }
        if let (Some(stage), [task]) = (stage, explanation.tasks.as_mut_slice()) {
            self.add_last_failure(id, stage, task).await;
        }
        Ok(Response::new(explanation))
    }

    /// A job as the store has it, whoever owns it: in safe mode nobody may.
    async fn in_store(&self, id: JobId) -> Result<Place, Status> {
        let stored = load::head(&*self.shared.options.state, id).await.map_err(store)?;
        let missing = || Status::not_found(format!("there is no job {id}"));
        stored.map(|stored| Place::Over(Box::new(stored))).ok_or_else(missing)
    }

    /// What keeps every job of this scheduler from being written.
    fn of_the_store(&self) -> Vec<v1::Reason> {
        let mut reasons = Vec::new();
        if let Some(why) = self.shared.health.full() {
            let text = format!("the cluster is read-mostly: {why}; what is decided cannot be committed");
            let remedy = "room in the store: see `muster admin status`";
            reasons.push(explain::reason_of_all(Kind::StoreFull, text, remedy));
        }
        let under_way = self.shared.pulse.commit_under_way(Instant::now());
        if under_way >= COMMIT_IS_SLOW {
            let text = format!("the store has not answered a commit for {} s", under_way.as_secs());
            let remedy = "the store's health: see `muster admin status`";
            reasons.push(explain::reason_of_all(Kind::StoreSilent, text, remedy));
        }
        reasons
    }

    /// The job's state knows that an attempt failed; its log knows how. Of a single task that is worth a look at the log,
    /// and an explanation is worth having without it.
    async fn add_last_failure(&self, id: JobId, stage: StageIndex, task: &mut v1::TaskExplanation) {
        let (task_id, attempt) = (TaskId::new(stage.0, task.index), task.attempt);
        let failed = |why: &&mut v1::Reason| matches!(why.kind(), Kind::Backoff | Kind::Failed);
        let Some(why) = task.reasons.first_mut().filter(failed) else { return };
        if let Ok(Some(note)) = self.failed_attempt(id, task_id, attempt).await {
            why.evidence.insert(0, in_words(&note));
        }
    }
}

fn in_words(note: &FailureNote) -> String {
    format!("attempt {}: {}", note.attempt, note.message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use muster_state::{Memory, StateBackend};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::shared::Shared;

    #[tokio::test]
    async fn an_engine_that_waits_for_the_store_is_an_answer_too() {
        let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
        // What is sent to this engine is never taken in.
        let (shared, _inputs) = Shared::without_engine(&state).await;
        let api = Api { shared, stop: CancellationToken::new() };
        api.shared.pulse.beat(Instant::now(), Some(Instant::now()));
        let question = v1::ExplainRequest { job_id: JobId(1).to_string(), ..Default::default() };
        let refused = api.explanation(Request::new(question)).await.expect_err("nobody answers");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let said = refused.message();
        assert!(said.contains("takes nothing in; the store has not answered a commit for 2 s"), "{said}");
    }
}
