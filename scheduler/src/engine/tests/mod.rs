//! The engine, driven by inputs alone, its transactions sent to a store in memory when the test says so: between a
//! decision and its commit a test can look at what has left, which must be nothing.

mod after;
mod ahead;
mod cancel_marks;
mod counts;
mod departures;
mod executors;
mod explain;
mod fairness;
mod gathering;
mod group_cancels;
mod handover;
mod losses;
mod ownership;
mod placing;
mod promises;
mod pull;
mod quarantine;
mod reservations;
mod round_trip;
mod suspects;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::{ExecutorKey, JobId, Millis};
use muster_graph::spec::{self, InputKind, JobSpec, Resources, Retries, Run, StageSpec, Tasks, When, Work};
use muster_proto::{blob, storage, v1};
use muster_state::codec::{self, Epoch};
use muster_state::{Memory, Op, Revision, Session, SessionId, StateBackend, Txn, TxnOutcome, keys};
use tokio::sync::oneshot;

use super::{CommitName, CommitResult, Engine, Identity, Input, JobCommit, Output, Registration, StatusAnswer};
use crate::store_health::StoreHealth;
use crate::{committer, load};

pub(crate) const LOST_AFTER: Millis = 30_000;
pub(crate) const SILENT_AFTER: Millis = 5_000;

/// An engine, its store, and everything between them.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn StateBackend>,
    pub(crate) identity: Identity,
    pub(crate) now: Millis,
    pub(crate) outputs: Vec<Output>,
    pub(crate) commits: VecDeque<JobCommit>,
    /// Whether executors can be reached.
    pub(crate) connects: bool,
    _session: Arc<dyn Session>,
}

pub(crate) fn key(id: &str, incarnation: u64) -> ExecutorKey {
    ExecutorKey { id: id.to_owned(), incarnation }
}

pub(crate) fn cpu(milli: u32) -> Resources {
    Resources { cpu_milli: milli, ..Resources::default() }
}

/// Between two attempts; 0 would mean the default.
const A_MOMENT: Duration = Duration::from_millis(1);

/// A stage: its name, its tasks, and what it reads.
pub(crate) type Stage<'a> = (&'a str, u32, &'a [(&'a str, InputKind)]);

