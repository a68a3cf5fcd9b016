//! When a job gives up what it had on an executor that is out of reach, and what follows if that one comes back.

use muster_graph::execution::TaskState;
use muster_graph::ids::TaskId;
use muster_graph::spec::LostAfter;
use muster_proto::v1;

use super::*;
use crate::engine::{Link, Loss};

const OWN_LIMIT: Millis = 8_000;

/// One task that the job waits for as the policy says.
fn one_task(lost_after: Option<LostAfter>) -> JobSpec {
    JobSpec { lost_after, ..spec(&[("a", 1, &[])]) }
}

fn own_limit() -> JobSpec {
    one_task(Some(LostAfter::Time(Duration::from_millis(OWN_LIMIT))))
}

fn longer_than_the_cluster() -> JobSpec {
    one_task(Some(LostAfter::Time(Duration::from_millis(3 * LOST_AFTER))))
}

fn never() -> JobSpec {
    one_task(Some(LostAfter::Never))
}

fn loss(record: Revision, on_purpose: bool) -> Input {
    Input::Lost(Loss { key: key("e", 1), record, on_purpose })
}

/// A scheduler with an executor that runs the jobs' tasks.
async fn running(jobs: Vec<JobSpec>) -> (Bench, Vec<JobId>) {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    bench.register(key("e", 1), 8);
    let mut ids = Vec::new();
    for (number, spec) in (1..).zip(jobs) {
        ids.push(bench.submit(number, spec).await);
    }
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), ids.len());
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 8, refused: Vec::new() });
    bench.outputs.clear();
    (bench, ids)
}

impl Bench {
    fn is_assigned(&self, id: JobId) -> bool {
        let task = self.engine.job(id).unwrap().graph.task(TaskId::new(0, 0)).unwrap();
        matches!(task.state, TaskState::Assigned { .. })
    }

    fn pass(&mut self, time: Millis) {
        self.now += time;
        self.input(Input::Tick);
    }

    fn cancelled(&self, id: JobId) -> bool {
        let about = |output: &Output| matches!(output, Output::CancelAttempts { request, .. } if request.job_id == id.to_string());
        self.outputs.iter().any(about)
    }

    fn asked_about(&self) -> Vec<String> {
        let jobs = |output: &Output| match output {
            Output::Ask { jobs, .. } => jobs.iter().map(|job| job.job_id.clone()).collect(),
            _ => Vec::new(),
        };
        self.outputs.iter().flat_map(jobs).collect()
    }
}

#[tokio::test]
async fn a_launch_tells_how_long_its_job_waits() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 8);
    for (number, spec) in (1..).zip([one_task(None), own_limit(), never()]) {
        bench.submit(number, spec).await;
    }
    bench.commit_all().await;
    let limits: Vec<u64> = bench
        .outputs
        .iter()
        .flat_map(|output| if let Output::Launch { groups, .. } = output { groups.as_slice() } else { &[] })
        .map(|group| group.lost_after_ms)
        .collect();
    assert_eq!(limits, [0, OWN_LIMIT, 0], "only a time of its own has an executor end its tasks");
}

#[tokio::test]
async fn a_job_gives_an_executor_up_after_its_own_time_while_others_wait_on() {
    let (mut bench, ids) = running(vec![own_limit(), one_task(None), never()]).await;
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    bench.pass(OWN_LIMIT - 1);
    assert!(bench.outputs.iter().any(|output| matches!(output, Output::TellAway { .. })), "{:?}", bench.outputs);
    assert!(ids.iter().all(|id| bench.is_assigned(*id)), "silence is never evidence");
    bench.pass(1);
    assert_eq!(ids.iter().map(|id| bench.is_assigned(*id)).collect::<Vec<_>>(), [false, true, true]);
    assert!(!bench.outputs.iter().any(|output| matches!(output, Output::DeclareLost { .. })), "not yet");
    bench.commit_all().await;

    // The old attempt's result, late: acknowledged, and of no effect.
    let answer = bench.finish(&key("e", 1), &[ended(1, (ids[0], 0, 0, 1), v1::Outcome::Succeeded)]);
    bench.commit_all().await;
    assert_eq!(answer.await.unwrap().settled, [1]);
    assert_eq!(bench.engine.job(ids[0]).unwrap().graph.counts().successful, 0);
    // Those that were not given up count.
    let _answer = bench.finish(&key("e", 1), &[ended(2, (ids[2], 0, 0, 1), v1::Outcome::Succeeded)]);
    bench.commit_all().await;
    assert!(bench.engine.job(ids[2]).is_none(), "it is over");
}

