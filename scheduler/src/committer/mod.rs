//! Group commit: the transactions of many jobs in one, and what became of each.
//!
//! A group is all or nothing. If it is refused, what the store read along tells which job is to blame; the others go
//! again without it. If a group of jobs was cancelled that was not known of, those that it does not concern go again, knowing of it.
//! An unknown outcome is settled by sending the identical group again: either it lands, or the refusal's reading shows that the
//! first sending had.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use muster_state::{Entry, Error, Guard, Op, StateBackend, TXN_BYTES_MAX, TXN_OPS_MAX, Txn, TxnOutcome, keys};

use crate::engine::{CommitName, CommitResult, JobCommit, commit_id_of};
use crate::faults;
use crate::groups::cancels::{self, GroupCancels};
use crate::store_health::StoreHealth;

/// What a refused group reads of each job.
const READS_PER_JOB: usize = 3;
/// What all jobs compare, or those of one namespace: that is in a transaction once.
type Shared = Vec<Guard>;
/// Between two sendings while the store does not answer; doubles.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// And at most.
const RETRY_MOST: Duration = Duration::from_secs(1);

/// Takes as many jobs' transactions as fit into one.
pub(crate) fn take_group(waiting: &mut VecDeque<JobCommit>) -> Vec<JobCommit> {
    let mut group = Vec::new();
    let mut shared = Shared::new();
    let (mut guards, mut ops, mut bytes) = (0, 0, 0);
    while let Some(next) = waiting.front() {
        share(&mut shared, next);
        guards += next.guards.len();
        ops += next.ops.len();
        bytes += bytes_of(next);
        let reads = (group.len() + 1) * READS_PER_JOB + shared.len();
        let guards = guards + shared.len();
        let fits = guards <= TXN_OPS_MAX && ops <= TXN_OPS_MAX && reads <= TXN_OPS_MAX && bytes <= TXN_BYTES_MAX;
        if !fits && !group.is_empty() {
            break;
        }
        group.extend(waiting.pop_front());
    }
    group
}

fn bytes_of(commit: &JobCommit) -> usize {
    /// For the key and the framing of an operation or a comparison.
    const OVERHEAD: usize = 128;
    let values: usize = commit
        .ops
        .iter()
        .map(|op| match op {
            Op::Put { value, .. } => value.len(),
            Op::Delete(_) | Op::DeleteRange { .. } => 0,
        })
        .sum();
    values + (commit.ops.len() + commit.guards.len()) * OVERHEAD
}

