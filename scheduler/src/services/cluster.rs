//! Who is there, for users.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_proto::storage::OwnerRecord;
use muster_proto::v1;
use muster_proto::v1::cluster_client::ClusterClient;
use muster_proto::v1::cluster_server::Cluster;
use muster_state::{Key, Keyspace, Scan, codec};
use tonic::{Request, Response, Status};

use super::{Api, forwarded, is_forwarded};
use crate::accept::{store, unavailable};
use crate::draining;
use crate::engine::{Executor, Link};
use crate::shared::Shared;

/// A list is worth having without the opinion of a peer that does not answer at once.
const OPINION_WITHIN: Duration = Duration::from_millis(500);
/// The state of an executor that is kept from work.
const QUARANTINED: &str = "quarantined";

#[tonic::async_trait]
impl Cluster for Api {
    async fn list_executors(
        &self,
        request: Request<v1::ListExecutorsRequest>,
    ) -> Result<Response<v1::ListExecutorsResponse>, Status> {
        let asks_peers = !is_forwarded(&request);
        let own = self.shared.options.scheduler_id.clone();
        let mut executors: Vec<v1::ExecutorView> = self
            .shared
            .engine
            .read(move |engine| {
                engine.executors().filter(|executor| executor.key.incarnation > 0).map(|e| view(e, &own)).collect()
            })
            .await
            .map_err(unavailable)?;
        for (id, refused) in self.shared.unreachable.list(tokio::time::Instant::now()) {
            match executors.iter_mut().find(|view| view.executor_id == id) {
                // A peer reaches it.
                Some(view) if matches!(view.state.as_str(), "ready" | "draining" | QUARANTINED) => {}
                Some(view) => view.problem = refused.why,
                None => executors.push(v1::ExecutorView {
                    executor_id: id,
                    address: refused.address,
                    state: "unreachable".to_owned(),
                    mode: "push".to_owned(),
                    incarnation: refused.incarnation,
                    problem: refused.why,
                    ..Default::default()
                }),
            }
        }
        if asks_peers {
            self.add_opinions_of_peers(&mut executors).await;
        }
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
                draining: peer.draining,
            })
            .collect();
        Ok(Response::new(v1::ListSchedulersResponse { schedulers }))
    }

    async fn list_namespaces(
        &self,
        _request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        self.namespaces().await.map(Response::new)
    }

    async fn set_namespace(
        &self,
        request: Request<v1::SetNamespaceRequest>,
    ) -> Result<Response<v1::SetNamespaceResponse>, Status> {
        self.set_rules(request).await
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

    async fn drain_scheduler(
        &self,
        request: Request<v1::DrainSchedulerRequest>,
    ) -> Result<Response<v1::DrainSchedulerResponse>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        if message.scheduler_id == self.shared.options.scheduler_id {
            self.shared.drains_by_itself.store(false, Ordering::Relaxed);
            draining::set(&self.shared, !message.undo).await.map_err(store)?;
            let owned = self.shared.engine.read(|engine| engine.jobs_owned()).await.map_err(unavailable)?;
            return Ok(Response::new(v1::DrainSchedulerResponse { jobs: u32::try_from(owned).unwrap_or(u32::MAX) }));
        }
        let peers = self.shared.peers.live();
        let found = peers.values().filter(|peer| peer.scheduler_id == message.scheduler_id);
        // Of a name that is there twice, the older one is on its way out.
        let newest = found.max_by_key(|peer| peer.started_at_ms).filter(|_| !forward);
        let Some(peer) = newest else {
            return Err(Status::not_found(format!("there is no live scheduler named '{}'", message.scheduler_id)));
        };
        ClusterClient::new(self.shared.peers.channel(&self.shared.options.network, &peer.address)?)
            .drain_scheduler(forwarded(message))
            .await
    }
}

impl Api {
    /// Each scheduler judges executors by its own jobs, so what is kept from work by a peer is told too.
    async fn add_opinions_of_peers(&self, executors: &mut [v1::ExecutorView]) {
        let mine = self.shared.presence().identity.session;
        let peers = self.shared.peers.live().into_iter().filter(|(session, _)| *session != mine);
        let answers = peers.map(|(_, peer)| async move {
            let channel = self.shared.peers.channel(&self.shared.options.network, &peer.address).ok()?;
            let mut cluster = ClusterClient::new(channel);
            let call = cluster.list_executors(forwarded(v1::ListExecutorsRequest {}));
            let answer = tokio::time::timeout(OPINION_WITHIN, call).await.ok()?.ok()?;
            Some((peer.scheduler_id, answer.into_inner().executors))
        });
        for (scheduler, views) in futures::future::join_all(answers).await.into_iter().flatten() {
            for told in views.into_iter().filter(|view| view.state == QUARANTINED) {
                let same = |view: &&mut v1::ExecutorView| {
                    (&view.executor_id, view.incarnation) == (&told.executor_id, told.incarnation)
                };
                if let Some(view) = executors.iter_mut().find(same).filter(|view| view.state == "ready") {
                    view.state = told.state;
                    view.problem = format!("as {scheduler} sees it: {}", told.problem);
                }
            }
        }
    }
}

/// How many jobs each session owns, also one that is over.
pub(super) async fn jobs_by_session(shared: &Shared) -> Result<BTreeMap<String, u32>, muster_state::Error> {
    let mut jobs: BTreeMap<String, u32> = BTreeMap::new();
    let mut scan = Scan::default();
    loop {
        let page = shared.options.state.scan(Keyspace::JobOwners, scan).await?;
        for entry in page.entries {
            let key = Key::new(Keyspace::JobOwners, entry.name);
            // One that a newer version wrote counts for nobody here.
            if let Ok(owner) = codec::decode::<OwnerRecord>(&key, &entry.value) {
                *jobs.entry(owner.session_id).or_default() += 1;
            }
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
        Link::Home | Link::Peer if executor.quarantine().is_some() => QUARANTINED,
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
        free: Some((&executor.left()).into()),
        running: executor.running(),
        home: if executor.link == Link::Home { own.to_owned() } else { String::new() },
        labels: executor.labels.clone(),
        version: executor.version.clone(),
        incarnation: executor.key.incarnation,
        problem: executor.quarantine().map(|quarantine| quarantine.why().to_owned()).unwrap_or_default(),
    }
}
