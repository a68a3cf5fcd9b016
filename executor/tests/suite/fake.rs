//! A scheduler that does what a test tells it and records what it sees.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_proto::v1::attempt_status::What;
use muster_proto::v1::executors_server::{Executors, ExecutorsServer};
use muster_proto::v1::{self, AttemptRef};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) type Key = (String, u32, u32, u32);

pub(crate) fn key(attempt: &AttemptRef) -> Key {
    (attempt.job_id.clone(), attempt.stage, attempt.index, attempt.attempt)
}

/// How a blob is answered for.
#[derive(Clone)]
pub(crate) enum Answer {
    Content(Vec<u8>),
    Unavailable,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) registrations: Vec<v1::RegisterRequest>,
    pub(crate) finished: HashMap<Key, v1::AttemptFinished>,
    /// How often a result arrived.
    pub(crate) deliveries: HashMap<Key, usize>,
    pub(crate) started: Vec<Key>,
    pub(crate) stopped: Vec<v1::ExecutorStoppedRequest>,
    /// Which outputs moved, and to whom.
    pub(crate) moved: Vec<(Key, String)>,
    pub(crate) polls: u64,
    /// What polls said that they heeded.
    pub(crate) heeded: u64,
    /// To whom polls were to be passed on.
    pub(crate) passed_on_to: BTreeSet<String>,
    pub(crate) blob_questions: usize,
    pub(crate) heartbeats: usize,
    pub(crate) forwarded_owner: HashMap<String, String>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) seen: Seen,
    pub(crate) blobs: HashMap<String, Answer>,
    pub(crate) inputs: HashMap<(u32, u64), Result<Vec<v1::UpstreamOutputs>, Status>>,
    /// Statuses are taken but not settled.
    pub(crate) keep_unsettled: bool,
    /// Statuses are refused.
    pub(crate) refuse_statuses: bool,
    /// Jobs that need outputs of the executor.
    pub(crate) needed: Vec<String>,
    /// Who is to have them; what is told as moved is taken out, and nothing is needed when nothing is left.
    pub(crate) hand_over: Vec<v1::HandOver>,
    pub(crate) heartbeat_ms: Option<u64>,
    pub(crate) schedulers: Vec<String>,
    /// What the next polls give.
    pub(crate) work: Vec<v1::LaunchGroup>,
    pub(crate) cancels: Vec<v1::CancelTasksRequest>,
    /// What the next poll is asked.
    pub(crate) ask: Vec<v1::JobFence>,
    /// Where polls are sent next.
    pub(crate) peer: String,
    /// Answers of polls that are lost on their way.
    pub(crate) lose_answers: usize,
}

#[derive(Clone)]
pub(crate) struct Scheduler {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) address: SocketAddr,
    stop: Arc<Mutex<CancellationToken>>,
}

