//! Claims: naming this scheduler as the owner of jobs that have none, or whose owner's session is gone.
//!
//! A dead scheduler's jobs are shared out among the survivors before anybody has spoken to anybody: each job falls to the
//! session of the highest [`weight`], and that one claims it at once. Whoever sees it still unclaimed at the next look
//! claims it too; the guards let one of them win.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use muster_graph::ids::JobId;
use muster_proto::storage::OwnerRecord;
use muster_state::{Entry, Error, Guard, Keyspace, Op, Revision, SessionId, Txn, TxnOutcome, codec, keys};

use crate::engine::{Engine, Identity};
use crate::load::{self, send_until_known};
use crate::options::CLAIM_BATCH;
use crate::shared::Shared;
use crate::{ownership, self_fencing};

/// A job whose owner's session is gone, or that has no owner.
#[derive(Debug, Clone)]
pub(crate) struct Orphan {
    pub(crate) job: JobId,
    /// The session that its owner's record names, and the revision of that.
    pub(crate) owner: Option<(SessionId, Revision)>,
}

/// How much a job belongs to a session. Builds that disagree about it only claim some jobs a look later.
fn weight(job: JobId, session: &SessionId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (job.0, &session.0).hash(&mut hasher);
    hasher.finish()
}

/// The session that a job falls to. The same wherever the same sessions are known.
pub(crate) fn heir<'a>(job: JobId, sessions: impl IntoIterator<Item = &'a SessionId>) -> Option<&'a SessionId> {
    sessions.into_iter().max_by_key(|session| weight(job, session))
}

/// How many more jobs this scheduler may own. How large orphans are is not known before they are claimed, so the last one may be one
/// too many.
pub(crate) async fn room(shared: &Shared) -> usize {
    let most = shared.options.owned_max;
    let room = move |engine: &mut Engine| {
        if engine.tasks_owned() < most.tasks { most.jobs.saturating_sub(engine.jobs_owned()) } else { 0 }
    };
    shared.engine.read(room).await.unwrap_or(0)
}

/// Claims jobs, some dozens in one transaction, and brings them into memory.
pub(crate) async fn claim_all(shared: &Arc<Shared>, orphans: Vec<Orphan>) -> Result<(), Error> {
    let room = room(shared).await;
    let mut by_owner: BTreeMap<SessionId, Vec<(JobId, Revision)>> = BTreeMap::new();
    for Orphan { job, owner } in orphans.into_iter().take(room) {
        match owner {
            Some((session, revision)) => by_owner.entry(session).or_default().push((job, revision)),
            None => claim(shared, job).await,
        }
    }
    for (from, jobs) in by_owner {
        for batch in jobs.chunks(CLAIM_BATCH) {
            let claimed = claim_batch(shared, &from, batch).await?;
            if !claimed.is_empty() {
                tracing::info!(jobs = claimed.len(), from = from.0, "jobs taken over");
                crate::faults::die_at("mid-takeover");
            }
            for job in claimed {
                ownership::adopt_soon(shared, job);
            }
        }
    }
    Ok(())
}

/// Takes jobs of one dead session over; answers which are ours now.
async fn claim_batch(shared: &Shared, from: &SessionId, jobs: &[(JobId, Revision)]) -> Result<Vec<JobId>, Error> {
    let identity = shared.presence().identity;
    let value = codec::encode(&ownership::owner_record(shared, &identity.session))?;
    let mut ours = Vec::with_capacity(jobs.len());
    let mut left = jobs.to_vec();
    while !left.is_empty() {
        let mut txn = Txn { guards: preconditions(&identity), ..Txn::default() };
        txn.guards.push(Guard::SessionGone(from.clone()));
        for (job, revision) in &left {
            let key = keys::owner(*job);
            txn.guards.push(Guard::AtRevision(key.clone(), *revision));
            txn.ops.push(Op::Put { key: key.clone(), value: value.clone(), session: None });
            txn.read_on_failure.push(key);
        }
        match send_until_known(&*shared.options.state, txn).await? {
            TxnOutcome::Committed(_) => {
                ours.extend(left.drain(..).map(|(job, _)| job));
            }
            TxnOutcome::Refused { read, .. } => {
                let before = left.len();
                let mut unchanged = Vec::new();
                for ((job, revision), entry) in left.drain(..).zip(read) {
                    if entry.as_ref().is_some_and(|entry| entry.mod_revision == revision) {
                        unchanged.push((job, revision));
                    } else if names(job, entry.as_ref(), &identity.session) {
                        // An earlier sending whose answer was lost had landed.
                        ours.push(job);
                    }
                }
                if unchanged.len() == before {
                    tracing::info!(jobs = before, from = from.0, "not taken over: one of the two sessions says no");
                    break;
                }
                left = unchanged;
            }
        }
    }
    Ok(ours)
}

