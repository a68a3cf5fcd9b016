//! Starts an executor from its options, and the handle to a running one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::BoxFuture;
use muster_proto::network::Listener;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::control::StopCause;
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::identity::Identity;
use crate::keep::Keeping;
use crate::load::blobs::Blobs;
use crate::load::fetch::Fetcher;
use crate::load::inputs::Inputs;
use crate::load::upstreams::Upstreams;
use crate::metrics::Metrics;
use crate::options::{Mode, Options};
use crate::resources::Account;
use crate::runtime::TaskRuntime;
use crate::runtime::cgroup::Home as CgroupHome;
use crate::runtime::process::{ProcessRuntime, Setup};
use crate::store::fences::Fences;
use crate::store::journal::Journal;
use crate::store::layout::Layout;
use crate::store::outbox::Outbox;
use crate::store::workspaces::Workspaces;
use crate::table::Table;
use crate::tasks::Tasks;
use crate::uplink::channels::Channels;
use crate::uplink::home::Home;
use crate::uplink::{courier, poll, session};
use crate::{leave, retention, serve};

/// How often is looked whether jobs have been without a scheduler for too long: often enough for the shortest limit, 1 s.
const DISCONNECT_CHECK_EVERY: Duration = Duration::from_millis(100);
/// At a stop, results that no scheduler takes within this stay in the outbox for the next start.
const DELIVER_WITHIN: Duration = Duration::from_secs(5);
/// At a stop, tasks get this long to end, their own grace and the kill included.
const END_WITHIN: Duration = Duration::from_secs(10);
/// At a stop, outputs that others still need; what they do not have by then is made again.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);
/// At a stop, the good-bye to a scheduler.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// At a stop, calls under way.
const CALLS_WITHIN: Duration = Duration::from_secs(2);
/// How often progress is looked at while stopping.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// An executor.
#[derive(Debug)]
pub struct Executor;

/// A running executor. Clones are the same one. Dropping handles does not stop it.
#[derive(Clone)]
pub struct Handle {
    core: Arc<Core>,
    address: SocketAddr,
    /// Ends the serving of calls.
    closing: CancellationToken,
    /// Given when no call is served any more.
    served: CancellationToken,
    /// Given when everything has ended.
    finished: CancellationToken,
    /// Given once somebody began to stop it.
    stopping: CancellationToken,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("executor", &self.executor_id()).field("address", &self.address).finish()
    }
}

impl Executor {
    /// Takes the data directory, opens the port, starts the supervisor, and begins to look for schedulers. It does not
    /// wait for one.
    ///
    /// # Errors
    ///
    /// When an option is wrong, the data directory is in use or unusable, the port is taken, or the supervisor cannot
    /// be started.
    pub async fn start(options: Options) -> Result<Handle, Error> {
        options.check()?;
        let data_dir = std::path::absolute(&options.data_dir).map_err(Error::data_dir("find", &options.data_dir))?;
        let identity = Identity::take(&data_dir, options.id.as_deref())?;
        let layout = Layout::new(data_dir);
        for directory in [layout.jobs(), layout.blobs()] {
            std::fs::create_dir_all(&directory).map_err(Error::data_dir("create", &directory))?;
        }
        let workspaces =
            Workspaces::open(layout.workspaces()).map_err(Error::data_dir("create", layout.workspaces()))?;
        let fences = Fences::open(&layout.fences(), Some(identity.lock.clone()))
            .await
            .map_err(Error::data_dir("read", layout.fences()))?;
        let outbox = Outbox::open(&layout.outbox(), identity.incarnation(), Some(identity.lock.clone()))
            .map_err(Error::data_dir("read", layout.outbox()))?;
        let journal = Journal::open(&layout.journal()).map_err(Error::data_dir("open", layout.journal()))?;
        let listener = options
            .network
            .listen(options.listen)
            .await
            .map_err(|source| Error::Listen { address: options.listen, source })?;
        let address = listener.address;

        let (runtime, keeper) = runtime(&options, &identity, &layout)?;
        let channels = Channels::new(options.network.clone());
        let fetcher = Arc::new(Fetcher::new(channels.clone()));
        let table = Table::new(Account::new(options.resources.clone(), options.devices.clone()), options.backlog);
        table.adopt_finished(outbox.keys());
        let core = Arc::new(Core {
            advertised: options.advertise.clone().unwrap_or_else(|| address.to_string()),
            table,
            fences,
            outbox,
            journal,
            works: Blobs::new(layout.blobs()),
            items: Blobs::new(layout.blobs()),
            upstreams: Upstreams::default(),
            inputs: Inputs::new(identity.id.clone(), layout.clone(), Arc::clone(&fetcher)),
            fetcher,
            keeping: Keeping::default(),
            workspaces,
            runtime,
            home: Arc::new(Home::new(&options.schedulers)),
            channels,
            accepted: CancellationToken::new(),
            register_again: Notify::new(),
            told_to_drain: AtomicBool::new(false),
            stop_asked: CancellationToken::new(),
            leave: watch::Sender::new(None),
            tasks: Tasks::default(),
            metrics: Metrics::new(),
            identity,
            layout,
            options,
        });
        let handle = Handle {
            core: core.clone(),
            address,
            closing: CancellationToken::new(),
            served: CancellationToken::new(),
            finished: CancellationToken::new(),
            stopping: CancellationToken::new(),
        };
        core.note_beginning().await;
        handle.start_parts(listener, keeper);
        tracing::info!(executor = core.id(), incarnation = core.incarnation(), %address, "started");
        Ok(handle)
    }
}

