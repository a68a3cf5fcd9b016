//! Simulated executors, many in one process: they register, take launches and report ends over the real wire, and run
//! nothing. For measuring schedulers without the price of processes, and with more machines than one has.
//!
//! Each is an actor ([`actor`]) that owns the state of one executor ([`table`]), behind a port of its own ([`serve`]),
//! with a session ([`link`]) and a courier like those of a real executor: one message of statuses for each destination is
//! under way at a time, a session that is lost is opened at another scheduler, and what no scheduler settled is sent again.
//!
//! What a real executor keeps on disk is in memory here, so their end loses what they had. Only push is simulated.

mod actor;
mod link;
mod serve;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use muster_proto::network::Network;
use muster_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::uplink::channels::Channels;

/// Executors that start at once: each registration is a commit.
const STARTING: usize = 64;
/// Messages that wait for one executor; whoever brings more waits.
const INBOX: usize = 64;
/// How long the good-bye of all may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses of schedulers, `host:port`; executors spread over them.
    pub schedulers: Vec<String>,
    /// Executors.
    pub count: u32,
    /// Cores that each offers, and tasks that each runs at once.
    pub slots: u32,
    /// How long each task takes. Zero: it ends as soon as it has begun.
    pub task: Duration,
    /// Executors are named by it, with a number.
    pub prefix: String,
}

/// What all of them together have done, and do.
#[derive(Debug, Default)]
pub struct Counts {
    /// Executors that have a session.
    pub registered: AtomicU64,
    /// Attempts that were accepted.
    pub launched: AtomicU64,
    /// Attempts that run now.
    pub running: AtomicU64,
    /// Attempts that have come to their end by themselves.
    pub finished: AtomicU64,
    /// Attempts that were ended for a cancel.
    pub cancelled: AtomicU64,
    /// Attempts that were refused.
    pub refused: AtomicU64,
    /// Results that a scheduler has settled.
    pub settled: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, by: usize) {
        // Each is read for itself: no order between them is promised.
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    fn subtract(counter: &AtomicU64, by: usize) {
        counter.fetch_sub(by as u64, Ordering::Relaxed);
    }
}

/// Running executors. They end when it is dropped.
#[derive(Debug)]
pub struct Simulated {
    counts: Arc<Counts>,
    stop: CancellationToken,
    tasks: TaskTracker,
    members: Vec<Member>,
    channels: Channels,
}

/// One executor, as its parts know it.
#[derive(Debug, Clone)]
struct Member {
    id: Arc<str>,
    incarnation: u64,
    slots: u32,
    home: link::Home,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Simulated {
    /// Starts all of them. They register on their own: see [`Counts::registered`].
    ///
    /// # Errors
    /// When a port cannot be opened.
    pub async fn start(options: &Options) -> Result<Self, crate::Error> {
        // Rises at each start, as long as the clock does; good enough for what holds nothing on disk.
        let incarnation = crate::clock::wall_ms();
        let mut simulated = Self {
            counts: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            members: Vec::new(),
            channels: Channels::new(Network::Tcp),
        };
        let starting = (0..options.count).map(|number| {
            // Spread evenly: with a random choice some schedulers would have more to do than others.
            let first = number as usize % options.schedulers.len().max(1);
            let mut schedulers = options.schedulers.clone();
            schedulers.rotate_left(first);
            let member = Member {
                id: format!("{}-{number}", options.prefix).into(),
                incarnation,
                slots: options.slots,
                home: link::Home::new(schedulers),
            };
            simulated.one(member, options.task)
        });
        let members = stream::iter(starting).buffer_unordered(STARTING).try_collect().await?;
        simulated.members = members;
        Ok(simulated)
    }

    async fn one(&self, member: Member, task: Duration) -> Result<Member, crate::Error> {
        let at = ([127, 0, 0, 1], 0).into();
        let listener =
            Network::Tcp.listen(at).await.map_err(|error| crate::Error::Listen { address: at, source: error })?;
        let address = listener.address.to_string();
        let (inbox, messages) = mpsc::channel(INBOX);
        // One connection for each executor and scheduler, as real ones have.
        let channels = Channels::new(Network::Tcp);
        let served = serve::serve(inbox.clone(), listener, self.stop.clone());
        let kept = link::keep(member.clone(), address, inbox, channels.clone(), Arc::clone(&self.counts));
        let state = actor::Actor::new(member.clone(), task, channels, Arc::clone(&self.counts));
        self.tasks.spawn(served);
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(kept));
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(state.run(messages)));
        Ok(member)
    }

    /// What they have done so far.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Says good-bye for each, so that what they had runs elsewhere at once, and ends them.
    pub async fn stop(self) {
        let channels = &self.channels;
        let leaving = stream::iter(&self.members).for_each_concurrent(STARTING, |member| async move {
            let address = member.home.address();
            if let Some(mut scheduler) = address.and_then(|address| channels.executors(&address)) {
                let (executor_id, incarnation) = (member.id.to_string(), member.incarnation);
                let reason = "the simulation is over".to_owned();
                let left = v1::ExecutorStoppedRequest { executor_id, incarnation, reason };
                // Without it the cluster finds out by itself.
                let _ = scheduler.executor_stopped(left).await;
            }
        });
        let _ = tokio::time::timeout(LEAVE_WITHIN, leaving).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
