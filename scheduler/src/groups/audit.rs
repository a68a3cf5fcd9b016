//! The audit: counts everything anew that groups and finished jobs say of themselves, and puts right what is wrong.
//!
//! Counters are derived. None of them decides anything, so a wrong one harms nobody but those who believe it; still nobody should have to
//! doubt them, whatever an earlier version, a restored backup or a mistake has left.
//!
//! Invariants:
//! - Groups are recounted as of one revision: the heads of all jobs against what was added up and what waits for that.
//! - A group's number is never overwritten: the difference is put among the changes that its keeper adds up, which is right whatever
//!   happens in between ([`muster_graph::groups::Correction`]). Of two audits the second one sees what the first one found, or is refused.
//! - A record that cannot be read (a newer version's) ends the audit: it would count too little.

mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_graph::groups::{Correction, GroupPath, Tally};
use muster_proto::storage::{GroupAuditRecord, GroupSums, JobHead};
use muster_proto::v1;
use muster_state::{
    Entry, Error, Guard, Key, Keyspace, Op, Revision, Scan, StateBackend, TXN_OPS_MAX, Txn, TxnOutcome, codec, keys,
};
use tonic::Status;

use super::{changes, views};
use crate::accept::{store, unavailable};
use crate::load::send_until_known;
use crate::shared::Shared;
use crate::updates::{self, Committed};

/// By itself, so long after a scheduler has begun to keep the groups.
const FIRST_AFTER: Duration = Duration::from_secs(5 * 60);
/// And so often.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// By itself it reads a page and then waits, so that nobody notices.
const SLOWLY: Duration = Duration::from_millis(50);
/// Findings that are told one by one.
const FINDINGS_MAX: usize = 1_000;
/// Corrections in one transaction, beside the record of the audit.
const CORRECTIONS_MAX: usize = TXN_OPS_MAX - 28;

/// A group, by its namespace and path.
type Name = (String, String);

/// What was found so far.
struct Audit<'a> {
    shared: &'a Shared,
    state: &'a dyn StateBackend,
    repair: bool,
    /// Between two pages.
    pace: Duration,
    report: v1::AuditResponse,
}

/// Repairs what is wrong, from time to time, for ever: the work of whoever keeps the groups.
pub(super) async fn keep(shared: &Arc<Shared>) {
    let mut pause = FIRST_AFTER;
    loop {
        tokio::time::sleep(std::mem::replace(&mut pause, EVERY)).await;
        match run(shared, true, SLOWLY).await {
            Ok(report) if report.findings_total == 0 => {
                tracing::info!(jobs = report.jobs, groups = report.groups, "all counts are what they should be");
            }
            Ok(report) => {
                let (wrong, repaired) = (report.findings_total, report.repaired);
                tracing::error!(wrong, repaired, "counts were not what they should be; see `muster admin audit`");
            }
            Err(status) => tracing::warn!(%status, "counts could not be audited; again later"),
        }
    }
}

/// Counts anew; `repair`: and puts right what is wrong.
pub(crate) async fn run(shared: &Shared, repair: bool, pace: Duration) -> Result<v1::AuditResponse, Status> {
    let Ok(_alone) = shared.auditing.try_lock() else {
        return Err(Status::resource_exhausted("this scheduler is auditing already: try again when that is done"));
    };
    if repair {
        shared.health.check_writable()?;
    }
    let state = &*shared.options.state;
    let mut audit = Audit { shared, state, repair, pace, report: v1::AuditResponse::default() };
    // First, since groups count what jobs say of themselves.
    audit.jobs().await.map_err(store)?;
    let corrections = audit.groups().await.map_err(store)?;
    if repair && !corrections.is_empty() {
        audit.correct(corrections).await?;
    }
    Ok(audit.report)
}

