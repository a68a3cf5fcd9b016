//! The fold: each revision once, each rule in turn, and the verdict at the end.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::ids::JobId;
use muster_state::Keyspace;

use super::decode;
use super::evidence::Evidence;
use super::rules::accept::Accepted;
use super::rules::attempts::Attempts;
use super::rules::cancel::Cancels;
use super::rules::groups::Groups;
use super::rules::results::Results;
use super::rules::sequence::Commits;
use super::rules::takeover::Takeovers;
use super::rules::{Findings, counts, folding, ownership, starts, survival};
use super::store::Store;
use super::verdict::{Rule, Statistics, Verdict};
use super::waits::Waits;

/// Decides the promises.
#[must_use]
pub fn check(evidence: &Evidence) -> Verdict {
    let mut fold = Fold::default();
    let mut last = 0;
    for write in &evidence.writes {
        if write.revision <= last {
            let what = format!("revision {} comes after {last}: this is no history", write.revision);
            fold.findings.add(Rule::Readable, None, None, vec![write.revision], what);
        }
        last = write.revision;
        fold.revision(&decode::step(write), evidence);
    }
    fold.end(evidence, last)
}

#[derive(Default)]
struct Fold {
    store: Store,
    findings: Findings,
    accepted: Accepted,
    commits: Commits,
    attempts: Attempts,
    results: Results,
    cancels: Cancels,
    groups: Groups,
    takeovers: Takeovers,
    waits: Waits,
    /// Every owner's record that each job ever had.
    tokens: BTreeMap<JobId, BTreeSet<u64>>,
}

impl Fold {
    fn revision(&mut self, step: &decode::Step, evidence: &Evidence) {
        let Self { store, findings, .. } = self;
        for (job, why) in &step.unreadable {
            findings.add(Rule::Readable, *job, None, vec![step.revision], why.clone());
            if let Some(job) = job {
                store.jobs.entry(*job).or_default().torn = true;
            }
        }
        self.accepted.before(step, store, findings);
        ownership::before(step, store, &evidence.scenario, findings);
        self.commits.before(step, store, findings);
        folding::before(step, store, findings);
        let records: BTreeMap<JobId, _> = step
            .jobs
            .keys()
            .filter_map(|id| Some((*id, store.jobs.get(id)?.states.as_ref()?.record.clone())))
            .collect();

        self.groups.before(step, store);
        let applied = store.apply(step);

        for (id, applied) in applied {
            let job = &store.jobs[&id];
            for problem in applied.problems {
                findings.of_job(Rule::Readable, id, step.revision, problem);
            }
            if matches!(step.jobs[&id].owner, Some(Some(_))) {
                self.tokens.entry(id).or_default().insert(step.revision);
            }
            self.attempts.after(id, &applied.moves, step.revision, step.at_us);
            if job.torn {
                continue;
            }
            self.results.after(id, &applied.moves, step.revision, findings);
            if let Some(states) = &job.states {
                self.cancels.after(id, records.get(&id), states, &applied.moves, step.revision, findings);
                self.groups.assigned(id, job, states, &applied.moves, step.revision, findings);
            }
            folding::after(id, &step.jobs[&id], job, step.revision, findings);
            if step.jobs[&id].head().is_some() {
                counts::after(id, job, step.revision, findings);
            }
        }
        self.groups.after(step, findings);
        self.takeovers.after(step, store, &evidence.scenario);
        self.waits.after(step, store);
    }

    fn end(self, evidence: &Evidence, last: u64) -> Verdict {
        let Self {
            store, mut findings, attempts, accepted, cancels, takeovers, results, tokens, waits, groups, ..
        } = self;
        let mut statistics = Statistics {
            revisions: evidence.writes.len(),
            jobs: store.jobs.values().filter(|job| job.head.is_some()).count(),
            ..Statistics::default()
        };
        accepted.end(evidence, &store, &mut findings);
        results.end(evidence, &mut findings);
        cancels.end(evidence, &store, &attempts, &mut findings);
        groups.end(evidence, last, &mut findings);
        starts::end(evidence, &store, &attempts, &tokens, &mut findings, &mut statistics);
        survival::end(evidence, &store, &attempts, &mut findings);
        folding::end(&store, last, &mut findings);
        let last_at_us = evidence.writes.last().map_or(0, |write| write.at_us);
        let ended_at_us = last_at_us.max(evidence.scenario.ended_at_us);
        takeovers.end(ended_at_us, &evidence.scenario, &mut findings, &mut statistics);

        let is_over = |place: Option<Keyspace>| matches!(place, Some(Keyspace::CompletedJobs | Keyspace::FailedJobs));
        statistics.jobs_over = store.jobs.values().filter(|job| is_over(job.place)).count();
        let submitted: BTreeSet<JobId> = evidence.clients.submitted.iter().map(|submit| submit.job).collect();
        statistics.unfinished =
            submitted.iter().filter(|id| !store.jobs.get(id).is_some_and(|job| is_over(job.place))).count();
        (statistics.accepted, statistics.accepted_twice) = (results.accepted_total, results.accepted_twice);
        statistics.waits = waits.end(evidence, &store);
        Verdict::new(findings.violations, statistics, &evidence.writes)
    }
}
