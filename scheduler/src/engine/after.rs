//! Jobs that begin when others have ended.
//!
//! Invariants:
//! - A job that waits has not begun: nothing of it is stored but what it was accepted with. So whoever reads it, after whatever happened,
//!   waits anew; and once it has begun no end of another job means anything to it.
//! - To be told of an end only makes sooner what looking at all that are waited for brings about ([`crate::after`]).

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::Event;
use muster_graph::groups::JobEnd;
use muster_graph::ids::{JobId, Millis};
use muster_graph::spec::{AfterJob, AwaitedEnd};

use super::{Engine, Output};

/// Jobs here, by the job that they wait for; some of them perhaps no more.
pub(super) type Awaited = BTreeMap<JobId, BTreeSet<JobId>>;

impl Engine {
    /// A job that was just planned begins, or waits.
    pub(super) fn begin_in_time(&mut self, id: JobId, now: Millis) {
        let Some(job) = self.jobs.get(&id) else { return };
        let jobs: Vec<JobId> = job.after.iter().map(|after| after.job).collect();
        if jobs.is_empty() {
            return self.apply(id, Event::Submitted, now);
        }
        for awaited in &jobs {
            self.awaited.entry(*awaited).or_default().insert(id);
        }
        self.refresh(id);
        self.outputs.push(Output::LookAtEnds { jobs });
    }

    /// The jobs that are waited for.
    #[must_use]
    pub(crate) fn awaited(&mut self) -> Vec<JobId> {
        let jobs = &self.jobs;
        self.awaited.retain(|awaited, waiting| {
            waiting.retain(|id| jobs.get(id).is_some_and(|job| job.after.iter().any(|after| after.job == *awaited)));
            !waiting.is_empty()
        });
        self.awaited.keys().copied().collect()
    }

    pub(super) fn jobs_changed(&mut self, mut jobs: Vec<JobId>) {
        jobs.retain(|job| self.awaited.contains_key(job));
        if !jobs.is_empty() {
            self.outputs.push(Output::LookAtEnds { jobs });
        }
    }

    pub(super) fn jobs_ended(&mut self, ends: &[(JobId, Option<JobEnd>)], now: Millis) {
        for (ended, end) in ends {
            for id in self.awaited.remove(ended).unwrap_or_default() {
                self.has_ended(id, *ended, *end, now);
            }
        }
    }

    /// A job that `id` waits for has ended.
    fn has_ended(&mut self, id: JobId, ended: JobId, end: Option<JobEnd>, now: Millis) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (told, others): (Vec<AfterJob>, Vec<AfterJob>) =
            job.after.iter().copied().partition(|after| after.job == ended);
        if told.is_empty() {
            // It was cancelled, and has begun by that.
            return;
        }
        let unmet = told.iter().find(|after| !end.is_some_and(|end| after.end.is_met_by(end)));
        if let Some(unmet) = unmet {
            let reason = why_never(ended, end, unmet.end);
            tracing::info!(job = %id, reason, "job cancelled: it waited for another end");
            return self.apply(id, Event::CancelRequested { reason }, now);
        }
        job.after = others;
        if job.after.is_empty() {
            self.apply(id, Event::Submitted, now);
        }
    }
}

/// Why a job will never begin.
fn why_never(ended: JobId, end: Option<JobEnd>, awaited: AwaitedEnd) -> String {
    let became = match end {
        Some(JobEnd::Successful) => "was successful",
        Some(JobEnd::Failed) => "failed",
        Some(JobEnd::Cancelled) => "was cancelled",
        None => "is not known any more",
    };
    format!("job {ended} {became}; this one waited for its {}", in_words(awaited))
}

/// What is waited for of a job.
pub(super) fn in_words(awaited: AwaitedEnd) -> &'static str {
    match awaited {
        AwaitedEnd::Success => "success",
        AwaitedEnd::Failure => "failure",
        AwaitedEnd::Any => "end",
    }
}
