//! The rules of updates, each on a store in memory.

use std::sync::Arc;

use muster_graph::groups::GroupPath;
use muster_graph::ids::JobId;
use muster_state::Memory;
use tonic::Code;

use super::*;
use crate::engine::Input;
use crate::engine::tests::{Bench, spec};
use crate::fairness::Rules;
use crate::groups;
use crate::groups::views::Tree;
use crate::load;

/// A scheduler whose engine only answers.
async fn scheduler() -> (Arc<dyn StateBackend>, Arc<Shared>) {
    let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let mut bench = Bench::over(Arc::clone(&state), "engine").await;
    let (shared, mut inputs) = Shared::without_engine(&state).await;
    tokio::spawn(async move {
        while let Some(input) = inputs.recv().await {
            match input {
                Input::Read(look) => look(&mut bench.engine),
                input @ Input::GroupsCancelled { .. } => {
                    bench.engine.handle(input, 1);
                }
                _ => {}
            }
        }
    });
    (state, shared)
}

fn job(name: &str, group: &str) -> v1::JobSpec {
    let mut job = spec(&[("work", 2, &[])]);
    (job.name, job.group, job.namespace) = (name.to_owned(), group.to_owned(), "default".to_owned());
    (&job).into()
}

fn group(path: &str) -> v1::StagedGroup {
    v1::StagedGroup { path: path.to_owned(), spec: None }
}

async fn stage(
    shared: &Arc<Shared>,
    token: &str,
    bunch: u64,
    groups: &[&str],
    jobs: &[(&str, &str)],
) -> Result<v1::StageUpdateResponse, Status> {
    let request = v1::StageUpdateRequest {
        token: token.to_owned(),
        bunch,
        groups: groups.iter().map(|path| group(path)).collect(),
        jobs: jobs.iter().map(|(name, group)| job(name, group)).collect(),
        ..v1::StageUpdateRequest::default()
    };
    super::stage::stage(shared, "default", request).await
}

async fn commit(shared: &Shared, token: &str, groups: u64, jobs: u64) -> Result<Update, Status> {
    let request = v1::CommitUpdateRequest { token: token.to_owned(), groups, jobs, ..Default::default() };
    super::commit::commit(shared, "default", request).await
}

/// The groups that are shown, with the jobs that ever got into them.
async fn shown(state: &dyn StateBackend) -> Vec<(String, u64)> {
    let revision = state.revision().await.unwrap();
    let tree = Tree::read(state, "default", &GroupPath::root(), revision, 1).await.unwrap();
    let paths: Vec<GroupPath> = tree.paths().cloned().collect();
    let views = tree.views(&paths, &groups::cancels::GroupCancels::default(), &groups::live::LiveJobs::default());
    views.into_iter().map(|view| (view.path, view.jobs.map_or(0, |jobs| jobs.live))).collect()
}

fn refused<T>(result: Result<T, Status>, code: Code, said: &str) {
    match result {
        Ok(_) => panic!("it is accepted, and {said} was expected"),
        Err(status) => assert!(status.code() == code && status.message().contains(said), "{status:?}"),
    }
}

#[tokio::test]
async fn uncommitted_groups_and_jobs_are_absent_and_the_commit_reveals_all() {
    let (state, shared) = scheduler().await;
    open(&shared, "default", "t").await.unwrap();
    // In any order: first the job, then its group.
    let first = stage(&shared, "t", 7, &[], &[("one", "a/b"), ("two", "")]).await.unwrap();
    stage(&shared, "t", 1, &["a/b", "a"], &[]).await.unwrap();
    let ids: Vec<JobId> = first.job_ids.iter().map(|id| id.parse().unwrap()).collect();
    assert_eq!(shown(&*state).await, [(String::new(), 0)]);
    for id in &ids {
        assert!(load::head(&*state, *id).await.unwrap().is_none(), "to get");
    }
    refused(groups::find(&*state, "default", "a/b").await, Code::NotFound, "there is no group");
    let cancel = groups::cancels::mark(&shared, "default", &"a".parse().unwrap(), String::new()).await;
    refused(cancel, Code::NotFound, "there is no group");
    assert!(waiting_parts(&*state, None).await.unwrap().is_empty(), "to list");

    commit(&shared, "t", 2, 2).await.unwrap();
    let names = |jobs: [u64; 3]| ["", "a", "a/b"].map(str::to_owned).into_iter().zip(jobs).collect::<Vec<_>>();
    assert_eq!(shown(&*state).await, names([2, 1, 1]));
    for id in &ids {
        let head = load::head(&*state, *id).await.unwrap().expect("it exists").head;
        assert_eq!(head.state, i32::from(v1::JobState::Queued));
    }
    // Whoever asks for one takes its part up.
    let stored = load::head(&*state, ids[0]).await.unwrap().unwrap();
    take_up::with(&shared, &stored).await.unwrap();
    let stored = load::head(&*state, ids[0]).await.unwrap().unwrap();
    assert_eq!(stored.keyspace, Keyspace::ActiveJobs);
    assert_eq!(stored.owner.unwrap().0.session_id, shared.presence().identity.session.0);
    assert_eq!(shown(&*state).await, names([2, 1, 1]), "each job is counted once");
}

