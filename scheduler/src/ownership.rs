//! Jobs that nobody advances: finds them, claims them or takes them over, and reads them.
//!
//! The scan is what makes progress certain; the watch of the schedulers' sessions only makes it sooner.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::storage::OwnerRecord;
use muster_state::{Error, Guard, Key, Keyspace, Op, Scan, SessionId, StateBackend, Txn, TxnOutcome, codec, keys};
use tokio::sync::oneshot;

use crate::engine::{Input, Loaded};
use crate::load::{self, LoadError, send_until_known};
use crate::options::JOBS_OWNED_MAX;
use crate::shared::Shared;

/// This scheduler's record as an owner.
pub(crate) fn owner_record(shared: &Shared, session: &SessionId) -> OwnerRecord {
    OwnerRecord {
        session_id: session.0.clone(),
        scheduler_id: shared.options.scheduler_id.clone(),
        address: shared.address.clone(),
        handed_over_by: String::new(),
    }
}

/// Looks for jobs without an owner, for ever.
pub(crate) async fn keep_scanning(shared: Arc<Shared>, sessions_changed: Arc<tokio::sync::Notify>) {
    loop {
        // Sooner when a session came or went.
        let _ = tokio::time::timeout(shared.options.scan_every, sessions_changed.notified()).await;
        if let Err(error) = scan(&shared).await {
            tracing::info!(%error, "scan for jobs without an owner failed; again soon");
        }
    }
}

async fn all_names(state: &dyn StateBackend, keyspace: Keyspace) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut scan = Scan::default();
    loop {
        let page = state.scan_keys(keyspace, scan.clone()).await?;
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
            None => return Ok(names),
        }
    }
}

async fn scan(shared: &Arc<Shared>) -> Result<(), Error> {
    let state = &*shared.options.state;
    let mine = shared.presence().identity.session;
    let (live, _) = crate::membership::live_schedulers(state).await?;
    let held: BTreeSet<JobId> = shared
        .engine
        .read(|engine| engine.job_ids().collect())
        .await
        .map_err(|stopped| Error::Fatal(stopped.to_string()))?;
    let mut owned: BTreeSet<String> = BTreeSet::new();
    let mut scan = Scan::default();
    loop {
        let page = state.scan(Keyspace::JobOwners, scan.clone()).await?;
        for entry in page.entries {
            let Ok(id) = entry.name.parse::<JobId>() else { continue };
            let owner: OwnerRecord = codec::decode(&Key::new(Keyspace::JobOwners, entry.name.clone()), &entry.value)?;
            owned.insert(entry.name);
            if owner.session_id == mine.0 {
                if !held.contains(&id) {
                    reload(shared, id).await;
                }
            } else if !live.contains_key(&SessionId(owner.session_id.clone())) {
                claim(shared, id).await;
            }
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
            None => break,
        }
    }
    for name in all_names(state, Keyspace::ActiveJobs).await? {
        if !owned.contains(&name)
            && let Ok(id) = name.parse()
        {
            claim(shared, id).await;
        }
    }
    Ok(())
}

/// Claims a job without an owner, or takes over one whose owner's session is gone, and adopts it.
pub(crate) async fn claim(shared: &Arc<Shared>, id: JobId) {
    match try_claim(shared, id).await {
        Ok(true) => {
            crate::faults::die_at("mid-takeover");
            reload(shared, id).await;
        }
        Ok(false) => {}
        Err(error) => tracing::info!(job = %id, %error, "could not claim the job; the next scan tries again"),
    }
}

async fn try_claim(shared: &Shared, id: JobId) -> Result<bool, Error> {
    let jobs = shared.engine.read(|engine| engine.jobs_owned()).await.unwrap_or(usize::MAX);
    if jobs >= JOBS_OWNED_MAX {
        return Ok(false);
    }
    let state = &*shared.options.state;
    let identity = shared.presence().identity;
    let Some(stored) = load::head(state, id).await? else { return Ok(false) };
    if stored.keyspace != Keyspace::ActiveJobs {
        return Ok(false);
    }
    let owner_key = keys::owner(id);
    let mut guards =
        vec![Guard::AtRevision(keys::epoch(), identity.epoch_revision), Guard::SessionAlive(identity.session.clone())];
    match &stored.owner {
        None => {
            guards.push(Guard::Absent(owner_key.clone()));
            guards.push(Guard::AtRevision(keys::active_job(id), stored.head_entry.mod_revision));
        }
        Some((owner, revision)) => {
            guards.push(Guard::AtRevision(owner_key.clone(), *revision));
            guards.push(Guard::SessionGone(SessionId(owner.session_id.clone())));
        }
    }
    let value = codec::encode(&owner_record(shared, &identity.session))?;
    let txn = Txn {
        guards,
        ops: vec![Op::Put { key: owner_key.clone(), value, session: None }],
        read_on_failure: vec![owner_key.clone()],
    };
    match send_until_known(state, txn).await? {
        TxnOutcome::Committed(token) => {
            tracing::info!(job = %id, token, from = stored.owner.map(|(owner, _)| owner.scheduler_id), "job taken over");
            Ok(true)
        }
        TxnOutcome::Refused { read, .. } => {
            // An earlier sending whose answer was lost may have landed: then the record is ours.
            let ours = read.into_iter().flatten().any(|entry| {
                codec::decode::<OwnerRecord>(&owner_key, &entry.value)
                    .is_ok_and(|owner| owner.session_id == identity.session.0)
            });
            Ok(ours)
        }
    }
}

/// Reads a job that names this scheduler, and gives it to the engine.
pub(crate) async fn reload(shared: &Arc<Shared>, id: JobId) {
    reload_for(shared, id, None).await;
}

/// The same, for somebody who waits for the retry for which the job was made active again.
pub(crate) async fn reload_for(shared: &Arc<Shared>, id: JobId, retry: Option<oneshot::Sender<Option<u32>>>) {
    /// Between attempts while the store does not answer.
    const PAUSE: Duration = Duration::from_millis(500);
    loop {
        let session = shared.presence().identity.session;
        match load::owned(&*shared.options.state, id, &session).await {
            Ok(loaded) => {
                let loaded = Loaded { retry, ..loaded };
                shared.unreadable.remove(&id);
                let _ = shared.engine.send(Input::Adopted(Box::new(loaded))).await;
                return;
            }
            Err(LoadError::NotOurs) => {
                let _ = shared.engine.send(Input::Dropped { job: id, why: LoadError::NotOurs.to_string() }).await;
                return;
            }
            Err(LoadError::Store(error)) if error.is_retryable() => {
                tracing::info!(job = %id, %error, "reading the job again soon");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                // Left alone, with its owner's name on it: nobody can do better, and nothing is overwritten.
                if shared.unreadable.insert(id, error.to_string()).is_none() {
                    tracing::error!(job = %id, %error, "the job cannot be read");
                }
                let _ = shared.engine.send(Input::Dropped { job: id, why: error.to_string() }).await;
                return;
            }
        }
    }
}

/// The address of the scheduler that owns a job, if that is another live one.
pub(crate) async fn owner_elsewhere(shared: &Shared, id: JobId) -> Result<Option<String>, Error> {
    let key = keys::owner(id);
    let Some(entry) = shared.options.state.get(&key).await? else { return Ok(None) };
    let owner: OwnerRecord = codec::decode(&key, &entry.value)?;
    let elsewhere =
        owner.address != shared.address && shared.peers.live().contains_key(&SessionId(owner.session_id.clone()));
    Ok(elsewhere.then_some(owner.address))
}