/// What runs tasks, and what must be run to keep it alive.
fn runtime(
    options: &Options,
    identity: &Identity,
    layout: &Layout,
) -> Result<(Arc<dyn TaskRuntime>, BoxFuture<'static, ()>), Error> {
    if let Some(given) = &options.runtime {
        return Ok((given.clone(), Box::pin(std::future::pending())));
    }
    let cgroup = CgroupHome::detect(&identity.id);
    match &cgroup {
        Some(home) => tracing::info!(cgroup = home.describe(), "memory limits are enforced"),
        None => tracing::warn!("no cgroups can be made here: memory limits are not enforced"),
    }
    let setup = Setup {
        argv: options.supervisor.clone(),
        lock: layout.supervisor_lock(),
        mark: format!("{}.{}", identity.id, identity.incarnation()),
        cgroup,
    };
    let (runtime, keeper) = ProcessRuntime::start(setup).map_err(|source| Error::Supervisor {
        program: options.supervisor.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" "),
        source,
    })?;
    Ok((Arc::new(runtime), Box::pin(keeper)))
}

impl Handle {
    fn start_parts(&self, listener: Listener, keeper: impl Future<Output = ()> + Send + 'static) {
        let core = &self.core;
        let tasks = &core.tasks;
        let until = || self.closing.clone();
        tasks.spawn_vital("supervisor keeper", until(), keeper);
        let (served, serving) = (self.served.clone(), serve::serve(core.clone(), listener, self.closing.clone()));
        tasks.spawn_vital("server", until(), async move {
            serving.await;
            served.cancel();
        });
        tasks.spawn_vital("session", until(), session::keep(core.clone()));
        tasks.spawn_vital("courier", until(), courier::carry(core.clone()));
        if core.options.mode == Mode::Pull {
            tasks.spawn_vital("poll", until(), poll::poll(core.clone()));
        }
        tasks.spawn_vital("clean-up", until(), retention::keep_house(core.clone()));
        tasks.spawn_vital("disconnect", until(), end_disconnected(core.clone()));
        // Not among the parts that a kill aborts with the rest: it is what ends the rest.
        let handle = self.clone();
        core.tasks.spawn(async move {
            tokio::select! {
                () = handle.core.stop_asked.cancelled() => {}
                () = handle.core.tasks.broken.cancelled() => {}
                () = leave::when_done(&handle.core) => {}
                () = handle.stopping.cancelled() => return,
            }
            handle.begin_stop();
        });
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name.
    #[must_use]
    pub fn executor_id(&self) -> &str {
        self.core.id()
    }

    /// Which start of it this is.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.core.incarnation()
    }