#[tokio::test]
async fn the_same_content_changes_nothing_and_other_content_is_refused() {
    let (state, shared) = scheduler().await;
    open(&shared, "default", "t").await.unwrap();
    let opened = open(&shared, "default", "t").await.unwrap();
    let many: Vec<String> = (0..100).map(|number| format!("job-{number}")).collect();
    let jobs: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
    let once = stage(&shared, "t", 0, &["a"], &jobs).await.unwrap();
    let revision = state.revision().await.unwrap();
    let again = stage(&shared, "t", 0, &["a"], &jobs).await.unwrap();
    assert_eq!((once.existed, again.existed, &again.job_ids), (false, true, &once.job_ids));
    assert_eq!(state.revision().await.unwrap(), revision, "nothing is written");
    for other in [&jobs[..99], &jobs[1..], &[&jobs[..], &jobs[..1]].concat()] {
        refused(stage(&shared, "t", 0, &["a"], other).await, Code::AlreadyExists, "other content");
    }
    refused(commit(&shared, "t", 1, 99).await, Code::FailedPrecondition, "99 jobs are declared");
    refused(commit(&shared, "t", 0, 100).await, Code::FailedPrecondition, "0 groups");
    commit(&shared, "t", 1, 100).await.unwrap();
    // Afterwards too.
    assert!(stage(&shared, "t", 0, &["a"], &jobs).await.unwrap().existed);
    refused(stage(&shared, "t", 1, &[], &jobs[..1]).await, Code::FailedPrecondition, "is committed");
    commit(&shared, "t", 1, 100).await.unwrap();
    refused(commit(&shared, "t", 1, 101).await, Code::FailedPrecondition, "101 jobs are declared");
    refused(abandon(&shared, "default", "t").await, Code::FailedPrecondition, "is committed");
    assert_eq!(opened.record.state(), v1::UpdateState::Open);
}

#[tokio::test]
async fn one_wrong_item_refuses_the_whole_bunch() {
    let (state, shared) = scheduler().await;
    open(&shared, "default", "t").await.unwrap();
    let before = state.revision().await.unwrap();
    let deep = stage(&shared, "t", 0, &["a", "a/b/c/d/e/f"], &[("good", "")]).await;
    refused(deep, Code::InvalidArgument, "groups[1].");
    let mut bad = job("bad", "");
    bad.stages.push(bad.stages[0].clone());
    let request =
        v1::StageUpdateRequest { token: "t".to_owned(), jobs: vec![job("good", ""), bad], ..Default::default() };
    refused(super::stage::stage(&shared, "default", request).await, Code::InvalidArgument, "jobs[1].");
    refused(stage(&shared, "t", 0, &[], &[]).await, Code::InvalidArgument, "BUNCH_MAX");
    refused(stage(&shared, "none", 0, &["a"], &[]).await, Code::NotFound, "no update none");
    refused(open(&shared, "default", "a/b").await, Code::InvalidArgument, "token");
    assert_eq!(state.revision().await.unwrap(), before);
}

#[tokio::test]
async fn a_parent_must_exist_and_may_be_of_an_earlier_update() {
    let (state, shared) = scheduler().await;
    for token in ["first", "second", "third"] {
        open(&shared, "default", token).await.unwrap();
    }
    // Open at once, and committed in another order.
    stage(&shared, "first", 0, &["a"], &[("one", "a")]).await.unwrap();
    stage(&shared, "second", 0, &["a/b"], &[("two", "a")]).await.unwrap();
    stage(&shared, "third", 0, &[], &[("three", "a/x")]).await.unwrap();
    refused(commit(&shared, "second", 1, 1).await, Code::FailedPrecondition, "there is no group a ");
    refused(stage(&shared, "third", 1, &["a"], &[]).await, Code::FailedPrecondition, "being made by update first");
    commit(&shared, "first", 1, 1).await.unwrap();
    commit(&shared, "second", 1, 1).await.unwrap();
    refused(commit(&shared, "third", 0, 1).await, Code::FailedPrecondition, "there is no group a/x");
    // One that is there already is no mistake.
    stage(&shared, "third", 2, &["a", "a/x"], &[]).await.unwrap();
    commit(&shared, "third", 2, 1).await.unwrap();
    let expected = [("", 3), ("a", 3), ("a/b", 0), ("a/x", 1)].map(|(path, jobs)| (path.to_owned(), jobs));
    assert_eq!(shown(&*state).await, expected);
}

