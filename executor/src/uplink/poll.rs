//! Pull mode: asks schedulers for work, and gives them statuses on the way.
//!
//! One poll is under way at a time and each has a higher number than the one before, so an answer can only be to the
//! newest. A lost answer is harmless: the next poll's table says what arrived. A poll that only waits is given up when
//! there is something new to say; one that carries statuses is not.
//!
//! Peers of the home that have tasks which nobody takes have turns, and between two of them the home has one. A turn ends
//! with an answer: what becomes free while a poll waits is first seen by the scheduler whose turn it is. To a peer that
//! cannot be reached from here, the home passes polls on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use super::STATUSES_MAX;
use crate::core::Core;
use crate::load::Backoff;
use crate::uplink::home::normal;

/// How long a scheduler may hold a poll that has nothing to say.
const WAIT: Duration = Duration::from_secs(20);
/// And one that is not home: it was said to have work, which takes a placement and a commit.
const WAIT_AT_PEER: Duration = Duration::from_millis(500);
/// Beyond that, for the answer's way.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The same at a peer: if it hangs, the others must not wait for long to hear what there is to tell.
const ANSWER_WITHIN_AT_PEER: Duration = Duration::from_secs(3);
/// A peer that was not reached gets its polls through the home for so long before it is tried again.
const PASSED_ON_FOR: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Runs for ever.
pub(crate) async fn poll(core: Arc<Core>) {
    let mut sequence = 0;
    let mut heeded = 0;
    let mut backoff = Backoff::between(PAUSE_MIN, PAUSE_MAX);
    let mut peer: Option<Arc<str>> = None;
    let mut last_peer = String::new();
    // Peers that are not reached from here, and until when they are not tried.
    let mut cut_off: HashMap<Arc<str>, Instant> = HashMap::new();
    loop {
        let home = core.home.wait().await;
        let asked = peer.take();
        cut_off.retain(|_, until| Instant::now() < *until);
        let passed_on = asked.as_ref().filter(|peer| cut_off.contains_key(*peer)).map(ToString::to_string);
        let straight = asked.as_ref().filter(|_| passed_on.is_none());
        let address = straight.cloned().unwrap_or(home);
        sequence += 1;
        let turn = Turn {
            sequence,
            heeded,
            last_peer: last_peer.clone(),
            at_peer: asked.is_some(),
            pass_on_to: passed_on.unwrap_or_default(),
        };
        // Given up for something newer, it is still the same one's turn.
        match one(&core, &address, turn).await {
            Ok(None) => peer = asked,
            Ok(Some(mut answer)) => {
                core.home.heard();
                backoff = Backoff::between(PAUSE_MIN, PAUSE_MAX);
                if answer.register_again {
                    core.register_again.notify_one();
                    backoff.pause().await;
                }
                // Peers do not send us on: the home may have work again.
                if asked.is_none() && !answer.peer.is_empty() {
                    peer = Some(normal(&answer.peer));
                    last_peer.clone_from(&answer.peer);
                }
                let mut fruitful = !answer.launches.is_empty() || !answer.settled.is_empty();
                if !answer.ask.is_empty() && heed(&core, &mut answer).await {
                    // Whoever asked waits for the next table, and nobody else can do anything with it.
                    heeded = sequence;
                    peer = asked;
                    fruitful = true;
                }
                accept(&core, answer).await;
                if !fruitful {
                    // The same cancel comes with each answer until the task has ended: no reason to ask at once.
                    backoff.pause().await;
                    backoff = Backoff::between(PAUSE_MIN, PAUSE_MAX);
                }
            }
            Err(why) => {
                tracing::debug!(scheduler = %address, %why, "the poll failed");
                match straight {
                    // It is still its turn, by the other way.
                    Some(unreached) => {
                        cut_off.insert(Arc::clone(unreached), Instant::now() + PASSED_ON_FOR);
                        peer = asked;
                    }
                    None => backoff.pause().await,
                }
            }
        }
    }
}

/// What a poll says of itself.
struct Turn {
    sequence: u64,
    heeded: u64,
    last_peer: String,
    /// It is a peer's turn, whoever passes the poll on.
    at_peer: bool,
    /// The peer, if the home is to do that.
    pass_on_to: String,
}

/// One poll; `None` if it was given up for a newer one.
async fn one(core: &Core, address: &str, turn: Turn) -> Result<Option<v1::PollWorkResponse>, String> {
    let Turn { sequence, heeded, last_peer, at_peer, pass_on_to } = turn;
    let mut scheduler = core.channels.executors(address).ok_or("not an address")?;
    let due = core.outbox.take_due(STATUSES_MAX, |_| true);
    let carried: Vec<u64> = due.iter().map(|due| due.sequence).filter(|sequence| *sequence > 0).collect();
    let busy = !due.is_empty();
    let wait = match (busy, at_peer) {
        (true, _) => Duration::ZERO,
        (false, true) => WAIT_AT_PEER,
        (false, false) => WAIT,
    };
    let request = v1::PollWorkRequest {
        executor_id: core.id().to_owned(),
        incarnation: core.incarnation(),
        sequence,
        statuses: due.into_iter().map(|due| due.status).collect(),
        held: core.table.held(None),
        free: Some(core.table.free().to_wire()),
        wait_ms: u64::try_from(wait.as_millis()).expect("some seconds"),
        draining: core.table.is_draining(),
        heeded,
        last_peer,
        account: Some(core.table.account_for(if pass_on_to.is_empty() { address } else { &pass_on_to })),
        pass_on_to,
    };
    let way = if at_peer { ANSWER_WITHIN_AT_PEER } else { ANSWER_WITHIN };
    let news = async {
        if busy {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            () = core.outbox.changed.notified() => {}
            () = core.table.changed.notified() => {}
            () = next_due(core) => {}
        }
    };
    let answer = tokio::select! {
        biased;
        answer = timeout(wait + way, scheduler.poll_work(request)) => answer,
        () = news => return Ok(None),
    };
    let failed = |why: String| {
        core.outbox.not_sent(&carried, Instant::now());
        why
    };
    match answer {
        Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
        Ok(Err(status)) => Err(failed(status.to_string())),
        Err(_) => Err(failed("no answer in time".to_owned())),
    }
}

async fn next_due(core: &Core) {
    match core.outbox.next_due() {
        Some(at) => tokio::time::sleep_until(at).await,
        None => sleep(WAIT * 2).await,
    }
}

/// Whether the questions are on disk, so that the next table answers them.
async fn heed(core: &Core, answer: &mut v1::PollWorkResponse) -> bool {
    // A refused one need not be told: who asked has lost the job, and learns of it at its next commit.
    let heeded = core.asked(std::mem::take(&mut answer.ask)).await;
    heeded.inspect_err(|status| tracing::warn!(%status, "a scheduler's questions were not heeded")).is_ok()
}

async fn accept(core: &Arc<Core>, answer: v1::PollWorkResponse) {
    core.settle(&answer.settled).await;
    for cancel in answer.cancels {
        if let Err(status) = core.cancel(cancel).await {
            tracing::warn!(%status, "a cancel was not understood");
        }
    }
    core.forget(&answer.forget_jobs).await;
    if answer.launches.is_empty() {
        return;
    }
    match core.admit(core.incarnation(), answer.launches).await {
        Ok(refused) => {
            for refusal in refused {
                core.tell_refused(refusal).await;
            }
        }
        // Nothing was taken: the next poll's table says so, and the work is given again.
        Err(status) => tracing::warn!(%status, "launches were not taken"),
    }
}
