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
        let mut jobs: BTreeMap<String, u32> = BTreeMap::new();
        let mut scan = Scan::default();
        loop {
            let page = self.shared.options.state.scan(Keyspace::JobOwners, scan).await.map_err(store)?;
            for entry in page.entries {
                let key = Key::new(Keyspace::JobOwners, entry.name);
                // One that a newer version wrote counts for nobody here.
                if let Ok(owner) = codec::decode::<OwnerRecord>(&key, &entry.value) {
                    *jobs.entry(owner.session_id).or_default() += 1;
                }
            }
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
                None => break,
            }
        }
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
}

fn view(executor: &Executor, own: &str) -> v1::ExecutorView {
    let state = match executor.link {
        Link::Home | Link::Peer if executor.draining => "draining",
        Link::Home | Link::Peer => "ready",
        Link::None => "disconnected",
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