/// Sends a group until the outcome of each of its jobs is known.
pub(crate) async fn commit(
    state: &dyn StateBackend,
    health: &StoreHealth,
    mut group: Vec<JobCommit>,
) -> Vec<(CommitName, CommitResult)> {
    let mut results = Vec::with_capacity(group.len());
    let mut pause = RETRY_FIRST;
    while !group.is_empty() {
        faults::hold_at("hold-commit").await;
        let seen = health.seen();
        let outcome = state.put_txn(transaction(&group)).await;
        if let Ok(TxnOutcome::Committed(revision) | TxnOutcome::Refused { revision, .. }) = &outcome {
            health.answered(seen, *revision);
        }
        match outcome {
            Ok(TxnOutcome::Committed(revision)) => {
                results.extend(group.drain(..).map(|commit| (commit.name, CommitResult::Committed(revision))));
            }
            Ok(TxnOutcome::Refused { mut read, .. }) => {
                let moved = moved(&group, &read.split_off(group.len() * READS_PER_JOB));
                let epoch_moved = group.iter().any(|commit| moved.contains(&epoch_guard(commit)));
                let before = group.len();
                let (mut innocent, mut unaware) = (Vec::new(), Vec::new());
                for (commit, read) in std::mem::take(&mut group).into_iter().zip(read.chunks(READS_PER_JOB)) {
                    match judge(&commit, read) {
                        Some(landed @ CommitResult::Committed(_)) => results.push((commit.name, landed)),
                        _ if epoch_moved => results.push((commit.name, CommitResult::EpochMoved)),
                        Some(result) => results.push((commit.name, result)),
                        None if moved.contains(&cancels_guard(&commit)) => unaware.push(commit),
                        None => innocent.push(commit),
                    }
                }
                if epoch_moved {
                    health.look.notify_one();
                }
                if !unaware.is_empty() {
                    innocent.extend(learn(state, unaware, &mut results).await);
                    group = innocent;
                } else if innocent.len() == before {
                    // None of the keys that were read is to blame: some other guard is. Find out whose.
                    if before == 1 {
                        let commit = innocent.remove(0);
                        let why = "a guard other than owner and predecessor does not hold".to_owned();
                        results.push((commit.name, CommitResult::Conflict(why)));
                    } else {
                        for commit in innocent {
                            results.extend(Box::pin(self::commit(state, health, vec![commit])).await);
                        }
                        return results;
                    }
                } else {
                    group = innocent;
                }
            }
            Err(error @ (Error::TooLarge { .. } | Error::Fatal(_) | Error::Record { .. })) => {
                if group.len() == 1 {
                    results.push((group.remove(0).name, CommitResult::Failed(error.to_string())));
                } else {
                    for commit in group {
                        results.extend(Box::pin(self::commit(state, health, vec![commit])).await);
                    }
                    return results;
                }
            }
            Err(error) => {
                if let Error::NoSpace(why) = &error {
                    health.set_full(Some(why.clone()));
                }
                tracing::warn!(%error, jobs = group.len(), "commit will be sent again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MOST);
            }
        }
    }
    results
}

/// Sends a group that was sent before once more, much later, as a network may: whatever guards it lets nothing of it in.
/// For tests alone.
pub(crate) async fn repeat(state: &dyn StateBackend, group: &[JobCommit]) {
    faults::hold_at("hold-repeated-commit").await;
    match state.put_txn(transaction(group)).await {
        Ok(TxnOutcome::Committed(revision)) => tracing::error!(revision, "a repeated commit was let in"),
        other => tracing::info!(?other, "a repeated commit was not let in"),
    }
}

fn epoch_guard(commit: &JobCommit) -> Guard {
    Guard::AtRevision(keys::epoch(), commit.epoch)
}

fn cancels_guard(commit: &JobCommit) -> Guard {
    cancels::guard_as_of(&commit.group.namespace, commit.group.as_of)
}

/// Adds what a commit compares and others do too.
fn share(shared: &mut Shared, commit: &JobCommit) {
    for guard in [epoch_guard(commit), cancels_guard(commit)] {
        if faults::is_set("break-group-cancel-compare") && guard == cancels_guard(commit) {
            continue;
        }
        if !shared.contains(&guard) {
            shared.push(guard);
        }
    }
}

fn shared_of(group: &[JobCommit]) -> Shared {
    let mut shared = Shared::new();
    group.iter().for_each(|commit| share(&mut shared, commit));
    shared
}

/// Those of a refused group's shared guards that do not hold, by what was read of their keys.
fn moved(group: &[JobCommit], read: &[Option<Entry>]) -> Shared {
    let holds = |guard: &Guard, entry: &Option<Entry>| {
        let revision = entry.as_ref().map(|entry| entry.mod_revision);
        match guard {
            Guard::AtRevision(_, expected) => revision == Some(*expected),
            _ => revision.is_none(),
        }
    };
    shared_of(group)
        .into_iter()
        .zip(read)
        .filter(|(guard, entry)| !holds(guard, entry))
        .map(|(guard, _)| guard)
        .collect()
}

/// Reads which groups are cancelled. Answers the commits of jobs in others, which may go again; the others are refused.
async fn learn(
    state: &dyn StateBackend,
    unaware: Vec<JobCommit>,
    results: &mut Vec<(CommitName, CommitResult)>,
) -> Vec<JobCommit> {
    let mut known: BTreeMap<Arc<str>, Arc<GroupCancels>> = BTreeMap::new();
    let mut free = Vec::new();
    for mut commit in unaware {
        let group = &mut commit.group;
        if !known.contains_key(&group.namespace) {
            match cancels::read(state, &group.namespace).await {
                Ok(read) => drop(known.insert(Arc::clone(&group.namespace), Arc::new(read))),
                Err(error) if !error.is_retryable() => {
                    results.push((commit.name, CommitResult::Failed(error.to_string())));
                    continue;
                }
                Err(error) => {
                    // It goes again as it is, and learns then.
                    tracing::info!(%error, "the cancelled groups could not be read; again");
                    tokio::time::sleep(RETRY_FIRST).await;
                    free.push(commit);
                    continue;
                }
            }
        }
        let cancels = &known[&group.namespace];
        if group.is_cancelled || cancels.strikes(&group.path).is_none() {
            group.as_of = cancels.as_of();
            free.push(commit);
        } else {
            let result = CommitResult::GroupCancelled(Arc::clone(&group.namespace), Arc::clone(cancels));
            results.push((commit.name, result));
        }
    }
    free
}

fn transaction(group: &[JobCommit]) -> Txn {
    let mut txn = Txn { guards: shared_of(group), ..Txn::default() };
    for commit in group {
        txn.guards.extend(commit.guards.iter().cloned());
        txn.ops.extend(commit.ops.iter().cloned());
        let landed = &commit.landed;
        txn.read_on_failure.extend([landed.key.clone(), landed.owner.clone(), landed.predecessor.0.clone()]);
    }
    txn.read_on_failure.extend(shared_of(group).iter().filter_map(|guard| match guard {
        Guard::AtRevision(key, _) | Guard::Absent(key) => Some(key.clone()),
        _ => None,
    }));
    txn
}

/// What the keys that were read say about a job of a refused group. `None`: it is not to blame.
fn judge(commit: &JobCommit, read: &[Option<Entry>]) -> Option<CommitResult> {
    let landed = &commit.landed;
    let [newest, owner, predecessor] = read else { return None };
    if let Some(newest) = newest
        && commit_id_of(&newest.value, landed.is_head, &landed.key).as_deref() == Some(landed.commit_id.as_str())
    {
        return Some(CommitResult::Committed(newest.mod_revision));
    }
    if owner.as_ref().map(|entry| entry.mod_revision) != Some(landed.token) {
        return Some(CommitResult::OwnerMoved);
    }
    let (key, revision) = &landed.predecessor;
    if predecessor.as_ref().map(|entry| entry.mod_revision) != Some(*revision) {
        return Some(CommitResult::Conflict(format!("{} is not at revision {revision}", key.name)));
    }
    None
}

#[cfg(test)]
mod tests;
