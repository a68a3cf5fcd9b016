//! An executor that runs nothing: it speaks the real wire and answers each launch with an end of the test's choosing.
//! For what schedulers do with many tasks, without the price of processes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use muster_proto::v1;
use muster_proto::v1::executor_server::{Executor, ExecutorServer};
use muster_proto::v1::executors_client::ExecutorsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Decides how an attempt ends; `None`: it runs until it is cancelled.
pub type Decide = Arc<dyn Fn(&v1::AttemptRef) -> Option<v1::AttemptFinished> + Send + Sync>;

/// Every attempt is successful, at once, and leaves nothing behind.
#[must_use]
pub fn succeed() -> Decide {
    Arc::new(|_| {
        Some(v1::AttemptFinished { outcome: v1::Outcome::Succeeded.into(), finished_at_ms: 1, ..Default::default() })
    })
}

/// Statuses in one call.
const BATCH: usize = 1024;

/// What it has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often each attempt was launched: (job, stage, index, attempt).
    pub launches: HashMap<(String, u32, u32, u32), u32>,
    /// Attempts that it was told to end.
    pub cancels: Vec<v1::AttemptRef>,
    /// Jobs of which it was asked what it has.
    pub asked: Vec<String>,
}

#[derive(Clone)]
struct Service {
    decide: Decide,
    seen: Arc<Mutex<Seen>>,
    fences: Arc<Mutex<BTreeMap<String, (u64, u64)>>>,
    statuses: mpsc::UnboundedSender<v1::AttemptStatus>,
}

