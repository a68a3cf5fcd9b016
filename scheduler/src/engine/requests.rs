//! What users ask of a job that is owned here: answered when what they asked for is committed.

use muster_graph::execution::Event;
use muster_graph::ids::{JobId, Millis};
use muster_proto::v1;
use muster_state::Revision;
use tokio::sync::oneshot;

use super::{Engine, job};

impl Engine {
    pub(super) fn cancel(
        &mut self,
        id: JobId,
        reason: String,
        reply: oneshot::Sender<Option<v1::JobState>>,
        now: Millis,
    ) {
        if !self.jobs.contains_key(&id) {
            // The caller may have gone; then nobody wants the answer.
            let _ = reply.send(None);
            return;
        }
        self.apply(id, Event::CancelRequested { reason }, now);
        self.stop_waiting(id, now);
        let job = self.jobs.get_mut(&id).expect("it was there a line above, and apply removes none");
        job.waiting.replies.push(job::Reply::Cancelled(reply));
        self.commit_at_once(id);
    }

    /// Told by the watch, perhaps of what was read with the job, and carried out since.
    pub(super) fn cancel_marked(&mut self, id: JobId, reason: String, mark: Revision, now: Millis) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.cursor.marks_known < mark) else { return };
        // What was assigned since the last commit would be committed after the cancel was acknowledged.
        if job.assigns() {
            return self.read_again(id, "it was cancelled while tasks of it were being assigned", 0);
        }
        self.carry_cancel(id, reason, mark, now);
    }

    /// By the job's next commit, which compares and deletes the mark.
    pub(super) fn carry_cancel(&mut self, id: JobId, reason: String, mark: Revision, now: Millis) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.cursor.cancel_mark = Some(mark);
        job.cursor.marks_known = job.cursor.marks_known.max(mark);
        self.commit_at_once(id);
        self.apply(id, Event::CancelRequested { reason }, now);
    }

    /// With the commit of what follows next, and so not before the retry itself is committed.
    pub(super) fn answer_retry(&mut self, id: JobId, reply: Option<oneshot::Sender<Option<u32>>>) {
        let (Some(reply), Some(job)) = (reply, self.jobs.get_mut(&id)) else { return };
        job.waiting.replies.push(job::Reply::Retried(reply, job.retried));
        self.commit_at_once(id);
    }
}
