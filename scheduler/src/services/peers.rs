//! What schedulers call of each other.

use std::sync::Arc;

use muster_proto::v1;
use muster_proto::v1::peer_server::Peer;
use tonic::{Request, Response, Status};

use super::{Api, job_id};
use crate::handover;
use crate::options::HANDOVER_BATCH;

#[tonic::async_trait]
impl Peer for Api {
    async fn take_jobs(&self, request: Request<v1::TakeJobsRequest>) -> Result<Response<v1::TakeJobsResponse>, Status> {
        let v1::TakeJobsRequest { job_ids: ids, tokens } = request.into_inner();
        if ids.len() > HANDOVER_BATCH {
            return Err(Status::invalid_argument(format!(
                "job_ids: {}, more than HANDOVER_BATCH = {HANDOVER_BATCH}",
                ids.len()
            )));
        }
        // An older peer names none; no record has the revision 0.
        let tokens = tokens.into_iter().chain(std::iter::repeat(0));
        let jobs = ids.iter().zip(tokens).map(|(id, token)| Ok((job_id(id)?, token))).collect::<Result<_, Status>>()?;
        // Who says so is not believed: each job's owner's record is read. Seen through even if the caller goes away.
        let taking = tokio::spawn(handover::take(Arc::clone(&self.shared), jobs));
        taking.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::TakeJobsResponse {}))
    }
}