#[tokio::test]
async fn nothing_gets_into_a_cancelled_subtree_and_a_cancelled_root_refuses_the_commit() {
    let (state, shared) = scheduler().await;
    for token in ["before", "staged", "after"] {
        open(&shared, "default", token).await.unwrap();
    }
    stage(&shared, "before", 0, &["a"], &[]).await.unwrap();
    commit(&shared, "before", 1, 0).await.unwrap();
    stage(&shared, "staged", 0, &["a/b"], &[("one", "a/b")]).await.unwrap();
    let cancel = async |path: &str| {
        groups::cancels::mark(&shared, "default", &path.parse().unwrap(), "enough".to_owned()).await.unwrap();
        groups::cancels::refresh(&shared, "default").await.unwrap();
    };
    cancel("a").await;
    refused(stage(&shared, "after", 0, &["a/c"], &[]).await, Code::FailedPrecondition, "cancelled");
    refused(stage(&shared, "after", 0, &[], &[("two", "a")]).await, Code::FailedPrecondition, "cancelled");
    // Staged before the cancel: it comes into being, and its owner ends it.
    commit(&shared, "staged", 1, 1).await.unwrap();
    let waiting = waiting_parts(&*state, None).await.unwrap();
    assert_eq!(waiting.iter().map(|(_, part)| part.jobs.len()).sum::<usize>(), 1);
    stage(&shared, "after", 0, &["z"], &[]).await.unwrap();
    cancel("").await;
    refused(commit(&shared, "after", 1, 0).await, Code::FailedPrecondition, "cancelled");
}

#[tokio::test]
async fn an_update_that_is_not_committed_expires_and_leaves_nothing() {
    let (state, shared) = scheduler().await;
    let open = open(&shared, "default", "t").await.unwrap();
    let blank = async || {
        let mut left = Vec::new();
        for keyspace in [Keyspace::Updates, Keyspace::StagedJobs, Keyspace::Groups, Keyspace::GroupCounts] {
            left.extend(state.get_from_prefix(keyspace, "").await.unwrap().entries.into_iter().map(|entry| entry.name));
        }
        left
    };
    stage(&shared, "t", 0, &["a", "a/b"], &[("one", "a/b"), ("two", "")]).await.unwrap();
    let held = Guard::Present(keys::epoch());
    clean_up::clean_up(&*state, &held, open.record.expires_at_ms - 1).await.unwrap();
    assert!(blank().await.len() > 6, "its time has not come");
    let late = open.record.expires_at_ms;
    clean_up::clean_up(&*state, &held, late).await.unwrap();
    refused(commit(&shared, "t", 2, 2).await, Code::FailedPrecondition, "is abandoned");
    clean_up::clean_up(&*state, &held, late).await.unwrap();
    assert_eq!(blank().await, [""; 0]);
}

#[tokio::test]
async fn nothing_is_staged_beyond_the_stores_room_or_committed_beyond_the_namespaces_quota() {
    let (state, shared) = scheduler().await;
    open(&shared, "default", "t").await.unwrap();
    shared.health.set_filled(Some((60, 100)));
    let before = state.revision().await.unwrap();
    refused(stage(&shared, "t", 0, &["a"], &[("one", "a")]).await, Code::ResourceExhausted, "60 of the 100 bytes");
    assert_eq!(state.revision().await.unwrap(), before, "nothing is written");
    shared.health.set_filled(Some((59, 100)));
    stage(&shared, "t", 0, &["a"], &[("one", "a"), ("two", "a")]).await.unwrap();
    let set = async |most| {
        let rules = Rules::of(&v1::NamespaceRules { max_jobs: Some(most), ..Default::default() });
        let rules = Input::Rules([("default".to_owned(), rules)].into());
        shared.engine.read(move |engine| engine.handle(rules, 1)).await.unwrap();
    };
    set(1).await;
    refused(commit(&shared, "t", 1, 2).await, Code::FailedPrecondition, "max_jobs");
    assert_eq!(shown(&*state).await, [(String::new(), 0)], "none of it");
    set(2).await;
    commit(&shared, "t", 1, 2).await.unwrap();
}
