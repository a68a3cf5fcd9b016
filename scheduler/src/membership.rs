//! Who is there: this scheduler's session and the epoch, the live schedulers, and the executors as the store knows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::ids::ExecutorKey;
use muster_graph::spec::Resources;
use muster_proto::storage::{ExecutorRecord, SchedulerRecord};
use muster_state::codec::{self, Epoch};
use muster_state::{
    Change, Entry, Error, Guard, Key, Keyspace, Op, Revision, SessionId, StateBackend, Txn, TxnOutcome, keys,
};

use crate::engine::{Identity, Input, Loss, Registration};
use crate::load::send_until_known;
use crate::options::Options;
use crate::shared::{Presence, Shared};

/// An executor's state, as stored.
pub(crate) mod executor_state {
    pub(crate) const READY: &str = "ready";
    pub(crate) const DRAINING: &str = "draining";
    /// Its home does not hear of it any more; nobody else may have to.
    pub(crate) const DISCONNECTED: &str = "disconnected";
    pub(crate) const LOST: &str = "lost";
    pub(crate) const STOPPED: &str = "stopped";
}

/// A watch only makes sooner what a list alone would bring about: so often everything is listed anew.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// After an error of the store, before the next look.
const PAUSE: Duration = Duration::from_millis(500);

/// Finds the epoch of the store, or begins the first one.
async fn epoch(state: &dyn StateBackend) -> Result<(u64, Revision), Error> {
    let key = keys::epoch();
    if state.get(&key).await?.is_none() {
        let first = Txn {
            guards: vec![Guard::Absent(key.clone())],
            ops: vec![Op::Put { key: key.clone(), value: codec::encode(&Epoch(1))?, session: None }],
            read_on_failure: Vec::new(),
        };
        // Refused: a peer began it at the same moment, which is as good.
        send_until_known(state, first).await?;
    }
    let entry = state.get(&key).await?.ok_or_else(|| Error::Fatal("the epoch was deleted".to_owned()))?;
    let Epoch(epoch) = codec::decode(&key, &entry.value)?;
    Ok((epoch, entry.mod_revision))
}

/// Opens a session under a fresh id.
pub(crate) async fn open(options: &Options, address: &str, draining: bool, now: u64) -> Result<Presence, Error> {
    let id = SessionId(format!("{}.{:016x}", options.scheduler_id, rand::random::<u64>()));
    let (epoch, epoch_revision) = epoch(&*options.state).await?;
    let record = SchedulerRecord {
        scheduler_id: options.scheduler_id.clone(),
        address: address.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: now,
        draining,
    };
    let session = options.state.open_session(id.clone(), options.session_ttl, codec::encode(&record)?).await?;
    tracing::info!(session = id.0, epoch, address, "session opened");
    let identity = Identity { session: id, address: address.to_owned(), epoch, epoch_revision };
    Ok(Presence { session, identity, record })
}

/// The live schedulers, in the store's own words.
pub(crate) async fn live_schedulers(
    state: &dyn StateBackend,
) -> Result<(BTreeMap<SessionId, SchedulerRecord>, Revision), Error> {
    let page = state.get_from_prefix(Keyspace::Schedulers, "").await?;
    let mut live = BTreeMap::new();
    for entry in page.entries {
        let record = scheduler_record(&entry);
        live.insert(SessionId(entry.name), record);
    }
    Ok((live, page.revision))
}

/// A live session lives, whatever its record says: a newer version's that cannot be read has just no address here.
fn scheduler_record(entry: &Entry) -> SchedulerRecord {
    let key = Key::new(Keyspace::Schedulers, entry.name.clone());
    codec::decode(&key, &entry.value).unwrap_or_else(|error| {
        tracing::warn!(%error, "a scheduler's record cannot be read");
        SchedulerRecord { scheduler_id: entry.name.clone(), ..SchedulerRecord::default() }
    })
}

