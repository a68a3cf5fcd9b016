//! Registers with a scheduler and keeps a session with it; when it is lost, with the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_proto::v1;
use muster_proto::v1::scheduler_signal::Signal;
use rand::seq::SliceRandom as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::core::Core;
use crate::load::Backoff;

/// Deadline of a registration, which the scheduler commits.
const REGISTER_WITHIN: Duration = Duration::from_secs(5);
/// A store needs some time for a commit, however short a limit is.
const REGISTER_WITHIN_MIN: Duration = Duration::from_millis(300);
/// Used when the scheduler does not say.
const HEARTBEAT: Duration = Duration::from_secs(2);
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
/// After so many heartbeats without an answer, the session is lost.
const MISSED_MAX: u32 = 5;
/// So many heartbeats fit into the shortest time that anything here may be out of reach, whatever the scheduler says.
const BEATS_PER_LIMIT: u32 = 10;
/// And so many attempts to register.
const TRIES_PER_LIMIT: u32 = 5;
/// Heartbeats on their way.
const QUEUE_LEN: usize = 4;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Reasons why this executor is not registered that are logged as warnings, until it is.
const TOLD_MAX: usize = 16;

/// Why a scheduler did not register the executor.
enum Refusal {
    /// Another one may, or the same one soon.
    Passing(String),
    /// Somebody has to do something about it.
    ForOperators(String),
}

/// Runs for ever.
pub(crate) async fn keep(core: Arc<Core>) {
    let limit = core.home.limit();
    let pauses = || Backoff::between(PAUSE_MIN, PAUSE_MAX.min(*limit.borrow() / (2 * TRIES_PER_LIMIT)).max(PAUSE_MIN));
    let mut backoff = pauses();
    let mut told = BTreeSet::new();
    loop {
        // Jitter of place: after a scheduler's death its executors should not all move to the same one.
        let mut candidates = core.home.candidates();
        candidates.shuffle(&mut rand::rng());
        for address in candidates {
            match register(&core, &address).await {
                Ok(heartbeat) => {
                    tracing::info!(scheduler = %address, "registered");
                    core.home.set(Some(address.clone()));
                    told.clear();
                    backoff = pauses();
                    let why = session(&core, &address, heartbeat).await;
                    core.home.set(None);
                    tracing::info!(scheduler = %address, %why, "the session ended");
                    break;
                }
                Err(Refusal::ForOperators(why)) if told.len() < TOLD_MAX && told.insert(why.clone()) => {
                    tracing::warn!(scheduler = %address, %why, "cannot register");
                }
                Err(Refusal::ForOperators(why) | Refusal::Passing(why)) => {
                    tracing::debug!(scheduler = %address, %why, "cannot register");
                }
            }
        }
        backoff.pause().await;
    }
}

/// Registers; the first time, as often as it takes to be above the lives that are known.
async fn register(core: &Core, address: &str) -> Result<Duration, Refusal> {
    /// One for the number that is known. More are needed only if somebody else goes by the same id just now.
    const TRIES: u32 = 3;
    for _ in 0..TRIES {
        let answer = try_register(core, address).await?;
        if answer.lives_known == 0 {
            return Ok(registered(core, &answer));
        }
        if core.accepted.is_cancelled() {
            return Err(Refusal::ForOperators(format!(
                "another executor with the id '{}' has been registered since (incarnation {}): give each its own id (--id) \
                 and data directory, and start this one again",
                core.id(),
                answer.lives_known
            )));
        }
        core.rise_above(answer.lives_known).await.map_err(|error| Refusal::ForOperators(error.to_string()))?;
    }
    Err(Refusal::Passing("others go by the same id".to_owned()))
}

/// A scheduler is this executor's home now.
fn registered(core: &Core, answer: &v1::RegisterResponse) -> Duration {
    if answer.told_to_drain && !core.accepted.is_cancelled() {
        tracing::info!("an earlier life was told to take no new work; this one takes none either");
        core.told_to_drain.store(true, Ordering::Relaxed);
        let _ = core.table.set_draining(true);
    }
    core.accepted.cancel();
    core.home.heard();
    core.home.learn(&answer.schedulers);
    core.home.set_cluster_limit(answer.lost_after_ms);
    let heartbeat = match answer.heartbeat_ms {
        0 => HEARTBEAT,
        some => Duration::from_millis(some),
    };
    heartbeat.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX)
}

