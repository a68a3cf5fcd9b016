//! Who advances which job: looks at all owners, so that jobs without a living one are claimed, jobs that name this scheduler are
//! in its memory, and each scheduler owns about its share; and reads jobs into memory.
//!
//! The scan is what makes progress certain; the watch of the schedulers' sessions only makes it sooner.
//!
//! **Invariant: one copy in memory, one token.** A job that may have had an earlier copy here is read under a new token: what
//! that copy sent may still be on its way to an executor, which refuses it once it has been asked under the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_graph::execution::ExecutionGraph;
use muster_graph::ids::JobId;
use muster_proto::storage::{OwnerRecord, SchedulerRecord};
use muster_state::{Error, Guard, Key, Keyspace, Op, Revision, Scan, SessionId, StateBackend, Txn, codec, keys};
use rand::seq::SliceRandom as _;
use tokio::sync::oneshot;

use crate::balance;
use crate::claims::{self, Orphan};
use crate::engine::{Input, Loaded, Successor};
use crate::load::{self, LoadError, send_until_known};
use crate::shared::{Shared, Transit};

/// This scheduler's record as an owner.
pub(crate) fn owner_record(shared: &Shared, session: &SessionId) -> OwnerRecord {
    OwnerRecord {
        session_id: session.0.clone(),
        scheduler_id: shared.options.scheduler_id.clone(),
        address: shared.address.clone(),
        handed_over_by: String::new(),
    }
}

