//! C3, owners: a job's owner changes only by a claim that is allowed, and only the owner writes.
//!
//! What can be seen of a claim: that the session which it names is alive, that the job is active, and that there was no
//! owner, or one whose session is gone, or one that gave the job away: the record says by whom, and that must be the
//! session of the record that it replaces. Every record of a commit carries its writer's token, which must be the
//! revision of the owner's record before the commit.

use muster_graph::ids::JobId;
use muster_proto::storage::OwnerRecord;
use muster_state::Keyspace;

use super::Findings;
use crate::checker::decode::{JobStep, Step};
use crate::checker::evidence::Scenario;
use crate::checker::job::Job;
use crate::checker::store::Store;
use crate::checker::verdict::Rule;

/// Looks at a revision, with the store as it was before.
pub(in crate::checker) fn before(step: &Step, store: &Store, scenario: &Scenario, findings: &mut Findings) {
    if let Some(epoch) = step.epoch
        && let Some(known) = store.epoch
    {
        let legal = scenario.epoch_may_rise && epoch.is_some_and(|epoch| epoch.0 > known.0);
        if !legal {
            let what = format!("the epoch was {known:?} and is {epoch:?}");
            findings.add(Rule::Epoch, None, None, vec![step.revision], what);
        }
    }
    let nothing = Job::default();
    for (id, job) in &step.jobs {
        let known = store.jobs.get(id).unwrap_or(&nothing);
        match &job.owner {
            Some(Some(record)) => claim(*id, record, job, known, step, store, findings),
            Some(None) => {
                let leaves = |(place, head): &(Keyspace, Option<_>)| (*place == Keyspace::ActiveJobs) == head.is_none();
                let ends = job.heads.iter().any(leaves);
                if !ends {
                    findings.of_job(Rule::OwnerClaimed, *id, step.revision, "its owner went, and it is not over");
                }
            }
            None => {}
        }
        tokens(*id, job, known, step, scenario, findings);
    }
}

fn alive(session: &str, step: &Step, store: &Store) -> bool {
    let changed = step.sessions.iter().rev().find(|(name, _)| name == session);
    changed.map_or_else(|| store.sessions.contains_key(session), |(_, alive)| *alive)
}

fn claim(
    id: JobId,
    record: &OwnerRecord,
    job: &JobStep,
    known: &Job,
    step: &Step,
    store: &Store,
    findings: &mut Findings,
) {
    let mut wrong = |what: String| findings.of_job(Rule::OwnerClaimed, id, step.revision, what);
    if !alive(&record.session_id, step, store) {
        wrong(format!("claimed for session {}, which is gone", record.session_id));
    }
    let active = job.opens() || known.place == Some(Keyspace::ActiveJobs);
    if !active {
        wrong(format!("claimed for session {}, and it is not active", record.session_id));
    }
    let Some(owner) = &known.owner else { return };
    let from = &owner.record.session_id;
    // A session may renew its own token: a job that it reads again after a doubt is read under a new one.
    let renewed = *from == record.session_id;
    if !renewed && alive(from, step, store) && record.handed_over_by != *from {
        wrong(format!(
            "taken by session {} from session {from}, which lives and did not give it away",
            record.session_id
        ));
    }
}

fn tokens(id: JobId, job: &JobStep, known: &Job, step: &Step, scenario: &Scenario, findings: &mut Findings) {
    let token = known.owner.as_ref().map(|owner| owner.token);
    let mut wrong = |what: String| findings.of_job(Rule::Token, id, step.revision, what);
    for (sequence, commit) in &job.commits {
        if token != Some(commit.token) {
            wrong(format!(
                "commit {} (delta {sequence}) has token {}, the owner's is {token:?}",
                commit.id, commit.token
            ));
        }
    }
    if let Some((_, head)) = job.head()
        && !job.opens()
    {
        let unsaid = head.token == 0 && scenario.older_versions;
        if token.is_none() || (token != Some(head.token) && !unsaid) {
            wrong(format!("the head of commit {} has token {}, the owner's is {token:?}", head.commit_id, head.token));
        }
    }
    if !job.buckets.is_empty() && job.commits.is_empty() {
        wrong("parts were written without a commit".to_owned());
    }
    if !job.dropped.is_empty() && job.commits.is_empty() && known.place == Some(Keyspace::ActiveJobs) {
        wrong("deltas were deleted without a commit, and the job is active".to_owned());
    }
}
