//! A whole scheduler: its session, its engine and its services, started and stopped together.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use muster_graph::spec::limits::LOST_AFTER_MIN;
use muster_proto::network::Listener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{Engine, Input};
use crate::metered::Metered;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::shared::{Presence, Shared};
use crate::shell::{EngineHandle, Shell};
use crate::{
    after, demand, draining, groups, isolation, janitor, membership, ownership, requests, safety, schedules,
    self_fencing, services, store_watch, updates, usage,
};

/// A scheduler could not start, or ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nothing is authenticated yet, so nothing listens beyond loopback unless it is asked for by name.
    #[error(
        "{0} is not a loopback address, and calls are not authenticated; listen on 127.0.0.1, or allow remote calls (--allow-remote) if the network is trusted"
    )]
    NotLoopback(SocketAddr),
    /// A hiccup of the network would be a loss.
    #[error("lost_after: {0:?} is shorter than {LOST_AFTER_MIN:?}; give at least that (--lost-after)")]
    LostAfterTooShort(Duration),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] muster_state::Error),
    /// A part of it ended though nobody stopped it.
    #[error("{0} ended early")]
    Ended(&'static str),
}

/// A scheduler that is about to be started.
#[derive(Debug)]
pub struct Scheduler;

/// A running scheduler. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    address: SocketAddr,
    scheduler_id: String,
    leave: CancellationToken,
    ended: watch::Receiver<Option<Result<(), Error>>>,
    metrics: Arc<Metrics>,
    /// Gone when the scheduler has ended: a handle keeps no store open.
    shared: Weak<Shared>,
}

impl Handle {
    /// What it counts and measures, in OpenMetrics' text form. Asks neither the engine nor the store.
    #[must_use]
    pub fn metrics(&self) -> String {
        match self.shared.upgrade() {
            Some(shared) => self.metrics.text(shared.slack(), shared.engine.queued()),
            None => self.metrics.text(Duration::ZERO, 0),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name.
    #[must_use]
    pub fn scheduler_id(&self) -> &str {
        &self.scheduler_id
    }

    /// Ends it: its jobs are handed over to its peers, and its session is closed, so that what could not be handed over
    /// can be taken over at once.
    pub async fn stop(&self) {
        self.leave.cancel();
        // Whatever it ended with was for whoever waits in `finished`.
        let _ = self.finished().await;
    }

    /// Waits until it has ended.
    pub async fn finished(&self) -> Result<(), Error> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::Ended("the scheduler")),
        }
    }
}

impl Scheduler {
    /// Starts a scheduler; answers when it serves.
    pub async fn start(mut options: Options) -> Result<Handle, Error> {
        if !options.listen.ip().is_loopback() && !options.allow_remote {
            return Err(Error::NotLoopback(options.listen));
        }
        if options.lost_after < LOST_AFTER_MIN {
            return Err(Error::LostAfterTooShort(options.lost_after));
        }
        let listen = |why: std::io::Error| Error::Listen { address: options.listen, why: why.to_string() };
        let listener = options.network.listen(options.listen).await.map_err(listen)?;
        let address = listener.address;
        let advertised = options.advertise.clone().unwrap_or_else(|| address.to_string());
        let started_at = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let metrics = Arc::new(Metrics::new());
        options.state = Arc::new(Metered::new(options.state, Arc::clone(&metrics)));
        let presence = open_with_room(&options, &advertised, false, started_at).await?;
        let (handle, inputs) = EngineHandle::new();
        // Where executors are lost soon they send heartbeats more often, without being told.
        let silent_after = (options.heartbeat * HEARTBEATS_MISSED_MAX).min(options.lost_after / 2);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let engine = Engine::new(presence.identity.clone(), millis(options.lost_after), millis(silent_after));
        let scheduler_id = options.scheduler_id.clone();
        let shared = Arc::new(Shared::new(options, handle, advertised, presence, Arc::clone(&metrics)));
        // Before anything is claimed: the store may be in safe mode.
        safety::look(&shared).await?;
        let (leave, stop) = (CancellationToken::new(), CancellationToken::new());
        let weak = Arc::downgrade(&shared);
        let (ended_sender, ended) = watch::channel(None);
        let running = Running {
            shared: Arc::clone(&shared),
            leave: leave.clone(),
            stop: stop.clone(),
            shell: Shell { engine, inputs, shared, tasks: TaskTracker::new(), stop: stop.child_token() },
            listener,
        };
        tokio::spawn(async move {
            let result = running.run().await;
            if let Err(error) = &result {
                tracing::error!(%error, "scheduler ended");
            }
            ended_sender.send_replace(Some(result));
        });
        Ok(Handle { address, scheduler_id, leave, ended, metrics, shared: weak })
    }
}

