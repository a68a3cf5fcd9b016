//! A simulated executor's session: with one scheduler after another, as long as there are any.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_proto::v1;
use muster_proto::v1::scheduler_signal::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::actor::Message;
use super::{Counts, Member};
use crate::uplink::channels::Channels;

/// Deadline of a registration: many come at once, and each is a commit.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);
/// Used when the scheduler does not say.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// After so many heartbeats without an answer, the session is lost.
const MISSED_MAX: u32 = 5;
/// Before another scheduler is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// Which scheduler it is at, and which others there are.
#[derive(Debug, Clone)]
pub(super) struct Home {
    /// Locked to read or replace it.
    places: Arc<Mutex<Places>>,
    occupied: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Places {
    home: Option<String>,
    candidates: Vec<String>,
}

impl Home {
    pub(super) fn new(candidates: Vec<String>) -> Self {
        Self { places: Arc::new(Mutex::new(Places { home: None, candidates })), occupied: Arc::default() }
    }

    pub(super) fn address(&self) -> Option<String> {
        self.places.lock().expect("no holder of this lock panics").home.clone()
    }

    /// How many slots are in use, for heartbeats.
    pub(super) fn occupied(&self, slots: usize) {
        self.occupied.store(slots, Ordering::Relaxed);
    }

    fn set(&self, home: Option<&str>) {
        self.places.lock().expect("no holder of this lock panics").home = home.map(str::to_owned);
    }

    /// Schedulers that live, as one of them says. Those known before stay behind them: all may have moved.
    fn learn(&self, addresses: Vec<String>) {
        let mut places = self.places.lock().expect("no holder of this lock panics");
        let known: BTreeSet<&String> = places.candidates.iter().collect();
        let new: Vec<String> = addresses.into_iter().filter(|address| !known.contains(address)).collect();
        places.candidates.extend(new);
    }

    /// The one to try now; the next call names the next one.
    fn next(&self) -> Option<String> {
        let mut places = self.places.lock().expect("no holder of this lock panics");
        let first = places.candidates.first().cloned()?;
        places.candidates.rotate_left(1);
        Some(first)
    }
}

/// Runs for ever.
pub(super) async fn keep(
    member: Member,
    address: String,
    inbox: mpsc::Sender<Message>,
    channels: Channels,
    counts: Arc<Counts>,
) {
    loop {
        if let Some(scheduler) = member.home.next() {
            match timeout(REGISTER_WITHIN, register(&member, &address, &inbox, &channels, &scheduler)).await {
                Ok(Ok(heartbeat)) => {
                    member.home.set(Some(&scheduler));
                    Counts::add(&counts.registered, 1);
                    // A full inbox is being worked off, which is as good.
                    let _ = inbox.try_send(Message::Registered);
                    let why = session(&member, &channels, &scheduler, heartbeat).await;
                    member.home.set(None);
                    Counts::subtract(&counts.registered, 1);
                    tracing::info!(executor = %member.id, %scheduler, %why, "the session ended");
                }
                Ok(Err(why)) => tracing::debug!(executor = %member.id, %scheduler, %why, "cannot register"),
                Err(_) => tracing::debug!(executor = %member.id, %scheduler, "no answer to a registration"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn cores(slots: usize) -> v1::Resources {
    let cores = u32::try_from(slots).unwrap_or(u32::MAX);
    v1::Resources { cpu_milli: cores.saturating_mul(1000), ..v1::Resources::default() }
}

async fn register(
    member: &Member,
    address: &str,
    inbox: &mpsc::Sender<Message>,
    channels: &Channels,
    scheduler: &str,
) -> Result<Duration, String> {
    let (answer, present) = oneshot::channel();
    inbox.send(Message::Present(answer)).await.map_err(|_| "it is over".to_owned())?;
    let present = present.await.map_err(|_| "it is over".to_owned())?;
    let mut client = channels.executors(scheduler).ok_or("not an address")?;
    let request = v1::RegisterRequest {
        executor_id: member.id.to_string(),
        incarnation: member.incarnation,
        address: address.to_owned(),
        mode: v1::Mode::Push.into(),
        total: Some(cores(member.slots as usize)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        highest_token: present.highest_token,
        highest_epoch: present.highest_epoch,
        held: present.held,
        life: member.incarnation.to_string(),
        ..v1::RegisterRequest::default()
    };
    let answer = client.register(request).await.map_err(|status| status.to_string())?.into_inner();
    member.home.learn(answer.schedulers);
    if answer.lives_known != 0 {
        return Err(format!("this id has had lives up to {}: another --prefix", answer.lives_known));
    }
    Ok(if answer.heartbeat_ms == 0 { HEARTBEAT } else { Duration::from_millis(answer.heartbeat_ms) })
}

fn beat(member: &Member) -> v1::Heartbeat {
    let occupied = member.home.occupied.load(Ordering::Relaxed);
    v1::Heartbeat {
        executor_id: member.id.to_string(),
        incarnation: member.incarnation,
        free: Some(cores((member.slots as usize).saturating_sub(occupied))),
        running: u32::try_from(occupied).unwrap_or(u32::MAX),
        draining: false,
        account: None,
    }
}

/// Until it ends; says why.
async fn session(member: &Member, channels: &Channels, scheduler: &str, heartbeat: Duration) -> String {
    let Some(mut client) = channels.executors(scheduler) else { return "not an address".to_owned() };
    let (beats, stream) = mpsc::channel(4);
    // The first one opens the stream.
    let _ = beats.send(beat(member)).await;
    let mut signals = match timeout(REGISTER_WITHIN, client.session(ReceiverStream::new(stream))).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return status.to_string(),
        Err(_) => return "the session was not opened in time".to_owned(),
    };
    let mut next = Instant::now() + heartbeat;
    let mut unanswered = 0;
    loop {
        tokio::select! {
            biased;
            signal = signals.message() => {
                unanswered = 0;
                match signal {
                    Ok(Some(v1::SchedulerSignal { signal: Some(Signal::Schedulers(list)) })) => {
                        member.home.learn(list.addresses);
                    }
                    Ok(Some(v1::SchedulerSignal { signal: Some(Signal::RegisterAgain(again)) })) => return again.reason,
                    Ok(Some(_)) => {}
                    Ok(None) => return "the scheduler closed it".to_owned(),
                    Err(status) => return status.to_string(),
                }
            }
            () = tokio::time::sleep_until(next) => {
                next = Instant::now() + heartbeat;
                unanswered += 1;
                if unanswered > MISSED_MAX {
                    return "the scheduler does not answer".to_owned();
                }
                // A full queue means that nothing is sent; the missing answers will tell.
                let _ = beats.try_send(beat(member));
            }
        }
    }
}