/// Looks at all owners, for ever.
pub(crate) async fn keep_scanning(shared: Arc<Shared>, sessions_changed: Arc<tokio::sync::Notify>) {
    let mut unclaimed = BTreeSet::new();
    loop {
        // Sooner when a session came or went.
        let _ = tokio::time::timeout(shared.options.scan_every, sessions_changed.notified()).await;
        if !shared.health.is_trusted() {
            continue;
        }
        if let Err(error) = scan(&shared, &mut unclaimed).await {
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

/// What a look at all owners found.
#[derive(Default)]
struct Owners {
    /// Jobs that name this scheduler's session.
    ours: BTreeSet<JobId>,
    orphans: Vec<Orphan>,
    /// How many jobs each session owns.
    counts: BTreeMap<SessionId, usize>,
    /// The store's revision at which this was so.
    as_of: Revision,
}

async fn owners(
    shared: &Shared,
    mine: &SessionId,
    live: &BTreeMap<SessionId, SchedulerRecord>,
) -> Result<Owners, Error> {
    let state = &*shared.options.state;
    let mut found = Owners::default();
    let mut owned: BTreeSet<String> = BTreeSet::new();
    let mut scan = Scan::default();
    loop {
        let page = state.scan(Keyspace::JobOwners, scan.clone()).await?;
        found.as_of = page.revision;
        for entry in page.entries {
            let Ok(job) = entry.name.parse::<JobId>() else { continue };
            let key = Key::new(Keyspace::JobOwners, entry.name.clone());
            owned.insert(entry.name);
            let owner: OwnerRecord = match codec::decode(&key, &entry.value) {
                Ok(owner) => owner,
                Err(error) => {
                    note_unreadable(shared, job, &error);
                    continue;
                }
            };
            let session = SessionId(owner.session_id);
            if session == *mine {
                found.ours.insert(job);
            } else if !live.contains_key(&session) {
                found.orphans.push(Orphan { job, owner: Some((session.clone(), entry.mod_revision)) });
            }
            *found.counts.entry(session).or_default() += 1;
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
            None => break,
        }
    }
    for name in all_names(state, Keyspace::ActiveJobs).await? {
        if !owned.contains(&name)
            && let Ok(job) = name.parse()
        {
            found.orphans.push(Orphan { job, owner: None });
        }
    }
    Ok(found)
}

/// `unclaimed` are the jobs that were left to others at the last look.
async fn scan(shared: &Arc<Shared>, unclaimed: &mut BTreeSet<JobId>) -> Result<(), Error> {
    let state = &*shared.options.state;
    let mine = shared.presence().identity.session;
    let (live, _) = crate::membership::live_schedulers(state).await?;
    let held: BTreeSet<JobId> = shared
        .engine
        .read(|engine| engine.job_ids().collect())
        .await
        .map_err(|stopped| Error::Fatal(stopped.to_string()))?;
    let Owners { ours, orphans, counts, as_of } = owners(shared, &mine, &live).await?;
    let elsewhere: Vec<JobId> = held.difference(&ours).copied().collect();
    if !elsewhere.is_empty() {
        let _ = shared.engine.send(Input::NotOurs { jobs: elsewhere, as_of }).await;
    }
    for job in ours.into_iter().filter(|job| !held.contains(job) && !shared.is_in_transit(*job)) {
        tokio::spawn(read_again(Arc::clone(shared), job));
    }
    // Those that take jobs: all that are not draining, or all there are.
    let mut takers: BTreeMap<SessionId, SchedulerRecord> = live.clone();
    takers.retain(|_, peer| !peer.draining);
    if takers.is_empty() {
        takers = live;
    }
    if !takers.contains_key(&mine) || crate::self_fencing::stuck(shared).is_some() {
        unclaimed.clear();
        return Ok(());
    }
    let (fall_to_us, left): (Vec<Orphan>, Vec<Orphan>) = orphans
        .into_iter()
        .partition(|orphan| unclaimed.contains(&orphan.job) || claims::heir(orphan.job, takers.keys()) == Some(&mine));
    *unclaimed = left.into_iter().map(|orphan| orphan.job).collect();
    let none_to_claim = fall_to_us.is_empty() && unclaimed.is_empty();
    claims::claim_all(shared, fall_to_us).await?;
    if none_to_claim {
        let owned = takers.keys().map(|session| (session.clone(), counts.get(session).copied().unwrap_or(0))).collect();
        even_out(shared, &owned, &mine, &takers).await;
    }
    Ok(())
}

/// Gives to peers what this scheduler owns beyond its share.
async fn even_out(
    shared: &Shared,
    owned: &BTreeMap<SessionId, usize>,
    mine: &SessionId,
    takers: &BTreeMap<SessionId, SchedulerRecord>,
) {
    let given = balance::surplus(owned, mine);
    // In a full store no owner can be named, and what has left memory would only have to be read again.
    if given.is_empty() || shared.health.check_writable().is_err() {
        return;
    }
    let now = shared.now();
    let held_for = u64::try_from(shared.options.scan_every.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
    let Ok(mut jobs) = shared.engine.read(move |engine| engine.worth_handing_over(held_for, now)).await else { return };
    jobs.shuffle(&mut rand::rng());
    for (session, count) in given {
        let some = jobs.split_off(jobs.len().saturating_sub(count));
        if let Some(record) = takers.get(&session).filter(|_| !some.is_empty()) {
            tracing::info!(jobs = some.len(), to = record.scheduler_id, "handing jobs over to even the load out");
            let to = Successor { session, record: record.clone() };
            let _ = shared.engine.send(Input::HandOver { jobs: some, to }).await;
        }
    }
}

/// A record of the job is damaged, or a newer version's. It is left alone, and said once.
pub(crate) fn note_unreadable(shared: &Shared, id: JobId, error: &dyn std::fmt::Display) {
    if shared.unreadable.insert(id, error.to_string()).is_none() {
        tracing::error!(job = %id, %error, "the job cannot be read; it is left alone");
    }
}

/// What is known here of executors may be older than the job that was read: one that is taken to be away may have come
/// back, and have been given work by the owner before.
async fn look_at_executors_of(shared: &Shared, graph: &ExecutionGraph) -> Result<(), Error> {
    // Stopping: nobody needs to know any more.
    let away = shared.engine.read(|engine| engine.executors_away()).await.unwrap_or_default();
    for id in away.into_iter().filter(|id| graph.concerns(id)) {
        if let Some(entry) = shared.options.state.get(&keys::executor(&id)).await? {
            crate::membership::executor_seen(shared, &entry).await?;
        }
    }
    Ok(())
}

/// Puts a new token on a job that names this scheduler. False: it names somebody else.
async fn renew_token(shared: &Shared, id: JobId) -> Result<bool, Error> {
    let state = &*shared.options.state;
    let identity = shared.presence().identity;
    let key = keys::owner(id);
    let Some(entry) = state.get(&key).await? else { return Ok(false) };
    let owner: OwnerRecord = codec::decode(&key, &entry.value)?;
    if owner.session_id != identity.session.0 {
        return Ok(false);
    }
    let value = codec::encode(&owner_record(shared, &identity.session))?;
    let txn = Txn {
        guards: vec![
            Guard::AtRevision(keys::epoch(), identity.epoch_revision),
            Guard::SessionAlive(identity.session.clone()),
            Guard::AtRevision(key.clone(), entry.mod_revision),
        ],
        ops: vec![Op::Put { key, value, session: None }],
        read_on_failure: Vec::new(),
    };
    // Refused: an earlier sending had landed, or the job is somebody else's by now. The reading that follows tells.
    send_until_known(state, txn).await?;
    Ok(true)
}

/// Reads a job that names this scheduler, of which there may have been an earlier copy here, and gives it to the engine.
pub(crate) async fn read_again(shared: Arc<Shared>, id: JobId) {
    let Some(transit) = shared.transit(id) else { return };
    // It may have come since its absence was seen.
    if !matches!(shared.engine.read(move |engine| engine.job(id).is_some()).await, Ok(false)) {
        return;
    }
    // One that cannot be read has launched nothing since.
    let token = if shared.unreadable.contains_key(&id) { Token::AsIs } else { Token::New };
    bring_in(&shared, transit, token, None).await;
}

/// Reads a job that a peer has made ours under this token, and gives it to the engine.
pub(crate) async fn take_in(shared: Arc<Shared>, id: JobId, token: Revision) {
    let Some(transit) = shared.transit(id) else { return };
    // The scan may have found it before.
    if matches!(shared.engine.read(move |engine| engine.job(id).is_some()).await, Ok(false)) {
        bring_in(&shared, transit, Token::Given(token), None).await;
    }
}

/// Reads a job that has just become this scheduler's, and gives it to the engine.
pub(crate) async fn adopt(shared: Arc<Shared>, transit: Transit) {
    bring_in(&shared, transit, Token::AsIs, None).await;
}

/// The same, off the caller's way.
pub(crate) fn adopt_soon(shared: &Arc<Shared>, id: JobId) {
    if let Some(transit) = shared.transit(id) {
        tokio::spawn(adopt(Arc::clone(shared), transit));
    }
}

/// The same, for somebody who waits for the retry for which the job was made active again.
pub(crate) async fn adopt_for(shared: &Arc<Shared>, transit: Transit, retry: oneshot::Sender<Option<u32>>) {
    bring_in(shared, transit, Token::AsIs, Some(retry)).await;
}

/// Under which token a job is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Under the one that it has: no copy of it was here under that.
    AsIs,
    /// The same, if it is this one.
    Given(Revision),
    /// Under a new one.
    New,
}

async fn bring_in(
    shared: &Arc<Shared>,
    transit: Transit,
    mut token: Token,
    retry: Option<oneshot::Sender<Option<u32>>>,
) {
    /// Between attempts while the store does not answer.
    const PAUSE: Duration = Duration::from_millis(500);
    let id = transit.job();
    loop {
        if !shared.health.is_trusted() {
            // The scan comes back to it when the doubt is over.
            return;
        }
        let read = async {
            let _one_of_few = shared.loads.acquire().await;
            if token == Token::New {
                if !renew_token(shared, id).await? {
                    return Err(LoadError::NotOurs);
                }
                token = Token::AsIs;
            }
            let loaded = load::owned(&*shared.options.state, id, &shared.presence().identity.session).await?;
            look_at_executors_of(shared, &loaded.graph).await?;
            Ok(Some(loaded).filter(|loaded| !matches!(token, Token::Given(given) if given != loaded.cursor.token)))
        };
        match read.await {
            Ok(None) => token = Token::New,
            Ok(Some(loaded)) => {
                let loaded = Loaded { retry, ..loaded };
                shared.unreadable.remove(&id);
                let _ = shared.engine.send(Input::Adopted(Box::new(loaded))).await;
                return;
            }
            Err(LoadError::NotOurs) => {
                let _ = shared.engine.send(Input::Dropped { job: id, why: LoadError::NotOurs.to_string() }).await;
                return;
            }
            // Full, compacted meanwhile, or not there: nothing of it is the job's fault, and nothing here is known of it.
            Err(LoadError::Store(error)) if !matches!(error, Error::Record { .. } | Error::Fatal(_)) => {
                tracing::info!(job = %id, %error, "reading the job again soon");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                // Left alone, with its owner's name on it: nobody can do better, and nothing is overwritten.
                note_unreadable(shared, id, &error);
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

#[cfg(test)]
mod tests;
