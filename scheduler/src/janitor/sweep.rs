//! What nobody needs: the blobs (and whatever else there is) of jobs that were never accepted, and idempotency keys that
//! are older than they are promised to be remembered.
//!
//! A submit writes what is large before the transaction that accepts the job. If that is refused or never sent, the blobs
//! stay, under the id of a job that does not exist.

use std::collections::BTreeSet;

use muster_graph::ids::{JobId, Millis};
use muster_proto::storage::IdempotencyRecord;
use muster_state::{Guard, Key, Keyspace, Op, Scan, StateBackend, Txn, TxnOutcome, codec, keys};

use super::{End, Janitor};
use crate::load::send_until_known;

/// A submit is over within seconds of its id's making, by the clock of the scheduler that made it; the rest is room for
/// clocks that are wrong.
const ACCEPTED_WITHIN_MS: Millis = 24 * 3600 * 1000;
/// As `SubmitHeader.idempotency_key` promises.
const IDEMPOTENCY_KEPT_MS: Millis = 7 * 24 * 3600 * 1000;
/// Names in one page.
const NAMES: usize = 1_000;
/// Deletions in one page.
const DELETIONS: usize = 100;

/// Where jobs leave something under their ids.
const OF_JOBS: [Keyspace; 4] = [Keyspace::JobPlans, Keyspace::JobStages, Keyspace::JobDeltas, Keyspace::JobEvents];

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Of [`OF_JOBS`], and then Idempotency.
    keyspace: usize,
    after: Option<String>,
}

impl Sweep {
    fn go_on(&mut self, after: Option<String>) {
        if after.is_none() {
            self.keyspace = (self.keyspace + 1) % (OF_JOBS.len() + 1);
        }
        self.after = after;
    }
}

impl Janitor<'_> {
    /// Some pages: of each keyspace one, where there is little in them.
    pub(super) async fn sweep(&mut self) -> Result<(), End> {
        for _ in 0..=OF_JOBS.len() {
            match OF_JOBS.get(self.sweep.keyspace) {
                Some(keyspace) => self.sweep_jobs(*keyspace).await?,
                None => self.sweep_idempotency().await?,
            }
        }
        Ok(())
    }

    async fn sweep_jobs(&mut self, keyspace: Keyspace) -> Result<(), End> {
        let state = &*self.shared.options.state;
        let now = self.shared.now();
        let scan = Scan { after: self.sweep.after.clone(), limit: NAMES, ..Scan::default() };
        let page = state.scan_keys(keyspace, scan).await?;
        let old: BTreeSet<JobId> = page
            .entries
            .iter()
            .filter_map(|entry| keys::job_of(&entry.name))
            .filter(|job| job.made_at().saturating_add(ACCEPTED_WITHIN_MS) < now)
            .collect();
        let mut deletions = 0;
        for job in old {
            if deletions == DELETIONS {
                // The rest of this page comes the next time.
                return Ok(());
            }
            if exists(state, job).await? {
                continue;
            }
            let mut guards = vec![self.held.clone(), Guard::Absent(keys::owner(job))];
            guards.extend(heads(job).map(Guard::Absent));
            let ops = OF_JOBS.map(|keyspace| keys::delete_all_of(keyspace, job)).to_vec();
            let txn = Txn { guards, ops, read_on_failure: Vec::new() };
            match send_until_known(state, txn).await? {
                TxnOutcome::Committed(_) => {
                    tracing::info!(%job, "leftovers of a job that was never accepted are deleted");
                    self.jobs_swept += 1;
                    deletions += 1;
                }
                TxnOutcome::Refused { .. } => self.check_lock().await?,
            }
        }
        self.sweep.go_on(page.next);
        Ok(())
    }

    async fn sweep_idempotency(&mut self) -> Result<(), End> {
        let state = &*self.shared.options.state;
        let now = self.shared.now();
        let scan = Scan { after: self.sweep.after.clone(), limit: DELETIONS, ..Scan::default() };
        let page = state.scan(Keyspace::Idempotency, scan).await?;
        for entry in &page.entries {
            let key = Key::new(Keyspace::Idempotency, entry.name.clone());
            // One that cannot be read may be a newer version's, which knows better.
            let Ok(record) = codec::decode::<IdempotencyRecord>(&key, &entry.value) else { continue };
            if record.at_ms.saturating_add(IDEMPOTENCY_KEPT_MS) >= now {
                continue;
            }
            let guards = vec![self.held.clone(), Guard::AtRevision(key.clone(), entry.mod_revision)];
            let txn = Txn { guards, ops: vec![Op::Delete(key)], read_on_failure: Vec::new() };
            if let TxnOutcome::Refused { .. } = send_until_known(state, txn).await? {
                self.check_lock().await?;
            }
        }
        self.sweep.go_on(page.next);
        Ok(())
    }

    /// A guard did not hold: was it the lock's? Writes nothing.
    async fn check_lock(&self) -> Result<(), End> {
        self.write(vec![Op::Delete(Key::new(Keyspace::Locks, "none"))]).await
    }
}

fn heads(job: JobId) -> [Key; 4] {
    [keys::staged_job(job), keys::active_job(job), keys::completed_job(job), keys::failed_job(job)]
}

/// Whether there is a head, of whatever version.
async fn exists(state: &dyn StateBackend, job: JobId) -> Result<bool, muster_state::Error> {
    let (_, found) = state.get_many(&heads(job)).await?;
    Ok(found.iter().any(Option::is_some))
}
