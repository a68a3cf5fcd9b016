//! What users ask of single tasks: their states, logs and outputs. Logs and outputs lie on executors; they are passed
//! through, so that a user needs to reach schedulers only.

use std::ops::Range;

use muster_graph::execution::{ExecutionGraph, ExecutorRef, TaskState};
use muster_graph::ids::{Attempt, JobId, StageIndex, TaskId};
use muster_graph::spec::Gate;
use muster_proto::network::Network;
use muster_proto::v1::data_client::DataClient;
use muster_proto::{MESSAGE_BYTES_MAX, convert, v1};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::jobs::Answers;
use super::{Api, Place, forwarded, from_peer, is_forwarded, job_id, moved};
use crate::accept::unavailable;
use crate::engine::{Engine, view};

/// Tasks in one answer.
const TASKS_MAX: u32 = 10_000;
/// Tasks in one answer, when the caller does not say.
const TASKS_DEFAULT: u32 = 100;

/// An attempt and where it ran.
struct Found {
    attempt: v1::AttemptRef,
    executor: String,
    address: String,
}

pub(super) fn stage_named(graph: &ExecutionGraph, name: &str) -> Result<StageIndex, Status> {
    (0u32..)
        .zip(&graph.plan().stages)
        .find(|(_, stage)| stage.name == name)
        .map(|(index, _)| StageIndex(index))
        .ok_or_else(|| {
            let stages = graph.plan().stages.iter().filter(|stage| stage.gate != Some(Gate::Begin));
            let known: Vec<&str> = stages.take(20).map(|stage| stage.name.as_str()).collect();
            Status::not_found(format!("stage: the job has no stage '{name}'; it has {}", known.join(", ")))
        })
}

/// The stages that a name means: one, or all of a nested job; and the task, if one is named. A number behind the name of a nested job is
/// the name of a stage in it: the job itself has no tasks.
pub(super) fn stages_named(
    graph: &ExecutionGraph,
    name: &str,
    index: Option<u32>,
) -> Result<(Range<u32>, Option<u32>), Status> {
    let stage = stage_named(graph, name)?;
    match (graph.plan().stages[stage.0 as usize].gate, index) {
        (Some(_), Some(index)) => stages_named(graph, &format!("{name}/{index}"), None),
        _ => Ok((view::within(graph.plan(), stage), index)),
    }
}

pub(super) fn no_task(name: &str, index: u32, tasks: u32) -> Status {
    Status::not_found(format!("index: stage '{name}' has no task {index}; it has {tasks}, counted from 0"))
}

/// What the present states know of an attempt.
enum Known {
    /// There has been none yet.
    NotYet,
    /// Here it is, or was.
    At(Found),
    /// It is not the newest one: only the job's log knows.
    Earlier(TaskId, Attempt),
}

/// Where an attempt of a task ran; `attempt` 0 means the newest. `logged` is what the log said of it, if it was asked.
fn find(
    engine: &Engine,
    id: JobId,
    graph: &ExecutionGraph,
    (stage, index, attempt): (&str, u32, Attempt),
    logged: Option<ExecutorRef>,
) -> Result<Known, Status> {
    let place = stage_named(graph, stage)?;
    let task_id = TaskId::new(place.0, index);
    let task = graph.task(task_id).ok_or_else(|| no_task(stage, index, graph.plan().stages[place.0 as usize].tasks))?;
    let wanted = if attempt == 0 { task.attempt } else { attempt };
    if wanted == 0 {
        return Ok(Known::NotYet);
    }
    if wanted > task.attempt {
        return Err(Status::not_found(format!(
            "attempt: task {stage}/{index} has no attempt {wanted}; the newest is {}",
            task.attempt
        )));
    }
    let now = match task.state {
        TaskState::Assigned { on, .. } | TaskState::Running { on, .. } => Some(on),
        TaskState::Successful(accepted) => Some(accepted.on),
        TaskState::Failed(ended) => Some(ended.on),
        TaskState::Pending { .. } | TaskState::Cancelled => None,
    };
    let on = if wanted == task.attempt { now } else { None }.or(logged);
    let Some(executor) = on.and_then(|on| graph.executor(on)) else {
        return Ok(Known::Earlier(task_id, wanted));
    };
    Ok(Known::At(Found {
        attempt: convert::to_attempt_ref(id, task_id, wanted),
        executor: executor.id.clone(),
        address: engine.executor(&executor.id).map(|known| known.address.clone()).unwrap_or_default(),
    }))
}

