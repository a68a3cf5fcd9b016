//! A store that was restored from a backup: noticed, said, and taken on as a new epoch.
//!
//! Revisions only rise within an epoch. So a store that answers with a lower one than somebody has seen (this scheduler,
//! or an executor that remembers the highest fence it heard of) has forgotten commits whose consequences are out there.
//! Going on would hand out tokens and revisions a second time. Therefore *safe mode*: a record beside the epoch, which
//! every scheduler follows, and until it goes nothing is launched, claimed, committed or accepted.
//!
//! Invariants:
//! - Entering and leaving are transactions that compare the epoch's record **and write it**, so its revision moves; as every
//!   write of a job compares that revision, no commit of before can land after, whoever sent it and however late.
//! - The new epoch is above every epoch that was seen, so fences of the new life are above all of the old one's,
//!   whatever their tokens. Whoever finds that the epoch's record has moved opens a new session and starts from nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_proto::storage::SafeModeRecord;
use muster_state::codec::{self, Epoch};
use muster_state::{Error, Guard, Keyspace, Op, Revision, StateBackend, Txn, TxnOutcome, WatchStream, keys};

use crate::load::send_until_known;
use crate::shared::{Presence, Shared};
use crate::store_health::{Evidence, Trust};

/// Between two looks, if neither the watch nor anybody here gives a reason for one.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Before a watch that ended is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// The epoch's record and the record beside it.
struct Found {
    /// The revision that was read.
    at: Revision,
    epoch: Option<(u64, Revision)>,
    /// Or why it cannot be read.
    safe_mode: Option<(Result<SafeModeRecord, Error>, Revision)>,
}

async fn find(state: &dyn StateBackend) -> Result<Found, Error> {
    let keys = [keys::epoch(), keys::safe_mode()];
    let (at, entries) = state.get_many(&keys).await?;
    let mut entries = entries.into_iter();
    let epoch = match entries.next().flatten() {
        Some(entry) => {
            let Epoch(epoch) = codec::decode(&keys[0], &entry.value)?;
            Some((epoch, entry.mod_revision))
        }
        None => None,
    };
    let safe_mode = entries.next().flatten();
    let safe_mode = safe_mode.map(|entry| (codec::decode(&keys[1], &entry.value), entry.mod_revision));
    Ok(Found { at, epoch, safe_mode })
}

fn words(record: &SafeModeRecord) -> String {
    Evidence {
        epoch: record.epoch,
        revision: record.revision,
        seen_epoch: record.seen_epoch,
        seen_revision: record.seen_revision,
        seen_by: record.seen_by.clone(),
    }
    .to_string()
}