#[tokio::test]
async fn an_executor_that_is_back_in_time_keeps_everything_and_its_time_begins_anew() {
    let (mut bench, ids) = running(vec![own_limit()]).await;
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    bench.pass(OWN_LIMIT - 1);
    bench.register_with(key("e", 1), 8, false, vec![(ids[0], TaskId::new(0, 0), 1)]);
    bench.pass(1);
    assert!(bench.is_assigned(ids[0]) && !bench.cancelled(ids[0]));
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    bench.pass(OWN_LIMIT - 1);
    assert!(bench.is_assigned(ids[0]));
    bench.pass(1);
    assert!(!bench.is_assigned(ids[0]));
}

#[tokio::test]
async fn what_the_cluster_calls_lost_a_job_with_more_patience_keeps() {
    let (mut bench, ids) = running(vec![longer_than_the_cluster(), never(), one_task(None)]).await;
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    bench.pass(LOST_AFTER);
    bench.input(loss(9, false));
    assert_eq!(ids.iter().map(|id| bench.is_assigned(*id)).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(bench.engine.executor("e").unwrap().running(), 2, "their share is not given away");
    bench.pass(2 * LOST_AFTER);
    assert_eq!(ids.iter().map(|id| bench.is_assigned(*id)).collect::<Vec<_>>(), [false, true, false]);
    bench.pass(1_000 * LOST_AFTER);
    assert!(bench.is_assigned(ids[1]), "it waits");
    bench.input(loss(10, true));
    assert!(!bench.is_assigned(ids[1]), "it has stopped for good");
}

#[tokio::test]
async fn a_lost_executor_that_is_back_ends_what_was_given_up_and_keeps_the_rest() {
    let (mut bench, ids) = running(vec![one_task(None), never()]).await;
    bench.input(loss(9, false));
    bench.commit_all().await;
    bench.outputs.clear();
    let held = ids.iter().map(|id| (*id, TaskId::new(0, 0), 1)).collect();
    bench.register_with(key("e", 1), 8, false, held);
    assert!(bench.cancelled(ids[0]) && !bench.cancelled(ids[1]), "{:?}", bench.outputs);
    let way = bench.outputs.iter().position(|output| matches!(output, Output::Connect { .. }));
    let cancel = bench.outputs.iter().position(|output| matches!(output, Output::CancelAttempts { .. }));
    assert!(way.is_some() && way < cancel, "{:?}", bench.outputs);
    let _answer = bench.finish(&key("e", 1), &[ended(1, (ids[1], 0, 0, 1), v1::Outcome::Succeeded)]);
    bench.commit_all().await;
    assert!(bench.engine.job(ids[1]).is_none(), "its first attempt counts");
}

#[tokio::test]
async fn an_executor_that_is_back_with_a_peer_is_asked_what_was_given_up_and_ends_it() {
    for declared in [true, false] {
        let (mut bench, ids) = running(vec![own_limit(), never()]).await;
        bench.input(Input::SessionEnded { executor: key("e", 1) });
        if declared {
            bench.input(loss(9, false));
        }
        bench.pass(OWN_LIMIT);
        bench.commit_all().await;
        bench.outputs.clear();
        bench.input(Input::Registered(registration(key("e", 1), 8, "two".to_owned(), 20)));
        assert_eq!(bench.engine.executor("e").unwrap().link, Link::Peer);
        assert_eq!(bench.asked_about(), [ids[0].to_string()], "declared lost: {declared}");
        assert_eq!(bench.launches(), [(ids[1].to_string(), 0, 0, 1)], "what it keeps may not have arrived");
        let held = ids.iter().map(|id| (*id, TaskId::new(0, 0), 1)).collect();
        bench.answer(&key("e", 1), held);
        bench.commit_all().await;
        assert!(bench.cancelled(ids[0]) && !bench.cancelled(ids[1]), "{:?}", bench.outputs);
        assert!(bench.is_assigned(ids[1]));
    }
}

#[tokio::test]
async fn what_may_have_been_lost_with_the_way_to_an_executor_is_launched_again_and_not_asked_about() {
    let (mut bench, ids) = running(vec![never()]).await;
    bench.launches();
    bench.input(loss(9, false));
    bench.register(key("e", 1), 8);
    // It may still come by the former way: whoever denies it now has it then, under the same token.
    assert_eq!(bench.asked_about(), [""; 0]);
    assert_eq!(bench.launches(), [(ids[0].to_string(), 0, 0, 1)], "the same attempt");
    let way = bench.outputs.iter().position(|output| matches!(output, Output::Connect { .. }));
    assert!(way.is_some(), "{:?}", bench.outputs);
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 1, refused: Vec::new() });
    assert_eq!(bench.engine.executor("e").unwrap().unanswered, 0);
}

