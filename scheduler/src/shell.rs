//! The shell around the engine: brings it inputs, sends its transactions, and does what it says.
//!
//! One task owns the engine. It never waits for anything but its inputs, its own transactions and the time: whatever
//! takes longer is spawned, and its result comes back as an input. So no queue can wait for another in a circle.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use muster_graph::ids::{ExecutorKey, Millis};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::committer;
use crate::engine::{CommitName, CommitResult, Engine, Input, JobCommit, Output};
use crate::faults;
use crate::handover;
use crate::links::{self, Link};
use crate::options::{COMMITS_IN_FLIGHT, ENGINE_QUEUE};
use crate::shared::Shared;

/// Inputs taken in before the engine settles: what arrives together is placed and committed together.
const INPUTS_AT_ONCE: usize = 256;
/// Between two looks at what metrics show of the engine and of the session.
const LOOK_EVERY_MS: Millis = 500;

/// The way to the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    inputs: mpsc::Sender<Input>,
}

/// The engine has stopped.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the scheduler is stopping")]
pub(crate) struct Stopped;

/// Receiving end of an [`EngineHandle`].
pub(crate) type Inputs = mpsc::Receiver<Input>;

impl EngineHandle {
    pub(crate) fn new() -> (Self, Inputs) {
        let (inputs, receiver) = mpsc::channel(ENGINE_QUEUE);
        (Self { inputs }, receiver)
    }

    /// Brings an input in; waits while the engine is behind.
    pub(crate) async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.inputs.send(input).await.map_err(|_| Stopped)
    }

    /// Inputs that wait for it.
    pub(crate) fn queued(&self) -> usize {
        ENGINE_QUEUE - self.inputs.capacity()
    }

    /// Looks at the engine.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (sender, receiver) = oneshot::channel();
        self.send(Input::Read(Box::new(move |engine| drop(sender.send(look(engine)))))).await?;
        receiver.await.map_err(|_| Stopped)
    }
}

/// Each with the number of its group.
type InFlight = FuturesUnordered<BoxFuture<'static, (u64, Vec<(CommitName, CommitResult)>)>>;

/// See the module.
pub(crate) struct Shell {
    pub(crate) engine: Engine,
    pub(crate) inputs: Inputs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Shell {
    /// Runs until told to stop, and then until what is in flight has landed.
    pub(crate) async fn run(mut self) {
        let mut in_flight: InFlight = FuturesUnordered::new();
        let mut sent: BTreeMap<u64, Instant> = BTreeMap::new();
        let mut waiting: VecDeque<JobCommit> = VecDeque::new();
        let mut links: HashMap<String, (ExecutorKey, Link)> = HashMap::new();
        let mut next_look = 0;
        loop {
            let wakeup = self.wakeup();
            let room = !self.engine.is_full();
            let mut input = None;
            let mut came_back = None;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(results) = in_flight.next(), if !in_flight.is_empty() => came_back = Some(results),
                received = self.inputs.recv(), if room => input = received,
                () = tokio::time::sleep(wakeup) => input = Some(Input::Tick),
            }
            let now = self.shared.now();
            // Nothing is launched in the jobs' name, not even what came back committed just now.
            self.let_go_in_doubt(now);
            if let Some((group, results)) = came_back {
                sent.remove(&group);
                faults::die_at("after-commit-before-acknowledgement");
                self.engine.handle(Input::Commits(results), now);
            }
            if let Some(input) = input {
                self.take_in(input, now);
            }
            for _ in 0..INPUTS_AT_ONCE {
                if self.engine.is_full() {
                    break;
                }
                let Ok(input) = self.inputs.try_recv() else { break };
                self.take_in(input, now);
            }
            // What was read before the doubt may have come in with the inputs.
            self.let_go_in_doubt(now);
            let (outputs, commits) = self.engine.settle(now);
            self.shared.demand.set_unmet(self.engine.has_unmet_demand());
            self.shared.metrics.engine_counted(self.engine.take_counts());
            if now >= next_look {
                next_look = now + LOOK_EVERY_MS;
                self.look();
            }
            waiting.extend(commits);
            while in_flight.len() < COMMITS_IN_FLIGHT && !waiting.is_empty() {
                let group = committer::take_group(&mut waiting);
                faults::die_at("before-commit");
                let state = Arc::clone(&self.shared.options.state);
                if faults::is_set("repeat-commit") {
                    let (state, group) = (Arc::clone(&state), group.clone());
                    self.tasks.spawn(async move { committer::repeat(&*state, &group).await });
                }
                let number = sent.last_key_value().map_or(0, |(last, _)| last + 1);
                sent.insert(number, Instant::now());
                let shared = Arc::clone(&self.shared);
                shared.metrics.commit_began();
                in_flight.push(Box::pin(async move {
                    let began = Instant::now();
                    let results = committer::commit(&*state, &shared.health, group).await;
                    shared.metrics.commit_ended(&results, began.elapsed());
                    (number, results)
                }));
            }
            self.shared.pulse.beat(Instant::now(), sent.values().next().copied());
            for output in outputs {
                self.perform(output, &mut links);
            }
        }
        // What was sent may land; nobody acts on it any more, and the next owner reads it.
        let _ = tokio::time::timeout(Duration::from_secs(2), async { while in_flight.next().await.is_some() {} }).await;
    }

