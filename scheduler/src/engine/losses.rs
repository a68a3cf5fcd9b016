//! Executors that are lost or have stopped: what they ran is gone, and so are the outputs on them.
//!
//! **Invariant:** every job here has been told of every loss that concerns it. A job that is read, or retried, after the
//! loss is told then: nobody would ever answer for the attempts that it still believes to be there.

use muster_graph::execution::Event;
use muster_graph::ids::{ExecutorKey, JobId, Millis};
use muster_proto::v1;
use muster_state::Revision;

use super::{Engine, Executor, Link, Output};

/// An executor is not there any more, nor is anything that it had.
#[derive(Debug)]
pub struct Loss {
    /// Who, with all earlier incarnations. Incarnation 0: the store knows nothing of it.
    pub key: ExecutorKey,
    /// The revision of the record that says so; 0: there is no record.
    pub record: Revision,
    /// It stopped because it was told to.
    pub on_purpose: bool,
}

fn all_lives_to(key: &ExecutorKey) -> ExecutorKey {
    let incarnation = if key.incarnation == 0 { u64::MAX } else { key.incarnation };
    ExecutorKey { id: key.id.clone(), incarnation }
}

impl Engine {
    pub(super) fn lost(&mut self, loss: Loss, now: Millis) {
        let Loss { key, record, on_purpose } = loss;
        let executor = self
            .executors
            .entry(key.id.clone())
            .or_insert_with(|| Executor::unheard_of(ExecutorKey { incarnation: 0, ..key.clone() }, now));
        if executor.key.incarnation > key.incarnation || (record > 0 && record <= executor.record) {
            return;
        }
        if on_purpose {
            tracing::info!(executor = key.id, incarnation = key.incarnation, "executor has stopped");
        } else {
            tracing::warn!(executor = key.id, incarnation = key.incarnation, "executor is lost");
            self.counts.executors_lost += 1;
        }
        executor.key = key.clone();
        executor.record = record;
        executor.link = Link::Gone;
        executor.since = now;
        executor.poll = None;
        executor.ask.clear();
        executor.asking = false;
        executor.to_fetch = v1::PollWorkResponse::default();
        executor.release_where(|_| true);
        executor.unanswered = 0;
        if executor.linked.take().is_some() {
            self.outputs.push(Output::Disconnect { executor: key.clone() });
        }
        let concerned: Vec<JobId> =
            self.jobs.values().filter(|job| job.graph.concerns(&key.id)).map(|job| job.id).collect();
        for job in concerned {
            self.apply(job, Event::ExecutorLost { executor: all_lives_to(&key) }, now);
        }
    }

    /// A job that was just read, or is retried, may lean on executors whose loss it has not been told of.
    pub(super) fn tell_of_losses(&mut self, id: JobId, now: Millis) {
        let Some(job) = self.jobs.get(&id) else { return };
        let lost: Vec<ExecutorKey> = self
            .executors
            .values()
            .filter(|executor| executor.link == Link::Gone && job.graph.concerns(&executor.key.id))
            .map(|executor| all_lives_to(&executor.key))
            .collect();
        for executor in lost {
            self.apply(id, Event::ExecutorLost { executor }, now);
        }
    }
}
