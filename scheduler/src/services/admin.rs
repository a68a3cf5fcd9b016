//! What those who run the cluster ask: how the store is, to take a restored one on, and to count anew.

use std::time::Duration;

use muster_proto::storage::JanitorRecord;
use muster_proto::v1;
use muster_proto::v1::admin_server::Admin;
use muster_state::{Alarm, codec, keys};
use tonic::{Request, Response, Status};

use super::Api;
use crate::accept::store;
use crate::groups::audit;
use crate::{safety, store_watch};

#[tonic::async_trait]
impl Admin for Api {
    async fn get_store(&self, _request: Request<v1::GetStoreRequest>) -> Result<Response<v1::StoreView>, Status> {
        let state = &*self.shared.options.state;
        let health = &self.shared.health;
        let status = state.status().await.map_err(store)?;
        let (revision, records) = state.get_many(&[keys::janitor()]).await.map_err(store)?;
        let janitor = match records.into_iter().flatten().next() {
            Some(entry) => codec::decode::<JanitorRecord>(&keys::janitor(), &entry.value).map_err(store)?,
            None => JanitorRecord::default(),
        };
        Ok(Response::new(v1::StoreView {
            epoch: self.shared.presence().identity.epoch,
            revision,
            quota_bytes: store_watch::quota(&status, self.shared.options.store_quota).unwrap_or(0),
            read_mostly: health.full().unwrap_or_default(),
            safe_mode: health.why_doubted().unwrap_or_default(),
            members: status.members.into_iter().map(view).collect(),
            janitor: janitor.scheduler_id,
            janitor_at_ms: janitor.at_ms,
            compacted_to: janitor.compacted_to,
        }))
    }

    async fn recover(&self, _request: Request<v1::RecoverRequest>) -> Result<Response<v1::RecoverResponse>, Status> {
        let (epoch, safe_mode) = safety::recover(&self.shared).await.map_err(store)?;
        Ok(Response::new(v1::RecoverResponse { epoch, safe_mode }))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditResponse>, Status> {
        let repair = request.into_inner().repair;
        Ok(Response::new(audit::run(&self.shared, repair, Duration::ZERO).await?))
    }
}

fn view(member: muster_state::Member) -> v1::StoreMember {
    let alarm = |alarm: &Alarm| match alarm {
        Alarm::NoSpace => "no-space".to_owned(),
        Alarm::Corrupt => "corrupt".to_owned(),
    };
    v1::StoreMember {
        name: member.name,
        version: member.version,
        size_bytes: member.size_bytes,
        in_use_bytes: member.in_use_bytes,
        leader: member.is_leader,
        alarms: member.alarms.iter().map(alarm).collect(),
        unreachable: member.unreachable.unwrap_or_default(),
    }
}
