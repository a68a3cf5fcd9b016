//! Limits that a job or its namespace has reached.

use muster_graph::ids::{Millis, StageIndex};
use muster_graph::spec::Resources;
use muster_proto::v1;
use v1::ReasonKind as Kind;

use super::words::{count_of, memory, reason};
use crate::engine::queues::{Limit, Thought};
use crate::engine::{Engine, Job};

impl Engine {
    /// Why no more of a stage's tasks may run, whoever has room. `None`: they may.
    pub(super) fn limited(&self, job: &Job, stage: StageIndex, tasks: u32, now: Millis) -> Option<v1::Reason> {
        let plan = job.graph.plan();
        if let (Some(most), 0) = (plan.max_running, job.may_run()) {
            let text = format!("{} of the job, as many as may at the same time (`max_running`)", run(most));
            return Some(reason(Kind::JobLimit, tasks, text));
        }
        let need = &plan.stages[stage.0 as usize].resources;
        let limit = self.queues.limit(&job.namespace, &Thought::default(), &self.identity.session.0, now)?;
        if limit.leaves(need) > 0 {
            return None;
        }
        let name = &job.namespace;
        let text = format!("namespace {name} is at its limit: {}", used(&limit, need));
        let remedies = vec![format!("a higher limit: `muster namespaces set {name}`, see its --help")];
        let evidence = limit.sharers().map(|others| {
            let others = count_of(others, "other scheduler has", "other schedulers have");
            format!("{others} jobs of {name}, so each goes by a part of the limit")
        });
        Some(v1::Reason {
            remedies,
            evidence: evidence.into_iter().collect(),
            ..reason(Kind::NamespaceLimit, tasks, text)
        })
    }
}

fn run(tasks: u32) -> String {
    count_of(tasks, "task runs", "tasks run")
}

/// What of the limits is used up.
fn used(limit: &Limit, need: &Resources) -> String {
    let (rules, used) = limit.whole();
    let most = &rules.max_in_use;
    let mut parts = Vec::new();
    if let Some(most) = rules.max_running {
        parts.push(format!("{} of {most}", run(used.running)));
    }
    let cores = |milli: u64| milli as f64 / 1000.0;
    if let Some(most) = most.cpu_milli.filter(|_| need.cpu_milli > 0) {
        parts.push(format!("{} of {} cores are in use", cores(used.in_use.cpu_milli), cores(most)));
    }
    if let Some(most) = most.memory_bytes.filter(|_| need.memory_bytes > 0) {
        let shown = |bytes| memory(bytes, false);
        parts.push(format!("{} of {} of memory are in use", shown(used.in_use.memory_bytes), shown(most)));
    }
    for (name, most) in most.named.iter().filter(|(name, _)| need.named.get(*name).is_some_and(|amount| *amount > 0)) {
        parts.push(format!("{} of {most} {name} are in use", used.in_use.named.get(name).copied().unwrap_or(0)));
    }
    parts.join(", ")
}
