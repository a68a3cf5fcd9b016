//! Executors that leave: what is still needed of their outputs, and who is to have it. The executor that leaves sees to the rest
//! (`executor/src/hand_over.rs`), and tells when it is done; only then does the job's graph say that an output lies elsewhere.

use std::collections::BTreeSet;

use muster_graph::execution::Event;
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};
use muster_proto::v1;

use super::{Engine, Executor, Link};

/// Jobs named in one answer; for whoever waits it is enough that there are some.
const JOBS_NAMED_MAX: usize = 16;
/// Outputs named in one answer: less than 200 KiB, and more than an executor hands over in a second.
const OUTPUTS_NAMED_MAX: usize = 2_048;
/// The places of a stage's inputs may be told anew to all its executors so often while outputs move.
const TELL_ANEW_EVERY: Millis = 1_000;
/// Outputs of one job that are given to the same heir together: enough for one commit to be worth it.
const PER_HEIR: usize = 256;

impl Engine {
    /// What our jobs may still read of an executor that leaves, and who of those that stay is to have how much of it.
    #[must_use]
    pub fn outputs_needed_of(&self, leaving: &str, avoid: &BTreeSet<String>) -> v1::OutputsNeededResponse {
        let keeps = |executor: &&Executor| {
            executor.key.id != leaving && !avoid.contains(&executor.key.id) && executor.may_keep_outputs()
        };
        let mut heirs: Vec<&Executor> = self.executors.values().filter(keeps).collect();
        heirs.sort_unstable_by(|a, b| a.key.id.cmp(&b.key.id));
        let mut answer = v1::OutputsNeededResponse::default();
        let mut left = OUTPUTS_NAMED_MAX;
        for job in self.jobs.values() {
            if answer.job_ids.len() == JOBS_NAMED_MAX {
                break;
            }
            let mut needed = job.graph.needed_outputs_of(leaving).peekable();
            if needed.peek().is_none() {
                continue;
            }
            answer.job_ids.push(job.id.to_string());
            if job.leaving.is_some() {
                // Its next owner takes the news of it, and says who is to have what.
                continue;
            }
            // Different jobs begin with different heirs.
            let mut turn = usize::try_from(job.id.0 % (1 << 16)).expect("it is small");
            while left > 0 && !heirs.is_empty() && needed.peek().is_some() {
                let outputs: Vec<v1::KeptOutput> = needed.by_ref().take(PER_HEIR.min(left)).map(kept).collect();
                left -= outputs.len();
                let heir = heirs[turn % heirs.len()];
                turn += 1;
                answer.hand_over.push(v1::HandOver {
                    executor_id: heir.key.id.clone(),
                    address: heir.address.clone(),
                    job_id: job.id.to_string(),
                    outputs,
                });
            }
        }
        answer
    }

    /// Whoever leaves says that another executor has an output now. False if that one is not known to be there: then it is
    /// not so, and whoever leaves has to find another one.
    pub(super) fn output_moved(
        &mut self,
        (job, task, attempt): (JobId, TaskId, Attempt),
        from: &str,
        to: &v1::OutputMoved,
        now: Millis,
    ) -> bool {
        let to = ExecutorKey { id: to.executor_id.clone(), incarnation: to.incarnation };
        let known = self.executors.get(&to.id).filter(|known| known.key == to);
        if !known.is_some_and(Executor::may_keep_outputs) {
            return false;
        }
        self.apply(job, Event::OutputMoved { task, attempt, from: from.to_owned(), to }, now);
        if let Some(job) = self.jobs.get_mut(&job)
            && now >= job.places_told_anew + TELL_ANEW_EVERY
        {
            // Whoever starts from now on asks again where everything lies; who does not looks in vain for what is gone, and asks then.
            job.places_told_anew = now;
            job.places_revision = job.places_revision.wrapping_add(1);
        }
        true
    }
}

impl Executor {
    /// Whether others may give it what they have: it is in reach of somebody, and stays.
    fn may_keep_outputs(&self) -> bool {
        matches!(self.link, Link::Home | Link::Peer)
            && !self.draining
            && !self.address.is_empty()
            && self.quarantine().is_none()
    }
}

fn kept((task, attempt, output): (TaskId, Attempt, muster_graph::execution::Output)) -> v1::KeptOutput {
    let (stage, index) = (task.stage.0, task.index.0);
    v1::KeptOutput {
        attempt: Some(v1::AttemptRef { job_id: String::new(), stage, index, attempt }),
        output: Some(output.into()),
        ..v1::KeptOutput::default()
    }
}
