//! Who is there, for users.

use std::collections::BTreeMap;

use muster_proto::storage::OwnerRecord;
use muster_proto::v1;
use muster_proto::v1::cluster_server::Cluster;
use muster_state::{Key, Keyspace, Scan, codec};
use tonic::{Request, Response, Status};

use super::Api;
use crate::accept::{store, unavailable};
use crate::engine::{Executor, Link};
use crate::shared::Shared;

#[tonic::async_trait]
impl Cluster for Api {
    async fn list_executors(
        &self,
        _request: Request<v1::ListExecutorsRequest>,
    ) -> Result<Response<v1::ListExecutorsResponse>, Status> {
        let own = self.shared.options.scheduler_id.clone();
        let executors = self
            .shared
            .engine
            .read(move |engine| {
                engine.executors().filter(|executor| executor.key.incarnation > 0).map(|e| view(e, &own)).collect()
            })
            .await
            .map_err(unavailable)?;
        Ok(Response::new(v1::ListExecutorsResponse { executors }))
    }

    async fn list_schedulers(
        &self,
        _request: Request<v1::ListSchedulersRequest>,
    ) -> Result<Response<v1::ListSchedulersResponse>, Status> {
        let jobs = jobs_by_session(&self.shared).await.map_err(store)?;
        let mine = self.shared.presence().identity.session;
        let schedulers = self
            .shared
            .peers
            .live()
            .into_iter()
            .map(|(session, peer)| v1::SchedulerView {
                scheduler_id: peer.scheduler_id,
                address: peer.address,
                jobs: jobs.get(&session.0).copied().unwrap_or(0),
                version: peer.version,
                self_: session == mine,
            })
            .collect();
        Ok(Response::new(v1::ListSchedulersResponse { schedulers }))
    }

    async fn drain_executor(
        &self,
        request: Request<v1::DrainExecutorRequest>,
    ) -> Result<Response<v1::DrainExecutorResponse>, Status> {
        self.drain(request.into_inner()).await?;
        Ok(Response::new(v1::DrainExecutorResponse {}))
    }

    async fn remove_executor(
        &self,
        request: Request<v1::RemoveExecutorRequest>,
    ) -> Result<Response<v1::RemoveExecutorResponse>, Status> {
        self.remove(&request.into_inner().executor_id).await?;
        Ok(Response::new(v1::RemoveExecutorResponse {}))
    }
}

/// How many jobs each session owns, also those that are over.
pub(super) async fn jobs_by_session(shared: &Shared) -> Result<BTreeMap<String, u32>, muster_state::Error> {
    let mut jobs: BTreeMap<String, u32> = BTreeMap::new();
    let mut scan = Scan::default();
    loop {
        let page = shared.options.state.scan(Keyspace::JobOwners, scan).await?;
        for entry in page.entries {
            let key = Key::new(Keyspace::JobOwners, entry.name);
            let owner: OwnerRecord = codec::decode(&key, &entry.value)?;
            *jobs.entry(owner.session_id).or_default() += 1;
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
            None => return Ok(jobs),
        }
    }
}

fn view(executor: &Executor, own: &str) -> v1::ExecutorView {
    let state = match executor.link {
        Link::Home | Link::Peer if executor.draining => "draining",
        Link::Home | Link::Peer => "ready",
        Link::None => "disconnected",
        Link::Gone if executor.is_final() => "stopped",
        Link::Gone => "lost",
    };
    v1::ExecutorView {
        executor_id: executor.key.id.clone(),
        address: executor.address.clone(),
        state: state.to_owned(),
        mode: if executor.pull { "pull" } else { "push" }.to_owned(),
        total: Some((&executor.total).into()),
        free: Some((&executor.free).into()),
        running: executor.running(),
        home: if executor.link == Link::Home { own.to_owned() } else { String::new() },
        labels: executor.labels.clone(),
        version: executor.version.clone(),
        incarnation: executor.key.incarnation,
    }
}
