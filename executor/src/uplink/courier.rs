//! Carries statuses to schedulers: to the job's owner first, else to the home scheduler, in batches.
//!
//! One message per destination is under way at a time, so whatever ends meanwhile goes together with the next one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::time::{Instant, timeout};

use super::{COMMIT_WITHIN, STATUSES_MAX};
use crate::core::Core;
use crate::load::Backoff;
use crate::options::Mode;
use crate::store::outbox::Due;
use crate::uplink::home::normal;

/// Pause after a message that could not be delivered.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Destinations that are written to at once.
const PARALLEL: usize = 64;

struct Delivered {
    destination: Arc<str>,
    sequences: Vec<u64>,
    answer: Result<v1::UpdateTaskStatusResponse, String>,
}

/// Runs for ever. In pull mode the polls carry the statuses, so this does nothing then.
pub(crate) async fn carry(core: Arc<Core>) {
    if core.options.mode == Mode::Pull {
        std::future::pending::<()>().await;
    }
    let mut under_way: FuturesUnordered<BoxFuture<'static, Delivered>> = FuturesUnordered::new();
    let mut busy: HashSet<Arc<str>> = HashSet::new();
    let mut backoff = Backoff::between(PAUSE_MIN, PAUSE_MAX);
    loop {
        let mut due = Vec::new();
        if busy.len() < PARALLEL {
            let home = core.home.address();
            due = core.outbox.take_due(STATUSES_MAX, |owner| !busy.contains(&place(owner, home.as_ref())));
            for (destination, batch) in by_destination(&core, due.iter()) {
                busy.insert(destination.clone());
                under_way.push(Box::pin(deliver(core.clone(), destination, batch)));
            }
        }
        // A full batch may have left more behind; else there is nothing before the next time that something is due.
        let next = if due.len() >= STATUSES_MAX { Some(Instant::now()) } else { core.outbox.next_due() };
        let wake = next.filter(|_| busy.len() < PARALLEL);
        let delivered = tokio::select! {
            biased;
            delivered = under_way.next(), if !under_way.is_empty() => delivered,
            () = core.outbox.changed.notified() => None,
            () = until(wake) => None,
        };
        if let Some(delivered) = delivered {
            busy.remove(&delivered.destination);
            settle(&core, delivered, &mut backoff).await;
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        // What waits for a busy destination is due already: look again soon, not at once and for ever.
        Some(at) => tokio::time::sleep_until(at.max(Instant::now() + Duration::from_millis(5))).await,
        None => std::future::pending().await,
    }
}

fn place(owner: &str, home: Option<&Arc<str>>) -> Arc<str> {
    match home {
        Some(home) if owner.is_empty() => home.clone(),
        _ => normal(owner),
    }
}

/// The first try goes to the owner, the next ones to the home scheduler, which forwards.
fn by_destination<'a>(core: &Core, due: impl Iterator<Item = &'a Due>) -> BTreeMap<Arc<str>, Vec<&'a Due>> {
    let home = core.home.address();
    let mut batches: BTreeMap<Arc<str>, Vec<&Due>> = BTreeMap::new();
    for status in due {
        let destination = match &home {
            Some(home) if status.tries % 2 == 1 || status.owner_address.is_empty() => home.clone(),
            _ => normal(&status.owner_address),
        };
        batches.entry(destination).or_default().push(status);
    }
    batches
}

fn deliver(
    core: Arc<Core>,
    destination: Arc<str>,
    batch: Vec<&Due>,
) -> impl Future<Output = Delivered> + Send + 'static {
    let sequences: Vec<u64> = batch.iter().map(|due| due.sequence).filter(|sequence| *sequence > 0).collect();
    let request = v1::UpdateTaskStatusRequest {
        executor_id: core.id().to_owned(),
        incarnation: core.incarnation(),
        statuses: batch.into_iter().map(|due| due.status.clone()).collect(),
        forwarded: false,
        // As late as can be: what ended is out of it.
        account: Some(core.table.account_for(&destination)),
    };
    async move {
        let answer = match core.channels.executors(&destination) {
            None => Err("not an address".to_owned()),
            Some(mut scheduler) => match timeout(COMMIT_WITHIN, scheduler.update_task_status(request)).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(status.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            },
        };
        Delivered { destination, sequences, answer }
    }
}

async fn settle(core: &Core, delivered: Delivered, backoff: &mut Backoff) {
    match delivered.answer {
        Ok(answer) => {
            core.home.heard();
            *backoff = Backoff::between(PAUSE_MIN, PAUSE_MAX);
            core.settle(&answer.settled).await;
            for (job, owner) in answer.owners {
                if let Ok(job) = job.parse::<JobId>() {
                    core.owner_is(job, &owner);
                }
            }
        }
        Err(why) => {
            tracing::debug!(scheduler = %delivered.destination, %why, "statuses not delivered");
            core.outbox.not_sent(&delivered.sequences, Instant::now() + backoff.next());
        }
    }
}
