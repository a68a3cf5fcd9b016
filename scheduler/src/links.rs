//! The way to one life of one executor: a stream of launches that is resumed when it breaks, and cancels that never
//! overtake the launch that they are about.
//!
//! A launch message is kept until it is answered and sent again on every new stream: the executor takes the same attempt
//! twice as one. How much can be unanswered is bounded by the engine's window.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::ExecutorKey;
use muster_proto::network::Network;
use muster_proto::{convert, v1};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use crate::engine::Input;
use crate::faults;
use crate::options::{LAUNCH_WINDOW, PEER_DEADLINE};
use crate::shared::Shared;
use crate::ways::{self, Client, Way};

/// Messages on their way to an executor. The window bounds launches; the rest is room for cancels.
const QUEUE: usize = 2 * LAUNCH_WINDOW as usize;
/// Between attempts to reach an executor; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// And at most.
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Asking an executor about jobs that were taken over, between attempts.
const ASK_AGAIN: Duration = Duration::from_millis(500);

enum Message {
    Launch(Vec<v1::LaunchGroup>),
    Cancel(v1::CancelTasksRequest),
}

/// See the module. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Link {
    messages: mpsc::Sender<Message>,
    /// What is to be told of it is always the newest.
    reservation: watch::Sender<v1::Reservation>,
    ended: CancellationToken,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Link {
    pub(crate) fn launch(&self, groups: Vec<v1::LaunchGroup>) {
        if self.messages.try_send(Message::Launch(groups)).is_err() {
            // The window bounds them, and cancels leave them their room: only a link that has ended takes none.
            tracing::error!("a launch found no room; the executor is asked for it when it registers again");
        }
    }

    pub(crate) fn reserve(&self, reservation: v1::Reservation) {
        self.reservation.send_replace(reservation);
    }

    pub(crate) fn cancel(&self, request: v1::CancelTasksRequest) {
        // An executor that does not listen must not keep a launch from being queued: that one would be lost for good.
        let room = self.messages.capacity() > LAUNCH_WINDOW as usize;
        if !room || self.messages.try_send(Message::Cancel(request)).is_err() {
            tracing::warn!("an executor's queue is full; a cancel is left to its next registration");
        }
    }
}

/// A channel to an address, connected when first used.
pub(crate) fn channel(network: &Network, address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(network.connect_lazy(&endpoint))
}

/// Opens the way to an executor.
pub(crate) fn connect(
    tasks: &TaskTracker,
    shared: &Arc<Shared>,
    executor: ExecutorKey,
    address: String,
    ended: CancellationToken,
) -> Link {
    let (messages, receiver) = mpsc::channel(QUEUE);
    // By its first message on a stream the executor knows for whom its accounts are.
    let nothing = v1::Reservation { scheduler: shared.presence().identity.address, ..Default::default() };
    let reservation = watch::Sender::new(nothing);
    let sender = Sender {
        shared: Arc::clone(shared),
        executor,
        address,
        messages: receiver,
        reservation: reservation.subscribe(),
        unanswered: VecDeque::new(),
        sent: 0,
        cancels: VecDeque::new(),
        sequence: 0,
        way: None,
    };
    let stopped = ended.clone();
    tasks.spawn(async move {
        // Everything that the sender holds is void when the link ends, so it may be dropped at any point.
        stopped.run_until_cancelled(sender.run()).await;
    });
    Link { messages, reservation, ended }
}

struct Sender {
    shared: Arc<Shared>,
    executor: ExecutorKey,
    address: String,
    messages: mpsc::Receiver<Message>,
    reservation: watch::Receiver<v1::Reservation>,
    /// Launch messages, oldest first, each with the number of its attempts.
    unanswered: VecDeque<(v1::LaunchTasksRequest, u32)>,
    /// How many of them have been sent on the present stream.
    sent: usize,
    /// Cancels, each with the launch message that it must not overtake.
    cancels: VecDeque<(u64, v1::CancelTasksRequest)>,
    sequence: u64,
    /// What the engine was told of the way.
    way: Option<Way>,
}

/// Why a stream was ended here.
enum End {
    /// Nothing is sent to the executor any more.
    Unwanted,
    /// There is a better way to it.
    BetterWay,
}

