//! What executors call.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_graph::ids::{ExecutorKey, JobId, StageIndex};
use muster_proto::v1::executors_client::ExecutorsClient;
use muster_proto::v1::executors_server::Executors;
use muster_proto::{MESSAGE_BYTES_MAX, v1};
use muster_state::codec;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::jobs::Answers;
use super::{Api, Place, forwarded, from_peer, is_forwarded, job_id, moved};
use crate::absence;
use crate::accept::{store, unavailable};
use crate::engine::Input;
use crate::options::{CALL_DEADLINE, PEER_DEADLINE, POLL_WAIT_MAX, STATUSES_PER_CALL_MAX};
use crate::{demand, faults, load, ownership};

/// An executor's or resource's name, and labels, at most.
const TEXT_BYTES_MAX: usize = 256;
/// How long work waits for the acknowledgements that go with it: a commit here has landed by then, and mostly a peer's too.
const SETTLED_WITHIN: Duration = Duration::from_millis(200);
/// Answers to heartbeats on their way to an executor.
const SIGNALS_QUEUE: usize = 16;

pub(super) fn named(field: &str, text: &str) -> Result<(), Status> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains(['/', '\0']) {
        return Err(Status::invalid_argument(format!(
            "{field}: must be 1 to {TEXT_BYTES_MAX} bytes, without '/' and NUL"
        )));
    }
    Ok(())
}

