//! An executor, as a row and as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_client::v1;
use serde::Serialize;

use super::detail::{map, state, text};
use super::{Cell, Row};
use crate::quantity::bytes_for_people;

/// Resources of a machine.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Resources {
    pub(crate) cpu_milli: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) named: BTreeMap<String, u32>,
}

impl From<Option<v1::Resources>> for Resources {
    fn from(resources: Option<v1::Resources>) -> Self {
        let v1::Resources { cpu_milli, memory_bytes, named } = resources.unwrap_or_default();
        Self { cpu_milli, memory_bytes, named }
    }
}

/// An executor.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Executor {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) state: String,
    pub(crate) mode: String,
    pub(crate) running: u32,
    pub(crate) home: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) version: Option<String>,
    pub(crate) incarnation: u64,
    pub(crate) problem: Option<String>,
    pub(crate) total: Resources,
    pub(crate) free: Resources,
}

impl From<v1::ExecutorView> for Executor {
    fn from(view: v1::ExecutorView) -> Self {
        Self {
            id: view.executor_id,
            address: view.address,
            state: view.state,
            mode: view.mode,
            running: view.running,
            home: Some(view.home).filter(|home| !home.is_empty()),
            labels: view.labels,
            version: Some(view.version).filter(|version| !version.is_empty()),
            incarnation: view.incarnation,
            problem: Some(view.problem).filter(|problem| !problem.is_empty()),
            total: view.total.into(),
            free: view.free.into(),
        }
    }
}

fn cores(milli: u32) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{:.1}", f64::from(milli) / 1000.0) }
}

fn used(free: &Resources, total: &Resources) -> [Cell; 2] {
    let cpu = total.cpu_milli.saturating_sub(free.cpu_milli);
    let memory = total.memory_bytes.saturating_sub(free.memory_bytes);
    [
        Cell::number(format!("{}/{}", cores(cpu), cores(total.cpu_milli))),
        Cell::number(format!("{}/{}", bytes_for_people(memory), bytes_for_people(total.memory_bytes))),
    ]
}

impl Row for Executor {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn headers(wide: bool) -> Vec<&'static str> {
        let mut headers = vec!["EXECUTOR", "STATE", "MODE", "RUNNING", "CPU USED", "MEMORY USED", "ADDRESS"];
        if wide {
            headers.extend(["NAMED", "HOME", "LABELS", "VERSION", "INCARNATION"]);
        }
        headers.push("PROBLEM");
        headers
    }

    fn cells(&self, wide: bool, _: Timestamp) -> Vec<Cell> {
        let mut cells =
            vec![Cell::new(&self.id), state(&self.state), Cell::new(&self.mode), Cell::number(self.running)];
        cells.extend(used(&self.free, &self.total));
        cells.push(Cell::new(&self.address));
        if wide {
            cells.extend([
                map(&self.total.named),
                text(self.home.as_ref()),
                map(&self.labels),
                text(self.version.as_ref()),
                Cell::number(self.incarnation),
            ]);
        }
        cells.push(text(self.problem.as_ref()));
        cells
    }
}
