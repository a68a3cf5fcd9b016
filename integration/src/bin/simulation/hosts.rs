//! The machines of the simulated cluster: what runs on each, and how it comes back after its end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_executor::{Executor, Mode, Resources};
use muster_proto::network::Network;
use muster_scheduler::Scheduler;
use muster_state::{StateBackend as _, Txn};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::store::{Store, describe};
use crate::tasks::Idle;
use crate::wire::Wire;
use crate::world::{PORT, World, address, now};

/// The schedulers' sessions live for so long.
pub(crate) const SESSION_TTL: Duration = Duration::from_millis(1200);
/// Executors without a home for so long are declared lost.
pub(crate) const LOST_AFTER: Duration = Duration::from_millis(2500);
/// After its end by itself, a program is started again.
const RESTART_AFTER: Duration = Duration::from_millis(300);
/// How often the store's host looks at sessions and late writes.
const STORE_TICK: Duration = Duration::from_millis(10);

/// How many machines there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) schedulers: usize,
    pub(crate) executors: usize,
    pub(crate) clients: usize,
}

pub(crate) fn scheduler(index: usize) -> String {
    format!("scheduler-{index}")
}

pub(crate) fn executor(index: usize) -> String {
    format!("executor-{index}")
}

pub(crate) fn client(index: usize) -> String {
    format!("client-{index}")
}

/// The way onto the network from a host.
pub(crate) fn network(world: &Arc<World>, host: &str) -> Network {
    Network::Other(Arc::new(Wire { world: Arc::clone(world), host: host.to_owned() }))
}

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))
}

/// Runs a scheduler for as long as the host lives. `stops` rises when somebody asks it to stop and start again.
pub(crate) async fn run_scheduler(world: Arc<World>, index: usize, mut stops: watch::Receiver<u32>) -> turmoil::Result {
    let host = scheduler(index);
    loop {
        world.store_links[index].sessions.lock().expect("nothing panics while holding it").clear();
        let store = Store { world: Arc::clone(&world), scheduler: index };
        let mut options = muster_scheduler::Options::new(Arc::new(store));
        options.scheduler_id.clone_from(&host);
        options.listen = anywhere();
        options.allow_remote = true;
        options.advertise = Some(address(&host));
        options.session_ttl = SESSION_TTL;
        options.lost_after = LOST_AFTER;
        options.heartbeat = Duration::from_millis(200);
        options.scan_every = Duration::from_millis(400);
        options.network = network(&world, &host);
        match Scheduler::start(options).await {
            Err(error) => world.note(format_args!("{host} did not start: {error}")),
            Ok(handle) => {
                world.note(format_args!("{host} started"));
                stops.borrow_and_update();
                tokio::select! {
                    biased;
                    ended = handle.finished() => {
                        world.complain(format_args!("{host} ended by itself: {ended:?}"));
                    }
                    Ok(()) = stops.changed() => {
                        handle.stop().await;
                        world.note(format_args!("{host} stopped"));
                    }
                }
            }
        }
        sleep(RESTART_AFTER).await;
    }
}

/// What an executor is.
#[derive(Debug, Clone)]
pub(crate) struct ExecutorHost {
    pub(crate) index: usize,
    pub(crate) mode: Mode,
    pub(crate) slots: u32,
    pub(crate) backlog: usize,
    pub(crate) schedulers: usize,
}

pub(crate) fn data_dir(world: &World, index: usize) -> PathBuf {
    world.folder.join(executor(index))
}

/// How an executor is to stop, for a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Stop {
    /// As SIGTERM has it.
    #[default]
    AtOnce,
    /// When what it has is done, or so late.
    Drained(Duration),
}

/// Runs an executor for as long as the host lives. Its files outlive it. `stops` changes when somebody asks it to stop.
pub(crate) async fn run_executor(
    world: Arc<World>,
    about: ExecutorHost,
    mut stops: watch::Receiver<Stop>,
) -> turmoil::Result {
    let host = executor(about.index);
    let schedulers: Vec<String> = (0..about.schedulers).map(|index| address(&scheduler(index))).collect();
    loop {
        let mut options = muster_executor::Options::new(data_dir(&world, about.index), schedulers.clone());
        options.id = Some(host.clone());
        options.mode = about.mode;
        options.listen = anywhere();
        options.allow_remote = true;
        options.advertise = Some(address(&host));
        options.resources = Resources { cpu_milli: about.slots * 1000, memory_bytes: 1 << 40, named: BTreeMap::new() };
        options.backlog = about.backlog;
        options.network = network(&world, &host);
        options.runtime = Some(Arc::new(Idle { world: Arc::clone(&world), host: host.clone() }));
        match Executor::start(options).await {
            Err(error) => world.complain(format_args!("{host} did not start: {error}")),
            Ok(handle) => {
                world.note(format_args!("{host} started, incarnation {}", handle.incarnation()));
                stops.borrow_and_update();
                tokio::select! {
                    biased;
                    () = handle.finished() => {}
                    Ok(()) = stops.changed() => {
                        let how = *stops.borrow_and_update();
                        if let Stop::Drained(within) = how {
                            handle.drain();
                            let _ = tokio::time::timeout(within, handle.drained()).await;
                        }
                        handle.stop().await;
                    }
                }
                world.note(format_args!("{host} stopped"));
            }
        }
        sleep(RESTART_AFTER).await;
    }
}

/// What etcd does by itself: sessions end when their time is up, and writes land whose senders heard nothing.
pub(crate) async fn run_store(
    world: Arc<World>,
    mut late: mpsc::UnboundedReceiver<(Duration, Txn)>,
) -> turmoil::Result {
    let mut waiting: Vec<(Instant, Txn)> = Vec::new();
    let mut next = Instant::now();
    loop {
        next += STORE_TICK;
        sleep_until(next).await;
        world.memory.expire();
        world.record.writes(now());
        while let Ok((after, txn)) = late.try_recv() {
            waiting.push((Instant::now() + after, txn));
        }
        let due: Vec<(Instant, Txn)> = waiting.extract_if(.., |(at, _)| *at <= Instant::now()).collect();
        for (_, txn) in due {
            let outcome = world.memory.put_txn(txn).await;
            world.record.writes(now());
            world.note(format_args!("late write {}", describe(&outcome)));
        }
        if now() > END_OF_TIME {
            return Ok(());
        }
    }
}

/// No simulation lasts this long.
pub(crate) const END_OF_TIME: Duration = Duration::from_secs(600);
