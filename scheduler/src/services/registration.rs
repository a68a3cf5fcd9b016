//! How an executor comes to have its home here: whether it may, what its record says then, and what it is told.
//!
//! **Invariant:** one life has one incarnation. Two that came by the same number (a data directory was lost) are told apart
//! by what each made up for itself, and the later one has to rise above before it is registered: else what the earlier one
//! was given would be looked for in the later one, and never come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::{ExecutorKey, JobId};
use muster_graph::spec::Resources;
use muster_proto::v1::executor_client::ExecutorClient;
use muster_proto::{convert, storage, v1};
use muster_state::Revision;
use tonic::Status;

use super::Api;
use super::executors::named;
use crate::accept::{store, unavailable};
use crate::engine::{Identity, Input, Registration};
use crate::executor_records::{self, executor_state};
use crate::options::PEER_DEADLINE;
use crate::shared::Shared;
use crate::{links, load, safety, unreachable};

/// What became of a wish to be registered.
enum Written {
    /// Its record says so, at this revision.
    As(Box<storage::ExecutorRecord>, Revision),
    /// There has been a life with this incarnation, which is not the one that asks.
    Taken(u64),
}

fn check(message: &v1::RegisterRequest) -> Result<(), Status> {
    named("executor_id", &message.executor_id)?;
    if message.incarnation == 0 {
        return Err(Status::invalid_argument("incarnation: must be at least 1 and rise at each start"));
    }
    if message.address.is_empty() {
        return Err(Status::invalid_argument("address: missing: host:port of the executor's services"));
    }
    if message.total.as_ref().is_none_or(|total| total.cpu_milli == 0) {
        return Err(Status::invalid_argument("total.cpu_milli: an executor must offer some cpu"));
    }
    if !message.life.is_empty() {
        named("life", &message.life)?;
    }
    Ok(())
}

impl Api {
    pub(super) async fn register_executor(&self, message: v1::RegisterRequest) -> Result<v1::RegisterResponse, Status> {
        let shared = &self.shared;
        if shared.slack().is_zero() {
            return Err(unavailable("this scheduler has no session at present; register with another one"));
        }
        shared.check_not_draining()?;
        check(&message)?;
        safety::hear(shared, &message.executor_id, message.highest_epoch, message.highest_token)
            .await
            .map_err(store)?;
        shared.health.check_trusted()?;
        let key = ExecutorKey { id: message.executor_id.clone(), incarnation: message.incarnation };
        let pull = message.mode == i32::from(v1::Mode::Pull);
        if !pull {
            unreachable::check(shared, &key, &message.address).await.map_err(Status::failed_precondition)?;
        }
        let identity = shared.presence().identity;
        let (record, revision) = match write(shared, &identity, &message).await.map_err(store)? {
            Written::As(record, revision) => (record, revision),
            Written::Taken(incarnation) if message.life.is_empty() => {
                return Err(Status::failed_precondition(format!(
                    "executor {} has started again since (incarnation {incarnation})",
                    key.id
                )));
            }
            Written::Taken(lives_known) => return Ok(v1::RegisterResponse { lives_known, ..Default::default() }),
        };
        tracing::info!(
            executor = key.id,
            incarnation = key.incarnation,
            address = record.address,
            "executor registered"
        );
        let held = message.held.iter().filter_map(|held| convert::attempt_ref(held.attempt.as_ref()?).ok());
        let held: Vec<_> = held.collect();
        if message.highest_epoch < identity.epoch && !held.is_empty() {
            let jobs = held.iter().map(|(job, ..)| *job).collect();
            tokio::spawn(end_unknown(Arc::clone(shared), key.clone(), message.address.clone(), jobs));
        }
        let registration = Registration {
            key,
            address: message.address,
            pull,
            total: message.total.as_ref().map(Resources::from).unwrap_or_default(),
            labels: message.labels,
            version: message.version,
            draining: record.state == executor_state::DRAINING,
            home_here: true,
            home: record.home,
            record: revision,
            backlog: message.backlog,
            held: Some(held),
        };
        shared.engine.send(Input::Registered(registration)).await.map_err(unavailable)?;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Ok(v1::RegisterResponse {
            scheduler_id: shared.options.scheduler_id.clone(),
            schedulers: shared.peers.addresses(),
            heartbeat_ms: millis(shared.options.heartbeat),
            cluster_epoch: identity.epoch,
            lost_after_ms: millis(shared.options.lost_after),
            lives_known: 0,
            told_to_drain: record.told_to_drain,
        })
    }
}

