//! The scripted service's word on who is there.

use muster_proto::v1;
use muster_proto::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::Service;

#[tonic::async_trait]
impl Cluster for Service {
    async fn list_executors(
        &self,
        _: Request<v1::ListExecutorsRequest>,
    ) -> Result<Response<v1::ListExecutorsResponse>, Status> {
        self.begin("list_executors").await?;
        Ok(Response::new(v1::ListExecutorsResponse { executors: self.cluster.state().executors.clone() }))
    }

    async fn list_schedulers(
        &self,
        _: Request<v1::ListSchedulersRequest>,
    ) -> Result<Response<v1::ListSchedulersResponse>, Status> {
        self.begin("list_schedulers").await?;
        let mut schedulers = self.cluster.state().schedulers.clone();
        for view in &mut schedulers {
            view.self_ = view.address == self.address;
        }
        Ok(Response::new(v1::ListSchedulersResponse { schedulers }))
    }

    async fn list_namespaces(
        &self,
        _: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        self.begin("list_namespaces").await?;
        Ok(Response::new(v1::ListNamespacesResponse { namespaces: self.cluster.state().namespaces.clone() }))
    }

    async fn set_namespace(
        &self,
        request: Request<v1::SetNamespaceRequest>,
    ) -> Result<Response<v1::SetNamespaceResponse>, Status> {
        self.begin("set_namespace").await?;
        let v1::SetNamespaceRequest { namespace, rules } = request.into_inner();
        let mut state = self.cluster.state();
        state.namespaces.retain(|view| view.namespace != namespace);
        state.namespaces.push(v1::NamespaceView { namespace, rules, ..Default::default() });
        Ok(Response::new(v1::SetNamespaceResponse {}))
    }

    async fn drain_executor(
        &self,
        _: Request<v1::DrainExecutorRequest>,
    ) -> Result<Response<v1::DrainExecutorResponse>, Status> {
        self.begin("drain_executor").await?;
        Ok(Response::new(v1::DrainExecutorResponse {}))
    }

    async fn remove_executor(
        &self,
        _: Request<v1::RemoveExecutorRequest>,
    ) -> Result<Response<v1::RemoveExecutorResponse>, Status> {
        self.begin("remove_executor").await?;
        Ok(Response::new(v1::RemoveExecutorResponse {}))
    }

    async fn drain_scheduler(
        &self,
        request: Request<v1::DrainSchedulerRequest>,
    ) -> Result<Response<v1::DrainSchedulerResponse>, Status> {
        self.begin("drain_scheduler").await?;
        let request = request.into_inner();
        for view in &mut self.cluster.state().schedulers {
            if view.scheduler_id == request.scheduler_id {
                view.draining = !request.undo;
            }
        }
        Ok(Response::new(v1::DrainSchedulerResponse::default()))
    }
}
