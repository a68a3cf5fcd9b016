//! Giving a job to a living peer, in good order.
//!
//! From the moment that a job is told to leave, nothing of it is placed and no status of it is taken in; what it has
//! decided is committed as ever. When nothing is left to be written the job is gone from memory, and only then may its owner's
//! record be given to the successor: so nobody acts for the job between the two owners, and the pause is two
//! transactions and a reading long.

use std::sync::Arc;

use muster_graph::ids::{JobId, Millis};
use muster_proto::storage;
use muster_state::{Key, Revision, SessionId};

use super::{Engine, Output};

/// The peer that a job is given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Its session.
    pub session: SessionId,
    /// Its record, from which the jobs' owner's records are made.
    pub record: storage::SchedulerRecord,
}

/// A job that has left the engine, with what the transaction that gives it away compares.
#[derive(Debug, Clone)]
pub struct Departing {
    /// Which.
    pub job: JobId,
    /// The revision of its owner's record.
    pub token: Revision,
    /// Its newest record, and the revision of that.
    pub predecessor: (Key, Revision),
}

impl Engine {
    /// Tells jobs to leave for a peer. One that is on its way already, or not here, is left alone.
    pub(super) fn hand_over(&mut self, jobs: Vec<JobId>, to: Successor) {
        let to = Arc::new(to);
        for id in jobs {
            let Some(job) = self.jobs.get_mut(&id).filter(|job| job.leaving.is_none()) else { continue };
            job.leaving = Some(Arc::clone(&to));
            self.commit_at_once(id);
            self.refresh(id);
        }
    }

    /// Nothing of the job is left to be written: if it is told to leave, it goes.
    pub(super) fn depart(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(to) = job.leaving.clone() else { return };
        let departing = Departing { job: id, token: job.token(), predecessor: job.cursor.predecessor.clone() };
        match self.outputs.last_mut() {
            Some(Output::HandOver { to: same, jobs }) if Arc::ptr_eq(same, &to) => jobs.push(departing),
            _ => self.outputs.push(Output::HandOver { to, jobs: vec![departing] }),
        }
        self.drop_job(id, "it is handed over");
    }

    /// Jobs that are worth giving to a peer: held for so long, with tasks still to be given out. One that only waits for what
    /// runs needs nobody's attention, and one that came just now may be over before it has left.
    pub(crate) fn worth_handing_over(&self, held_for: Millis, now: Millis) -> Vec<JobId> {
        let worth = |job: &&super::Job| {
            job.leaving.is_none()
                && job.held_since.saturating_add(held_for) <= now
                && job.graph.counts().pending > 0
                && job.graph.job().cancel.is_none()
        };
        self.jobs.values().filter(worth).map(|job| job.id).collect()
    }
}
