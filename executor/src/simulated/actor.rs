//! One simulated executor: it owns the table, takes messages in turn, and carries what is due to schedulers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::table::{Due, Table};
use super::{Counts, Member};
use crate::clock;
use crate::uplink::channels::Channels;
use crate::uplink::{COMMIT_WITHIN, STATUSES_MAX};

/// Pause before what was not settled is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked of it. Each is answered at once.
#[derive(Debug)]
pub(super) enum Message {
    Launch(v1::LaunchTasksRequest, oneshot::Sender<v1::LaunchTasksResponse>),
    Cancel(v1::CancelTasksRequest),
    Ask(v1::AskJobsRequest, oneshot::Sender<v1::AskJobsResponse>),
    Forget(v1::ForgetJobsRequest),
    /// For a registration.
    Present(oneshot::Sender<Present>),
    /// There is a new home: what found no destination may have one now.
    Registered,
}

/// What a scheduler is told by a registration.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) held: Vec<v1::HeldAttempt>,
    pub(super) highest_epoch: u64,
    pub(super) highest_token: u64,
}

struct Delivered {
    destination: String,
    batch: Vec<Due>,
    answer: Option<v1::UpdateTaskStatusResponse>,
}

/// See the module.
pub(super) struct Actor {
    member: Member,
    table: Table,
    channels: Channels,
    counts: Arc<Counts>,
    /// Destinations with a message under way.
    busy: HashSet<String>,
    under_way: FuturesUnordered<BoxFuture<'static, Delivered>>,
    /// To be sent again, in the order of their times.
    later: VecDeque<(Instant, Due)>,
    /// Of the table, as counted last.
    running: usize,
}

impl Actor {
    pub(super) fn new(member: Member, task: Duration, channels: Channels, counts: Arc<Counts>) -> Self {
        let table = Table::new(member.slots as usize, task);
        let under_way = FuturesUnordered::new();
        Self { member, table, channels, counts, busy: HashSet::new(), under_way, later: VecDeque::new(), running: 0 }
    }

    /// Until nobody can send messages any more.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            self.advance();
            let wake = [self.table.next_end(), self.later.front().map(|(at, _)| *at)].into_iter().flatten().min();
            tokio::select! {
                biased;
                delivered = self.under_way.next(), if !self.under_way.is_empty() => {
                    if let Some(delivered) = delivered {
                        self.delivered(delivered);
                    }
                }
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = until(wake) => {}
            }
        }
    }

    fn advance(&mut self) {
        let now = Instant::now();
        while self.later.front().is_some_and(|(at, _)| *at <= now) {
            let (_, due) = self.later.pop_front().expect("it was looked at just now");
            self.table.due.push_back(due);
        }
        Counts::add(&self.counts.finished, self.table.advance(now, clock::wall_ms()));
        let running = self.table.busy();
        Counts::add(&self.counts.running, running.saturating_sub(self.running));
        Counts::subtract(&self.counts.running, self.running.saturating_sub(running));
        self.running = running;
        self.member.home.occupied(running);
        self.send();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Launch(request, answer) => {
                let sequence = request.sequence;
                let refused = if request.executor_incarnation == self.member.incarnation {
                    let admitted = self.table.launch(request.groups);
                    Counts::add(&self.counts.launched, admitted.accepted);
                    admitted.refused
                } else {
                    another_incarnation(request.groups)
                };
                Counts::add(&self.counts.refused, refused.len());
                // Its stream has gone: the launches are sent again on the next one.
                let _ = answer.send(v1::LaunchTasksResponse { sequence, refused, account: None });
            }
            Message::Cancel(request) => {
                Counts::add(&self.counts.cancelled, self.table.cancel(&request, clock::wall_ms()));
            }
            Message::Ask(request, answer) => {
                let (held, refused) = self.table.ask(request);
                let incarnation = self.member.incarnation;
                // Who asked has gone; the next owner asks again.
                let _ = answer.send(v1::AskJobsResponse {
                    incarnation,
                    held,
                    refused,
                    executor_id: self.member.id.to_string(),
                });
            }
            Message::Forget(request) => self.table.forget(&request.job_ids),
            Message::Present(answer) => {
                let highest = self.table.highest();
                let present =
                    Present { held: self.table.all_held(), highest_epoch: highest.epoch, highest_token: highest.token };
                // The registration was given up.
                let _ = answer.send(present);
            }
            Message::Registered => {}
        }
    }

    /// One message for each destination, with all that is due there.
    fn send(&mut self) {
        if self.table.due.is_empty() {
            return;
        }
        let home = self.member.home.address();
        let mut batches: HashMap<String, Vec<Due>> = HashMap::new();
        let mut kept = VecDeque::new();
        while let Some(due) = self.table.due.pop_front() {
            let owner = self.table.owner(due.job).filter(|_| !due.by_home);
            let destination = match (owner, &home) {
                (Some(owner), _) => owner,
                (None, Some(home)) => home,
                (None, None) => {
                    kept.push_back(due);
                    continue;
                }
            };
            if self.busy.contains(destination) {
                kept.push_back(due);
                continue;
            }
            let batch = batches.entry(destination.to_owned()).or_default();
            if batch.len() < STATUSES_MAX { batch.push(due) } else { kept.push_back(due) }
        }
        self.table.due = kept;
        for (destination, batch) in batches {
            self.busy.insert(destination.clone());
            self.under_way.push(Box::pin(deliver(self.channels.clone(), self.member.clone(), destination, batch)));
        }
    }

    fn delivered(&mut self, delivered: Delivered) {
        self.busy.remove(&delivered.destination);
        let answered = delivered.answer.is_some();
        if let Some(answer) = delivered.answer {
            Counts::add(&self.counts.settled, self.table.settle(&answer.settled));
            for (job, owner) in answer.owners {
                if let Ok(job) = job.parse::<JobId>() {
                    self.table.owner_is(job, owner);
                }
            }
        }
        let at = Instant::now() + PAUSE;
        for due in delivered.batch {
            if self.table.is_unsettled(due.status.sequence) {
                // An answer without it may have named the owner; no answer at all leaves the home to pass it on.
                self.later.push_back((at, Due { by_home: !answered && !due.by_home, ..due }));
            }
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn deliver(channels: Channels, member: Member, destination: String, batch: Vec<Due>) -> Delivered {
    let request = v1::UpdateTaskStatusRequest {
        executor_id: member.id.to_string(),
        incarnation: member.incarnation,
        statuses: batch.iter().map(|due| due.status.clone()).collect(),
        forwarded: false,
        account: None,
    };
    let answer = match channels.executors(&destination) {
        Some(mut scheduler) => timeout(COMMIT_WITHIN, scheduler.update_task_status(request)).await.ok(),
        None => None,
    };
    let answer = answer.and_then(Result::ok).map(tonic::Response::into_inner);
    Delivered { destination, batch, answer }
}

fn another_incarnation(groups: Vec<v1::LaunchGroup>) -> Vec<v1::Refusal> {
    let refuse = |group: v1::LaunchGroup| {
        let attempts = group.attempts.into_iter();
        attempts.map(move |launch| v1::Refusal {
            attempt: Some(v1::AttemptRef {
                job_id: group.job_id.clone(),
                stage: group.stage,
                index: launch.index,
                attempt: launch.attempt,
            }),
            reason: v1::RefusalReason::OtherIncarnation.into(),
            message: "it has started anew".to_owned(),
        })
    };
    groups.into_iter().flat_map(refuse).collect()
}
