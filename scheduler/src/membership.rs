//! Who is there: this scheduler's session and the epoch, the live schedulers, and the executors as the store knows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::ids::ExecutorKey;
use muster_graph::spec::Resources;
use muster_proto::storage::{ExecutorRecord, SchedulerRecord};
use muster_state::codec::{self, Epoch};
use muster_state::{Change, Entry, Error, Guard, Key, Keyspace, Op, Revision, SessionId, StateBackend, Txn, keys};

use crate::engine::{Identity, Input, Loss, Registration};
use crate::executor_records::executor_state;
use crate::load::send_until_known;
use crate::options::Options;
use crate::shared::{Presence, Shared};

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
    Ok(Presence { session, identity })
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
    tell_live(shared, live, revision, changed).await;
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
        tell_live(shared, live, batch.revision, changed).await;
    }
    Ok(())
}

async fn tell_live(
    shared: &Shared,
    live: BTreeMap<SessionId, SchedulerRecord>,
    revision: Revision,
    changed: &tokio::sync::Notify,
) {
    let sessions = live.keys().map(|session| session.0.clone()).collect();
    shared.peers.set(live);
    // Stopping: nobody needs to know any more.
    let _ = shared.engine.send(Input::Schedulers { live: sessions, revision }).await;
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
        executor_seen(shared, &entry).await?;
    }
    let mut watch = state.watch(Keyspace::Executors, "", page.revision + 1).await?;
    while let Some(batch) = watch.next().await {
        for change in batch?.changes {
            if let Change::Put(entry) = change {
                executor_seen(shared, &entry).await?;
            }
        }
    }
    Ok(())
}

/// Tells the engine of an executor's record. An error of the store means that nothing was told; whoever read the record
/// reads it again.
pub(crate) async fn executor_seen(shared: &Shared, entry: &Entry) -> Result<(), Error> {
    let record: ExecutorRecord = match codec::decode(&keys::executor(&entry.name), &entry.value) {
        Ok(record) => record,
        Err(error) => {
            // The others are heard of all the same.
            tracing::warn!(%error, "an executor's record cannot be read; it is left alone");
            return Ok(());
        }
    };
    let key = ExecutorKey { id: record.executor_id.clone(), incarnation: record.incarnation };
    let input = if matches!(record.state.as_str(), executor_state::LOST | executor_state::STOPPED) {
        // News may be late. One that is back since may have been given work, which an old loss must not take away.
        let now = shared.options.state.get(&keys::executor(&entry.name)).await?;
        if now.is_some_and(|now| now.mod_revision > entry.mod_revision) {
            return Ok(());
        }
        let on_purpose = record.state == executor_state::STOPPED;
        Input::Lost(Loss { key, record: entry.mod_revision, on_purpose })
    } else {
        Input::Registered(registration(&record, entry.mod_revision))
    };
    // Stopping: nobody needs to know any more.
    let _ = shared.engine.send(input).await;
    Ok(())
}

pub(crate) fn registration(record: &ExecutorRecord, revision: Revision) -> Registration {
    Registration {
        key: ExecutorKey { id: record.executor_id.clone(), incarnation: record.incarnation },
        address: record.address.clone(),
        pull: record.pull,
        total: record.total.as_ref().map(Resources::from).unwrap_or_default(),
        labels: record.labels.clone(),
        version: record.version.clone(),
        draining: record.told_to_drain || record.state == executor_state::DRAINING,
        home_here: false,
        home: record.home.clone(),
        record: revision,
        backlog: record.backlog,
        held: None,
    }
}
