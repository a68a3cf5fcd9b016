//! A namespace, as a row and as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_proto::v1;
use muster_scheduler::fairness::WEIGHT_DEFAULT;
use serde::Serialize;

use super::{Cell, Row};
use crate::quantity::bytes_for_people;

/// A namespace.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Namespace {
    pub(crate) namespace: String,
    pub(crate) weight: u32,
    /// Of the cluster: of the resource of which it has the largest part.
    pub(crate) share: f64,
    pub(crate) jobs: u32,
    pub(crate) running: u32,
    /// Tasks that could run.
    pub(crate) ready: u32,
    pub(crate) max_running: Option<u32>,
    pub(crate) max_jobs: Option<u32>,
    pub(crate) max_cpu_milli: Option<u64>,
    pub(crate) max_memory_bytes: Option<u64>,
    pub(crate) max_named: BTreeMap<String, u64>,
}

impl From<v1::NamespaceView> for Namespace {
    fn from(view: v1::NamespaceView) -> Self {
        let (rules, known) = (view.rules.unwrap_or_default(), view.usage.unwrap_or_default());
        let most = rules.max_in_use.unwrap_or_default();
        Self {
            namespace: view.namespace,
            weight: rules.weight.unwrap_or(WEIGHT_DEFAULT),
            share: f64::from(view.share_ppm) / 1_000_000.0,
            jobs: known.jobs,
            running: known.running,
            ready: known.ready,
            max_running: rules.max_running,
            max_jobs: rules.max_jobs,
            max_cpu_milli: most.cpu_milli,
            max_memory_bytes: most.memory_bytes,
            max_named: most.named,
        }
    }
}

impl Namespace {
    /// `jobs=10 tasks=100 cpus=64 memory=1.0 TiB gpu=8`.
    fn limits(&self) -> String {
        let cpus = self.max_cpu_milli.map(|milli| (milli as f64 / 1000.0).to_string());
        let limits = [
            ("jobs", self.max_jobs.map(|most| most.to_string())),
            ("tasks", self.max_running.map(|most| most.to_string())),
            ("cpus", cpus),
            ("memory", self.max_memory_bytes.map(bytes_for_people)),
        ];
        let limits = limits.into_iter().filter_map(|(name, most)| Some(format!("{name}={}", most?)));
        let named = self.max_named.iter().map(|(name, most)| format!("{name}={most}"));
        limits.chain(named).collect::<Vec<_>>().join(" ")
    }
}

impl Row for Namespace {
    fn name(&self) -> String {
        self.namespace.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "WEIGHT", "SHARE", "JOBS", "RUNNING", "READY", "LIMITS"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.namespace),
            Cell::number(self.weight),
            Cell::new(format!("{:.1} %", self.share * 100.0)),
            Cell::number(self.jobs),
            Cell::number(self.running),
            Cell::number(self.ready),
            Cell::optional(&self.limits()),
        ]
    }
}
