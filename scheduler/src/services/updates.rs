//! Updates, as clients see them. What they are is [`crate::updates`]'.

use muster_proto::v1;
use muster_proto::v1::updates_server::Updates;
use tonic::{Request, Response, Status};

use super::Api;
use crate::definitions;
use crate::updates::{self, commit, stage};

impl Api {
    async fn update_view(&self, update: &updates::Update) -> Result<Response<v1::UpdateView>, Status> {
        Ok(Response::new(updates::view(&*self.shared.options.state, update).await?))
    }
}

#[tonic::async_trait]
impl Updates for Api {
    async fn open_update(&self, request: Request<v1::OpenUpdateRequest>) -> Result<Response<v1::UpdateView>, Status> {
        let v1::OpenUpdateRequest { namespace, token } = request.into_inner();
        self.shared.health.check_writable()?;
        let namespace = definitions::namespace(namespace)?;
        self.update_view(&updates::open(&self.shared, &namespace, &token).await?).await
    }

    async fn stage_update(
        &self,
        request: Request<v1::StageUpdateRequest>,
    ) -> Result<Response<v1::StageUpdateResponse>, Status> {
        let mut request = request.into_inner();
        let namespace = definitions::namespace(std::mem::take(&mut request.namespace))?;
        Ok(Response::new(stage::stage(&self.shared, &namespace, request).await?))
    }

    async fn commit_update(
        &self,
        request: Request<v1::CommitUpdateRequest>,
    ) -> Result<Response<v1::UpdateView>, Status> {
        let mut request = request.into_inner();
        self.shared.health.check_writable()?;
        let namespace = definitions::namespace(std::mem::take(&mut request.namespace))?;
        self.update_view(&commit::commit(&self.shared, &namespace, request).await?).await
    }

    async fn get_update(&self, request: Request<v1::GetUpdateRequest>) -> Result<Response<v1::UpdateView>, Status> {
        let v1::GetUpdateRequest { namespace, token } = request.into_inner();
        let namespace = definitions::namespace(namespace)?;
        self.update_view(&updates::find(&*self.shared.options.state, &namespace, &token).await?).await
    }

    async fn abandon_update(
        &self,
        request: Request<v1::AbandonUpdateRequest>,
    ) -> Result<Response<v1::UpdateView>, Status> {
        let v1::AbandonUpdateRequest { namespace, token } = request.into_inner();
        let namespace = definitions::namespace(namespace)?;
        self.update_view(&updates::abandon(&self.shared, &namespace, &token).await?).await
    }
}