    /// Lets go of all jobs if others may have taken them over, or if the store cannot be trusted.
    fn let_go_in_doubt(&mut self, now: Millis) {
        if self.engine.jobs_owned() == 0 {
            return;
        }
        if !self.shared.health.is_trusted() {
            self.engine.handle(Input::StoreDoubted, now);
        } else if self.shared.slack().is_zero() {
            tracing::error!("the session's time is up; letting go of all jobs");
            self.engine.handle(Input::SessionLost, now);
        }
    }

    fn take_in(&mut self, input: Input, now: Millis) {
        match &input {
            Input::Adopted(loaded) => self.shared.metrics.arrived(loaded.id, true),
            Input::Dropped { job, .. } => self.shared.metrics.arrived(*job, false),
            _ => {}
        }
        self.engine.handle(input, now);
    }

    /// What metrics show of the engine between two scrapes, and a word in time about a session that is running out.
    fn look(&self) {
        let engine = &self.engine;
        let quarantined = engine.executors_quarantined();
        self.shared.metrics.engine_holds(engine.jobs_owned(), engine.executors_by_link(), quarantined);
        let (slack, ttl) = (self.shared.slack(), self.shared.options.session_ttl);
        // Renewals go out each third of it.
        if slack < ttl / 3 {
            let (slack_ms, ttl_ms) = (slack.as_millis(), ttl.as_millis());
            tracing::warn!(slack_ms, ttl_ms, "session slack is low: renewals are late");
        }
    }

    fn wakeup(&self) -> Duration {
        /// The slack of the session is looked at this often even if nothing happens.
        const MOST: Duration = Duration::from_millis(500);
        let now: Millis = self.shared.now();
        self.engine.next_wakeup().map_or(MOST, |at| Duration::from_millis(at.saturating_sub(now).max(1)).min(MOST))
    }

    fn perform(&mut self, output: Output, links: &mut HashMap<String, (ExecutorKey, Link)>) {
        match output {
            Output::Connect { executor, address } => {
                let link =
                    links::connect(&self.tasks, &self.shared, executor.clone(), address, self.stop.child_token());
                // Replacing the old one ends it.
                links.insert(executor.id.clone(), (executor, link));
            }
            Output::Launch { executor, groups } => {
                faults::die_at("after-commit-before-launch");
                match links.get(&executor.id) {
                    Some((key, link)) if *key == executor => link.launch(groups),
                    _ => tracing::debug!(executor = executor.id, "no link to this life of the executor"),
                }
            }
            Output::CancelAttempts { executor, request } => match links.get(&executor.id) {
                Some((key, link)) if *key == executor => link.cancel(request),
                _ => tracing::debug!(executor = executor.id, "no link to this life of the executor"),
            },
            Output::Reserve { executor, reservation } => {
                if let Some((_, link)) = links.get(&executor.id).filter(|(key, _)| *key == executor) {
                    link.reserve(reservation);
                }
            }
            Output::Ask { executor, address, question, jobs } => {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move { links::ask(&shared, executor, &address, question, jobs).await });
            }
            Output::Disconnect { executor } => {
                links.remove(&executor.id);
            }
            Output::Reload { job, after_ms } => {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(after_ms)).await;
                    crate::ownership::read_again(shared, job).await;
                });
            }
            Output::LookAtEnds { jobs } => {
                self.shared.awaited.notify_one();
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move { crate::after::look_at(&shared, &jobs).await });
            }
            Output::TellAway { executor } => {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move { crate::absence::tell_away(&shared, &executor).await });
            }
            Output::HandOver { to, jobs } => {
                // From here on, and not only once the task runs: the scan must not read them again meanwhile.
                let jobs = jobs.into_iter().map(|departing| {
                    let transit = self.shared.transit(departing.job);
                    (departing, transit)
                });
                self.tasks.spawn(handover::give(Arc::clone(&self.shared), to, jobs.collect()));
            }
            Output::DeclareLost { executor } => {
                let shared = Arc::clone(&self.shared);
                self.tasks.spawn(async move { crate::absence::declare_lost(&shared, &executor).await });
            }
        }
    }
}