/// An executor that has missed so many heartbeats is out of reach.
const HEARTBEATS_MISSED_MAX: u32 = 5;

struct Running {
    shared: Arc<Shared>,
    /// Somebody wants it to end: cancelled first.
    leave: CancellationToken,
    stop: CancellationToken,
    shell: Shell,
    listener: Listener,
}

impl Running {
    async fn run(self) -> Result<(), Error> {
        let Self { shared, leave, stop, shell, listener } = self;
        let sessions_changed = Arc::new(tokio::sync::Notify::new());
        let spawned = stop.child_token();
        let mut shell = tokio::spawn(shell.run());
        let mut serving = tokio::spawn(services::serve(Arc::clone(&shared), listener, stop.child_token()));
        let mut scanning = tokio::spawn(ownership::keep_scanning(Arc::clone(&shared), Arc::clone(&sessions_changed)));
        let mut schedulers =
            tokio::spawn(membership::follow_schedulers(Arc::clone(&shared), Arc::clone(&sessions_changed)));
        let mut executors = tokio::spawn(membership::follow_executors(Arc::clone(&shared)));
        let mut cleaning = tokio::spawn(janitor::keep(Arc::clone(&shared)));
        let mut schedules = tokio::spawn(schedules::keeper::keep(Arc::clone(&shared)));
        let mut watching = tokio::spawn(store_watch::keep_looking(Arc::clone(&shared)));
        let mut trusting = tokio::spawn(safety::keep_following(Arc::clone(&shared)));
        let mut telling = tokio::spawn(demand::keep_telling(Arc::clone(&shared)));
        let mut demands = tokio::spawn(demand::follow(Arc::clone(&shared)));
        let mut telling_use = tokio::spawn(usage::keep_telling(Arc::clone(&shared)));
        let mut uses = tokio::spawn(usage::follow(Arc::clone(&shared)));
        let mut rules = tokio::spawn(usage::follow_rules(Arc::clone(&shared)));
        let mut requests = tokio::spawn(requests::follow(Arc::clone(&shared)));
        let mut cancels = tokio::spawn(groups::cancels::follow(Arc::clone(&shared)));
        let mut counting = tokio::spawn(groups::keeper::keep(Arc::clone(&shared)));
        let mut calling = tokio::spawn(groups::callbacks::keep(Arc::clone(&shared)));
        let mut taking_up = tokio::spawn(updates::take_up::keep(Arc::clone(&shared)));
        let mut ends = tokio::spawn(after::follow(Arc::clone(&shared)));
        let mut fencing = tokio::spawn(self_fencing::keep(Arc::clone(&shared)));
        let mut isolation = tokio::spawn(isolation::keep(Arc::clone(&shared)));
        let mut draining = tokio::spawn(draining::keep_giving(Arc::clone(&shared)));
        let mut telling_drain = tokio::spawn(draining::keep_telling(Arc::clone(&shared)));
        let mut presence = tokio::spawn(keep_present(Arc::clone(&shared), Arc::clone(&sessions_changed)));
        // A part that ends, by a panic or otherwise, ends the whole: another scheduler takes over, and this one's
        // supervisor starts it anew. A scheduler with a missing part would be worse than none.
        let result = tokio::select! {
            biased;
            () = leave.cancelled() => Ok(()),
            _ = &mut shell => Err(Error::Ended("the engine")),
            _ = &mut serving => Err(Error::Ended("the gRPC server")),
            _ = &mut scanning => Err(Error::Ended("the scan for jobs")),
            _ = &mut schedulers => Err(Error::Ended("the watch of the schedulers")),
            _ = &mut executors => Err(Error::Ended("the watch of the executors")),
            _ = &mut cleaning => Err(Error::Ended("the janitor")),
            _ = &mut schedules => Err(Error::Ended("the keeper of the schedules")),
            _ = &mut watching => Err(Error::Ended("the watch of the store's room")),
            _ = &mut trusting => Err(Error::Ended("the watch of the store's epoch")),
            _ = &mut telling => Err(Error::Ended("the telling of demand")),
            _ = &mut demands => Err(Error::Ended("the watch of the peers' demand")),
            _ = &mut telling_use => Err(Error::Ended("the telling of what namespaces use")),
            _ = &mut uses => Err(Error::Ended("the watch of what namespaces use")),
            _ = &mut rules => Err(Error::Ended("the watch of the namespaces' rules")),
            _ = &mut requests => Err(Error::Ended("the watch of requests")),
            _ = &mut cancels => Err(Error::Ended("the watch of the groups' cancels")),
            _ = &mut counting => Err(Error::Ended("the keeper of the groups")),
            _ = &mut calling => Err(Error::Ended("the deliverer of callbacks")),
            _ = &mut taking_up => Err(Error::Ended("the taking up of updates")),
            _ = &mut ends => Err(Error::Ended("the watch of the jobs that others wait for")),
            _ = &mut fencing => Err(Error::Ended("the watch of the engine's pulse")),
            _ = &mut isolation => Err(Error::Ended("the watch of the ways to executors")),
            _ = &mut draining => Err(Error::Ended("the drain")),
            _ = &mut telling_drain => Err(Error::Ended("the telling of the drain")),
            _ = &mut presence => Err(Error::Ended("the session's keeper")),
        };
        if result.is_ok() {
            draining::leave(&shared).await;
        }
        stop.cancel();
        spawned.cancel();
        for part in [
            scanning,
            schedulers,
            executors,
            cleaning,
            schedules,
            watching,
            trusting,
            telling,
            demands,
            telling_use,
            uses,
            rules,
            requests,
            cancels,
            counting,
            calling,
            taking_up,
            ends,
            fencing,
            isolation,
            draining,
            telling_drain,
            presence,
        ] {
            part.abort();
        }
        /// For calls under way and transactions in flight.
        const LAST_WORDS: Duration = Duration::from_secs(3);
        let _ = tokio::time::timeout(LAST_WORDS, async {
            if !shell.is_finished() {
                let _ = (&mut shell).await;
            }
        })
        .await;
        // After the last transaction, not before it: peers take the jobs over the moment it is gone.
        let _ = tokio::time::timeout(LAST_WORDS, shared.presence().session.close()).await;
        serving.abort();
        result
    }
}

