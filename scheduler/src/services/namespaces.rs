//! Namespaces: what they have and want, and what operators set for them.

use muster_graph::spec;
use muster_proto::{storage, v1};
use muster_state::{Guard, Op, Txn, TxnOutcome, codec, keys};
use tonic::{Request, Response, Status};

use super::Api;
use crate::accept::{store, unavailable};
use crate::fairness::{WEIGHT_MAX, WHOLE};
use crate::{load, usage};

/// Rules that can be meant.
fn check(rules: &v1::NamespaceRules) -> Result<(), Status> {
    if rules.weight.is_some_and(|weight| weight == 0 || weight > WEIGHT_MAX) {
        return Err(Status::invalid_argument(format!("rules.weight: give 1 to {WEIGHT_MAX}; 100 is the default")));
    }
    let limits = rules.max_in_use.clone().unwrap_or_default();
    let limits_all =
        [rules.max_running.map(u64::from), rules.max_jobs.map(u64::from), limits.cpu_milli, limits.memory_bytes];
    let fields = ["max_running", "max_jobs", "max_in_use.cpu_milli", "max_in_use.memory_bytes"];
    for (field, limit) in fields.into_iter().zip(limits_all) {
        if limit == Some(0) {
            return Err(Status::invalid_argument(format!("rules.{field}: at least 1; unset for no limit")));
        }
    }
    Ok(())
}

impl Api {
    pub(super) async fn namespaces(&self) -> Result<v1::ListNamespacesResponse, Status> {
        let mut rules = usage::rules(&*self.shared.options.state).await.map_err(store)?;
        let known = self.shared.engine.read(|engine| engine.namespaces()).await.map_err(unavailable)?;
        let mut namespaces: Vec<v1::NamespaceView> = known
            .into_iter()
            .map(|(namespace, known, share)| v1::NamespaceView {
                rules: rules.remove(&namespace),
                namespace,
                usage: Some((&known).into()),
                share_ppm: u32::try_from(share / (WHOLE / 1_000_000)).unwrap_or(u32::MAX),
            })
            .collect();
        let set = rules.into_iter().map(|(namespace, rules)| v1::NamespaceView {
            namespace,
            rules: Some(rules),
            ..Default::default()
        });
        namespaces.extend(set);
        // What has neither jobs nor rules is of the past.
        namespaces.retain(|view| view.rules.is_some() || view.usage.as_ref().is_some_and(|known| known.jobs > 0));
        namespaces.sort_by(|one, other| one.namespace.cmp(&other.namespace));
        Ok(v1::ListNamespacesResponse { namespaces })
    }

    pub(super) async fn set_rules(
        &self,
        request: Request<v1::SetNamespaceRequest>,
    ) -> Result<Response<v1::SetNamespaceResponse>, Status> {
        let v1::SetNamespaceRequest { namespace, rules } = request.into_inner();
        if !spec::is_namespace(&namespace) {
            return Err(Status::invalid_argument(format!(
                "namespace: '{}' cannot name one: a-z, 0-9 and -, a letter or digit first and last",
                namespace.escape_debug()
            )));
        }
        let key = keys::namespace(&namespace);
        let op = match rules.filter(|rules| *rules != v1::NamespaceRules::default()) {
            None => Op::Delete(key),
            Some(rules) => {
                check(&rules)?;
                let record = storage::NamespaceRecord { rules: Some(rules), set_at_ms: self.shared.now() };
                Op::Put { key, value: codec::encode(&record).map_err(store)?, session: None }
            }
        };
        let identity = self.shared.presence().identity;
        let guards = vec![Guard::AtRevision(keys::epoch(), identity.epoch_revision)];
        let txn = Txn { guards, ops: vec![op], ..Txn::default() };
        match load::send_until_known(&*self.shared.options.state, txn).await.map_err(store)? {
            TxnOutcome::Committed(_) => {
                tracing::info!(namespace, "rules of a namespace were set");
                Ok(Response::new(v1::SetNamespaceResponse {}))
            }
            TxnOutcome::Refused { .. } => Err(unavailable("the store's epoch has changed just now")),
        }
    }
}