impl Scheduler {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheduler = Self {
            state: Arc::default(),
            changed: Arc::default(),
            address: listener.local_addr().unwrap(),
            stop: Arc::default(),
        };
        scheduler.serve(listener);
        scheduler
    }

    fn serve(&self, listener: TcpListener) {
        let service = ExecutorsServer::new(self.clone()).max_decoding_message_size(64 << 20);
        let stop = self.stop.lock().unwrap().clone();
        tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
            // Dropped, not shut down: connections break as when a process dies.
            tokio::select! {
                _ = serving => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Goes down; connections that live on are refused by `down`.
    pub(crate) fn stop(&self) {
        self.stop.lock().unwrap().cancel();
    }

    fn up(&self) -> Result<(), Status> {
        if self.stop.lock().unwrap().is_cancelled() { Err(Status::unavailable("down")) } else { Ok(()) }
    }

    pub(crate) async fn restart(&self) {
        *self.stop.lock().unwrap() = CancellationToken::new();
        let until = Instant::now() + DEADLINE;
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < until, "the port is free again: {error}"),
            }
            tokio::task::yield_now().await;
        };
        self.serve(listener);
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
        result
    }

    /// Waits until a test's condition holds.
    pub(crate) async fn until<T>(&self, what: &str, condition: impl Fn(&State) -> Option<T>) -> T {
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = condition(&self.state.lock().unwrap()) {
                return found;
            }
            tokio::time::timeout_at(until, changed).await.unwrap_or_else(|_| panic!("not in time: {what}"));
        }
    }

    pub(crate) async fn result(&self, attempt: &AttemptRef) -> v1::AttemptFinished {
        let key = key(attempt);
        self.until(&format!("the result of {key:?}"), |state| state.seen.finished.get(&key).cloned()).await
    }

    pub(crate) fn put_blob<M: prost::Message>(&self, message: &M) -> String {
        let content = message.encode_to_vec();
        let digest = blake3::hash(&content).to_hex().to_string();
        self.with(|state| state.blobs.insert(digest.clone(), Answer::Content(content)));
        digest
    }

    fn take(&self, statuses: Vec<v1::AttemptStatus>) -> Vec<u64> {
        self.with(|state| {
            let mut settled = Vec::new();
            for status in statuses {
                let key = key(status.attempt.as_ref().unwrap());
                match status.what.clone().unwrap() {
                    What::Moved(to) => {
                        state.seen.moved.push((key.clone(), to.executor_id));
                        let moved = |kept: &v1::KeptOutput| {
                            let attempt = kept.attempt.as_ref().unwrap();
                            (attempt.stage, attempt.index) == (key.1, key.2)
                        };
                        state.hand_over.iter_mut().for_each(|to| to.outputs.retain(|kept| !moved(kept)));
                        state.hand_over.retain(|to| !to.outputs.is_empty());
                        if state.hand_over.is_empty() {
                            state.needed.clear();
                        }
                        settled.push(status.sequence);
                    }
                    What::Started(_) => state.seen.started.push(key),
                    What::Finished(finished) => {
                        assert!(status.sequence > 0);
                        *state.seen.deliveries.entry(key.clone()).or_default() += 1;
                        if let Some(known) = state.seen.finished.insert(key, finished.clone()) {
                            assert_eq!(known, finished, "an attempt has one result");
                        }
                        if !state.keep_unsettled {
                            settled.push(status.sequence);
                        }
                    }
                }
            }
            settled
        })
    }
}