/// Opens a session; if the store is too full even for that, and so may have nobody left to look after it, makes room first.
async fn open_with_room(
    options: &Options,
    address: &str,
    draining: bool,
    now: u64,
) -> Result<Presence, muster_state::Error> {
    /// After that the one who starts it is told: more room has to be given.
    const PATIENCE: Duration = Duration::from_secs(30);
    const PAUSE: Duration = Duration::from_millis(500);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut relief = janitor::Relief::default();
    loop {
        match membership::open(options, address, draining, now).await {
            Err(error @ muster_state::Error::NoSpace(_)) if tokio::time::Instant::now() < deadline => {
                tracing::error!(%error, "no session can be opened in the full store; making room");
                if let Err(error) = relief.free(&*options.state, options.store_quota).await {
                    tracing::warn!(%error, "no room could be made in the store; again soon");
                }
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Opens a new session whenever the present one is lost.
async fn keep_present(shared: Arc<Shared>, sessions_changed: Arc<tokio::sync::Notify>) {
    loop {
        shared.presence().session.lost().await;
        shared.metrics.sessions_lost.inc();
        tracing::error!("session lost: all jobs are let go; opening a new one");
        if shared.engine.send(Input::SessionLost).await.is_err() {
            return;
        }
        self_fencing::no_longer_stuck(&shared).await;
        let presence = loop {
            let draining = *shared.draining.borrow();
            match open_with_room(&shared.options, &shared.address, draining, shared.now()).await {
                Ok(presence) => break presence,
                Err(error) => {
                    tracing::warn!(%error, "no new session yet");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        };
        let identity = presence.identity.clone();
        shared.replace_presence(presence);
        let now = shared.now();
        if shared.engine.read(move |engine| engine.take_identity(identity, now)).await.is_err() {
            return;
        }
        sessions_changed.notify_one();
    }
}
