//! Cancelling a job: by its owner, or, if that lives and does not answer, by a mark in the store that no commit of the job
//! passes by.

use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_state::Keyspace;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};

use super::{Api, Place, forwarded, is_forwarded, job_id, moved};
use crate::accept::{store, unavailable};
use crate::engine::Input;
use crate::options::CALL_DEADLINE;
use crate::updates::take_up;
use crate::{load, requests};

/// A user's words, at most.
const REASON_BYTES_MAX: usize = 1024;
/// An owner that has not answered after this is taken to be out of reach: long for a commit, short for a person.
const OWNER_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// What a user says about a cancel.
pub(super) fn check_reason(reason: &str) -> Result<(), Status> {
    if reason.len() <= REASON_BYTES_MAX {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "reason: {} bytes, more than REASON_BYTES_MAX = {REASON_BYTES_MAX}",
        reason.len()
    )))
}

/// Whether an owner's answer says nothing about the job: it may be out of reach for the caller, and live.
fn is_out_of_reach(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

impl Api {
    pub(crate) async fn cancel(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        check_reason(&message.reason)?;
        self.shared.health.check_writable()?;
        match self.place_of(id, forward).await? {
            Place::Over(stored) => Ok(Response::new(v1::CancelJobResponse { state: stored.head.state })),
            Place::Here => self.cancel_here(id, message.reason).await,
            Place::Peer(address) => {
                let mut owner = self.jobs_at(&address)?;
                let call = owner.cancel_job(forwarded(message.clone()));
                match tokio::time::timeout(OWNER_ANSWERS_WITHIN, call).await {
                    Ok(Err(status)) if is_out_of_reach(&status) => {}
                    Ok(answer) => return answer,
                    Err(_) => {}
                }
                self.leave_mark(id, &message.reason).await
            }
        }
    }

    async fn cancel_here(&self, job: JobId, reason: String) -> Result<Response<v1::CancelJobResponse>, Status> {
        let (reply, answer) = oneshot::channel();
        self.shared.engine.send(Input::Cancel { job, reason, reply }).await.map_err(unavailable)?;
        match tokio::time::timeout(CALL_DEADLINE, answer).await {
            Ok(Ok(Some(state))) => Ok(Response::new(v1::CancelJobResponse { state: state.into() })),
            Ok(Ok(None) | Err(_)) => Err(moved(job)),
            Err(_) => Err(Status::deadline_exceeded("the cancel is not committed yet; it may still be")),
        }
    }

    /// The mark's landing is the acknowledgement.
    async fn leave_mark(&self, id: JobId, reason: &str) -> Result<Response<v1::CancelJobResponse>, Status> {
        /// The job's owner may change between a reading and the mark, but not again and again.
        const LOOKS: u32 = 5;
        for _ in 0..LOOKS {
            let Some(stored) = load::head(&*self.shared.options.state, id).await.map_err(store)? else {
                return Err(Status::not_found(format!("there is no job {id}")));
            };
            if stored.keyspace == Keyspace::StagedJobs {
                take_up::with(&self.shared, &stored).await.map_err(store)?;
                continue;
            }
            let answer = Response::new(v1::CancelJobResponse { state: stored.head.state });
            if stored.keyspace != Keyspace::ActiveJobs
                || requests::mark_cancelled(&self.shared, id, &stored, reason).await.map_err(store)?
            {
                return Ok(answer);
            }
        }
        Err(moved(id))
    }
}
