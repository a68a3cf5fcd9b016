//! What users see of groups: exact as of one revision of the store, but for the tasks of live jobs.

use std::collections::BTreeMap;

use muster_graph::groups::{self, GroupPath, Sums, Tally, TaskTally};
use muster_graph::ids::Millis;
use muster_proto::storage::{GroupRecord, GroupSums, TaskSums};
use muster_proto::v1;
use muster_state::{Entry, Error, Key, Keyspace, Revision, Scan, StateBackend, codec, keys};

use super::cancels::GroupCancels;
use super::live::LiveJobs;
use super::{ROOT_ID, changes};
use crate::load::all_below;
use crate::updates::Committed;

pub(super) fn to_sums(stored: GroupSums) -> Sums {
    let tasks = stored.tasks.unwrap_or_default();
    Sums {
        tally: Tally {
            submitted: stored.submitted,
            successful: stored.successful,
            failed: stored.failed,
            cancelled: stored.cancelled,
            tasks: TaskTally {
                pending: tasks.pending,
                successful: tasks.successful,
                failed: tasks.failed,
                cancelled: tasks.cancelled,
            },
            spent: changes::spent(stored.spent.unwrap_or_default()),
        },
        completed_at: stored.completed_at_ms,
        completions: stored.completions,
    }
}

pub(super) fn from_sums(sums: &Sums) -> GroupSums {
    let tally = &sums.tally;
    GroupSums {
        submitted: tally.submitted,
        successful: tally.successful,
        failed: tally.failed,
        cancelled: tally.cancelled,
        tasks: Some(TaskSums {
            pending: tally.tasks.pending,
            successful: tally.tasks.successful,
            failed: tally.tasks.failed,
            cancelled: tally.tasks.cancelled,
        }),
        spent: Some(changes::to_spent(tally.spent.clone())),
        completed_at_ms: sums.completed_at,
        completions: sums.completions,
    }
}

/// Everything below one group of a namespace, as it was at one revision.
pub(crate) struct Tree {
    namespace: String,
    records: BTreeMap<GroupPath, GroupRecord>,
    sums: BTreeMap<String, Sums>,
}

impl Tree {
    /// Reads a group and all groups in it.
    pub(crate) async fn read(
        state: &dyn StateBackend,
        namespace: &str,
        path: &GroupPath,
        revision: Revision,
        now: Millis,
    ) -> Result<Self, Error> {
        let mut tree = Self { namespace: namespace.to_owned(), records: BTreeMap::new(), sums: BTreeMap::new() };
        let mut committed = Committed::at(revision);
        let (own, inside) = keys::groups_within(namespace, path.as_str());
        for entry in subtree(state, Keyspace::Groups, own, inside, revision).await? {
            let key = Key::new(Keyspace::Groups, entry.name);
            let Some((_, path)) = keys::group_of(&key.name) else { continue };
            let path = path.parse().map_err(|error| Error::Fatal(format!("{}: {error}", key.name)))?;
            let record: GroupRecord = codec::decode(&key, &entry.value)?;
            if committed.has(state, namespace, &record.update).await? {
                tree.records.insert(path, record);
            }
        }
        if path.is_root() {
            tree.records
                .entry(GroupPath::root())
                .or_insert_with(|| GroupRecord { id: ROOT_ID.to_owned(), ..GroupRecord::default() });
        }
        let (own, inside) = keys::group_sums_within(namespace, path.as_str());
        for entry in subtree(state, Keyspace::GroupCounts, own, inside, revision).await? {
            let key = Key::new(Keyspace::GroupCounts, entry.name);
            let Some((_, path)) = keys::group_sums_of(&key.name) else { continue };
            tree.sums.insert(path.to_owned(), to_sums(codec::decode(&key, &entry.value)?));
        }
        tree.add_what_waits(state, revision, &mut committed, now).await?;
        Ok(tree)
    }

    /// What the keeper has not added up yet.
    async fn add_what_waits(
        &mut self,
        state: &dyn StateBackend,
        at: Revision,
        committed: &mut Committed,
        now: Millis,
    ) -> Result<(), Error> {
        let prefix = keys::group_changes_of(&self.namespace);
        let mut waiting = all_below(state, Keyspace::GroupCounts, prefix, at).await?;
        waiting.sort_by_key(|entry| entry.mod_revision);
        for entry in waiting {
            let (change, update) = changes::decode(&entry.name, &entry.value)?;
            if !committed.has(state, &self.namespace, &update).await? {
                continue;
            }
            let Some((group, change)) = change else { continue };
            let Ok(group) = group.parse::<GroupPath>() else { continue };
            for around in change.concerns(&group) {
                if self.records.contains_key(&around.parse().unwrap_or_default()) {
                    // When exactly it was complete, the keeper will say.
                    self.sums.entry(around.to_owned()).or_default().add(&change, now);
                }
            }
        }
        Ok(())
    }