/// Each task wants one core.
pub(crate) fn spec(stages: &[Stage<'_>]) -> JobSpec {
    let stages = stages
        .iter()
        .map(|(name, tasks, inputs)| StageSpec {
            name: (*name).to_owned(),
            work: Work::Process(Run::Argv(vec!["true".to_owned()])),
            tasks: Tasks::Count(*tasks),
            inputs: inputs.iter().map(|(from, kind)| spec::Input::of(*from, *kind)).collect(),
            after: Vec::new(),
            when: When::OnSuccess,
            env: Default::default(),
            resources: cpu(1000),
            placement: Default::default(),
            retries: Retries { failed: 255, backoff: A_MOMENT, backoff_max: A_MOMENT, ..Retries::default() },
            timeout: None,
            grace: Duration::from_secs(1),
            deterministic: true,
            stop_after: None,
        })
        .collect();
    JobSpec {
        name: "job".to_owned(),
        namespace: "default".to_owned(),
        group: String::new(),
        after_jobs: Vec::new(),
        labels: Default::default(),
        priority: 0,
        env: Default::default(),
        timeout: None,
        lost_after: None,
        max_running: None,
        placement: Default::default(),
        takes: Vec::new(),
        outputs: Default::default(),
        stages,
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::over(Arc::new(Memory::new()), "one").await
    }

    /// Another scheduler over the same store.
    pub(crate) async fn over(store: Arc<dyn StateBackend>, session: &str) -> Self {
        let id = SessionId(session.to_owned());
        let value = codec::encode(&storage::SchedulerRecord::default()).unwrap();
        let live = store.open_session(id.clone(), Duration::from_secs(60), value).await.unwrap();
        let first = store.get(&keys::epoch()).await.unwrap();
        let epoch_revision = match first {
            Some(entry) => entry.mod_revision,
            None => store.put(keys::epoch(), codec::encode(&Epoch(1)).unwrap()).await.unwrap(),
        };
        let identity = Identity { session: id, address: format!("{session}:1"), epoch: 1, epoch_revision };
        let engine = Engine::new(identity.clone(), LOST_AFTER, SILENT_AFTER);
        Self {
            engine,
            store,
            identity,
            now: 1_000_000,
            outputs: Vec::new(),
            commits: VecDeque::new(),
            connects: true,
            _session: live,
        }
    }

    /// Names this scheduler as the job's owner.
    pub(crate) async fn own(&self, id: JobId) -> Revision {
        let owner = storage::OwnerRecord { session_id: self.identity.session.0.clone(), ..Default::default() };
        self.store.put(keys::owner(id), codec::encode(&owner).unwrap()).await.unwrap()
    }

    /// Stores an accepted job and takes it in, planned.
    pub(crate) async fn submit(&mut self, number: u64, spec: JobSpec) -> JobId {
        let (id, namespace, group) = (JobId(number), spec.namespace.clone(), spec.group.clone());
        let (stored, _) = blob::take_apart(spec);
        let bytes = codec::encode(&stored).unwrap().to_vec();
        let content = load::to_content(id, bytes, &mut Vec::new()).unwrap();
        let head =
            storage::JobHead { name: "job".to_owned(), namespace, group, spec: Some(content), ..Default::default() };
        self.store.put(keys::active_job(id), codec::encode(&head).unwrap()).await.unwrap();
        self.own(id).await;
        self.load(id).await;
        id
    }

    /// Reads a job that names this scheduler, and takes it in.
    pub(crate) async fn load(&mut self, id: JobId) {
        let loaded = load::owned(&*self.store, id, &self.identity.session).await.unwrap();
        self.input(Input::Adopted(Box::new(loaded)));
    }

    /// Takes an input in. Ways to executors are open as soon as they are wanted, if this is a network that works.
    pub(crate) fn input(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        let (outputs, commits) = self.engine.settle(self.now);
        self.commits.extend(commits);
        for output in outputs {
            let opened = match &output {
                Output::Connect { executor, .. } if self.connects => Some(executor.clone()),
                _ => None,
            };
            self.outputs.push(output);
            if let Some(executor) = opened {
                self.input(Input::Reached { executor, way: crate::ways::Way::Straight });
            }
        }
    }

    /// Sends all transactions that wait, and those that follow from them.
    pub(crate) async fn commit_all(&mut self) {
        while let Some(commit) = self.commits.pop_front() {
            let results = committer::commit(&*self.store, &StoreHealth::new("s1", 1), vec![commit]).await;
            self.input(Input::Commits(results));
        }
    }

    /// Time passes, in which no executor is silent.
    pub(crate) async fn wait(&mut self, time: Millis) {
        self.now += time;
        let alive: Vec<_> = self.engine.executors().map(|executor| (executor.key.clone(), executor.left())).collect();
        for (executor, free) in alive {
            self.input(Input::Heartbeat { executor, free, running: 0, draining: false });
        }
        self.input(Input::Tick);
        self.commit_all().await;
    }

    /// Sends the oldest transaction and keeps its result.
    pub(crate) async fn commit_one(&mut self) -> Vec<(CommitName, CommitResult)> {
        let commit = self.commits.pop_front().expect("a transaction waits");
        committer::commit(&*self.store, &StoreHealth::new("s1", 1), vec![commit]).await
    }

    /// A push executor registers here.
    pub(crate) fn register(&mut self, key: ExecutorKey, cores: u32) {
        self.register_with(key, cores, false, Vec::new());
    }

    pub(crate) fn register_with(
        &mut self,
        key: ExecutorKey,
        cores: u32,
        pull: bool,
        held: Vec<super::executors::HeldKey>,
    ) {
        let record = self.engine.executor(&key.id).map_or(1, |known| known.record + 1);
        let home = self.identity.session.0.clone();
        let mut registration = registration(key, cores, home, record);
        registration.pull = pull;
        registration.home_here = true;
        registration.held = Some(held);
        self.input(Input::Registered(registration));
    }

    /// Everything that was sent to executors since this was last asked: job, stage, index and attempt.
    pub(crate) fn launches(&mut self) -> Vec<(String, u32, u32, u32)> {
        let mut launches = Vec::new();
        self.outputs.retain(|output| {
            let Output::Launch { groups, .. } = output else { return true };
            launches.extend(groups.iter().flat_map(launched));
            false
        });
        launches
    }

    /// An executor answers the question that it was asked last.
    pub(crate) fn answer(&mut self, executor: &ExecutorKey, held: Vec<super::executors::HeldKey>) {
        let question = self.question(executor);
        let executor = executor.clone();
        self.input(Input::Answered { executor, question, held, refused: Vec::new() });
    }

    /// The number of the question that an executor was asked last; 0: none is under way.
    pub(crate) fn question(&self, executor: &ExecutorKey) -> u64 {
        self.engine.executor(&executor.id).and_then(|known| known.asking).unwrap_or(0)
    }

    pub(crate) fn finish(&mut self, by: &ExecutorKey, ends: &[v1::AttemptStatus]) -> oneshot::Receiver<StatusAnswer> {
        let (reply, answer) = oneshot::channel();
        self.input(Input::Statuses { executor: by.clone(), statuses: ends.to_vec(), reply });
        answer
    }

    /// Somebody else writes to the store.
    pub(crate) async fn elsewhere(&self, op: Op) {
        let txn = Txn { ops: vec![op], ..Txn::default() };
        assert!(matches!(self.store.put_txn(txn).await.unwrap(), TxnOutcome::Committed(_)));
    }
}

/// These schedulers are live, and none is that was not heard of.
pub(crate) fn live(sessions: &[&str]) -> Input {
    live_as_of(Revision::MAX, sessions)
}

pub(crate) fn live_as_of(revision: Revision, sessions: &[&str]) -> Input {
    Input::Schedulers { live: sessions.iter().map(|&session| session.to_owned()).collect(), revision }
}

pub(crate) fn registration(key: ExecutorKey, cores: u32, home: String, record: Revision) -> Registration {
    Registration {
        address: format!("{}:{}", key.id, key.incarnation),
        key,
        pull: false,
        total: cpu(cores * 1000),
        labels: Default::default(),
        version: String::new(),
        draining: false,
        home_here: false,
        home,
        record,
        backlog: 0,
        held: None,
    }
}

pub(crate) fn launched(group: &v1::LaunchGroup) -> Vec<(String, u32, u32, u32)> {
    group.attempts.iter().map(|a| (group.job_id.clone(), group.stage, a.index, a.attempt)).collect()
}

/// An attempt ended.
pub(crate) fn ended(
    sequence: u64,
    (job, stage, index, attempt): (JobId, u32, u32, u32),
    outcome: v1::Outcome,
) -> v1::AttemptStatus {
    let finished = v1::AttemptFinished {
        outcome: outcome.into(),
        output: Some(v1::Output { bytes: 1, checksum: 1, files: 1 }),
        finished_at_ms: 1,
        ..Default::default()
    };
    v1::AttemptStatus {
        sequence,
        attempt: Some(v1::AttemptRef { job_id: job.to_string(), stage, index, attempt }),
        what: Some(v1::attempt_status::What::Finished(finished)),
    }
}