/// A running simulated executor; it goes when dropped.
pub struct Simulated {
    /// Its name.
    pub id: String,
    /// Where it listens.
    pub address: String,
    slots: u32,
    seen: Arc<Mutex<Seen>>,
    reports: Mutex<Option<mpsc::UnboundedReceiver<v1::AttemptStatus>>>,
    stop: CancellationToken,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Simulated {
    /// Starts one with `slots` cores that registers with the scheduler at `scheduler`.
    pub async fn start(id: &str, scheduler: SocketAddr, slots: u32, decide: Decide) -> anyhow::Result<Self> {
        let simulated = Self::bind(id, slots, decide).await?;
        simulated.register(scheduler).await?;
        Ok(simulated)
    }

    /// One that listens, and that no scheduler knows of yet.
    pub async fn bind(id: &str, slots: u32, decide: Decide) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let stop = CancellationToken::new();
        let seen = Arc::new(Mutex::new(Seen::default()));
        // Bounded by the scheduler's launch window.
        let (statuses, reports) = mpsc::unbounded_channel();
        let service = Service { decide, seen: Arc::clone(&seen), fences: Arc::default(), statuses };
        tokio::spawn(
            tonic::transport::Server::builder().add_service(ExecutorServer::new(service)).serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stop.clone().cancelled_owned(),
            ),
        );
        Ok(Self { id: id.to_owned(), address, slots, seen, reports: Mutex::new(Some(reports)), stop })
    }

    /// Registers with a scheduler, and reports to it from then on.
    pub async fn register(&self, scheduler: SocketAddr) -> anyhow::Result<()> {
        let reports = self.reports.lock().expect("nothing panics while holding it").take();
        let reports = reports.ok_or_else(|| anyhow::anyhow!("it is registered already"))?;
        let (id, stop) = (&self.id, &self.stop);
        let mut client = ExecutorsClient::connect(format!("http://{scheduler}")).await?;
        let total = v1::Resources { cpu_milli: self.slots * 1000, ..Default::default() };
        client
            .register(v1::RegisterRequest {
                executor_id: id.clone(),
                incarnation: 1,
                address: self.address.clone(),
                mode: v1::Mode::Push.into(),
                total: Some(total.clone()),
                ..Default::default()
            })
            .await?;
        let (beats, receiver) = mpsc::channel(1);
        let name = id.clone();
        tokio::spawn(async move {
            let beat = v1::Heartbeat { executor_id: name, incarnation: 1, free: Some(total), ..Default::default() };
            while beats.send(beat.clone()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let mut signals = client.session(ReceiverStream::new(receiver)).await?.into_inner();
        tokio::spawn(
            stop.clone().run_until_cancelled_owned(async move { while let Ok(Some(_)) = signals.message().await {} }),
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(report(client, id.clone(), reports)));
        Ok(())
    }

    /// Looks at what it has seen.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("nothing panics while holding it"))
    }
}

async fn report(
    client: ExecutorsClient<tonic::transport::Channel>,
    executor_id: String,
    mut reports: mpsc::UnboundedReceiver<v1::AttemptStatus>,
) {
    let calls = Arc::new(tokio::sync::Semaphore::new(8));
    let mut statuses = Vec::new();
    while reports.recv_many(&mut statuses, BATCH).await > 0 {
        let permit = Arc::clone(&calls).acquire_owned().await.expect("it is never closed");
        let request = v1::UpdateTaskStatusRequest {
            executor_id: executor_id.clone(),
            incarnation: 1,
            statuses: std::mem::take(&mut statuses),
            forwarded: false,
            account: None,
        };
        let mut client = client.clone();
        tokio::spawn(async move {
            let _permit = permit;
            while client.update_task_status(request.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
}

impl Service {
    fn is_stale(&self, job: &str, fence: Option<v1::Fence>) -> bool {
        let fence = fence.map_or((0, 0), |fence| (fence.epoch, fence.token));
        let mut fences = self.fences.lock().expect("nothing panics while holding it");
        let highest = fences.entry(job.to_owned()).or_default();
        *highest = (*highest).max(fence);
        fence < *highest
    }

    fn launch(&self, request: v1::LaunchTasksRequest) -> v1::LaunchTasksResponse {
        let mut refused = Vec::new();
        for group in request.groups {
            let stale = self.is_stale(&group.job_id, group.fence);
            for launch in group.attempts {
                let attempt = v1::AttemptRef {
                    job_id: group.job_id.clone(),
                    stage: group.stage,
                    index: launch.index,
                    attempt: launch.attempt,
                };
                if stale {
                    refused.push(v1::Refusal {
                        attempt: Some(attempt),
                        reason: v1::RefusalReason::StaleFence.into(),
                        message: "a newer owner is known".to_owned(),
                    });
                    continue;
                }
                let key = (attempt.job_id.clone(), attempt.stage, attempt.index, attempt.attempt);
                let times = {
                    let mut seen = self.seen.lock().expect("nothing panics while holding it");
                    let times = seen.launches.entry(key).or_default();
                    *times += 1;
                    *times
                };
                if times == 1
                    && let Some(finished) = (self.decide)(&attempt)
                {
                    self.finish(attempt, finished);
                }
            }
        }
        v1::LaunchTasksResponse { sequence: request.sequence, refused, account: None }
    }

    fn finish(&self, attempt: v1::AttemptRef, finished: v1::AttemptFinished) {
        let status = v1::AttemptStatus {
            sequence: 1,
            attempt: Some(attempt),
            what: Some(v1::attempt_status::What::Finished(finished)),
        };
        // Stopping: nobody reports any more.
        let _ = self.statuses.send(status);
    }
}

#[tonic::async_trait]
impl Executor for Service {
    type LaunchTasksStream = Pin<Box<dyn Stream<Item = Result<v1::LaunchTasksResponse, Status>> + Send>>;

    async fn launch_tasks(
        &self,
        request: Request<Streaming<v1::LaunchTasksRequest>>,
    ) -> Result<Response<Self::LaunchTasksStream>, Status> {
        let (answers, receiver) = mpsc::channel(64);
        let mut requests = request.into_inner();
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if answers.send(Ok(service.launch(request))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel_tasks(
        &self,
        request: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<v1::CancelTasksResponse>, Status> {
        for attempt in request.into_inner().attempts {
            self.seen.lock().expect("nothing panics while holding it").cancels.push(attempt.clone());
            self.finish(attempt, v1::AttemptFinished { outcome: v1::Outcome::Cancelled.into(), ..Default::default() });
        }
        Ok(Response::new(v1::CancelTasksResponse {}))
    }

    async fn ask_jobs(&self, request: Request<v1::AskJobsRequest>) -> Result<Response<v1::AskJobsResponse>, Status> {
        let mut answer = v1::AskJobsResponse { incarnation: 1, ..Default::default() };
        for job in request.into_inner().jobs {
            if self.is_stale(&job.job_id, job.fence) {
                answer.refused.push(job.job_id);
                continue;
            }
            let mut seen = self.seen.lock().expect("nothing panics while holding it");
            seen.asked.push(job.job_id.clone());
            for (job_id, stage, index, attempt) in seen.launches.keys().filter(|(id, ..)| *id == job.job_id) {
                let attempt =
                    v1::AttemptRef { job_id: job_id.clone(), stage: *stage, index: *index, attempt: *attempt };
                answer.held.push(v1::HeldAttempt { attempt: Some(attempt), state: v1::HeldState::Running.into() });
            }
        }
        Ok(Response::new(answer))
    }

    async fn forget_jobs(
        &self,
        _request: Request<v1::ForgetJobsRequest>,
    ) -> Result<Response<v1::ForgetJobsResponse>, Status> {
        Ok(Response::new(v1::ForgetJobsResponse {}))
    }

    async fn stop_executor(
        &self,
        _request: Request<v1::StopExecutorRequest>,
    ) -> Result<Response<v1::StopExecutorResponse>, Status> {
        Ok(Response::new(v1::StopExecutorResponse {}))
    }
}
