//! What may leave, and when: nothing before its commit.

use muster_graph::execution::FailureClass;
use muster_graph::ids::TaskId;
use muster_proto::v1;
use muster_state::Op;
use tokio::sync::oneshot;

use super::*;
use crate::engine::CommitResult;

#[tokio::test]
async fn nothing_is_launched_before_its_assignment_is_committed() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 3, &[])])).await;
    assert_eq!(bench.launches(), [], "assigned, not committed");
    assert_eq!(bench.commits.len(), 1);
    bench.commit_all().await;
    let job = id.to_string();
    assert_eq!(bench.launches(), [(job.clone(), 0, 0, 1), (job, 0, 1, 1)], "two cores, two tasks");
}

#[tokio::test]
async fn a_status_is_acknowledged_when_it_is_committed_and_its_share_is_free_again() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    bench.launches();
    let mut answer = bench.finish(&key("e", 1), &[ended(7, (id, 0, 0, 1), v1::Outcome::Succeeded)]);
    assert!(answer.try_recv().is_err(), "acknowledged before the commit");
    assert_eq!(bench.launches(), []);
    bench.commit_all().await;
    assert_eq!(answer.try_recv().unwrap().settled, [7]);
    assert_eq!(bench.launches(), [(id.to_string(), 0, 1, 1)], "in the same commit");
}

#[tokio::test]
async fn how_an_attempt_failed_is_known_before_it_is_in_the_log() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    // The first commit is in flight while the second failure waits for it.
    drop(bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Failed)]));
    drop(bench.finish(&key("e", 1), &[ended(2, (id, 0, 1, 1), v1::Outcome::Failed)]));
    let unwritten = |bench: &Bench, index| {
        bench.engine.job(id).and_then(|job| job.unwritten_failure(TaskId::new(0, index), 1)).map(|note| note.class)
    };
    assert_eq!([0, 1].map(|index| unwritten(&bench, index)), [Some(FailureClass::Failed); 2]);
    bench.commit_all().await;
    assert_eq!([0, 1].map(|index| unwritten(&bench, index)), [None; 2]);
}

#[tokio::test]
async fn a_superseded_owner_that_has_not_heard_of_it_acknowledges_nothing_of_its_successors_attempts() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    bench.launches();
    // What had no effect while it was the owner will never have one.
    drop(bench.finish(&key("e", 1), &[ended(7, (id, 0, 0, 1), v1::Outcome::Failed)]));
    bench.commit_all().await;
    let mut late = bench.finish(&key("e", 1), &[ended(7, (id, 0, 0, 1), v1::Outcome::Failed)]);
    assert_eq!(late.try_recv().unwrap().settled, [7]);
    // A peer has taken the job over and given the next attempt, and only the executor has heard of it.
    let next = ended(8, (id, 0, 0, 9), v1::Outcome::Succeeded);
    let mut answer = bench.finish(&key("e", 1), std::slice::from_ref(&next));
    let answer = answer.try_recv().unwrap();
    assert_eq!((answer.settled, answer.elsewhere), (vec![], [(id, vec![next])].into()));
    assert!(bench.engine.job(id).is_none(), "it is read again, if it is ours");
    assert!(bench.outputs.iter().any(|output| matches!(output, Output::Reload { job, .. } if *job == id)));
}

#[tokio::test]
async fn a_job_has_one_transaction_in_flight() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 4);
    let id = bench.submit(1, spec(&[("a", 4, &[])])).await;
    bench.commit_all().await;
    for index in 0..4 {
        drop(bench.finish(&key("e", 1), &[ended(u64::from(index) + 1, (id, 0, index, 1), v1::Outcome::Succeeded)]));
    }
    assert_eq!(bench.commits.len(), 1, "the other three wait for the first");
    let results = bench.commit_one().await;
    bench.input(Input::Commits(results));
    assert_eq!(bench.commits.len(), 1, "and go together");
    bench.commit_all().await;
    assert!(bench.engine.job(id).is_none(), "it is over");
    assert!(bench.store.get(&keys::completed_job(id)).await.unwrap().is_some());
    assert!(bench.store.get(&keys::owner(id)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_job_whose_owner_moved_is_dropped_and_nothing_of_it_leaves() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    let other = codec::encode(&storage::OwnerRecord { session_id: "two".to_owned(), ..Default::default() }).unwrap();
    bench.elsewhere(Op::Put { key: keys::owner(id), value: other, session: None }).await;
    let (reply, mut answer) = oneshot::channel();
    bench.input(Input::Cancel { job: id, reason: String::new(), reply });
    bench.commit_all().await;
    assert!(bench.engine.job(id).is_none());
    assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "the caller asks elsewhere");
    assert_eq!(bench.launches(), []);
    let executor = bench.engine.executor("e").unwrap();
    assert_eq!((executor.free().cpu_milli, executor.unanswered), (2000, 0), "what was booked for it is free");
}

#[tokio::test]
async fn after_a_conflict_the_job_is_read_again_and_its_window_comes_back() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    let head = bench.store.get(&keys::active_job(id)).await.unwrap().unwrap();
    bench.elsewhere(Op::Put { key: keys::active_job(id), value: head.value, session: None }).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), []);
    let reloads = bench.outputs.iter().filter(|output| matches!(output, Output::Reload { job, .. } if *job == id));
    assert_eq!(reloads.count(), 1);
    assert_eq!(bench.engine.executor("e").unwrap().unanswered, 0);
    bench.load(id).await;
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), 2);
}

#[tokio::test]
async fn a_result_of_a_dropped_copys_commit_is_not_taken_for_the_new_ones() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    // The transaction lands, its result is on its way, and meanwhile the job is claimed anew and read.
    let late = bench.commit_one().await;
    assert!(matches!(late[0].1, CommitResult::Committed(_)));
    bench.own(id).await;
    bench.load(id).await;
    assert_eq!(bench.launches(), []);
    let (reply, mut answer) = oneshot::channel();
    bench.input(Input::Cancel { job: id, reason: String::new(), reply });
    assert_eq!(bench.commits.len(), 1);
    bench.input(Input::Commits(late));
    assert_eq!(bench.launches(), [], "the copy that assigned it is gone");
    assert!(answer.try_recv().is_err(), "answered by a commit that was not its own");
    bench.commit_all().await;
    assert!(answer.try_recv().unwrap().is_some());
}

#[tokio::test]
async fn a_duplicate_start_is_not_kept_until_the_next_commit() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    let started = v1::AttemptStatus {
        what: Some(v1::attempt_status::What::Started(v1::AttemptStarted { started_at_ms: 5 })),
        ..ended(0, (id, 0, 0, 1), v1::Outcome::Succeeded)
    };
    for _ in 0..20 {
        drop(bench.finish(&key("e", 1), &vec![started.clone(); 1000]));
    }
    assert!(!bench.engine.job(id).unwrap().is_full(), "hints must never stop a job");
    assert!(bench.commits.is_empty(), "a start is not worth a commit");
}
