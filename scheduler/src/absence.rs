//! Executors that are out of reach, lost, stopped or removed: how their records come to say so. Each is a compare-and-set,
//! so that nothing is said of a life of an executor that has ended, or of one that has found a home meanwhile.

use muster_graph::ids::ExecutorKey;
use muster_proto::storage::ExecutorRecord;
use muster_state::{Error, Guard, Revision, SessionId};

use crate::engine::{Identity, Input, Loss};
use crate::executor_records::{self, Reading, executor_state};
use crate::membership::{executor_seen, live_schedulers, registration};
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
    let Identity { session, epoch_revision, .. } = shared.presence().identity;
    let reading = executor_records::read(state, epoch_revision, &executor.id).await?;
    let Some((stored, _)) = reading.record() else { return Ok(None) };
    if stored.incarnation != executor.incarnation || stored.home != session.0 {
        return Ok(None);
    }
    let record = without_home(shared, stored, executor_state::DISCONNECTED);
    let written = reading.write(state, &record, vec![Guard::SessionAlive(session)]).await?;
    Ok(written.map(|revision| (record, revision)))
}

/// The record of an executor that has no home from now on.
fn without_home(shared: &Shared, stored: &ExecutorRecord, state: &str) -> ExecutorRecord {
    ExecutorRecord { state: state.to_owned(), home: String::new(), since_ms: shared.now(), ..stored.clone() }
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
    let Identity { session, epoch_revision, .. } = shared.presence().identity;
    let reading = executor_records::read(state, epoch_revision, &executor.id).await?;
    let (Some((stored, revision)), Some(entry)) = (reading.record(), reading.entry()) else {
        // It never registered, or its record was purged: there is nothing that could come back.
        return Ok(Some(0));
    };
    if stored.incarnation > executor.incarnation {
        // The watch tells what became of its later life.
        return Ok(None);
    }
    if matches!(stored.state.as_str(), executor_state::LOST | executor_state::STOPPED) {
        return Ok(Some(revision));
    }
    let id = executor.id.clone();
    let heard = shared.engine.read(move |engine| engine.executor(&id).map_or(0, |known| known.record)).await;
    if heard.is_ok_and(|heard| heard < revision) {
        // It had a home since we last heard of it: its absence, if that is gone too, has only begun, whoever says so.
        executor_seen(shared, entry).await?;
        return Ok(None);
    }
    // Who has no session is cut off or stuck, and can be nobody's home: it may be for that alone that the executor has none.
    let home = SessionId(stored.home.clone());
    let mut guards = vec![Guard::SessionAlive(session.clone())];
    if home != session && !stored.home.is_empty() {
        // Only its own home may declare it lost while that lives.
        guards.push(Guard::SessionGone(home));
    }
    reading.write(state, &without_home(shared, stored, executor_state::LOST), guards).await
}

/// An executor has stopped on purpose: what it had is gone, and everybody may know it at once.
pub(crate) async fn stopped(shared: &Shared, executor: &ExecutorKey) -> Result<(), Error> {
    loop {
        let reading = read_now(shared, &executor.id).await?;
        let Some((stored, _)) = reading.record() else { return Ok(()) };
        if stored.incarnation != executor.incarnation || stored.state == executor_state::STOPPED {
            return Ok(());
        }
        if let Some(record) = write_stopped(shared, &reading, stored, Vec::new()).await? {
            let loss = Loss { key: executor.clone(), record, on_purpose: true };
            let _ = shared.engine.send(Input::Lost(loss)).await;
            return Ok(());
        }
    }
}

/// Notes whether an operator wants an executor drained, whatever life it is in. That of one which has stopped on purpose is
/// over: its next one begins without.
pub(crate) async fn note_wish(shared: &Shared, id: &str, told_to_drain: bool) -> Result<(), Error> {
    loop {
        let reading = read_now(shared, id).await?;
        let Some((stored, _)) = reading.record() else { return Ok(()) };
        if stored.told_to_drain == told_to_drain || stored.state == executor_state::STOPPED {
            return Ok(());
        }
        let record = ExecutorRecord { told_to_drain, ..stored.clone() };
        // None: somebody else wrote it, or this had landed before; look again.
        if reading.write(&*shared.options.state, &record, Vec::new()).await?.is_some() {
            return Ok(());
        }
    }
}