#[tonic::async_trait]
impl Executors for Scheduler {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        self.up()?;
        let (schedulers, heartbeat_ms) = self.with(|state| {
            state.seen.registrations.push(request.into_inner());
            (state.schedulers.clone(), state.heartbeat_ms.unwrap_or(100))
        });
        Ok(Response::new(v1::RegisterResponse {
            scheduler_id: self.address.to_string(),
            schedulers,
            heartbeat_ms,
            cluster_epoch: 1,
            ..Default::default()
        }))
    }

    type SessionStream = ReceiverStream<Result<v1::SchedulerSignal, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::Heartbeat>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.up()?;
        let mut heartbeats = request.into_inner();
        let (signals, stream) = mpsc::channel(4);
        let stop = self.stop.lock().unwrap().clone();
        let scheduler = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    beat = heartbeats.message() => {
                        let Ok(Some(_)) = beat else { return };
                        scheduler.with(|state| state.seen.heartbeats += 1);
                        let signal = Some(v1::scheduler_signal::Signal::Seen(v1::HeartbeatSeen {}));
                        if signals.send(Ok(v1::SchedulerSignal { signal })).await.is_err() { return; }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn poll_work(&self, request: Request<v1::PollWorkRequest>) -> Result<Response<v1::PollWorkResponse>, Status> {
        self.up()?;
        let request = request.into_inner();
        let newest = request.sequence;
        let overtaken = self.with(|state| {
            let overtaken = newest <= state.seen.polls;
            state.seen.polls = newest.max(state.seen.polls);
            state.seen.heeded = request.heeded;
            if !request.pass_on_to.is_empty() {
                state.seen.passed_on_to.insert(request.pass_on_to);
            }
            overtaken
        });
        if overtaken {
            assert!(request.statuses.is_empty(), "only polls that carry nothing are given up");
            return Ok(Response::new(v1::PollWorkResponse::default()));
        }
        let settled = self.take(request.statuses);
        let held: BTreeSet<Key> = request.held.iter().map(|held| key(held.attempt.as_ref().unwrap())).collect();
        let until = tokio::time::Instant::now() + Duration::from_millis(request.wait_ms);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let answer = self.with_quietly(|state| {
                // Given until the executor says that it has them.
                for group in &mut state.work {
                    let (job, stage) = (group.job_id.clone(), group.stage);
                    group.attempts.retain(|launch| {
                        let key = (job.clone(), stage, launch.index, launch.attempt);
                        !held.contains(&key) && !state.seen.finished.contains_key(&key)
                    });
                }
                state.work.retain(|group| !group.attempts.is_empty());
                // As often: an answer may be lost.
                let seen = &state.seen.finished;
                state.cancels.retain(|cancel| cancel.attempts.iter().any(|attempt| !seen.contains_key(&key(attempt))));
                let nothing = state.work.is_empty() && state.cancels.is_empty() && state.ask.is_empty();
                if nothing && settled.is_empty() {
                    return None;
                }
                if state.lose_answers > 0 && !state.work.is_empty() {
                    state.lose_answers -= 1;
                    return Some(Err(Status::unavailable("lost on its way")));
                }
                let (launches, cancels) = (state.work.clone(), state.cancels.clone());
                let ask = std::mem::take(&mut state.ask);
                let peer = state.peer.clone();
                Some(Ok(v1::PollWorkResponse { launches, cancels, ask, peer, ..Default::default() }))
            });
            let over = tokio::time::Instant::now() >= until || self.with_quietly(|state| state.seen.polls > newest);
            match answer {
                Some(Ok(mut answer)) => {
                    answer.settled = settled;
                    return Ok(Response::new(answer));
                }
                Some(Err(lost)) => return Err(lost),
                None if over => {
                    let peer = self.with_quietly(|state| state.peer.clone());
                    return Ok(Response::new(v1::PollWorkResponse { settled, peer, ..Default::default() }));
                }
                None => drop(tokio::time::timeout_at(until, changed).await),
            }
        }
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Result<Response<v1::UpdateTaskStatusResponse>, Status> {
        self.up()?;
        if self.with(|state| state.refuse_statuses) {
            return Err(Status::unavailable("not now"));
        }
        let request = request.into_inner();
        let owners = self.with(|state| {
            let jobs = request.statuses.iter().map(|status| status.attempt.as_ref().unwrap().job_id.clone());
            let hints = jobs.filter_map(|job| Some((job.clone(), state.seen.forwarded_owner.get(&job)?.clone())));
            hints.collect::<BTreeMap<_, _>>()
        });
        if !owners.is_empty() {
            return Ok(Response::new(v1::UpdateTaskStatusResponse { settled: Vec::new(), owners }));
        }
        let settled = self.take(request.statuses);
        Ok(Response::new(v1::UpdateTaskStatusResponse { settled, owners }))
    }

    async fn get_stage_spec(
        &self,
        request: Request<v1::GetStageSpecRequest>,
    ) -> Result<Response<v1::GetStageSpecResponse>, Status> {
        self.up()?;
        let digest = request.into_inner().digest;
        match self.with(|state| {
            state.seen.blob_questions += 1;
            state.blobs.get(&digest).cloned()
        }) {
            Some(Answer::Content(content)) => Ok(Response::new(v1::GetStageSpecResponse { content })),
            Some(Answer::Unavailable) => Err(Status::unavailable("the store is slow")),
            None => Err(Status::not_found("no such blob")),
        }
    }

    async fn get_stage_inputs(
        &self,
        request: Request<v1::GetStageInputsRequest>,
    ) -> Result<Response<v1::GetStageInputsResponse>, Status> {
        self.up()?;
        let request = request.into_inner();
        let inputs = self.with(|state| state.inputs.get(&(request.stage, request.inputs_revision)).cloned());
        let upstreams = inputs.ok_or_else(|| Status::failed_precondition("moved on"))??;
        Ok(Response::new(super::pages::page(&upstreams, request.from)))
    }

    async fn outputs_needed(
        &self,
        request: Request<v1::OutputsNeededRequest>,
    ) -> Result<Response<v1::OutputsNeededResponse>, Status> {
        let avoid = request.into_inner().avoid;
        let (job_ids, mut hand_over) = self.with_quietly(|state| (state.needed.clone(), state.hand_over.clone()));
        hand_over.retain(|to| !avoid.contains(&to.executor_id));
        Ok(Response::new(v1::OutputsNeededResponse { job_ids, hand_over }))
    }

    async fn executor_stopped(
        &self,
        request: Request<v1::ExecutorStoppedRequest>,
    ) -> Result<Response<v1::ExecutorStoppedResponse>, Status> {
        self.with(|state| state.seen.stopped.push(request.into_inner()));
        Ok(Response::new(v1::ExecutorStoppedResponse {}))
    }
}

impl Scheduler {
    /// Without waking those who wait for changes.
    fn with_quietly<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}
