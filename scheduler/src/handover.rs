//! Between two living owners: the transaction that names the successor, and the call that tells it.
//!
//! **Invariant:** a job comes here only after the engine has let go of it ([`crate::engine::Departing`]). It goes to the successor,
//! whose session must be alive in the very transaction, or is read again under a new token of our own; if this
//! process dies in between, the job has an owner whose session is gone, as ever.
//!
//! **Invariant:** of the giver's and the taker's commits no two land on one another. The transaction that names the successor
//! rewrites the owner's record, whose revision every commit compares, so whatever the giver sent before and lands later is
//! refused; and the taker reads the job after that revision, so its first commit's predecessor is the giver's last. The revision
//! is also the taker's token: new, as the call that brings it comes once. A call that is late finds the job under
//! another token if the taker has found it by itself, and then has it read under a new one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use muster_graph::ids::JobId;
use muster_proto::storage::OwnerRecord;
use muster_proto::v1;
use muster_proto::v1::peer_client::PeerClient;
use muster_state::{Entry, Error, Guard, Op, Revision, Txn, TxnOutcome, codec, keys};
use tokio::task::JoinSet;

use crate::engine::{Departing, Successor};
use crate::load::send_until_known;
use crate::options::{HANDOVER_BATCH, LOADS_AT_ONCE};
use crate::ownership;
use crate::shared::{Shared, Transit};

/// The successor reads some dozens of jobs within this, or its scan finds them.
const TELL_WITHIN: Duration = Duration::from_secs(3);

/// Gives jobs away, or takes them back into memory.
pub(crate) async fn give(shared: Arc<Shared>, to: Arc<Successor>, jobs: Vec<(Departing, Option<Transit>)>) {
    let began = Instant::now();
    let mut telling = JoinSet::new();
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        let (batch, mut transits): (Vec<Departing>, Vec<Option<Transit>>) = jobs.by_ref().take(HANDOVER_BATCH).unzip();
        let given = give_batch(&shared, &to, &batch).await;
        // What was given stays in transit until the successor has it: who waits for the end of this process waits for that.
        transits.retain(|transit| transit.as_ref().is_some_and(|transit| given.contains_key(&transit.job())));
        for kept in batch.iter().filter(|departing| !given.contains_key(&departing.job)) {
            tracing::info!(job = %kept.job, to = to.record.scheduler_id, "the job stays; reading it again");
            tokio::spawn(ownership::read_again(Arc::clone(&shared), kept.job));
        }
        if !given.is_empty() {
            let (shared, to) = (Arc::clone(&shared), Arc::clone(&to));
            telling.spawn(async move {
                tell(&shared, &to, given, began).await;
                drop(transits);
            });
        }
    }
    while telling.join_next().await.is_some() {}
}

/// Answers which jobs are the successor's now, each with its token.
async fn give_batch(shared: &Shared, to: &Successor, batch: &[Departing]) -> BTreeMap<JobId, Revision> {
    match transfer(shared, to, batch).await {
        Ok(Some(given)) => given,
        // Refused as a whole: one of them may be to blame, or the successor is gone and all are.
        Ok(None) => {
            let mut given = BTreeMap::new();
            for departing in batch {
                match transfer(shared, to, std::slice::from_ref(departing)).await {
                    Ok(one) => given.extend(one.unwrap_or_default()),
                    Err(error) => tracing::warn!(job = %departing.job, %error, "handing the job over failed"),
                }
            }
            given
        }
        // Whether it landed is told by reading each job again, under a token that outlives a late landing.
        Err(error) => {
            tracing::warn!(jobs = batch.len(), %error, "handing jobs over failed");
            BTreeMap::new()
        }
    }
}

/// One transaction. `None`: refused, and an earlier sending had not landed.
async fn transfer(
    shared: &Shared,
    to: &Successor,
    batch: &[Departing],
) -> Result<Option<BTreeMap<JobId, Revision>>, Error> {
    let epoch = shared.presence().identity.epoch_revision;
    let owner = OwnerRecord {
        session_id: to.session.0.clone(),
        scheduler_id: to.record.scheduler_id.clone(),
        address: to.record.address.clone(),
        handed_over_by: shared.presence().identity.session.0,
    };
    let value = codec::encode(&owner)?;
    let mut txn = Txn {
        guards: vec![Guard::AtRevision(keys::epoch(), epoch), Guard::SessionAlive(to.session.clone())],
        ..Txn::default()
    };
    for Departing { job, token, predecessor } in batch {
        let key = keys::owner(*job);
        txn.guards.push(Guard::AtRevision(key.clone(), *token));
        txn.guards.push(Guard::AtRevision(predecessor.0.clone(), predecessor.1));
        txn.ops.push(Op::Put { key: key.clone(), value: value.clone(), session: None });
        txn.read_on_failure.push(key);
    }
    match send_until_known(&*shared.options.state, txn).await? {
        TxnOutcome::Committed(token) => Ok(Some(batch.iter().map(|departing| (departing.job, token)).collect())),
        TxnOutcome::Refused { read, .. } => {
            let theirs = |(departing, read): (&Departing, Option<Entry>)| {
                let entry = read?;
                let record: OwnerRecord = codec::decode(&keys::owner(departing.job), &entry.value).ok()?;
                (record.session_id == to.session.0).then_some((departing.job, entry.mod_revision))
            };
            Ok(batch.iter().zip(read).map(theirs).collect())
        }
    }
}

/// Tells the successor, which answers when it has the jobs in memory.
async fn tell(shared: &Shared, to: &Successor, given: BTreeMap<JobId, Revision>, began: Instant) {
    let jobs = given.len();
    let (job_ids, tokens) = given.into_iter().map(|(job, token)| (job.to_string(), token)).unzip();
    let request = v1::TakeJobsRequest { job_ids, tokens };
    let call = async {
        let mut peer = PeerClient::new(shared.peers.channel(&shared.options.network, &to.record.address)?);
        tokio::time::timeout(TELL_WITHIN, peer.take_jobs(request))
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no answer"))?
    };
    let to = &to.record.scheduler_id;
    match call.await {
        Ok(_) => {
            let paused_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(jobs, to, paused_ms, "jobs handed over");
        }
        Err(status) => tracing::info!(jobs, to, %status, "the new owner was not told; its next scan finds the jobs"),
    }
}

/// Takes jobs in that a peer has made ours, under the tokens that it gave them.
pub(crate) async fn take(shared: Arc<Shared>, jobs: Vec<(JobId, Revision)>) {
    let shared = &shared;
    futures::stream::iter(jobs)
        .for_each_concurrent(LOADS_AT_ONCE, |(job, token)| ownership::take_in(Arc::clone(shared), job, token))
        .await;
}