    /// What it counts and measures, in OpenMetrics' text form.
    #[must_use]
    pub fn metrics(&self) -> String {
        let core = &self.core;
        core.metrics.text(core.table.by_state(), core.outbox.len(), Duration::from_millis(core.home.silence_ms()))
    }

    /// Takes no more work from now on; what it has goes on.
    pub fn drain(&self) {
        self.core.set_draining(true);
    }

    /// Waits until nothing runs and no result waits for a scheduler. Ask for [`Handle::drain`] first.
    pub async fn drained(&self) {
        leave::nothing_left(&self.core).await;
    }

    /// Stops: takes no more work, ends what runs (it is reported as lost, so that it runs elsewhere), delivers what a
    /// scheduler takes within some seconds, hands over as many of the outputs that are still needed as others take within some more,
    /// says good-bye. What was not delivered is kept for the next start.
    pub async fn stop(&self) {
        self.begin_stop();
        self.finished.cancelled().await;
    }

    /// Waits until it has stopped, whoever stopped it.
    pub async fn finished(&self) {
        self.finished.cancelled().await;
    }

    /// Ends like a crash, as far as that is possible inside a living process: nothing is delivered, nobody is told, and
    /// the supervisor ends the tasks. For tests.
    pub async fn kill(&self) {
        self.stopping.cancel();
        self.closing.cancel();
        self.core.tasks.abort_all();
        self.finished.cancel();
    }

    fn begin_stop(&self) {
        if self.stopping.is_cancelled() {
            return;
        }
        self.stopping.cancel();
        let handle = self.clone();
        tokio::spawn(async move { handle.stop_all().await });
    }

    async fn stop_all(&self) {
        let core = &self.core;
        let _ = core.table.set_draining(true);
        let _ = core.table.stop_where(StopCause::ExecutorStops, |_| true);
        let ended = wait_until(END_WITHIN, || core.table.unfinished() == 0).await;
        if !ended {
            tracing::warn!(attempts = core.table.unfinished(), "tasks do not end; the supervisor kills them");
        }
        if core.home.address().is_some() && !wait_until(DELIVER_WITHIN, || core.outbox.len() == 0).await {
            tracing::warn!(results = core.outbox.len(), "results stay in the outbox for the next start");
        }
        if core.home.address().is_some() && timeout(HAND_OVER_WITHIN, leave::hand_over_at_once(core)).await.is_err() {
            tracing::warn!("not all outputs that are still needed could be handed over in time");
        }
        if timeout(GOODBYE_WITHIN, leave::say_good_bye(core)).await.is_err() {
            tracing::debug!("no scheduler took the good-bye in time");
        }
        self.closing.cancel();
        core.runtime.close().await;
        // The server lets calls under way end; a follower of a log must not hold it up.
        let _ = timeout(CALLS_WITHIN, self.served.cancelled()).await;
        core.tasks.abort_all();
        for flushed in [core.fences.flush().await, core.outbox.flush().await] {
            if let Err(error) = flushed {
                tracing::error!(%error, "cannot finish writing");
            }
        }
        core.identity.release();
        self.finished.cancel();
    }
}

async fn wait_until(within: Duration, done: impl Fn() -> bool) -> bool {
    let until = Instant::now() + within;
    while !done() {
        if Instant::now() > until {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

/// Ends tasks whose job allows to be without a scheduler for less long than that lasts: others will run them.
async fn end_disconnected(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(DISCONNECT_CHECK_EVERY);
    loop {
        ticks.tick().await;
        let silence = core.home.silence_ms();
        let is_up = |limit: u64| limit > 0 && silence > limit - Group::ends_ahead_ms(limit);
        let (ended, shortest) = core.table.stop_where(StopCause::Disconnected, is_up);
        core.home.set_limit(shortest);
        if ended > 0 {
            tracing::warn!(attempts = ended, silence_ms = silence, "no scheduler for too long; ended their tasks");
        }
    }
}
