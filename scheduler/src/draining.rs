//! Draining: a scheduler hands its jobs over to its peers, sends its executors to them and takes nothing new, so that it can
//! be stopped, or is idle until the drain is undone.
//!
//! It gives way only as long as there is somebody to give way to: with no peer that takes jobs it goes on as ever, since a
//! job without an owner would be worse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::storage::SchedulerRecord;
use muster_proto::v1;
use muster_proto::v1::scheduler_signal::Signal;
use muster_state::{Error, Guard, Op, SessionId, Txn, TxnOutcome, codec, keys};
use tonic::Status;

use crate::accept::unavailable;
use crate::claims;
use crate::engine::{Identity, Input, Successor};
use crate::load::send_until_known;
use crate::shared::Shared;

/// How often it is looked whether the peers know.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// While draining, jobs that have come since are looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same, while the process waits to end.
const LOOK_OFTEN: Duration = Duration::from_millis(10);
/// A scheduler that is told to end waits so long for its jobs to be with its peers; what has not left by then is taken over
/// when its session is closed.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// And so long for its executors to have another home.
const EXECUTORS_LEAVE_WITHIN: Duration = Duration::from_secs(1);

impl Shared {
    /// The peers that take jobs.
    fn successors(&self) -> BTreeMap<SessionId, SchedulerRecord> {
        let mine = self.presence().identity.session;
        let mut peers = self.peers.live();
        peers.retain(|session, peer| *session != mine && !peer.draining);
        peers
    }

    /// Whether this scheduler drains, and there is a peer that takes over.
    pub(crate) fn gives_way(&self) -> bool {
        *self.draining.borrow() && !self.successors().is_empty()
    }

    /// Refuses what is meant for a scheduler that takes something new.
    pub(crate) fn check_not_draining(&self) -> Result<(), Status> {
        if !self.gives_way() {
            return Ok(());
        }
        let peers: Vec<String> = self.successors().into_values().map(|peer| peer.address).collect();
        Err(unavailable(format!("this scheduler is draining; ask {}", peers.join(" or "))))
    }

    /// What an executor is told whose home this was.
    pub(crate) fn goodbye(&self) -> [v1::SchedulerSignal; 2] {
        let addresses = self.peers.addresses();
        let reason = "this scheduler is draining".to_owned();
        [Signal::Schedulers(v1::SchedulerList { addresses }), Signal::RegisterAgain(v1::RegisterAgain { reason })]
            .map(|signal| v1::SchedulerSignal { signal: Some(signal) })
    }

