//! Executors that fetch their work.

use muster_graph::ids::TaskId;
use muster_proto::v1;

use super::*;

fn poll(bench: &mut Bench, sequence: u64, held: &[(JobId, u32, u32, u32)]) -> oneshot::Receiver<v1::PollWorkResponse> {
    poll_heeding(bench, sequence, 0, held)
}

fn poll_heeding(
    bench: &mut Bench,
    sequence: u64,
    heeded: u64,
    held: &[(JobId, u32, u32, u32)],
) -> oneshot::Receiver<v1::PollWorkResponse> {
    poll_of(bench, 1, sequence, heeded, held)
}

fn poll_of(
    bench: &mut Bench,
    incarnation: u64,
    sequence: u64,
    heeded: u64,
    held: &[(JobId, u32, u32, u32)],
) -> oneshot::Receiver<v1::PollWorkResponse> {
    let (reply, answer) = oneshot::channel();
    let held = held
        .iter()
        .map(|(job, stage, index, attempt)| v1::HeldAttempt {
            attempt: Some(v1::AttemptRef { job_id: job.to_string(), stage: *stage, index: *index, attempt: *attempt }),
            state: v1::HeldState::Running.into(),
        })
        .collect();
    let poll = v1::PollWorkRequest {
        executor_id: "p".to_owned(),
        incarnation,
        sequence,
        held,
        free: Some((&cpu(2000)).into()),
        heeded,
        ..Default::default()
    };
    bench.input(Input::Poll { poll: Box::new(poll), reply });
    answer
}

fn given(answer: &mut oneshot::Receiver<v1::PollWorkResponse>) -> Vec<(String, u32, u32, u32)> {
    answer.try_recv().map(|answer| answer.launches.iter().flat_map(launched).collect()).unwrap_or_default()
}

#[tokio::test]
async fn a_lost_answer_is_given_again_even_while_the_job_has_a_commit_in_flight() {
    let mut bench = Bench::new().await;
    bench.register_with(key("p", 1), 2, true, Vec::new());
    let mut answer = poll(&mut bench, 1, &[]);
    let id = bench.submit(1, spec(&[("a", 3, &[])])).await;
    assert!(given(&mut answer).is_empty(), "assigned, not committed");
    bench.commit_all().await;
    let both = [(id.to_string(), 0, 0, 1), (id.to_string(), 0, 1, 1)];
    assert_eq!(given(&mut answer), both);
    // The answer did not arrive, and something else of the job is in flight when the executor asks again.
    let (reply, _cancelled) = oneshot::channel();
    bench.input(Input::Cancel { job: id, reason: String::new(), reply });
    assert_eq!(bench.commits.len(), 1);
    let mut again = poll(&mut bench, 2, &[]);
    assert_eq!(given(&mut again), both);
    let mut all_there = poll(&mut bench, 3, &[(id, 0, 0, 1), (id, 0, 1, 1)]);
    let answer = all_there.try_recv().expect("it is told to end them");
    assert!(answer.launches.is_empty() && answer.cancels.len() == 2, "{answer:?}");
}

#[tokio::test]
async fn an_executor_that_asks_elsewhere_is_called_back_for_an_answer_that_it_may_not_have_got() {
    let mut bench = Bench::new().await;
    bench.register_with(key("p", 1), 2, true, Vec::new());
    let mut answer = poll(&mut bench, 1, &[]);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(given(&mut answer).len(), 1);
    assert!(bench.engine.has_unmet_demand(), "the answer may be lost, and the next poll may go to a peer");
    let _waits = poll(&mut bench, 2, &[(id, 0, 0, 1)]);
    assert!(!bench.engine.has_unmet_demand(), "it has arrived");
    bench.input(Input::PollExpired { executor: "p".to_owned(), sequence: 2 });
    assert!(!bench.engine.has_unmet_demand(), "and it is known to have");
}

#[tokio::test]
async fn what_is_not_committed_is_not_given_to_any_poll() {
    let mut bench = Bench::new().await;
    bench.register_with(key("p", 1), 2, true, Vec::new());
    let _gone = poll(&mut bench, 1, &[]);
    bench.submit(1, spec(&[("a", 2, &[])])).await;
    assert_eq!(bench.commits.len(), 1, "assigned to the poll that waits");
    let mut second = poll(&mut bench, 2, &[]);
    bench.input(Input::PollExpired { executor: "p".to_owned(), sequence: 2 });
    assert!(second.try_recv().unwrap().launches.is_empty());
    bench.commit_all().await;
    let mut third = poll(&mut bench, 3, &[]);
    assert_eq!(given(&mut third).len(), 2);
}

#[tokio::test]
async fn nothing_is_assigned_to_a_poll_whose_caller_has_gone() {
    let mut bench = Bench::new().await;
    bench.register_with(key("p", 1), 2, true, Vec::new());
    drop(poll(&mut bench, 1, &[]));
    bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.engine.executor("p").unwrap().running(), 0);
}

