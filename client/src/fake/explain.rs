//! What a scripted cluster says of tasks that do not run.

use muster_proto::v1;
use tonic::{Response, Status};

use super::Service;

impl Service {
    pub(super) async fn explanation(&self, request: v1::ExplainRequest) -> Result<Response<v1::Explanation>, Status> {
        self.begin("explain").await?;
        let state = self.cluster.state();
        let told = state.explanations.iter().find(|(question, _)| *question == request);
        let unasked = || Status::not_found(format!("nothing is told of {request:?}"));
        told.map(|(_, explanation)| Response::new(explanation.clone())).ok_or_else(unasked)
    }
}
