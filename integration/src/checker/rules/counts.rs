//! C6, true counts: the counts in each head are those of the states at its revision, counted here from the deltas.

use muster_graph::execution::Counts;
use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_state::Revision;

use super::Findings;
use crate::checker::job::Job;
use crate::checker::verdict::Rule;

/// Looks at a head that was just written.
pub(in crate::checker) fn after(id: JobId, job: &Job, revision: Revision, findings: &mut Findings) {
    let Some(head) = &job.head else { return };
    let counted = match &job.states {
        Some(states) => states.counts,
        // Not planned yet: nothing has happened to it.
        None => Counts { pending: u32::try_from(head.task_total).unwrap_or(u32::MAX), ..Counts::default() },
    };
    if u64::from(counted.total()) != head.task_total {
        let what = format!("the head says {} tasks, the plan has {}", head.task_total, counted.total());
        findings.of_job(Rule::Counts, id, revision, what);
    }
    let counted = v1::Counts::from(counted);
    if head.tasks != Some(counted) {
        let what = format!("the head says {:?}, the states are {counted:?}", head.tasks);
        findings.of_job(Rule::Counts, id, revision, what);
    }
}