async fn try_register(core: &Core, address: &str) -> Result<v1::RegisterResponse, Refusal> {
    let passing = |why: &str| Refusal::Passing(why.to_owned());
    let mut scheduler = core.channels.executors(address).ok_or_else(|| passing("not an address"))?;
    let highest = core.fences.highest();
    let request = v1::RegisterRequest {
        executor_id: core.id().to_owned(),
        incarnation: core.incarnation(),
        address: core.advertised.clone(),
        mode: core.options.mode.to_wire() as i32,
        total: Some(core.table.total().to_wire()),
        labels: core.options.labels.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        highest_token: highest.token,
        highest_epoch: highest.epoch,
        held: core.table.held(None),
        draining: core.table.is_draining(),
        life: core.identity.life.clone(),
        told_to_drain: core.told_to_drain.load(Ordering::Relaxed),
        backlog: u32::try_from(core.options.backlog).unwrap_or(u32::MAX),
    };
    let within = REGISTER_WITHIN.min(*core.home.limit().borrow() / TRIES_PER_LIMIT).max(REGISTER_WITHIN_MIN);
    match timeout(within, scheduler.register(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument) => {
            Err(Refusal::ForOperators(status.message().to_owned()))
        }
        Ok(Err(status)) => Err(passing(&status.to_string())),
        Err(_) => Err(passing("no answer in time")),
    }
}

/// Until it ends; says why.
async fn session(core: &Core, address: &str, heartbeat: Duration) -> String {
    let Some(mut scheduler) = core.channels.executors(address) else { return "not an address".to_owned() };
    let (heartbeats, stream) = mpsc::channel(QUEUE_LEN);
    // The first one opens the stream: some servers answer only after the first message.
    let _ = heartbeats.send(beat(core, address)).await;
    let opened = timeout(REGISTER_WITHIN, scheduler.session(ReceiverStream::new(stream))).await;
    let mut signals = match opened {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return status.to_string(),
        Err(_) => return "the session was not opened in time".to_owned(),
    };
    let mut limit = core.home.limit();
    let mut beaten = Instant::now();
    let mut unanswered = 0;
    loop {
        let heartbeat = heartbeat.min(*limit.borrow_and_update() / BEATS_PER_LIMIT).max(HEARTBEAT_MIN);
        tokio::select! {
            biased;
            signal = signals.message() => {
                let signal = match signal {
                    Ok(Some(signal)) => signal,
                    Ok(None) => return "the scheduler closed it".to_owned(),
                    Err(status) => return status.to_string(),
                };
                unanswered = 0;
                core.home.heard();
                match signal.signal {
                    Some(Signal::Schedulers(list)) => core.home.learn(&list.addresses),
                    Some(Signal::RegisterAgain(again)) => return again.reason,
                    Some(Signal::Seen(_)) | None => {}
                }
            }
            // A job that was launched just now may be less patient: the next heartbeat comes sooner then.
            _ = limit.changed() => {}
            () = tokio::time::sleep_until(beaten + heartbeat) => {
                beaten = Instant::now();
                unanswered += 1;
                if unanswered > MISSED_MAX {
                    return "the scheduler does not answer".to_owned();
                }
                // A full queue means that nothing is sent; the missing answers will tell.
                let _ = heartbeats.try_send(beat(core, address));
            }
            () = core.register_again.notified() => return "asked to register again".to_owned(),
        }
    }
}

fn beat(core: &Core, address: &str) -> v1::Heartbeat {
    v1::Heartbeat {
        executor_id: core.id().to_owned(),
        incarnation: core.incarnation(),
        free: Some(core.table.free().to_wire()),
        running: u32::try_from(core.table.unfinished()).unwrap_or(u32::MAX),
        draining: core.table.is_draining(),
        account: Some(core.table.account_for(address)),
    }
}