impl Api {
    pub(super) fn executors_at(&self, address: &str) -> Result<ExecutorsClient<Channel>, Status> {
        Ok(ExecutorsClient::new(self.shared.peers.channel(&self.shared.options.network, address)?)
            .max_decoding_message_size(16 * MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Brings statuses to their jobs' owners. Answers what may be forgotten, and who owns what is not ours.
    async fn report(
        &self,
        executor: ExecutorKey,
        statuses: Vec<v1::AttemptStatus>,
        forward: bool,
    ) -> Result<v1::UpdateTaskStatusResponse, Status> {
        // What cannot be committed now stays with the executor: here it would fill the engine, and reads with it.
        self.shared.health.check_writable()?;
        let (reply, answer) = oneshot::channel();
        let input = Input::Statuses { executor: executor.clone(), statuses, reply };
        self.shared.engine.send(input).await.map_err(unavailable)?;
        let answer = tokio::time::timeout(CALL_DEADLINE, answer)
            .await
            .map_err(|_| Status::deadline_exceeded("the statuses are not committed yet; send them again"))?
            .map_err(unavailable)?;
        let mut response = v1::UpdateTaskStatusResponse { settled: answer.settled, owners: BTreeMap::new() };
        for (id, statuses) in answer.elsewhere {
            self.report_elsewhere(&executor, id, statuses, forward, &mut response).await?;
        }
        Ok(response)
    }

    async fn report_elsewhere(
        &self,
        executor: &ExecutorKey,
        id: JobId,
        statuses: Vec<v1::AttemptStatus>,
        forward: bool,
        response: &mut v1::UpdateTaskStatusResponse,
    ) -> Result<(), Status> {
        let over = match load::head(&*self.shared.options.state, id).await.map_err(store)? {
            // It never was, or was purged; a linearizable read is the proof.
            None => true,
            Some(stored) => stored.keyspace != muster_state::Keyspace::ActiveJobs,
        };
        if over {
            response.settled.extend(statuses.iter().map(|status| status.sequence));
            return Ok(());
        }
        let Some(owner) = ownership::owner_elsewhere(&self.shared, id).await.map_err(store)? else {
            // On its way to somebody; the executor sends again.
            return Ok(());
        };
        if !forward {
            let request = v1::UpdateTaskStatusRequest {
                executor_id: executor.id.clone(),
                incarnation: executor.incarnation,
                statuses,
                forwarded: true,
                account: None,
            };
            let call = self.executors_at(&owner)?;
            match tokio::time::timeout(PEER_DEADLINE, {
                let mut call = call;
                async move { call.update_task_status(request).await }
            })
            .await
            {
                Ok(Ok(answer)) => response.settled.extend(answer.into_inner().settled),
                Ok(Err(status)) => tracing::debug!(job = %id, owner, %status, "statuses could not be passed on"),
                Err(_) => tracing::debug!(job = %id, owner, "statuses could not be passed on in time"),
            }
        }
        response.owners.insert(id.to_string(), owner);
        Ok(())
    }
}

fn check_statuses(count: usize) -> Result<(), Status> {
    if count > STATUSES_PER_CALL_MAX {
        return Err(Status::invalid_argument(format!(
            "statuses: {count}, more than STATUSES_PER_CALL_MAX = {STATUSES_PER_CALL_MAX}; send them in several calls"
        )));
    }
    Ok(())
}

#[tonic::async_trait]
impl Executors for Api {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        Ok(Response::new(self.register_executor(request.into_inner()).await?))
    }

    type SessionStream = Answers<v1::SchedulerSignal>;

    async fn session(
        &self,
        request: Request<Streaming<v1::Heartbeat>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let beats = request.into_inner();
        let (signals, receiver) = mpsc::channel(SIGNALS_QUEUE);
        let api = self.clone();
        tokio::spawn(async move {
            let stop = api.stop.clone();
            let mut seen = None;
            // Cancelled between two heartbeats: nothing is half done.
            stop.run_until_cancelled(api.hear(beats, &signals, &mut seen)).await;
            if let Some(executor) = seen {
                let _ = api.shared.engine.send(Input::SessionEnded { executor }).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn poll_work(&self, request: Request<v1::PollWorkRequest>) -> Result<Response<v1::PollWorkResponse>, Status> {
        let mut poll = request.into_inner();
        check_statuses(poll.statuses.len())?;
        named("executor_id", &poll.executor_id)?;
        if !poll.pass_on_to.is_empty() {
            return self.pass_on(poll).await;
        }
        self.shared.health.check_trusted()?;
        let wait = Duration::from_millis(poll.wait_ms).min(POLL_WAIT_MAX);
        let key = ExecutorKey { id: poll.executor_id.clone(), incarnation: poll.incarnation };
        let (sequence, statuses) = (poll.sequence, std::mem::take(&mut poll.statuses));
        let last_peer = std::mem::take(&mut poll.last_peer);
        let mut settled = Vec::new();
        let mut reporting = None;
        if !statuses.is_empty() {
            let (api, executor) = (self.clone(), key.clone());
            let mut report = Box::pin(async move { api.report(executor, statuses, false).await });
            // The statuses reach the engine first, so that the poll finds the resources that they free.
            tokio::select! {
                biased;
                answer = &mut report => settled = answer?.settled,
                // The rest goes on whatever becomes of this poll: it may be a peer that has to commit them.
                () = std::future::ready(()) => reporting = Some(tokio::spawn(report)),
            }
        }
        let (reply, mut answer) = oneshot::channel();
        self.shared.engine.send(Input::Poll { poll: Box::new(poll), reply }).await.map_err(unavailable)?;
        let mut peer = String::new();
        let expired = Input::PollExpired { executor: key.id.clone(), sequence };
        let early = tokio::select! {
            biased;
            outcome = async { reporting.as_mut().expect("the branch is off without it").await }, if reporting.is_some() => {
                reporting = None;
                settled = outcome.map_err(|error| Status::internal(error.to_string()))??.settled;
                None
            }
            work = &mut answer => Some(work.map_err(unavailable)?),
            address = self.peer_with_work(&last_peer), if !wait.is_zero() => {
                peer = address;
                None
            }
            // Its session has ended, too: its next poll goes to its new home.
            () = self.shared.told_to_give_way(), if reporting.is_none() && !wait.is_zero() => None,
            () = tokio::time::sleep(wait), if reporting.is_none() => None,
        };
        let mut response = match early {
            Some(work) => work,
            None => {
                // Acknowledgements do not wait for work.
                self.shared.engine.send(expired).await.map_err(unavailable)?;
                answer.await.map_err(unavailable)?
            }
        };
        if let Some(reporting) = reporting {
            // Work was there first. Without the acknowledgements the executor would say all of that again, and if there is
            // always something to tell it, for ever.
            match tokio::time::timeout(SETTLED_WITHIN, reporting).await {
                Ok(Ok(Ok(report))) => settled = report.settled,
                outcome => tracing::debug!(executor = key.id, ?outcome, "work does not wait for acknowledgements"),
            }
        }
        response.settled = settled;
        if peer.is_empty() && !response.register_again {
            peer = demand::peer_after(&self.shared, &last_peer).unwrap_or_default();
        }
        response.peer = peer;
        if faults::is_set("lose-poll-answer") {
            tracing::info!("an answer to a poll was lost");
            return Err(Status::unavailable("the answer was lost"));
        }
        Ok(Response::new(response))
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Result<Response<v1::UpdateTaskStatusResponse>, Status> {
        let message = request.into_inner();
        check_statuses(message.statuses.len())?;
        named("executor_id", &message.executor_id)?;
        let executor = ExecutorKey { id: message.executor_id, incarnation: message.incarnation };
        if let Some(account) = message.account {
            let input = Input::Account { executor: executor.clone(), account };
            self.shared.engine.send(input).await.map_err(unavailable)?;
        }
        let answer = self.report(executor, message.statuses, message.forwarded).await?;
        if faults::is_set("lose-status-answer") {
            tracing::info!("an answer to statuses was lost");
            return Err(Status::unavailable("the answer was lost"));
        }
        Ok(Response::new(answer))
    }

    async fn get_stage_spec(
        &self,
        request: Request<v1::GetStageSpecRequest>,
    ) -> Result<Response<v1::GetStageSpecResponse>, Status> {
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        if message.digest.len() != 64 || !message.digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Status::invalid_argument("digest: 64 hexadecimal digits are wanted"));
        }
        match codec::blob::load(&*self.shared.options.state, id, &message.digest).await {
            Ok(Some(content)) => Ok(Response::new(v1::GetStageSpecResponse { content })),
            Ok(None) => Err(Status::not_found(format!("job {id} has no stored content {}", message.digest))),
            Err(error) => Err(store(error)),
        }
    }

    async fn get_stage_inputs(
        &self,
        request: Request<v1::GetStageInputsRequest>,
    ) -> Result<Response<v1::GetStageInputsResponse>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        match self.place_of(id, forward).await? {
            Place::Peer(address) => {
                self.executors_at(&address)?.get_stage_inputs(forwarded(message)).await.map_err(from_peer)
            }
            Place::Over(_) => Err(Status::failed_precondition(format!("job {id} is over"))),
            Place::Here => {
                let (stage, revision) = (StageIndex(message.stage), message.inputs_revision);
                let from = message.from.unwrap_or_default();
                let inputs = self
                    .shared
                    .engine
                    .read(move |engine| engine.stage_inputs(id, stage, revision, from))
                    .await
                    .map_err(unavailable)?;
                match inputs {
                    None => Err(moved(id)),
                    Some(Ok(inputs)) => Ok(Response::new(inputs)),
                    Some(Err(current)) => Err(Status::failed_precondition(format!(
                        "inputs_revision: {revision} is not known here, where {current} is the present one"
                    ))),
                }
            }
        }
    }

    async fn outputs_needed(
        &self,
        request: Request<v1::OutputsNeededRequest>,
    ) -> Result<Response<v1::OutputsNeededResponse>, Status> {
        let message = request.into_inner();
        named("executor_id", &message.executor_id)?;
        Ok(Response::new(self.who_needs_outputs_of(message).await?))
    }

    async fn executor_stopped(
        &self,
        request: Request<v1::ExecutorStoppedRequest>,
    ) -> Result<Response<v1::ExecutorStoppedResponse>, Status> {
        let message = request.into_inner();
        named("executor_id", &message.executor_id)?;
        let executor = ExecutorKey { id: message.executor_id, incarnation: message.incarnation };
        self.shared.health.check_writable()?;
        absence::stopped(&self.shared, &executor).await.map_err(store)?;
        Ok(Response::new(v1::ExecutorStoppedResponse {}))
    }
}
