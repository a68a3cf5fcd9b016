//! C4, bounded takeover: when a session ends, each active job that it owned has another owner within the scenario's bound.
//!
//! Time is counted from when the session's key went; or from the last election of etcd before the takeover, which renews
//! leases; or from when there was another session at all, if there was none.

use std::collections::BTreeMap;

use muster_graph::ids::JobId;
use muster_state::{Keyspace, Revision};

use super::Findings;
use crate::checker::decode::Step;
use crate::checker::evidence::Scenario;
use crate::checker::store::Store;
use crate::checker::verdict::{Rule, Statistics, Takeover};

#[derive(Debug)]
struct Waiting {
    from: String,
    since: Revision,
    gone_at_us: u64,
}

/// What has to be remembered of the past.
#[derive(Debug, Default)]
pub(in crate::checker) struct Takeovers {
    waiting: BTreeMap<JobId, Waiting>,
    /// Of each job that was taken over and not yet written to: its takeover's place and token.
    unwritten: BTreeMap<JobId, (usize, Revision)>,
    /// From when on there was a session; none: there is none now.
    somebody_since_us: Option<u64>,
    done: Vec<(Takeover, Revision)>,
}

impl Takeovers {
    /// Looks at a revision, with the store as it is after it.
    pub(in crate::checker) fn after(&mut self, step: &Step, store: &Store, scenario: &Scenario) {
        for (session, alive) in &step.sessions {
            if *alive {
                self.somebody_since_us.get_or_insert(step.at_us);
                continue;
            }
            for (id, job) in &store.jobs {
                let owns = job.owner.as_ref().is_some_and(|owner| owner.record.session_id == *session);
                if owns && job.place == Some(Keyspace::ActiveJobs) {
                    let waiting = Waiting { from: session.clone(), since: step.revision, gone_at_us: step.at_us };
                    self.waiting.insert(*id, waiting);
                }
            }
        }
        if store.sessions.is_empty() {
            self.somebody_since_us = None;
        }
        for (id, written) in &step.jobs {
            if store.jobs[id].place != Some(Keyspace::ActiveJobs) {
                // Its owner was quicker than whoever would have followed.
                self.waiting.remove(id);
            }
            if let Some((place, token)) = self.unwritten.get(id) {
                let by_new = written.commits.values().any(|commit| commit.token == *token)
                    || written.head().is_some_and(|(_, head)| head.token == *token);
                if by_new {
                    self.done[*place].0.wrote_at_us = Some(step.at_us);
                    self.unwritten.remove(id);
                }
            }
            let Some(Some(owner)) = &written.owner else { continue };
            let Some(waiting) = self.waiting.remove(id) else { continue };
            let takeover = Takeover {
                job: *id,
                from: waiting.from.clone(),
                to: owner.session_id.clone(),
                waits_from_us: self.waits_from(&waiting, step.at_us, scenario),
                owned_at_us: step.at_us,
                wrote_at_us: None,
            };
            self.unwritten.insert(*id, (self.done.len(), step.revision));
            self.done.push((takeover, step.revision));
        }
    }

    fn waits_from(&self, waiting: &Waiting, until_us: u64, scenario: &Scenario) -> u64 {
        let election = scenario.elections_us.iter().filter(|at_us| **at_us <= until_us).max();
        waiting.gone_at_us.max(election.copied().unwrap_or(0)).max(self.somebody_since_us.unwrap_or(until_us))
    }

    /// Judges them all.
    pub(in crate::checker) fn end(
        self,
        ended_at_us: u64,
        scenario: &Scenario,
        findings: &mut Findings,
        statistics: &mut Statistics,
    ) {
        if let Some(within) = scenario.takeover_within {
            let within_us = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
            for (takeover, revision) in &self.done {
                if takeover.waited_us() > within_us {
                    let what = format!("it was without an owner for {} us: {takeover:?}", takeover.waited_us());
                    findings.of_job(Rule::Takeover, takeover.job, *revision, what);
                }
            }
            for (id, waiting) in &self.waiting {
                let waited_us = ended_at_us.saturating_sub(self.waits_from(waiting, ended_at_us, scenario));
                if waited_us > within_us {
                    let what = format!("session {} ended, and nobody took it for {waited_us} us", waiting.from);
                    findings.of_job(Rule::Takeover, *id, waiting.since, what);
                }
            }
        }
        statistics.takeovers = self.done.into_iter().map(|(takeover, _)| takeover).collect();
    }
}