impl Sender {
    async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        let straight = match ways::straight(&self.shared.options.network, &self.address) {
            Ok(straight) => straight,
            Err(error) => {
                tracing::error!(executor = self.executor.id, address = self.address, %error, "not an address");
                return;
            }
        };
        loop {
            match self.stream(straight.clone(), Way::Straight, std::future::pending(), &mut pause).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::info!(executor = self.executor.id, %error, "launch stream broke; it will be resumed");
                }
            }
            self.tell(Way::None).await;
            if let Some(home) = ways::through_home(&self.shared, &self.executor).await {
                let executor = self.executor.clone();
                let open = ways::until_open(straight.clone(), &executor);
                // Large, and rarely needed.
                match Box::pin(self.stream(home, Way::ThroughHome, open, &mut pause)).await {
                    Ok(End::Unwanted) => return,
                    Ok(End::BetterWay) => {
                        tracing::info!(executor = self.executor.id, "the straight way is open again");
                        continue;
                    }
                    Err(error) => {
                        tracing::info!(executor = self.executor.id, %error, "its home does not reach it either");
                    }
                }
                self.tell(Way::None).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    async fn tell(&mut self, way: Way) {
        if self.way.replace(way) != Some(way) {
            // Stopping: nobody wants to know.
            let _ = self.shared.engine.send(Input::Reached { executor: self.executor.clone(), way }).await;
        }
    }

    /// One stream, until it breaks, `better` is there or the link is not wanted any more. Never waits for room to send without taking
    /// answers in: the executor may be waiting for room for those.
    async fn stream(
        &mut self,
        mut client: Client,
        way: Way,
        better: impl Future<Output = ()>,
        pause: &mut Duration,
    ) -> Result<End, tonic::Status> {
        let (requests, receiver) = mpsc::channel(64);
        // A new stream: everything that is unanswered goes again, and the answer's headers may come only after the first.
        self.sent = 0;
        self.reservation.mark_changed();
        let mut opening = client.clone();
        let opening = async move { opening.launch_tasks(ReceiverStream::new(receiver)).await };
        let mut opening = std::pin::pin!(tokio::time::timeout(PEER_DEADLINE, opening));
        let opened = loop {
            tokio::select! {
                biased;
                opened = &mut opening => break opened,
                permit = requests.reserve(), if self.has_something() => self.send_next(permit)?,
            }
        };
        let mut answers =
            opened.map_err(|_| tonic::Status::deadline_exceeded("opening the launch stream"))??.into_inner();
        self.tell(way).await;
        let mut better = std::pin::pin!(better);
        loop {
            tokio::select! {
                biased;
                answer = answers.message() => {
                    let Some(answer) = answer? else {
                        return Err(tonic::Status::unavailable("the executor closed the launch stream"));
                    };
                    *pause = RETRY_FIRST;
                    self.answered(answer).await;
                    self.send_cancels(&mut client).await?;
                }
                () = &mut better => return Ok(End::BetterWay),
                permit = requests.reserve(), if self.has_something() => self.send_next(permit)?,
                Ok(()) = self.reservation.changed(), if !self.has_something() => self.reservation.mark_changed(),
                message = self.messages.recv() => match message {
                    None => return Ok(End::Unwanted),
                    Some(Message::Launch(groups)) => {
                        faults::hold_at("hold-launch").await;
                        self.remember(groups);
                    }
                    Some(Message::Cancel(request)) => {
                        self.cancels.push_back((self.sequence, request));
                        self.send_cancels(&mut client).await?;
                    }
                },
            }
        }
    }

    /// Whether there is something to be sent on this stream.
    fn has_something(&self) -> bool {
        self.sent < self.unanswered.len() || self.reservation.has_changed().unwrap_or(false)
    }

    fn send_next(
        &mut self,
        permit: Result<mpsc::Permit<'_, v1::LaunchTasksRequest>, mpsc::error::SendError<()>>,
    ) -> Result<(), tonic::Status> {
        let permit = permit.map_err(|_| tonic::Status::unavailable("the launch stream is closed"))?;
        let reservation = match self.reservation.has_changed() {
            Ok(true) => Some(self.reservation.borrow_and_update().clone()),
            _ => None,
        };
        let next = self.unanswered.get(self.sent);
        self.sent += usize::from(next.is_some());
        let launch = next.map(|(request, _)| request.clone()).unwrap_or_default();
        let executor_incarnation = self.executor.incarnation;
        permit.send(v1::LaunchTasksRequest { reservation, executor_incarnation, ..launch });
        Ok(())
    }

    fn remember(&mut self, groups: Vec<v1::LaunchGroup>) {
        self.sequence += 1;
        let count = groups.iter().map(|group| group.attempts.len()).sum::<usize>();
        let request = v1::LaunchTasksRequest { sequence: self.sequence, groups, ..Default::default() };
        self.unanswered.push_back((request, u32::try_from(count).unwrap_or(u32::MAX)));
    }

    async fn answered(&mut self, mut answer: v1::LaunchTasksResponse) {
        if let Some(account) = answer.account.take() {
            // Stopping: nobody counts any more.
            let _ = self.shared.engine.send(Input::Account { executor: self.executor.clone(), account }).await;
        }
        while self.unanswered.front().is_some_and(|(request, _)| request.sequence <= answer.sequence) {
            let Some((request, count)) = self.unanswered.pop_front() else { break };
            self.sent = self.sent.saturating_sub(1);
            let mut refused = Vec::new();
            if request.sequence == answer.sequence {
                refused.extend(answer.refused.iter().map(|refusal| (token_of(&request, refusal), refusal.clone())));
            }
            let input = Input::LaunchAnswered { executor: self.executor.clone(), count, refused };
            // Stopping: nobody counts any more.
            let _ = self.shared.engine.send(input).await;
        }
    }

    /// Sends the cancels whose launches have been answered.
    async fn send_cancels(&mut self, client: &mut Client) -> Result<(), tonic::Status> {
        let open = self.unanswered.front().map_or(u64::MAX, |(request, _)| request.sequence);
        while self.cancels.front().is_some_and(|(after, _)| *after < open) {
            let Some((_, request)) = self.cancels.front() else { break };
            let call = tokio::time::timeout(PEER_DEADLINE, client.cancel_tasks(request.clone())).await;
            match call {
                Ok(Ok(_)) => {}
                Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                    tracing::warn!(executor = self.executor.id, %status, "cancel refused");
                }
                Ok(Err(status)) => return Err(status),
                Err(_) => return Err(tonic::Status::deadline_exceeded("cancel_tasks")),
            }
            self.cancels.pop_front();
        }
        Ok(())
    }
}