    /// The paths that were read: each behind the one that it is in.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &GroupPath> {
        self.records.keys()
    }

    /// Views of some of its groups.
    pub(crate) fn views(&self, paths: &[GroupPath], cancels: &GroupCancels, live: &LiveJobs) -> Vec<v1::GroupView> {
        let mut live_tasks: BTreeMap<&str, v1::Counts> =
            paths.iter().map(|path| (path.as_str(), v1::Counts::default())).collect();
        for job in live.jobs.values().filter(|job| job.namespace == self.namespace) {
            for around in job.group.outwards() {
                if let Some(tasks) = live_tasks.get_mut(around) {
                    add(tasks, &job.tasks);
                }
            }
        }
        paths
            .iter()
            .map(|path| self.view(path, cancels, live_tasks.remove(path.as_str()).unwrap_or_default()))
            .collect()
    }

    fn view(&self, path: &GroupPath, cancels: &GroupCancels, live: v1::Counts) -> v1::GroupView {
        let record = self.records.get(path).cloned().unwrap_or_default();
        let sums = self.sums.get(path.as_str()).cloned().unwrap_or_default();
        let strikes = cancels.strikes(path);
        let tally = &sums.tally;
        let mut tasks = live;
        add(&mut tasks, &finished(tally.tasks));
        v1::GroupView {
            namespace: self.namespace.clone(),
            path: path.as_str().to_owned(),
            id: record.id,
            spec: Some(record.spec.unwrap_or_default()),
            created_at_ms: record.created_at_ms,
            state: shown(tally, strikes.is_some()).into(),
            cancelled: cancels.of(path).map(|cancel| v1::GroupCancel {
                reason: cancel.reason.clone(),
                at_ms: cancel.at,
                by_failures: cancel.by_failures,
            }),
            cancelled_by: strikes.map(|(by, _)| by.to_owned()).unwrap_or_default(),
            is_cancelled: strikes.is_some(),
            jobs: Some(v1::JobCounts {
                live: tally.live(),
                successful: tally.successful,
                failed: tally.failed,
                cancelled: tally.cancelled,
            }),
            tasks: Some(tasks),
            spent: Some(changes::to_spent(tally.spent.clone())),
            completed_at_ms: sums.completed_at,
        }
    }
}

/// The state of a group that counts this.
pub(super) fn shown(tally: &Tally, is_cancelled: bool) -> v1::GroupState {
    match groups::shown(tally, is_cancelled) {
        groups::GroupState::Running => v1::GroupState::Running,
        groups::GroupState::Successful => v1::GroupState::Successful,
        groups::GroupState::Failed => v1::GroupState::Failed,
        groups::GroupState::Cancelled => v1::GroupState::Cancelled,
    }
}

fn finished(tasks: TaskTally) -> v1::Counts {
    let count = |tasks: u64| u32::try_from(tasks).unwrap_or(u32::MAX);
    v1::Counts {
        pending: count(tasks.pending),
        successful: count(tasks.successful),
        failed: count(tasks.failed),
        cancelled: count(tasks.cancelled),
        ..v1::Counts::default()
    }
}

fn add(counts: &mut v1::Counts, more: &v1::Counts) {
    for (number, more) in [
        (&mut counts.pending, more.pending),
        (&mut counts.assigned, more.assigned),
        (&mut counts.running, more.running),
        (&mut counts.successful, more.successful),
        (&mut counts.failed, more.failed),
        (&mut counts.cancelled, more.cancelled),
    ] {
        *number = number.saturating_add(more);
    }
}

/// What is called `own`, and what begins with `inside`.
async fn subtree(
    state: &dyn StateBackend,
    keyspace: Keyspace,
    own: String,
    inside: String,
    at: Revision,
) -> Result<Vec<Entry>, Error> {
    if own == inside {
        return all_below(state, keyspace, inside, at).await;
    }
    let page = state.scan(keyspace, Scan { prefix: own.clone(), limit: 1, at: Some(at), ..Scan::default() }).await?;
    // The first of all that begin like it is the name itself, if that is there.
    let mut entries: Vec<Entry> = page.entries.into_iter().filter(|entry| entry.name == own).collect();
    entries.extend(all_below(state, keyspace, inside, at).await?);
    Ok(entries)
}