/// Follows the schedulers' sessions; `changed` is told whenever one came or went.
pub(crate) async fn follow_schedulers(shared: Arc<Shared>, changed: Arc<tokio::sync::Notify>) {
    let mut epochs = shared.health.epochs();
    loop {
        let followed = tokio::select! {
            followed = tokio::time::timeout(LIST_EVERY, follow_schedulers_once(&shared, &changed)) => followed,
            _ = epochs.changed() => continue,
        };
        match followed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "following the schedulers again"),
            Err(_) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_schedulers_once(shared: &Shared, changed: &tokio::sync::Notify) -> Result<(), Error> {
    let state = &*shared.options.state;
    let (live, revision) = live_schedulers(state).await?;
    tell_live(shared, live, changed).await;
    let mut watch = state.watch(Keyspace::Schedulers, "", revision + 1).await?;
    while let Some(batch) = watch.next().await {
        let batch = batch?;
        let mut live = shared.peers.live();
        for change in batch.changes {
            match change {
                Change::Put(entry) => {
                    let record = scheduler_record(&entry);
                    live.insert(SessionId(entry.name), record);
                }
                Change::Deleted { name, .. } => {
                    live.remove(&SessionId(name));
                }
            }
        }
        tell_live(shared, live, changed).await;
    }
    Ok(())
}

async fn tell_live(shared: &Shared, live: BTreeMap<SessionId, SchedulerRecord>, changed: &tokio::sync::Notify) {
    let sessions = live.keys().map(|session| session.0.clone()).collect();
    shared.peers.set(live);
    // Stopping: nobody needs to know any more.
    let _ = shared.engine.send(Input::Schedulers { live: sessions }).await;
    changed.notify_one();
}

/// Follows the executors' records, so that every scheduler knows those that are at home elsewhere.
pub(crate) async fn follow_executors(shared: Arc<Shared>) {
    let mut epochs = shared.health.epochs();
    loop {
        let followed = tokio::select! {
            followed = tokio::time::timeout(LIST_EVERY, follow_executors_once(&shared)) => followed,
            _ = epochs.changed() => continue,
        };
        match followed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "following the executors again"),
            Err(_) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_executors_once(shared: &Shared) -> Result<(), Error> {
    let state = &*shared.options.state;
    let page = state.get_from_prefix(Keyspace::Executors, "").await?;
    for entry in page.entries {
        executor_seen(shared, &entry).await;
    }
    let mut watch = state.watch(Keyspace::Executors, "", page.revision + 1).await?;
    while let Some(batch) = watch.next().await {
        for change in batch?.changes {
            if let Change::Put(entry) = change {
                executor_seen(shared, &entry).await;
            }
        }
    }
    Ok(())
}

async fn executor_seen(shared: &Shared, entry: &Entry) {
    let record: ExecutorRecord = match codec::decode(&keys::executor(&entry.name), &entry.value) {
        Ok(record) => record,
        // The others are heard of all the same.
        Err(error) => return tracing::warn!(%error, "an executor's record cannot be read; it is left alone"),
    };
    let key = ExecutorKey { id: record.executor_id.clone(), incarnation: record.incarnation };
    let input = if matches!(record.state.as_str(), executor_state::LOST | executor_state::STOPPED) {
        // News may be late. One that is back since may have been given work, which an old loss must not take away.
        let now = loop {
            match shared.options.state.get(&keys::executor(&entry.name)).await {
                Ok(now) => break now,
                Err(error) => {
                    tracing::debug!(executor = entry.name, %error, "whether it is still lost is not known; soon")
                }
            }
            tokio::time::sleep(PAUSE).await;
        };
        if now.is_some_and(|now| now.mod_revision > entry.mod_revision) {
            return;
        }
        let on_purpose = record.state == executor_state::STOPPED;
        Input::Lost(Loss { key, record: entry.mod_revision, on_purpose })
    } else if record.home == shared.presence().identity.session.0 {
        // Its session here says more than the record does.
        return;
    } else {
        Input::Registered(registration(&record, entry.mod_revision))
    };
    // Stopping: nobody needs to know any more.
    let _ = shared.engine.send(input).await;
}

fn registration(record: &ExecutorRecord, revision: Revision) -> Registration {
    Registration {
        key: ExecutorKey { id: record.executor_id.clone(), incarnation: record.incarnation },
        address: record.address.clone(),
        pull: record.pull,
        total: record.total.as_ref().map(Resources::from).unwrap_or_default(),
        labels: record.labels.clone(),
        version: record.version.clone(),
        draining: record.state == executor_state::DRAINING,
        home_here: false,
        home: record.home.clone(),
        record: revision,
        held: None,
    }
}

/// Writes an executor's record if it differs from what is stored; never over a later life's. Answers its revision.
pub(crate) async fn write_executor(shared: &Shared, record: &ExecutorRecord) -> Result<Revision, Error> {
    let state = &*shared.options.state;
    let key = keys::executor(&record.executor_id);
    loop {
        let known = state.get(&key).await?;
        let guard = match &known {
            None => Guard::Absent(key.clone()),
            Some(entry) => {
                let stored: ExecutorRecord = codec::decode(&key, &entry.value)?;
                if stored.incarnation > record.incarnation {
                    return Err(Error::Fatal(format!(
                        "executor {} has started again since (incarnation {})",
                        record.executor_id, stored.incarnation
                    )));
                }
                if (ExecutorRecord { since_ms: record.since_ms, ..stored }) == *record {
                    return Ok(entry.mod_revision);
                }
                Guard::AtRevision(key.clone(), entry.mod_revision)
            }
        };
        let txn = Txn {
            guards: vec![guard],
            ops: vec![Op::Put { key: key.clone(), value: codec::encode(record)?, session: None }],
            read_on_failure: Vec::new(),
        };
        // Refused: somebody else wrote it, or this had landed before; look again.
        if let TxnOutcome::Committed(revision) = send_until_known(state, txn).await? {
            return Ok(revision);
        }
    }
}

/// Takes an executor's home out of its record, if it is this scheduler: peers begin to count its absence then.
pub(crate) async fn tell_away(shared: &Shared, executor: &ExecutorKey) {
    match try_tell_away(shared, executor).await {
        Ok(Some((record, revision))) => {
            let _ = shared.engine.send(Input::Registered(registration(&record, revision))).await;
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(executor = executor.id, %error, "could not note that it is out of reach; later"),
    }
}

async fn try_tell_away(shared: &Shared, executor: &ExecutorKey) -> Result<Option<(ExecutorRecord, Revision)>, Error> {
    let state = &*shared.options.state;
    let key = keys::executor(&executor.id);
    let Some(entry) = state.get(&key).await? else { return Ok(None) };
    let mut record: ExecutorRecord = codec::decode(&key, &entry.value)?;
    let session = shared.presence().identity.session;
    if record.incarnation != executor.incarnation || record.home != session.0 {
        return Ok(None);
    }
    executor_state::DISCONNECTED.clone_into(&mut record.state);
    record.home.clear();
    record.since_ms = shared.now();
    let txn = Txn {
        guards: vec![Guard::AtRevision(key.clone(), entry.mod_revision), Guard::SessionAlive(session)],
        ops: vec![Op::Put { key, value: codec::encode(&record)?, session: None }],
        read_on_failure: Vec::new(),
    };
    match send_until_known(state, txn).await? {
        TxnOutcome::Committed(revision) => Ok(Some((record, revision))),
        TxnOutcome::Refused { .. } => Ok(None),
    }
}

/// Declares an executor lost, unless it has found a home meanwhile.
pub(crate) async fn declare_lost(shared: &Shared, executor: &ExecutorKey) {
    if !shared.health.is_trusted() {
        return;
    }
    match try_declare_lost(shared, executor).await {
        Ok(Some(record)) => {
            let loss = Loss { key: executor.clone(), record, on_purpose: false };
            let _ = shared.engine.send(Input::Lost(loss)).await;
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(executor = executor.id, %error, "could not declare the executor lost; later"),
    }
}

/// The revision of the record that says that it is lost (0: there is no record); none if it is not.
async fn try_declare_lost(shared: &Shared, executor: &ExecutorKey) -> Result<Option<Revision>, Error> {
    let state = &*shared.options.state;
    let key = keys::executor(&executor.id);
    let Some(entry) = state.get(&key).await? else {
        // It never registered, or its record was purged: there is nothing that could come back.
        return Ok(Some(0));
    };
    let mut record: ExecutorRecord = codec::decode(&key, &entry.value)?;
    if record.incarnation > executor.incarnation {
        // The watch tells what became of its later life.
        return Ok(None);
    }
    if matches!(record.state.as_str(), executor_state::LOST | executor_state::STOPPED) {
        return Ok(Some(entry.mod_revision));
    }
    let home = SessionId(record.home.clone());
    let mut guards = vec![Guard::AtRevision(key.clone(), entry.mod_revision)];
    if record.home == shared.presence().identity.session.0 {
        guards.push(Guard::SessionAlive(home));
    } else if !record.home.is_empty() {
        // Only its own home may declare it lost while that lives.
        guards.push(Guard::SessionGone(home));
    }
    executor_state::LOST.clone_into(&mut record.state);
    record.home.clear();
    record.since_ms = shared.now();
    let txn = Txn {
        guards,
        ops: vec![Op::Put { key, value: codec::encode(&record)?, session: None }],
        read_on_failure: Vec::new(),
    };
    match send_until_known(state, txn).await? {
        TxnOutcome::Committed(revision) => Ok(Some(revision)),
        TxnOutcome::Refused { .. } => Ok(None),
    }
}

/// An executor has stopped on purpose: what it had is gone, and everybody may know it at once.
pub(crate) async fn stopped(shared: &Shared, executor: &ExecutorKey) -> Result<(), Error> {
    let state = &*shared.options.state;
    let key = keys::executor(&executor.id);
    loop {
        let Some(entry) = state.get(&key).await? else { return Ok(()) };
        let mut record: ExecutorRecord = codec::decode(&key, &entry.value)?;
        if record.incarnation != executor.incarnation || record.state == executor_state::STOPPED {
            return Ok(());
        }
        let guards = vec![Guard::AtRevision(key.clone(), entry.mod_revision)];
        if let Some(record) = write_stopped(shared, &mut record, guards).await? {
            let loss = Loss { key: executor.clone(), record, on_purpose: true };
            let _ = shared.engine.send(Input::Lost(loss)).await;
            return Ok(());
        }
    }
}

/// What became of the wish to give an executor up for good.
pub(crate) enum Removal {
    Done,
    /// It has no record.
    Unknown,
    /// A live scheduler holds its session.
    InReach,
}

/// An operator says that an executor will not come back. If it does, it has to register like a new one.
pub(crate) async fn remove(shared: &Shared, id: &str) -> Result<Removal, Error> {
    let state = &*shared.options.state;
    let key = keys::executor(id);
    loop {
        let Some(entry) = state.get(&key).await? else { return Ok(Removal::Unknown) };
        let mut record: ExecutorRecord = codec::decode(&key, &entry.value)?;
        if record.state == executor_state::STOPPED {
            return Ok(Removal::Done);
        }
        let mut guards = vec![Guard::AtRevision(key.clone(), entry.mod_revision)];
        if !record.home.is_empty() {
            let (live, _) = live_schedulers(state).await?;
            let home = SessionId(record.home.clone());
            if live.contains_key(&home) {
                return Ok(Removal::InReach);
            }
            guards.push(Guard::SessionGone(home));
        }
        if let Some(revision) = write_stopped(shared, &mut record, guards).await? {
            let executor = ExecutorKey { id: record.executor_id, incarnation: record.incarnation };
            let loss = Loss { key: executor, record: revision, on_purpose: true };
            let _ = shared.engine.send(Input::Lost(loss)).await;
            return Ok(Removal::Done);
        }
    }
}

/// The revision at which the record says so; none if it has changed meanwhile.
async fn write_stopped(
    shared: &Shared,
    record: &mut ExecutorRecord,
    guards: Vec<Guard>,
) -> Result<Option<Revision>, Error> {
    executor_state::STOPPED.clone_into(&mut record.state);
    record.home.clear();
    record.since_ms = shared.now();
    let put = Op::Put { key: keys::executor(&record.executor_id), value: codec::encode(record)?, session: None };
    let txn = Txn { guards, ops: vec![put], read_on_failure: Vec::new() };
    match send_until_known(&*shared.options.state, txn).await? {
        TxnOutcome::Committed(revision) => Ok(Some(revision)),
        TxnOutcome::Refused { .. } => Ok(None),
    }
}
