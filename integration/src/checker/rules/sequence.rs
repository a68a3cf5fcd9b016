//! C3, one after the other: a job's commits have contiguous sequences, each is there once, and nothing is overwritten by
//! an older one. This orders one owner's own writes, which all bear the same token.
//!
//! After a gap the states that follow are not known: the job counts as torn, and rules about its states leave it alone.

use std::collections::{BTreeSet, HashMap};

use muster_graph::ids::JobId;

use super::Findings;
use crate::checker::decode::{JobStep, Step};
use crate::checker::job::Job;
use crate::checker::store::Store;
use crate::checker::verdict::Rule;

/// What has to be remembered of the past.
#[derive(Debug, Default)]
pub(in crate::checker) struct Commits {
    seen: HashMap<JobId, BTreeSet<String>>,
}

impl Commits {
    /// Looks at a revision, with the store as it was before. Marks torn jobs.
    pub(in crate::checker) fn before(&mut self, step: &Step, store: &mut Store, findings: &mut Findings) {
        for (id, job) in &step.jobs {
            let known = store.jobs.entry(*id).or_default();
            if known.torn {
                continue;
            }
            let wrong = self.judge(*id, job, known);
            known.torn |= !wrong.is_empty();
            if known.torn {
                findings.of_job(Rule::Sequence, *id, step.revision, wrong.join("; "));
            }
        }
    }

    fn judge(&mut self, id: JobId, job: &JobStep, known: &Job) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expected = known.sequence + 1;
        for sequence in job.commits.keys() {
            if *sequence != expected {
                wrong.push(format!("delta {sequence} follows, expected {expected}"));
            }
            if known.deltas.contains_key(sequence) {
                wrong.push(format!("delta {sequence} is overwritten"));
            }
            expected = sequence + 1;
        }
        let mut ids: BTreeSet<&str> = job.commits.values().map(|commit| commit.id.as_str()).collect();
        if ids.len() > 1 {
            wrong.push(format!("one revision has several commits: {ids:?}"));
        }
        if let Some((_, head)) = job.head() {
            ids.insert(&head.commit_id);
            if ids.len() > 1 && !job.commits.is_empty() {
                wrong.push(format!("head and delta are of different commits: {ids:?}"));
            }
            let expected = match (job.opens(), job.commits.keys().next_back()) {
                (true, _) => known.sequence,
                (false, Some(newest)) => *newest,
                (false, None) => known.sequence + 1,
            };
            if head.sequence != expected {
                wrong.push(format!("the head has sequence {}, expected {expected}", head.sequence));
            }
        }
        let seen = self.seen.entry(id).or_default();
        for commit in ids {
            if !seen.insert(commit.to_owned()) {
                wrong.push(format!("commit {commit} comes a second time"));
            }
        }
        wrong
    }
}