#[tokio::test]
async fn what_has_ended_is_not_told_to_end_while_its_result_is_not_settled() {
    let mut bench = Bench::new().await;
    bench.register_with(key("p", 1), 2, true, Vec::new());
    let mut answer = poll(&mut bench, 1, &[]);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    assert_eq!(given(&mut answer).len(), 2);
    let (reply, _settled) = oneshot::channel();
    let statuses = vec![ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)];
    bench.input(Input::Statuses { executor: key("p", 1), statuses, reply });
    let held = |index, state: v1::HeldState| v1::HeldAttempt {
        attempt: Some(v1::AttemptRef { job_id: id.to_string(), stage: 0, index, attempt: 1 }),
        state: state.into(),
    };
    let (reply, mut answer) = oneshot::channel();
    let poll = v1::PollWorkRequest {
        executor_id: "p".to_owned(),
        incarnation: 1,
        sequence: 2,
        held: vec![held(0, v1::HeldState::Finished), held(1, v1::HeldState::Running)],
        free: Some((&cpu(1000)).into()),
        ..Default::default()
    };
    bench.input(Input::Poll { poll: Box::new(poll), reply });
    assert!(answer.try_recv().is_err(), "it waits: there is nothing to tell");
    assert_eq!(bench.engine.executor("p").unwrap().running(), 1);
}

fn asked(answer: &mut oneshot::Receiver<v1::PollWorkResponse>) -> Vec<(String, u64)> {
    let jobs = answer.try_recv().map(|answer| answer.ask).unwrap_or_default();
    jobs.into_iter().map(|job| (job.job_id, job.fence.expect("a question is a fence").token)).collect()
}

/// A job whose first owner gave both of its tasks to a poll of the executor, and a second one that has taken it over.
async fn taken_over() -> (JobId, Bench) {
    let mut first = Bench::new().await;
    first.register_with(key("p", 1), 2, true, Vec::new());
    let mut given_to = poll(&mut first, 1, &[]);
    let id = first.submit(1, spec(&[("a", 2, &[])])).await;
    first.commit_all().await;
    assert_eq!(given(&mut given_to).len(), 2);
    let mut second = Bench::over(Arc::clone(&first.store), "two").await;
    second.own(id).await;
    second.load(id).await;
    (id, second)
}

fn attempts(bench: &Bench, id: JobId) -> Vec<u32> {
    let graph = &bench.engine.job(id).unwrap().graph;
    (0..2).map(|index| graph.task(TaskId::new(0, index)).unwrap().attempt).collect()
}

#[tokio::test]
async fn a_poll_answers_what_became_of_a_job_that_was_taken_over_once_its_question_is_heeded() {
    let (id, mut second) = taken_over().await;
    // Nobody can connect to it: it is behind a gateway, and comes by itself.
    second.register_with(key("p", 1), 2, true, vec![(id, TaskId::new(0, 0), 1)]);
    let mut lost = poll(&mut second, 2, &[(id, 0, 0, 1)]);
    let question = asked(&mut lost);
    assert_eq!(question.len(), 1);
    assert!(question[0].0 == id.to_string() && question[0].1 == second.engine.job(id).unwrap().token());
    let mut answer = poll(&mut second, 3, &[(id, 0, 0, 1)]);
    assert_eq!(asked(&mut answer), question, "that answer was lost: it is asked again");
    assert_eq!(attempts(&second, id), [1, 1]);
    let mut answer = poll_heeding(&mut second, 4, 3, &[(id, 0, 0, 1)]);
    second.now += 10;
    second.input(Input::Tick);
    second.commit_all().await;
    assert_eq!(given(&mut answer), [(id.to_string(), 0, 1, 2)], "one is adopted, the other one never came");
}

#[tokio::test]
async fn a_poll_that_was_on_its_way_for_long_denies_nothing() {
    let (id, mut second) = taken_over().await;
    second.register_with(key("p", 1), 2, true, Vec::new());
    // It was sent before the executor asked the job's former owner, which answered with both tasks.
    let _late = poll(&mut second, 2, &[]);
    second.now += 10;
    second.input(Input::Tick);
    second.commit_all().await;
    assert_eq!(attempts(&second, id), [1, 1], "what runs there is not run again");
    let _waits = poll_heeding(&mut second, 4, 2, &[(id, 0, 0, 1), (id, 0, 1, 1)]);
    assert_eq!(attempts(&second, id), [1, 1]);
    assert!(!second.engine.has_unmet_demand(), "it has told of both");
}

#[tokio::test]
async fn a_poll_of_a_later_life_answers_no_question_to_an_earlier_one() {
    let (id, mut second) = taken_over().await;
    second.register_with(key("p", 1), 2, true, Vec::new());
    assert_eq!(asked(&mut poll(&mut second, 2, &[])).len(), 1);
    let survived = |index| (id, TaskId::new(0, index), 1);
    second.register_with(key("p", 2), 2, true, vec![survived(0), survived(1)]);
    // What it heeded was asked by another scheduler, in the answer to a poll that has the same number by chance.
    let mut answer = poll_of(&mut second, 2, 3, 2, &[]);
    assert_eq!(asked(&mut answer).len(), 1, "it was not asked yet");
    assert_eq!(attempts(&second, id), [1, 1]);
}