fn data(network: &Network, found: &Found) -> Result<DataClient<Channel>, Status> {
    if found.address.is_empty() {
        return Err(Status::unavailable(format!("executor {} is out of reach, and so are its files", found.executor)));
    }
    let channel = crate::links::channel(network, &found.address)
        .map_err(|error| Status::internal(format!("{} is not an address: {error}", found.address)))?;
    Ok(DataClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

impl Api {
    pub(super) async fn tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        let place = self.place_of(id, forward).await?;
        if let Place::Peer(address) = &place {
            return self.jobs_at(address)?.list_tasks(forwarded(message)).await.map_err(from_peer);
        }
        let from = match message.page_token.as_str() {
            "" => (0, 0),
            token => token
                .split_once('.')
                .and_then(|(stage, index)| Some((stage.parse::<u32>().ok()?, index.parse::<u32>().ok()?)))
                .ok_or_else(|| Status::invalid_argument("page_token: not one that a list has given"))?,
        };
        let limit = if message.limit == 0 { TASKS_DEFAULT } else { message.limit.min(TASKS_MAX) } as usize;
        let listed = self
            .look(id, &place, move |_, _, graph| -> Result<v1::ListTasksResponse, Status> {
                let (only, index) = match message.stage.as_str() {
                    "" => (None, message.index),
                    name => stages_named(graph, name, message.index).map(|(only, index)| (Some(only), index))?,
                };
                let mut answer = v1::ListTasksResponse::default();
                for (stage, plan) in (0u32..).zip(&graph.plan().stages).skip(from.0 as usize) {
                    if only.as_ref().is_some_and(|only| !only.contains(&stage)) {
                        continue;
                    }
                    let first = if stage == from.0 { from.1 } else { 0 };
                    let range = match index {
                        Some(index) if index >= plan.tasks && only.is_some() => {
                            return Err(no_task(&plan.name, index, plan.tasks));
                        }
                        Some(index) => index.max(first)..index.saturating_add(1).min(plan.tasks),
                        None => first..plan.tasks,
                    };
                    for (index, task) in graph.tasks(StageIndex(stage), range) {
                        let state = i32::from(v1::TaskState::from(&task.state));
                        if !message.states.is_empty() && !message.states.contains(&state) {
                            continue;
                        }
                        if answer.tasks.len() == limit {
                            answer.next_page_token = format!("{stage}.{}", index.0);
                            return Ok(answer);
                        }
                        answer.tasks.extend(view::task_view(graph, TaskId::new(stage, index.0)));
                    }
                }
                Ok(answer)
            })
            .await?;
        listed.ok_or_else(|| moved(id))?.map(Response::new)
    }

    async fn find(&self, message: &v1::ReadTaskLogRequest, id: JobId, forward: bool) -> Result<Option<Found>, Status> {
        let place = self.place_of(id, forward).await?;
        let mut logged = None;
        loop {
            let (stage, index, attempt) = (message.stage.clone(), message.index, message.attempt);
            let known = self
                .look(id, &place, move |engine, _, graph| find(engine, id, graph, (&stage, index, attempt), logged))
                .await?
                .ok_or_else(|| moved(id))??;
            match known {
                Known::NotYet => return Ok(None),
                Known::At(found) => return Ok(Some(found)),
                Known::Earlier(task, attempt) => match self.failed_attempt(id, task, attempt).await? {
                    Some(note) if logged.is_none() => logged = Some(note.on),
                    _ => {
                        return Err(Status::not_found(format!(
                            "attempt: where attempt {attempt} of {}/{} ran is not known any more",
                            message.stage, message.index
                        )));
                    }
                },
            }
        }
    }

    pub(super) async fn log(
        &self,
        request: Request<v1::ReadTaskLogRequest>,
    ) -> Result<Response<Answers<v1::LogChunk>>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        if let Place::Peer(address) = self.place_of(id, forward).await? {
            let mut request = forwarded(message);
            // A log that is followed has no deadline.
            request.metadata_mut().remove("grpc-timeout");
            let stream = self.jobs_at(&address)?.read_log(request).await.map_err(from_peer)?.into_inner();
            return Ok(Response::new(Box::pin(stream)));
        }
        let found = loop {
            let changes = self.shared.engine.read(move |engine| engine.watch(id)).await.map_err(unavailable)?;
            if let Some(found) = self.find(&message, id, true).await? {
                break found;
            }
            match changes {
                Some(mut changes) if message.follow => {
                    // Ended: the job moved or is over, which the next look finds out.
                    let _ = changes.changed().await;
                }
                _ => {
                    return Err(Status::failed_precondition(format!(
                        "task {}/{} has not been started yet; follow the log to wait for it",
                        message.stage, message.index
                    )));
                }
            }
        };
        let stream = data(&self.shared.options.network, &found)?
            .read_log(v1::ReadLogRequest {
                attempt: Some(found.attempt),
                stream: message.stream,
                follow: message.follow,
                offset: message.offset,
            })
            .await?
            .into_inner();
        Ok(Response::new(Box::pin(stream)))
    }

    pub(super) async fn outputs(
        &self,
        request: Request<v1::ListOutputsRequest>,
    ) -> Result<Response<v1::ListOutputsResponse>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        let place = self.place_of(id, forward).await?;
        if let Place::Peer(address) = &place {
            return self.jobs_at(address)?.list_outputs(forwarded(message)).await.map_err(from_peer);
        }
        let listed = self
            .look(id, &place, move |_, _, graph| -> Result<v1::ListOutputsResponse, Status> {
                let only = match message.stage.as_str() {
                    "" => None,
                    name => Some(stages_named(graph, name, None)?.0),
                };
                let read = view::read_stages(graph.plan());
                let mut answer = v1::ListOutputsResponse::default();
                for (index, plan) in (0u32..).zip(&graph.plan().stages) {
                    let stage = StageIndex(index);
                    let wanted = only.as_ref().map_or_else(|| !read[index as usize], |only| only.contains(&index));
                    if !wanted {
                        continue;
                    }
                    for (index, task) in graph.tasks(stage, 0..plan.tasks) {
                        let TaskState::Successful(accepted) = task.state else { continue };
                        if accepted.output.files == 0 {
                            continue;
                        }
                        answer.outputs.push(v1::OutputView {
                            stage: plan.name.clone(),
                            index: index.0,
                            attempt: task.attempt,
                            output: Some(accepted.output.into()),
                            executor: graph.executor(accepted.on).map(|on| on.id.clone()).unwrap_or_default(),
                        });
                    }
                }
                Ok(answer)
            })
            .await?;
        listed.ok_or_else(|| moved(id))?.map(Response::new)
    }

    pub(super) async fn output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Answers<v1::OutputChunk>>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        let place = self.place_of(id, forward).await?;
        if let Place::Peer(address) = &place {
            let stream = self.jobs_at(address)?.read_output(forwarded(message)).await.map_err(from_peer)?.into_inner();
            return Ok(Response::new(Box::pin(stream)));
        }
        let (stage, index) = (message.stage.clone(), message.index);
        let found = self
            .look(id, &place, move |engine, _, graph| -> Result<Option<Found>, Status> {
                let place = stage_named(graph, &stage)?;
                let task = graph
                    .task(TaskId::new(place.0, index))
                    .ok_or_else(|| no_task(&stage, index, graph.plan().stages[place.0 as usize].tasks))?;
                match task.state {
                    TaskState::Successful(accepted) if accepted.output.files > 0 => {
                        match find(engine, id, graph, (&stage, index, 0), None)? {
                            Known::At(found) => Ok(Some(found)),
                            Known::NotYet | Known::Earlier(..) => Ok(None),
                        }
                    }
                    _ => Ok(None),
                }
            })
            .await?
            .ok_or_else(|| moved(id))??
            .ok_or_else(|| Status::not_found(format!("task {}/{} has no output", message.stage, message.index)))?;
        let request = v1::FetchOutputRequest { attempt: Some(found.attempt.clone()), part: None };
        let stream = data(&self.shared.options.network, &found)?.fetch_output(request).await?.into_inner();
        Ok(Response::new(Box::pin(stream)))
    }
}
