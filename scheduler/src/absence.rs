//! Executors that are out of reach, lost, stopped or removed: how their records come to say so. Each is a compare-and-set,
//! so that nothing is said of a life of an executor that has ended, or of one that has found a home meanwhile.

use muster_graph::ids::ExecutorKey;
use muster_proto::storage::ExecutorRecord;
use muster_state::{Error, Guard, Op, Revision, SessionId, Txn, TxnOutcome, codec, keys};

use crate::engine::{Input, Loss};
use crate::load::send_until_known;
use crate::membership::{executor_seen, executor_state, live_schedulers, registration};
use crate::shared::Shared;

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
    let id = executor.id.clone();
    let heard = shared.engine.read(move |engine| engine.executor(&id).map_or(0, |known| known.record)).await;
    if heard.is_ok_and(|heard| heard < entry.mod_revision) {
        // It had a home since we last heard of it: its absence, if that is gone too, has only begun, whoever says so.
        executor_seen(shared, &entry).await;
        return Ok(None);
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