    /// Waits until this scheduler gives way.
    pub(crate) async fn told_to_give_way(&self) {
        let mut draining = self.draining.subscribe();
        loop {
            // The sender lives as long as `self`.
            let _ = draining.wait_for(|draining| *draining).await;
            if self.gives_way() {
                return;
            }
            // A peer may come.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Begins or ends the drain, and tells the peers by the record of this scheduler's session. If they cannot be told now,
/// [`keep_telling`] tells them.
pub(crate) async fn set(shared: &Shared, draining: bool) -> Result<(), Error> {
    // Known here first: nothing new is taken while the peers are being told.
    shared.draining.send_replace(draining);
    tell(shared).await
}

/// Makes this scheduler's record say what is known here, whatever that is by then. Each write compares the record's
/// revision, so that of two none overwrites what the other has read later, however late it lands.
async fn tell(shared: &Shared) -> Result<(), Error> {
    let state = &*shared.options.state;
    loop {
        let Identity { session, epoch_revision, .. } = shared.presence().identity;
        let key = keys::session(&session);
        let entry = state.get(&key).await?.ok_or(Error::SessionLost)?;
        let known: SchedulerRecord = codec::decode(&key, &entry.value)?;
        let draining = *shared.draining.borrow();
        if known.draining == draining {
            return Ok(());
        }
        let record = SchedulerRecord { draining, ..known };
        let txn = Txn {
            guards: vec![
                Guard::AtRevision(keys::epoch(), epoch_revision),
                Guard::AtRevision(key.clone(), entry.mod_revision),
            ],
            ops: vec![Op::Put { key, value: codec::encode(&record)?, session: Some(session) }],
            read_on_failure: vec![keys::epoch()],
        };
        match send_until_known(state, txn).await? {
            TxnOutcome::Committed(_) => tracing::info!(draining, "what this scheduler takes has changed"),
            // Written by somebody else here, or by an earlier sending, or the session is gone. The next look tells.
            TxnOutcome::Refused { read, .. } => match read.into_iter().flatten().next() {
                Some(epoch) if epoch.mod_revision == epoch_revision => {}
                _ => return Err(Error::Unavailable("the store has begun a new epoch; try again".to_owned())),
            },
        }
    }
}

/// Tells the peers what they were not told when it changed, for ever: the store may not have answered just then, or a new
/// session may have been opened at that moment.
pub(crate) async fn keep_telling(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let mine = shared.presence().identity.session;
        let told = shared.peers.live().get(&mine).map(|record| record.draining);
        // Not there: the watch lags, or the session is lost, and the next one says it from its beginning.
        if told.is_none_or(|told| told == *shared.draining.borrow()) {
            continue;
        }
        if let Err(error) = tell(&shared).await {
            tracing::info!(%error, "the peers do not know yet whether this scheduler drains; again soon");
        }
    }
}

/// Hands over what there is, whenever this scheduler gives way, for ever.
pub(crate) async fn keep_giving(shared: Arc<Shared>) {
    loop {
        shared.told_to_give_way().await;
        hand_everything_over(&shared).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Tells every job to leave for the peer that it falls to.
async fn hand_everything_over(shared: &Shared) {
    if shared.health.check_writable().is_err() {
        // No owner can be named now. Who ends meanwhile leaves its jobs to be taken over.
        return;
    }
    let successors = shared.successors();
    let Ok(jobs) = shared.engine.read(|engine| engine.job_ids().collect::<Vec<JobId>>()).await else { return };
    let mut shares: BTreeMap<&SessionId, Vec<JobId>> = BTreeMap::new();
    for job in jobs {
        if let Some(heir) = claims::heir(job, successors.keys()) {
            shares.entry(heir).or_default().push(job);
        }
    }
    for (session, jobs) in shares {
        let to = Successor { session: session.clone(), record: successors[session].clone() };
        // Stopping: nothing is left to be handed over.
        let _ = shared.engine.send(Input::HandOver { jobs, to }).await;
    }
}

/// Hands everything over before the end, if there is anybody to hand it to.
pub(crate) async fn leave(shared: &Shared) {
    if shared.successors().is_empty() {
        return;
    }
    let began = tokio::time::Instant::now();
    let leaving = async {
        if let Err(error) = set(shared, true).await {
            tracing::info!(%error, "the peers do not know that this scheduler is leaving");
        }
        loop {
            hand_everything_over(shared).await;
            let Ok(left) = shared.engine.read(|engine| engine.jobs_owned()).await else { return };
            if left == 0 && shared.jobs_in_transit() == 0 {
                break;
            }
            tokio::time::sleep(LOOK_OFTEN).await;
        }
        tracing::info!(after_ms = began.elapsed().as_millis(), "all jobs are with the peers");
        let session = shared.presence().identity.session.0;
        while began.elapsed() < EXECUTORS_LEAVE_WITHIN {
            let session = session.clone();
            let at_home =
                shared.engine.read(move |engine| engine.executors().filter(|e| e.is_at_home(&session)).count());
            if !matches!(at_home.await, Ok(1..)) {
                break;
            }
            tokio::time::sleep(LOOK_OFTEN).await;
        }
    };
    if tokio::time::timeout(LEAVE_WITHIN, leaving).await.is_err() {
        tracing::warn!("not all jobs could be handed over in time; they are taken over");
    }
}
