//! Groups whose outcome is unknown, late, or refused for one of their jobs.

use std::sync::Arc;
use std::time::Duration;

use muster_graph::groups::GroupPath;
use muster_graph::ids::JobId;
use muster_proto::storage;
use muster_state::codec::{self, Commit, Epoch};
use muster_state::faults::{Fault, Faulty, Operation};
use muster_state::{Guard, Key, Keyspace, Memory, Op, Revision, StateBackend, keys};

use super::{commit, take_group};
use crate::engine::{CommitName, CommitResult, GroupOfJob, JobCommit, Landed};
use crate::store_health::StoreHealth;

/// A store with some owned jobs of which nothing is written but their heads.
struct Stage {
    store: Faulty,
    epoch: Revision,
    jobs: Vec<(JobId, Revision, Revision)>,
}

impl Stage {
    async fn with_jobs(count: u64) -> Self {
        let store = Faulty::new(Arc::new(Memory::new()));
        let epoch = store.put(keys::epoch(), codec::encode(&Epoch(1)).unwrap()).await.unwrap();
        let mut jobs = Vec::new();
        for id in (1..=count).map(JobId) {
            let owner = codec::encode(&storage::OwnerRecord::default()).unwrap();
            let token = store.put(keys::owner(id), owner).await.unwrap();
            let head = codec::encode(&storage::JobHead::default()).unwrap();
            let head = store.put(keys::active_job(id), head).await.unwrap();
            jobs.push((id, token, head));
        }
        Self { store, epoch, jobs }
    }

    /// The transaction that writes a job's first delta.
    fn first(&self, at: usize) -> JobCommit {
        let (id, token, head) = self.jobs[at];
        let commit_id = format!("commit of {id}");
        let delta = keys::delta(id, 1);
        let value = codec::encode(&Commit { id: commit_id.clone(), token, ..Commit::default() }).unwrap();
        JobCommit {
            name: CommitName { job: id, number: at as u64 },
            epoch: self.epoch,
            group: GroupOfJob { namespace: "default".into(), path: GroupPath::root(), as_of: 0, is_cancelled: false },
            guards: vec![
                Guard::AtRevision(keys::owner(id), token),
                Guard::AtRevision(keys::active_job(id), head),
                Guard::Absent(delta.clone()),
            ],
            ops: vec![Op::Put { key: delta.clone(), value, session: None }],
            landed: Landed {
                key: delta,
                commit_id,
                is_head: false,
                owner: keys::owner(id),
                token,
                predecessor: (keys::active_job(id), head),
            },
        }
    }

    fn all(&self) -> Vec<JobCommit> {
        (0..self.jobs.len()).map(|at| self.first(at)).collect()
    }