fn preconditions(identity: &Identity) -> Vec<Guard> {
    vec![Guard::AtRevision(keys::epoch(), identity.epoch_revision), Guard::SessionAlive(identity.session.clone())]
}

fn names(job: JobId, owner: Option<&Entry>, session: &SessionId) -> bool {
    let decoded = owner.and_then(|entry| codec::decode::<OwnerRecord>(&keys::owner(job), &entry.value).ok());
    decoded.is_some_and(|owner| owner.session_id == session.0)
}

/// Claims a job without an owner, or takes over one whose owner's session is gone, and adopts it.
pub(crate) async fn claim(shared: &Arc<Shared>, id: JobId) {
    match try_claim(shared, id).await {
        Ok(true) => {
            crate::faults::die_at("mid-takeover");
            if let Some(transit) = shared.transit(id) {
                ownership::adopt(Arc::clone(shared), transit).await;
            }
        }
        Ok(false) => {}
        Err(error @ Error::Record { .. }) => ownership::note_unreadable(shared, id, &error),
        Err(error) => tracing::info!(job = %id, %error, "could not claim the job; the next scan tries again"),
    }
}

async fn try_claim(shared: &Shared, id: JobId) -> Result<bool, Error> {
    if room(shared).await == 0 || !shared.health.is_trusted() || self_fencing::stuck(shared).is_some() {
        return Ok(false);
    }
    let state = &*shared.options.state;
    let identity = shared.presence().identity;
    let Some(stored) = load::head(state, id).await? else { return Ok(false) };
    if stored.keyspace != Keyspace::ActiveJobs {
        return Ok(false);
    }
    let owner_key = keys::owner(id);
    let mut guards = preconditions(&identity);
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
    let value = codec::encode(&ownership::owner_record(shared, &identity.session))?;
    let txn = Txn {
        guards,
        ops: vec![Op::Put { key: owner_key.clone(), value, session: None }],
        read_on_failure: vec![owner_key],
    };
    match send_until_known(state, txn).await? {
        TxnOutcome::Committed(token) => {
            tracing::info!(job = %id, token, from = stored.owner.map(|(owner, _)| owner.scheduler_id), "job taken over");
            Ok(true)
        }
        // An earlier sending whose answer was lost may have landed: then the record is ours.
        TxnOutcome::Refused { read, .. } => Ok(names(id, read.first().and_then(Option::as_ref), &identity.session)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_schedulers_jobs_fall_to_the_survivors_in_about_equal_shares() {
        let survivors: Vec<SessionId> = ["a.1", "b.2", "c.3"].map(|id| SessionId(id.to_owned())).into();
        let mut shares: BTreeMap<&SessionId, u32> = BTreeMap::new();
        for job in 0..3_000 {
            *shares.entry(heir(JobId(job), &survivors).unwrap()).or_default() += 1;
        }
        assert!(shares.values().all(|share| (800..1_200).contains(share)), "{shares:?}");
        // The loss of one moves nothing but what was its own.
        for job in (0..3_000).map(JobId) {
            let before = heir(job, &survivors).unwrap();
            if *before != survivors[2] {
                assert_eq!(heir(job, &survivors[..2]), Some(before));
            }
        }
        assert_eq!(heir(JobId(1), &[]), None);
    }
}