/// Follows the epoch and the safe mode, for ever.
pub(crate) async fn keep_following(shared: Arc<Shared>) {
    let mut watch: Option<WatchStream> = None;
    loop {
        if let Err(error) = look(&shared).await {
            tracing::info!(%error, "the store's epoch could not be looked at; again soon");
        }
        if watch.is_none() {
            watch = shared.options.state.watch(Keyspace::Meta, "", shared.health.seen().revision + 1).await.ok();
        }
        let changed = async {
            match &mut watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        // Sooner when somebody here has reason to doubt, or when something was written beside the epoch.
        let ended = tokio::select! {
            () = shared.health.look.notified() => false,
            batch = changed => !matches!(batch, Some(Ok(_))),
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        if ended {
            watch = None;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One look, and what follows from it.
pub(crate) async fn look(shared: &Shared) -> Result<(), Error> {
    let health = &shared.health;
    // Before the question is sent: what it is answered with cannot be older than this.
    let seen = health.seen();
    let found = find(&*shared.options.state).await?;
    // Read once: the session that is closed below is to be the one of this identity, and none that came after it.
    let Presence { session, identity, .. } = shared.presence();
    if let Some((record, _)) = &found.safe_mode {
        // That there is one says enough; one that cannot be read is a newer version's, and no less in force.
        health.doubt_is_recorded(record.as_ref().map_or_else(ToString::to_string, words));
        return Ok(());
    }
    let epoch = found.epoch.map_or(0, |(epoch, _)| epoch);
    if epoch > seen.epoch {
        // Whatever was seen in the old one does not count any more.
        tracing::warn!(epoch, "the store has a new epoch: beginning anew, under a new session");
        health.begin_epoch(epoch, found.at);
    } else if epoch < seen.epoch || found.at < seen.revision {
        health.doubt(Evidence {
            epoch,
            revision: found.at,
            seen_epoch: seen.epoch,
            seen_revision: seen.revision,
            seen_by: format!("scheduler {}", shared.options.scheduler_id),
        });
    }
    match health.trust() {
        Trust::Doubted(evidence) => return record(shared, &evidence, &found).await,
        Trust::Trusted => {}
        // Recorded before, and the record is gone without a new epoch: somebody has removed it by hand.
        Trust::Recorded(_) => health.begin_epoch(epoch, found.at),
    }
    health.answered(seen, found.at);
    if found.epoch != Some((identity.epoch, identity.epoch_revision)) {
        // With the record of the epoch, whatever was read under it. Its keeper opens another one.
        session.close().await;
    }
    Ok(())
}

/// Writes down that the store is not to be trusted, for everybody.
async fn record(shared: &Shared, evidence: &Evidence, found: &Found) -> Result<(), Error> {
    let (epoch, guard) = match found.epoch {
        Some((epoch, revision)) => (epoch, Guard::AtRevision(keys::epoch(), revision)),
        // Nothing is left of the store; its first epoch is begun in doubt.
        None => (1, Guard::Absent(keys::epoch())),
    };
    let record = SafeModeRecord {
        epoch,
        revision: evidence.revision,
        seen_epoch: evidence.seen_epoch,
        seen_revision: evidence.seen_revision,
        seen_by: evidence.seen_by.clone(),
        scheduler_id: shared.options.scheduler_id.clone(),
        since_ms: shared.now(),
    };
    let txn = Txn {
        guards: vec![guard, Guard::Absent(keys::safe_mode())],
        ops: vec![
            Op::Put { key: keys::safe_mode(), value: codec::encode(&record)?, session: None },
            Op::Put { key: keys::epoch(), value: codec::encode(&Epoch(epoch))?, session: None },
        ],
        read_on_failure: Vec::new(),
    };
    match send_until_known(&*shared.options.state, txn).await? {
        TxnOutcome::Committed(_) => shared.health.doubt_is_recorded(words(&record)),
        // A peer was first, or an earlier sending had landed: the next look shows it.
        TxnOutcome::Refused { .. } => shared.health.look.notify_one(),
    }
    Ok(())
}

/// An executor says how far it has seen the store come.
pub(crate) async fn hear(shared: &Shared, executor: &str, epoch: u64, revision: Revision) -> Result<(), Error> {
    let seen = shared.health.seen();
    if (epoch, revision) <= (seen.epoch, seen.revision) {
        return Ok(());
    }
    let found = find(&*shared.options.state).await?;
    let known = found.epoch.map_or(0, |(epoch, _)| epoch);
    if (epoch, revision) <= (known, found.at) {
        // It may know of an epoch that this scheduler has not noticed yet.
        shared.health.look.notify_one();
        return Ok(());
    }
    shared.health.doubt(Evidence {
        epoch: known,
        revision: found.at,
        seen_epoch: epoch,
        seen_revision: revision,
        seen_by: format!("executor {executor}"),
    });
    Ok(())
}

/// Begins a new epoch, and ends the safe mode if there is one. Answers the epoch, and what was wrong, when this scheduler
/// has noticed; its peers do at the same time.
pub(crate) async fn recover(shared: &Shared) -> Result<(u64, String), Error> {
    /// A look and a new session.
    const NOTICED_WITHIN: Duration = Duration::from_secs(5);
    let (epoch, why) = begin_epoch(&*shared.options.state).await?;
    tracing::warn!(epoch, why, "an operator has begun a new epoch");
    shared.health.look.notify_one();
    let mut epochs = shared.health.epochs();
    // Later is as good: it is begun.
    let _ = tokio::time::timeout(NOTICED_WITHIN, epochs.wait_for(|noticed| *noticed >= epoch)).await;
    Ok((epoch, why))
}

async fn begin_epoch(state: &dyn StateBackend) -> Result<(u64, String), Error> {
    loop {
        let found = find(state).await?;
        let Some((epoch, revision)) = found.epoch else {
            return Err(Error::Unavailable("the store has no epoch yet; try again".to_owned()));
        };
        let mut txn = Txn { guards: vec![Guard::AtRevision(keys::epoch(), revision)], ..Txn::default() };
        let (mut next, mut why) = (epoch + 1, String::new());
        match &found.safe_mode {
            Some((Err(error), _)) => return Err(error.clone()),
            Some((Ok(record), revision)) => {
                txn.guards.push(Guard::AtRevision(keys::safe_mode(), *revision));
                txn.ops.push(Op::Delete(keys::safe_mode()));
                next = record.seen_epoch.max(epoch) + 1;
                why = words(record);
            }
            None => txn.guards.push(Guard::Absent(keys::safe_mode())),
        }
        txn.ops.push(Op::Put { key: keys::epoch(), value: codec::encode(&Epoch(next))?, session: None });
        let done = match send_until_known(state, txn).await? {
            TxnOutcome::Committed(_) => true,
            // An earlier sending had landed, or somebody else did the same at this moment.
            TxnOutcome::Refused { .. } => find(state).await?.epoch.is_some_and(|(found, _)| found >= next),
        };
        if done {
            return Ok((next, why));
        }
    }
}
