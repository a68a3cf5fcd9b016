//! Attempts that ended without an accepted result, from the job's log: a task's state holds its newest attempt only.

use std::ops::Range;

use muster_graph::execution::{ExecutionGraph, FailureNote, JobEvent};
use muster_graph::ids::{Attempt, JobId, TaskId};
use muster_proto::{convert, v1};
use muster_state::codec::{self, Events};
use muster_state::{Key, Keyspace, Scan, keys};
use tonic::{Request, Response, Status};

use super::tasks::stages_named;
use super::{Api, forwarded, from_peer, is_forwarded, job_id, moved};
use crate::accept::store;
use crate::engine::{Engine, view};

/// Attempts in one answer.
const ATTEMPTS_MAX: u32 = 10_000;
/// Attempts in one answer, when the caller does not say.
const ATTEMPTS_DEFAULT: u32 = 100;

/// Which attempts are wanted.
#[derive(Debug, Clone)]
struct Wanted {
    stages: Option<Range<u32>>,
    index: Option<u32>,
}

impl Wanted {
    fn has(&self, task: TaskId) -> bool {
        self.stages.as_ref().is_none_or(|stages| stages.contains(&task.stage.0))
            && self.index.is_none_or(|index| index == task.index.0)
    }
}

fn attempt_view(graph: &ExecutionGraph, note: &FailureNote) -> Option<v1::TaskView> {
    let stage = graph.plan().stages.get(note.task.stage.0 as usize)?;
    Some(v1::TaskView {
        stage: stage.name.clone(),
        index: note.task.index.0,
        state: v1::TaskState::Failed.into(),
        attempt: note.attempt,
        executor: view::executor_name(graph, note.on),
        finished_at_ms: note.at,
        outcome: v1::Outcome::from(note.class).into(),
        exit: convert::to_exit(note.exit),
        message: note.message.clone(),
        ..Default::default()
    })
}

impl Api {
    /// Failed attempts in the order of the log, at most `limit + 1`.
    async fn failed(
        &self,
        id: JobId,
        limit: usize,
        wanted: impl Fn(&FailureNote) -> bool,
    ) -> Result<Vec<FailureNote>, Status> {
        let mut notes = Vec::new();
        let mut scan = Scan { prefix: keys::job_prefix(id), ..Scan::default() };
        loop {
            let page = self.shared.options.state.scan(Keyspace::JobEvents, scan.clone()).await.map_err(store)?;
            for entry in page.entries {
                let key = Key::new(Keyspace::JobEvents, entry.name);
                let logged: Events = codec::decode(&key, &entry.value).map_err(store)?;
                for event in logged.events {
                    match event {
                        JobEvent::AttemptFailed(note) if wanted(&note) => notes.push(note),
                        _ => {}
                    }
                    if notes.len() > limit {
                        return Ok(notes);
                    }
                }
            }
            match page.next {
                Some(after) => (scan.after, scan.at) = (Some(after), Some(page.revision)),
                None => return Ok(notes),
            }
        }
    }

    /// The word on one attempt of its owner, which is about to write it into the log, or of the log.
    pub(super) async fn failed_attempt(
        &self,
        id: JobId,
        task: TaskId,
        attempt: Attempt,
    ) -> Result<Option<FailureNote>, Status> {
        // In this order: what has left the owner's hands since is in the log.
        let unwritten = move |engine: &mut Engine| engine.job(id)?.unwritten_failure(task, attempt).cloned();
        if let Some(note) = self.shared.engine.read(unwritten).await.ok().flatten() {
            return Ok(Some(note));
        }
        let found = self.failed(id, 0, |note| note.task == task && note.attempt == attempt).await?;
        Ok(found.into_iter().next())
    }

    pub(super) async fn attempts(
        &self,
        request: Request<v1::ListAttemptsRequest>,
    ) -> Result<Response<v1::ListAttemptsResponse>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        if message.index.is_some() && message.stage.is_empty() {
            return Err(Status::invalid_argument("index: say of which stage (stage)"));
        }
        let place = self.place_of(id, forward).await?;
        if let super::Place::Peer(address) = &place {
            return self.jobs_at(address)?.list_attempts(forwarded(message)).await.map_err(from_peer);
        }
        let limit = if message.limit == 0 { ATTEMPTS_DEFAULT } else { message.limit.min(ATTEMPTS_MAX) } as usize;
        let (name, index) = (message.stage.clone(), message.index);
        let wanted = self
            .look(id, &place, move |_, _, graph| -> Result<Wanted, Status> {
                if name.is_empty() {
                    return Ok(Wanted { stages: None, index });
                }
                let (stages, index) = stages_named(graph, &name, index)?;
                Ok(Wanted { stages: Some(stages), index })
            })
            .await?
            .ok_or_else(|| moved(id))??;
        let notes = self.failed(id, limit, |note| wanted.has(note.task)).await?;
        let answer = self
            .look(id, &place, move |_, _, graph| {
                let more = notes.len() > limit;
                let mut attempts: Vec<v1::TaskView> =
                    notes.iter().take(limit).filter_map(|note| attempt_view(graph, note)).collect();
                if let (Some(stages), Some(index)) = (wanted.stages, wanted.index)
                    && let Some(newest) = view::task_view(graph, TaskId::new(stages.start, index))
                    && newest.attempt > 0
                    && attempts.iter().all(|attempt| attempt.attempt != newest.attempt)
                {
                    attempts.push(newest);
                }
                v1::ListAttemptsResponse { attempts, more }
            })
            .await?
            .ok_or_else(|| moved(id))?;
        Ok(Response::new(answer))
    }
}