impl Audit<'_> {
    fn found(&mut self, finding: v1::AuditFinding) {
        let v1::AuditFinding { namespace, group, job_id, what, shown, counted } = &finding;
        tracing::warn!(namespace, group, job_id, what, shown, counted, "a number is not what it should be");
        self.report.findings_total += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    /// Everything of a keyspace whose name begins so, as of one revision, page by page.
    async fn each(
        &self,
        keyspace: Keyspace,
        prefix: &str,
        at: Revision,
        mut take: impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut scan = Scan { prefix: prefix.to_owned(), at: Some(at), ..Scan::default() };
        loop {
            let page = self.state.scan(keyspace, scan.clone()).await?;
            page.entries.into_iter().try_for_each(&mut take)?;
            let Some(after) = page.next else { return Ok(()) };
            scan.after = Some(after);
            tokio::time::sleep(self.pace).await;
        }
    }

    /// What is to be added to the numbers of groups, and the revision of the audit before this one.
    async fn groups(&mut self) -> Result<Corrections, Error> {
        let (at, before) = self.state.get_many(&[keys::group_audit()]).await?;
        let before = before.into_iter().flatten().next().map_or(0, |entry| entry.mod_revision);
        let (mut recounted, mut jobs) = (BTreeMap::<Name, Tally>::new(), 0);
        for keyspace in [Keyspace::ActiveJobs, Keyspace::CompletedJobs, Keyspace::FailedJobs] {
            self.each(keyspace, "", at, |entry| {
                jobs += 1;
                let key = Key::new(keyspace, entry.name);
                count(&mut recounted, &codec::decode(&key, &entry.value)?);
                Ok(())
            })
            .await?;
        }
        for (namespace, part) in updates::waiting_parts(self.state, Some(at)).await? {
            for job in part.jobs {
                jobs += 1;
                let head =
                    JobHead { namespace: namespace.clone(), group: job.group, counted: true, ..JobHead::default() };
                count(&mut recounted, &head);
            }
        }
        let counted = self.counted(at).await?;
        let names: BTreeSet<&Name> = recounted.keys().chain(counted.keys()).collect();
        (self.report.revision, self.report.jobs, self.report.groups) = (at, jobs, names.len() as u64);
        let (none, mut by_group) = (Tally::default(), Vec::new());
        for name in names {
            let (shown, truth) = (counted.get(name).unwrap_or(&none), recounted.get(name).unwrap_or(&none));
            if let Some(correction) = shown.correction(truth) {
                for (what, shown, counted) in differences(&correction, shown, truth) {
                    let (namespace, group) = name.clone();
                    self.found(v1::AuditFinding { namespace, group, what, shown, counted, ..Default::default() });
                }
                by_group.push((name.clone(), correction));
            }
        }
        Ok(Corrections { as_of: at, before, by_group })
    }

    /// What is shown of groups: what was added up, and what waits for that.
    async fn counted(&self, at: Revision) -> Result<BTreeMap<Name, Tally>, Error> {
        let mut counted = BTreeMap::<Name, Tally>::new();
        self.each(Keyspace::GroupCounts, keys::GROUP_SUMS, at, |entry| {
            let key = Key::new(Keyspace::GroupCounts, entry.name);
            if let Some((namespace, path)) = keys::group_sums_of(&key.name) {
                let sums = views::to_sums(codec::decode::<GroupSums>(&key, &entry.value)?);
                counted.insert((namespace.to_owned(), path.to_owned()), sums.tally);
            }
            Ok(())
        })
        .await?;
        let mut waiting = Vec::new();
        self.each(Keyspace::GroupCounts, keys::GROUP_CHANGES, at, |entry| {
            waiting.push(entry);
            Ok(())
        })
        .await?;
        waiting.sort_by_key(|entry| entry.mod_revision);
        let mut committed = Committed::at(at);
        for entry in waiting {
            let Some(namespace) = keys::group_change_of(&entry.name) else { continue };
            let (change, update) = changes::decode(&entry.name, &entry.value)?;
            if !committed.has(self.state, namespace, &update).await? {
                continue;
            }
            let Some((path, change)) = change else { continue };
            let Ok(path) = path.parse::<GroupPath>() else { continue };
            for around in change.concerns(&path) {
                counted.entry((namespace.to_owned(), around.to_owned())).or_default().add(&change);
            }
        }
        Ok(counted)
    }

    /// Hands the corrections to the keeper of groups.
    async fn correct(&mut self, corrections: Corrections) -> Result<(), Status> {
        let Corrections { as_of, mut before, by_group } = corrections;
        for some in by_group.chunks(CORRECTIONS_MAX) {
            let key = keys::group_audit();
            let unchanged = match before {
                0 => Guard::Absent(key.clone()),
                before => Guard::AtRevision(key.clone(), before),
            };
            let epoch = Guard::AtRevision(keys::epoch(), self.shared.presence().identity.epoch_revision);
            let record = GroupAuditRecord {
                scheduler_id: self.shared.options.scheduler_id.clone(),
                at_ms: self.shared.now(),
                corrected: some.len() as u64,
            };
            let put = |key, value: Result<bytes::Bytes, Error>| {
                Ok::<_, Status>(Op::Put { key, value: value.map_err(store)?, session: None })
            };
            let mut ops = vec![put(key, codec::encode(&record))?];
            for ((namespace, path), correction) in some {
                let change = changes::corrected(path, correction.clone());
                ops.push(put(keys::group_correction(namespace, path, as_of), codec::encode(&change))?);
            }
            let txn = Txn { guards: vec![epoch, unchanged], ops, ..Txn::default() };
            match send_until_known(self.state, txn).await.map_err(store)? {
                TxnOutcome::Committed(revision) => before = revision,
                // Perhaps by an earlier sending of this, whose answer was lost: then the next audit finds nothing.
                TxnOutcome::Refused { .. } => {
                    return Err(unavailable("counts were corrected by another audit just now; audit again"));
                }
            }
            self.report.repaired += some.len() as u64;
        }
        Ok(())
    }
}

/// What is to be added, to which groups.
struct Corrections {
    as_of: Revision,
    /// The revision of the record of the audit before this one; 0: there was none.
    before: Revision,
    by_group: Vec<(Name, Correction)>,
}

impl Corrections {
    fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }
}

/// Counts a job in its group and in all around it.
fn count(recounted: &mut BTreeMap<Name, Tally>, head: &JobHead) {
    // One that an earlier version has accepted, or ended, is none of those that groups count.
    let Some(path) = head.group.parse::<GroupPath>().ok().filter(|_| head.counted) else { return };
    for change in changes::of_job(head) {
        for around in change.concerns(&path) {
            recounted.entry((head.namespace.clone(), around.to_owned())).or_default().add(&change);
        }
    }
}

/// Each number that differs: its name, what is shown, and what it should be.
fn differences<'a>(
    correction: &'a Correction,
    shown: &Tally,
    truth: &Tally,
) -> impl Iterator<Item = (String, u64, u64)> + use<'a> {
    let (shown, truth) = (shown.numbers(), truth.numbers());
    let number = |of: &BTreeMap<String, u64>, name: &String| of.get(name).copied().unwrap_or(0);
    correction.by.keys().map(move |name| (name.clone(), number(&shown, name), number(&truth, name)))
}

#[cfg(test)]
mod tests;
