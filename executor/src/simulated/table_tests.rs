//! A simulated executor's table.

use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::time::Instant;

use super::Table;

const JOB: JobId = JobId(7);

fn launches(token: u64, attempts: &[(u32, u32)]) -> Vec<v1::LaunchGroup> {
    let attempts = attempts.iter().map(|&(index, attempt)| v1::AttemptLaunch { index, attempt, each: Vec::new() });
    vec![v1::LaunchGroup {
        job_id: job(),
        fence: Some(v1::Fence { epoch: 1, token }),
        owner_address: "127.0.0.1:1".to_owned(),
        attempts: attempts.collect(),
        ..v1::LaunchGroup::default()
    }]
}

fn job() -> String {
    JOB.to_string()
}

fn outcomes(table: &mut Table) -> Vec<(u32, v1::Outcome)> {
    let finished = table.due.drain(..).filter_map(|due| match due.status.what {
        Some(v1::attempt_status::What::Finished(finished)) => {
            Some((due.status.attempt.expect("it names one").index, finished.outcome()))
        }
        _ => None,
    });
    finished.collect()
}

#[test]
fn no_more_run_at_once_than_there_are_slots() {
    let (mut table, now) = (Table::new(2, Duration::from_secs(1)), Instant::now());
    assert_eq!(table.launch(launches(1, &[(0, 1), (1, 1), (2, 1)])).accepted, 3);
    assert_eq!((table.advance(now, 1), table.busy()), (0, 2));
    assert_eq!((table.advance(now + Duration::from_secs(1), 2), table.busy()), (2, 1));
    assert_eq!((table.advance(now + Duration::from_secs(2), 3), table.busy()), (1, 0));
    assert_eq!(outcomes(&mut table).len(), 3);
}

#[test]
fn tasks_without_length_end_as_soon_as_they_begin() {
    let (mut table, now) = (Table::new(1, Duration::ZERO), Instant::now());
    table.launch(launches(1, &[(0, 1), (1, 1), (2, 1)]));
    assert_eq!((table.advance(now, 1), table.busy()), (3, 0));
    assert!(table.due.iter().all(|due| due.status.sequence > 0), "nothing tells of a start: {:?}", table.due);
}

#[test]
fn the_same_launch_twice_is_one_and_older_ones_are_refused() {
    let mut table = Table::new(4, Duration::from_secs(1));
    assert_eq!(table.launch(launches(5, &[(0, 2)])).accepted, 1);
    let again = table.launch(launches(5, &[(0, 2), (0, 1)]));
    assert_eq!(again.accepted, 0);
    assert_eq!(again.refused[0].reason(), v1::RefusalReason::StaleAttempt);
    let stale = table.launch(launches(4, &[(7, 1)]));
    assert_eq!((stale.accepted, stale.refused[0].reason()), (0, v1::RefusalReason::StaleFence));
}

#[test]
fn a_cancelled_attempt_frees_its_slot_and_never_succeeds() {
    let (mut table, now) = (Table::new(1, Duration::from_secs(1)), Instant::now());
    table.launch(launches(1, &[(0, 1), (1, 1)]));
    table.advance(now, 1);
    let attempts = vec![v1::AttemptRef { job_id: String::new(), stage: 0, index: 0, attempt: 1 }];
    assert_eq!(
        table.cancel(&v1::CancelTasksRequest { job_id: job(), fence: None, attempts, only_waiting: false }, 2),
        1
    );
    assert_eq!((table.advance(now, 2), table.busy()), (0, 1), "the next one runs");
    assert_eq!(table.advance(now + Duration::from_secs(1), 3), 1);
    assert_eq!(outcomes(&mut table), [(0, v1::Outcome::Cancelled), (1, v1::Outcome::Succeeded)]);
}

#[test]
fn what_is_settled_is_not_held_any_more_and_a_question_is_a_fence() {
    let (mut table, now) = (Table::new(1, Duration::ZERO), Instant::now());
    table.launch(launches(1, &[(0, 1)]));
    table.advance(now, 1);
    let question = |token| v1::AskJobsRequest {
        jobs: vec![v1::JobFence {
            job_id: job(),
            fence: Some(v1::Fence { epoch: 1, token }),
            owner_address: "127.0.0.1:2".to_owned(),
        }],
        executor_incarnation: 1,
    };
    let (held, refused) = table.ask(question(9));
    assert_eq!((held.len(), held[0].state(), refused.len()), (1, v1::HeldState::Finished, 0));
    assert_eq!(table.owner(JOB), Some("127.0.0.1:2"));
    assert_eq!(table.settle(&[1, 1]), 1);
    assert_eq!(table.ask(question(8)), (Vec::new(), vec![job()]));
    assert!(table.all_held().is_empty());
}