#[tokio::test]
async fn what_was_given_since_an_open_question_and_lost_with_the_way_is_launched_again() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, JobSpec { lost_after: Some(LostAfter::Never), ..spec(&[("a", 2, &[])]) }).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 1)]);
    // Its next life has more room, registers with a peer, and is asked what survived; it does not answer.
    bench.input(Input::Registered(registration(key("e", 2), 2, "two".to_owned(), 20)));
    bench.commit_all().await;
    assert_eq!(bench.asked_about(), [id.to_string()]);
    assert_eq!(bench.launches(), [(id.to_string(), 0, 1, 1)]);
    bench.input(Input::Lost(Loss { key: key("e", 2), record: 30, on_purpose: false }));
    bench.outputs.clear();
    bench.input(Input::Registered(registration(key("e", 2), 2, "two".to_owned(), 40)));
    assert_eq!(bench.launches(), [(id.to_string(), 0, 1, 1)], "the question is not about it");
    assert_eq!(bench.asked_about(), [id.to_string()]);
    bench.answer(&key("e", 2), Vec::new());
    bench.wait(10).await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 2)], "what was in doubt is denied");
}

#[tokio::test]
async fn a_session_that_goes_on_after_something_was_given_up_has_to_register() {
    let (mut bench, ids) = running(vec![own_limit()]).await;
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    bench.pass(OWN_LIMIT);
    assert!(!bench.is_assigned(ids[0]));
    assert!(!bench.engine.executor("e").unwrap().is_here(&key("e", 1)));
    bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(8000), running: 0, draining: false });
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::None);
}

#[tokio::test]
async fn the_next_owner_counts_an_absence_from_when_it_learnt_of_it() {
    let (first, ids) = running(vec![own_limit(), never()]).await;
    let mut second = Bench::over(Arc::clone(&first.store), "two").await;
    second.input(Input::Registered(registration(key("e", 1), 8, String::new(), 30)));
    for id in &ids {
        second.own(*id).await;
        second.load(*id).await;
    }
    second.pass(OWN_LIMIT - 1);
    assert!(ids.iter().all(|id| second.is_assigned(*id)));
    second.pass(1);
    assert_eq!(ids.iter().map(|id| second.is_assigned(*id)).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_job_that_is_to_end_waits_no_longer_for_an_executor_than_the_cluster_does() {
    for lost_first in [true, false] {
        let (mut bench, ids) = running(vec![never()]).await;
        let cancel = |bench: &mut Bench| {
            let (reply, answer) = oneshot::channel();
            bench.input(Input::Cancel { job: ids[0], reason: String::new(), reply });
            answer
        };
        let answer = if lost_first {
            bench.input(loss(9, false));
            assert!(bench.is_assigned(ids[0]));
            cancel(&mut bench)
        } else {
            let answer = cancel(&mut bench);
            bench.commit_all().await;
            assert!(bench.engine.job(ids[0]).is_some(), "its task may still run");
            bench.input(loss(9, false));
            answer
        };
        bench.commit_all().await;
        assert!(answer.await.unwrap().is_some());
        assert!(bench.engine.job(ids[0]).is_none(), "it is over; lost first: {lost_first}");
    }
}