/// Writes the executor's record, if it differs from what is stored.
async fn write(
    shared: &Shared,
    identity: &Identity,
    message: &v1::RegisterRequest,
) -> Result<Written, muster_state::Error> {
    let state = &*shared.options.state;
    loop {
        let reading = executor_records::read(state, identity.epoch_revision, &message.executor_id).await?;
        let mut told_to_drain = message.told_to_drain;
        if let Some((stored, _)) = reading.record() {
            let is_same = stored.incarnation == message.incarnation;
            let is_other = !stored.life.is_empty() && !message.life.is_empty() && stored.life != message.life;
            if stored.incarnation > message.incarnation || (is_same && is_other) {
                return Ok(Written::Taken(stored.incarnation));
            }
            // A new life has not heard of the wish. Within one, the executor itself knows best.
            told_to_drain |= !is_same && stored.told_to_drain;
        }
        let record = storage::ExecutorRecord {
            executor_id: message.executor_id.clone(),
            incarnation: message.incarnation,
            address: message.address.clone(),
            pull: message.mode == i32::from(v1::Mode::Pull),
            total: message.total.clone(),
            labels: message.labels.clone(),
            version: message.version.clone(),
            home: identity.session.0.clone(),
            state: if message.draining || told_to_drain { executor_state::DRAINING } else { executor_state::READY }
                .to_owned(),
            since_ms: shared.now(),
            backlog: message.backlog,
            life: message.life.clone(),
            told_to_drain,
        };
        if let Some((stored, revision)) = reading.record()
            && *stored == (storage::ExecutorRecord { since_ms: stored.since_ms, ..record.clone() })
        {
            return Ok(Written::As(Box::new(record), revision));
        }
        // None: somebody else wrote it, or this had landed before; look again.
        if let Some(revision) = reading.write(state, &record, Vec::new()).await? {
            return Ok(Written::As(Box::new(record), revision));
        }
    }
}

/// Ends what an executor has of jobs that the store does not know: it was restored from a backup that is older than them.
/// Nobody owns such a job, so nobody else would ever tell.
async fn end_unknown(shared: Arc<Shared>, executor: ExecutorKey, address: String, jobs: BTreeSet<JobId>) {
    /// With the pause between them, some minutes: longer than a new epoch takes to settle.
    const TRIES: u32 = 60;
    const PAUSE: Duration = Duration::from_secs(2);
    for _ in 0..TRIES {
        match try_end_unknown(&shared, &executor, &address, &jobs).await {
            Ok(()) => return,
            Err(why) => {
                tracing::info!(executor = executor.id, why, "jobs unknown to the store are not ended yet; soon")
            }
        }
        tokio::time::sleep(PAUSE).await;
        // It has gone, or began anew: its next registration is looked at for itself.
        let key = executor.clone();
        let is_here =
            shared.engine.read(move |engine| engine.executor(&key.id).is_some_and(|known| known.is_here(&key)));
        if !matches!(is_here.await, Ok(true)) {
            return;
        }
    }
}

async fn try_end_unknown(
    shared: &Shared,
    executor: &ExecutorKey,
    address: &str,
    jobs: &BTreeSet<JobId>,
) -> Result<(), String> {
    let mut unknown = Vec::new();
    for job in jobs {
        if load::head(&*shared.options.state, *job).await.map_err(|error| error.to_string())?.is_none() {
            unknown.push(job.to_string());
        }
    }
    // What a store in doubt does not know may well be.
    if !shared.health.is_trusted() {
        return Err("the store is in doubt".to_owned());
    }
    if unknown.is_empty() {
        return Ok(());
    }
    tracing::warn!(executor = executor.id, jobs = ?unknown, "the store does not know these jobs: ending them");
    let channel = links::channel(&shared.options.network, address).map_err(|error| error.to_string())?;
    let request = v1::ForgetJobsRequest { job_ids: unknown };
    tokio::time::timeout(PEER_DEADLINE, ExecutorClient::new(channel).forget_jobs(request))
        .await
        .map_err(|_| "the executor does not answer".to_owned())?
        .map_err(|status| status.message().to_owned())?;
    Ok(())
}