async fn read_now(shared: &Shared, id: &str) -> Result<Reading, Error> {
    executor_records::read(&*shared.options.state, shared.presence().identity.epoch_revision, id).await
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
    loop {
        let reading = read_now(shared, id).await?;
        let Some((stored, _)) = reading.record() else { return Ok(Removal::Unknown) };
        if stored.state == executor_state::STOPPED {
            return Ok(Removal::Done);
        }
        let mut guards = Vec::new();
        if !stored.home.is_empty() {
            let (live, _) = live_schedulers(&*shared.options.state).await?;
            let home = SessionId(stored.home.clone());
            if live.contains_key(&home) {
                return Ok(Removal::InReach);
            }
            guards.push(Guard::SessionGone(home));
        }
        if let Some(revision) = write_stopped(shared, &reading, stored, guards).await? {
            let executor = ExecutorKey { id: stored.executor_id.clone(), incarnation: stored.incarnation };
            let loss = Loss { key: executor, record: revision, on_purpose: true };
            let _ = shared.engine.send(Input::Lost(loss)).await;
            return Ok(Removal::Done);
        }
    }
}

/// The revision at which the record says so; none if it has changed meanwhile. The wish that it takes no new work has
/// come true with that: its next life takes some.
async fn write_stopped(
    shared: &Shared,
    reading: &Reading,
    stored: &ExecutorRecord,
    guards: Vec<Guard>,
) -> Result<Option<Revision>, Error> {
    let record = ExecutorRecord { told_to_drain: false, ..without_home(shared, stored, executor_state::STOPPED) };
    reading.write(&*shared.options.state, &record, guards).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use muster_state::{Memory, StateBackend};

    use super::*;

    async fn with_an_executor_without_home() -> (Arc<Shared>, ExecutorKey) {
        let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
        let (shared, engine) = Shared::without_engine(&state).await;
        // Nobody is to wait for its answer.
        drop(engine);
        let life = ExecutorKey { id: "e".to_owned(), incarnation: 1 };
        let ready = ExecutorRecord {
            executor_id: life.id.clone(),
            incarnation: life.incarnation,
            state: executor_state::READY.to_owned(),
            ..Default::default()
        };
        read_now(&shared, "e").await.unwrap().write(&*state, &ready, Vec::new()).await.unwrap().unwrap();
        (shared, life)
    }

    #[tokio::test]
    async fn a_scheduler_without_a_session_declares_nobody_lost() {
        let (shared, life) = with_an_executor_without_home().await;
        shared.presence().session.close().await;
        assert_eq!(try_declare_lost(&shared, &life).await.unwrap(), None);
        let reading = read_now(&shared, "e").await.unwrap();
        assert_eq!(reading.record().unwrap().0.state, executor_state::READY);
    }

    #[tokio::test]
    async fn the_wish_to_drain_outlives_a_crash_and_not_a_stop() {
        let (shared, life) = with_an_executor_without_home().await;
        let wished = async || {
            let reading = read_now(&shared, "e").await.unwrap();
            let (record, _) = reading.record().unwrap();
            record.told_to_drain
        };
        note_wish(&shared, "e", true).await.unwrap();
        try_declare_lost(&shared, &life).await.unwrap().unwrap();
        assert!(wished().await, "it may come back, and is still not wanted");
        stopped(&shared, &life).await.unwrap();
        assert!(!wished().await, "it has come true");
        // It stopped faster than the wish was noted.
        note_wish(&shared, "e", true).await.unwrap();
        assert!(!wished().await, "its next life takes work");
    }
}