/// The token that a refused attempt was launched under; 0: it was not in the message.
fn token_of(request: &v1::LaunchTasksRequest, refusal: &v1::Refusal) -> u64 {
    let job = refusal.attempt.as_ref().map(|attempt| attempt.job_id.as_str());
    let group = request.groups.iter().find(|group| Some(group.job_id.as_str()) == job);
    group.and_then(|group| group.fence.as_ref()).map_or(0, |fence| fence.token)
}

/// Asks an executor what it has of some jobs until it answers, or is known to have gone.
pub(crate) async fn ask(shared: &Shared, executor: ExecutorKey, address: &str, question: u64, jobs: Vec<v1::JobFence>) {
    let Ok(straight) = ways::straight(&shared.options.network, address) else { return };
    let mut client = straight.clone();
    let mut is_straight = true;
    loop {
        let request = v1::AskJobsRequest { jobs: jobs.clone(), executor_incarnation: executor.incarnation };
        match tokio::time::timeout(PEER_DEADLINE, client.ask_jobs(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                let held = answer
                    .held
                    .into_iter()
                    .filter_map(|held| convert::attempt_ref(held.attempt.as_ref()?).ok())
                    .collect();
                let input = Input::Answered {
                    executor: ExecutorKey { id: executor.id, incarnation: answer.incarnation },
                    question,
                    held,
                    refused: answer.refused.iter().filter_map(|id| id.parse().ok()).collect(),
                };
                let _ = shared.engine.send(input).await;
                return;
            }
            Ok(Err(status)) => tracing::info!(executor = executor.id, %status, "asking again"),
            Err(_) => tracing::info!(executor = executor.id, "no answer in time; asking again"),
        }
        // Silence is never evidence that a task is not running: asked until it answers or is declared lost.
        tokio::time::sleep(ASK_AGAIN).await;
        let key = executor.clone();
        let still = shared.engine.read(move |engine| engine.wants_answer(&key, question)).await;
        if !matches!(still, Ok(true)) {
            return;
        }
        // Each way in turn: its home may reach it.
        let home = if is_straight { ways::through_home(shared, &executor).await } else { None };
        is_straight = home.is_none();
        client = home.unwrap_or_else(|| straight.clone());
    }
}
