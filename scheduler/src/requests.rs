//! Cancels that reach a job through the store, because its owner lives and cannot be reached.
//!
//! **Invariant:** whoever wrote the mark may acknowledge the cancel. Every commit of the job compares the mark: absent, or at the
//! revision that the commit carries out and deletes. So no commit lands that does not know of it, whoever owns the job.
//! The mark is written only while the job is active and its owner's record is as read: it cannot strike a later life of the job.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::ids::JobId;
use muster_proto::storage::CancelMark;
use muster_state::{Change, Entry, Error, Guard, Keyspace, Op, Revision, Txn, TxnOutcome, codec, keys};

use crate::engine::Input;
use crate::load::{StoredJob, send_until_known};
use crate::shared::Shared;

/// A watch only makes sooner what a list alone would bring about: so often everything is listed anew.
const LIST_EVERY: Duration = Duration::from_secs(5);
/// After an error of the store, before the next look.
const PAUSE: Duration = Duration::from_millis(500);

/// Marks a job as cancelled. False: it is not as it was read; look again.
pub(crate) async fn mark_cancelled(
    shared: &Shared,
    id: JobId,
    stored: &StoredJob,
    reason: &str,
) -> Result<bool, Error> {
    let Some((_, owner)) = &stored.owner else { return Ok(false) };
    let key = keys::cancel_mark(id);
    let mark = CancelMark {
        request_id: format!("{:016x}", rand::random::<u64>()),
        reason: reason.to_owned(),
        at_ms: shared.now(),
    };
    let txn = Txn {
        guards: vec![
            Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision),
            Guard::AtRevision(keys::owner(id), *owner),
            Guard::Present(keys::active_job(id)),
            Guard::Absent(key.clone()),
        ],
        ops: vec![Op::Put { key: key.clone(), value: codec::encode(&mark)?, session: None }],
        read_on_failure: vec![key],
    };
    match send_until_known(&*shared.options.state, txn).await? {
        TxnOutcome::Committed(_) => {
            tracing::info!(job = %id, "the job's owner cannot be reached; its cancel is left in the store");
            Ok(true)
        }
        // Ours from an earlier sending, or another cancel of the same job: either is carried out.
        TxnOutcome::Refused { read, .. } => Ok(read.into_iter().flatten().next().is_some()),
    }
}

/// The mark in a stored value.
pub(crate) fn decode(id: JobId, entry: &Entry) -> Result<(String, Revision), Error> {
    let mark: CancelMark = codec::decode(&keys::cancel_mark(id), &entry.value)?;
    Ok((mark.reason, entry.mod_revision))
}

/// Brings marks to the jobs that are owned here, for ever.
pub(crate) async fn follow(shared: Arc<Shared>) {
    loop {
        match tokio::time::timeout(LIST_EVERY, follow_once(&shared)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "following the requests again"),
            Err(_) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once(shared: &Shared) -> Result<(), Error> {
    let state = &*shared.options.state;
    let page = state.get_from_prefix(Keyspace::JobRequests, "").await?;
    for entry in page.entries {
        tell(shared, &entry).await?;
    }
    let mut watch = state.watch(Keyspace::JobRequests, "", page.revision + 1).await?;
    while let Some(batch) = watch.next().await {
        for change in batch?.changes {
            if let Change::Put(entry) = change {
                tell(shared, &entry).await?;
            }
        }
    }
    Ok(())
}

async fn tell(shared: &Shared, entry: &Entry) -> Result<(), Error> {
    let Some(job) = keys::cancel_mark_of(&entry.name) else { return Ok(()) };
    let (reason, mark) = decode(job, entry)?;
    // Stopping: the next owner reads it with the job.
    let _ = shared.engine.send(Input::CancelMarked { job, reason, mark }).await;
    Ok(())
}
