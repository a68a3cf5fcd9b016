//! What operators want done with executors: drain them, or give those up for good that will not come back.

use muster_proto::v1;
use muster_proto::v1::executor_client::ExecutorClient;
use muster_state::SessionId;
use tonic::Status;

use super::Api;
use super::cluster::jobs_by_session;
use crate::absence::{self, Removal};
use crate::accept::{store, unavailable};
use crate::links;
use crate::options::PEER_DEADLINE;

impl Api {
    /// Passes the wish on to the executor, whose own matter it is, and notes it for the executor's later lives before it is
    /// acknowledged: the executor may die before it has registered as draining.
    pub(super) async fn drain(&self, wish: v1::DrainExecutorRequest) -> Result<(), Status> {
        let v1::DrainExecutorRequest { executor_id: id, undo, stop, timeout_ms } = wish;
        if undo && (stop || timeout_ms > 0) {
            return Err(Status::invalid_argument("undo: excludes stop and timeout_ms; it takes both back"));
        }
        if timeout_ms > 0 && !stop {
            return Err(Status::invalid_argument("timeout_ms: wants stop, whose limit it is"));
        }
        let known = {
            let id = id.clone();
            self.shared.engine.read(move |engine| {
                engine.executor(&id).map(|executor| executor.is_reachable().then(|| executor.address.clone()))
            })
        };
        let Some(reachable) = known.await.map_err(unavailable)? else {
            return Err(Status::not_found(format!("no executor {id} is known; `muster executors` lists them")));
        };
        let Some(address) = reachable else {
            return Err(Status::failed_precondition(format!(
                "executor {id} is out of reach, so it cannot be drained; if it will not come back: \
                 `muster executors remove {id}`"
            )));
        };
        let channel = links::channel(&self.shared.options.network, &address)
            .map_err(|error| Status::internal(format!("{address}: {error}")))?;
        let request = v1::StopExecutorRequest {
            drain: stop,
            reason: "an operator wants it".to_owned(),
            stay: !stop && !undo,
            undo,
            within_ms: timeout_ms,
        };
        tokio::time::timeout(PEER_DEADLINE, ExecutorClient::new(channel).stop_executor(request))
            .await
            .map_err(|_| Status::unavailable(format!("executor {id} at {address} does not answer; try again")))?
            .map_err(|status| Status::unavailable(format!("executor {id} at {address}: {}", status.message())))?;
        absence::note_wish(&self.shared, &id, !undo).await.map_err(store)?;
        tracing::info!(executor = id, undo, stop, timeout_ms, "executor drained");
        Ok(())
    }

    /// Notes that an executor is gone for good.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Status> {
        match absence::remove(&self.shared, id).await.map_err(store)? {
            Removal::Done => Ok(()),
            Removal::Unknown => {
                Err(Status::not_found(format!("no executor {id} is known; `muster executors` lists them")))
            }
            Removal::InReach => Err(Status::failed_precondition(format!(
                "executor {id} is in reach; `muster executors drain {id} --stop` lets it leave in order"
            ))),
        }
    }

    /// What jobs, of all schedulers, may still read of an executor that leaves, and who is to have it. An error unless all
    /// could be asked: only then it is known that there is nothing else.
    pub(super) async fn who_needs_outputs_of(
        &self,
        asked: v1::OutputsNeededRequest,
    ) -> Result<v1::OutputsNeededResponse, Status> {
        let v1::OutputsNeededRequest { executor_id: id, forwarded, avoid } = asked;
        let mut needed = v1::OutputsNeededResponse::default();
        if !forwarded {
            let live = self.shared.peers.live();
            let owners = jobs_by_session(&self.shared).await.map_err(store)?;
            if owners.keys().any(|session| !live.contains_key(&SessionId(session.clone()))) {
                return Err(Status::unavailable("jobs wait for a new owner, who will know"));
            }
            let mine = self.shared.presence().identity.session;
            for (_, peer) in live.into_iter().filter(|(session, _)| *session != mine) {
                let mut scheduler = self.executors_at(&peer.address)?;
                let request =
                    v1::OutputsNeededRequest { executor_id: id.clone(), forwarded: true, avoid: avoid.clone() };
                let answer = tokio::time::timeout(PEER_DEADLINE, scheduler.outputs_needed(request))
                    .await
                    .map_err(|_| Status::unavailable(format!("scheduler {} does not answer", peer.scheduler_id)))?;
                let answer = answer?.into_inner();
                needed.job_ids.extend(answer.job_ids);
                needed.hand_over.extend(answer.hand_over);
            }
        }
        let avoid = avoid.into_iter().collect();
        let own = move |engine: &mut crate::engine::Engine| engine.outputs_needed_of(&id, &avoid);
        let own = self.shared.engine.read(own).await.map_err(unavailable)?;
        needed.job_ids.extend(own.job_ids);
        needed.hand_over.extend(own.hand_over);
        Ok(needed)
    }
}
