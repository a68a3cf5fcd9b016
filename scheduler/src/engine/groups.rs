//! Cancels of groups, as they reach the jobs that are owned here.
//!
//! **Invariant:** what is known to the engine of a namespace's cancels has struck all its jobs here: a commit that compares it assigns
//! nothing in a cancelled group.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_graph::execution::Event;
use muster_graph::groups::GroupPath;
use muster_graph::ids::{JobId, Millis};

use super::Engine;
use crate::groups::cancels::GroupCancels;

/// By namespace.
pub(super) type KnownCancels = BTreeMap<Arc<str>, Arc<GroupCancels>>;

impl Engine {
    /// The cancelled groups of a namespace, as far as is known.
    #[must_use]
    pub(crate) fn group_cancels(&self, namespace: &str) -> Arc<GroupCancels> {
        self.group_cancels.get(namespace).cloned().unwrap_or_default()
    }

    pub(super) fn groups_cancelled(&mut self, namespace: &Arc<str>, known: Arc<GroupCancels>, now: Millis) {
        let before = self.group_cancels(namespace).as_of();
        if known.as_of() <= before {
            return;
        }
        self.group_cancels.insert(Arc::clone(namespace), known);
        let concerned: Vec<JobId> =
            self.jobs.values().filter(|job| job.namespace == *namespace).map(|job| job.id).collect();
        for id in concerned {
            self.strike(id, now);
        }
    }

    /// Cancels a job whose group, or one around it, is cancelled.
    pub(super) fn strike(&mut self, id: JobId, now: Millis) {
        let Some(job) = self.jobs.get(&id).filter(|job| !job.graph.is_over()) else { return };
        let Some(reason) = self.group_cancels.get(&job.namespace).and_then(|known| why(known, &job.group)) else {
            return;
        };
        // What was assigned since the last commit would be committed after the cancel was acknowledged, also of a job that was cancelled
        // by itself since then.
        if job.assigns() {
            return self.read_again(id, "a group around it was cancelled while tasks of it were being assigned", 0);
        }
        if job.is_cancelled() {
            return;
        }
        self.apply(id, Event::CancelRequested { reason }, now);
        self.stop_waiting(id, now);
        self.commit_at_once(id);
    }
}

fn why(known: &GroupCancels, path: &GroupPath) -> Option<String> {
    let (by, cancel) = known.strikes(path)?;
    let by = by.parse::<GroupPath>().unwrap_or_default();
    Some(if cancel.reason.is_empty() { format!("group {by}") } else { format!("group {by}: {}", cancel.reason) })
}