    async fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.store.get(key).await.unwrap().map(|entry| entry.mod_revision)
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_whether_or_not_it_had_landed() {
    let later = Fault::UnknownDoneLater(Duration::from_millis(30));
    for fault in [Fault::UnknownDone, Fault::UnknownNotDone, later] {
        let stage = Stage::with_jobs(3).await;
        let injected = stage.store.inject(Keyspace::JobDeltas, Operation::Write, fault, 1);
        let results = commit(&stage.store, &StoreHealth::new("s1", 1), stage.all()).await;
        assert_eq!(injected.fired(), 1);
        assert_eq!(results.len(), 3);
        for (name, result) in results {
            let stored = stage.revision_of(&keys::delta(name.job, 1)).await;
            let CommitResult::Committed(revision) = result else { panic!("{fault:?}: {result:?}") };
            assert_eq!(stored, Some(revision), "{fault:?}: the next write would name a wrong predecessor");
        }
        // A delayed duplicate changes nothing, and its sender learns what the first one did.
        let before = stage.store.revision().await.unwrap();
        let again = commit(&stage.store, &StoreHealth::new("s1", 1), stage.all()).await;
        assert!(again.iter().all(|(_, result)| matches!(result, CommitResult::Committed(at) if *at <= before)));
    }
}

#[tokio::test]
async fn one_jobs_failed_guard_keeps_no_other_from_being_committed() {
    let stage = Stage::with_jobs(4).await;
    let (moved, conflicting, other) = (stage.jobs[0].0, stage.jobs[1].0, stage.jobs[2].0);
    let group = stage.all();
    let owner = codec::encode(&storage::OwnerRecord::default()).unwrap();
    stage.store.put(keys::owner(moved), owner).await.unwrap();
    let head = codec::encode(&storage::JobHead::default()).unwrap();
    stage.store.put(keys::active_job(conflicting), head).await.unwrap();
    // Neither owner nor predecessor: something that is overwritten was there before.
    let stray = codec::encode(&Commit { id: "somebody else's".to_owned(), ..Commit::default() }).unwrap();
    stage.store.put(keys::delta(other, 1), stray).await.unwrap();
    let results = commit(&stage.store, &StoreHealth::new("s1", 1), group).await;
    let of = |id: JobId| &results.iter().find(|(name, _)| name.job == id).expect("each has a result").1;
    assert_eq!(results.len(), 4);
    assert!(matches!(of(moved), CommitResult::OwnerMoved), "{:?}", of(moved));
    assert!(matches!(of(conflicting), CommitResult::Conflict(_)), "{:?}", of(conflicting));
    assert!(matches!(of(other), CommitResult::Conflict(_)), "{:?}", of(other));
    assert!(matches!(of(stage.jobs[3].0), CommitResult::Committed(_)));
    assert_eq!(stage.revision_of(&keys::delta(moved, 1)).await, None);
}

#[tokio::test]
async fn a_commit_that_landed_counts_even_if_the_owner_has_moved_since() {
    let stage = Stage::with_jobs(1).await;
    let id = stage.jobs[0].0;
    let group = stage.all();
    let first = commit(&stage.store, &StoreHealth::new("s1", 1), group.clone()).await;
    let owner = codec::encode(&storage::OwnerRecord::default()).unwrap();
    stage.store.put(keys::owner(id), owner).await.unwrap();
    // The answer was lost; the sender asks by sending again.
    let results = commit(&stage.store, &StoreHealth::new("s1", 1), group).await;
    let [(_, CommitResult::Committed(landed))] = first[..] else { panic!("{first:?}") };
    assert!(matches!(results[0].1, CommitResult::Committed(at) if at == landed), "{results:?}");
}

#[tokio::test]
async fn a_moved_epoch_is_nobodys_fault_and_what_had_landed_before_stays() {
    let stage = Stage::with_jobs(3).await;
    let health = StoreHealth::new("s1", 1);
    commit(&stage.store, &health, vec![stage.first(1)]).await;
    // As entering the safe mode does: the same epoch, under another revision.
    stage.store.put(keys::epoch(), codec::encode(&Epoch(1)).unwrap()).await.unwrap();
    let results = commit(&stage.store, &health, stage.all()).await;
    let landed: Vec<bool> = results.iter().map(|(_, result)| matches!(result, CommitResult::Committed(_))).collect();
    assert_eq!(landed, [false, true, false], "{results:?}");
    assert_eq!(results.iter().filter(|(_, result)| matches!(result, CommitResult::EpochMoved)).count(), 2);
    assert_eq!(stage.revision_of(&keys::delta(stage.jobs[0].0, 1)).await, None);
}

#[tokio::test]
async fn an_answer_from_before_what_was_seen_puts_the_store_in_doubt() {
    let stage = Stage::with_jobs(1).await;
    let health = StoreHealth::new("s1", 1);
    let now = stage.store.revision().await.unwrap();
    health.answered(health.seen(), now + 100);
    commit(&stage.store, &health, stage.all()).await;
    assert!(health.why_doubted().is_some_and(|why| why.contains(&format!("revision {} < {}", now + 1, now + 100))));
}

#[tokio::test]
async fn what_the_store_refuses_for_good_fails_alone() {
    let stage = Stage::with_jobs(2).await;
    let mut group = stage.all();
    let twice = group[0].ops[0].clone();
    group[0].ops.push(twice);
    let results = commit(&stage.store, &StoreHealth::new("s1", 1), group).await;
    let failed: Vec<_> = results.iter().filter(|(_, result)| matches!(result, CommitResult::Failed(_))).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0.job, stage.jobs[0].0);
    assert!(stage.revision_of(&keys::delta(stage.jobs[1].0, 1)).await.is_some());
}

#[tokio::test]
async fn groups_keep_the_limits_and_their_order() {
    let stage = Stage::with_jobs(100).await;
    let mut waiting: std::collections::VecDeque<JobCommit> = stage.all().into();
    let mut seen = Vec::new();
    while !waiting.is_empty() {
        let group = take_group(&mut waiting);
        assert!(!group.is_empty());
        // The epoch, and the cancels of the namespace's groups, are compared once.
        let guards = 2 + group.iter().map(|commit| commit.guards.len()).sum::<usize>();
        assert!(guards <= muster_state::TXN_OPS_MAX && group.len() * 3 + 2 <= muster_state::TXN_OPS_MAX, "{guards}");
        seen.extend(group.iter().map(|commit| commit.name.job));
        let results = commit(&stage.store, &StoreHealth::new("s1", 1), group).await;
        assert!(results.iter().all(|(_, result)| matches!(result, CommitResult::Committed(_))), "{results:?}");
    }
    assert_eq!(seen, stage.jobs.iter().map(|(id, ..)| *id).collect::<Vec<_>>());
}
