//! Jobs that are read twice, taken over and retried.

use muster_graph::execution::JobState;
use muster_proto::v1;
use muster_state::{Keyspace, Op};

use super::*;

#[tokio::test]
async fn a_job_read_twice_under_one_token_keeps_the_copy_in_memory() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.load(id).await;
    assert_eq!(bench.commits.len(), 1);
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), 2, "neither lost nor twice");
    assert!(bench.engine.job(id).is_some());
    // A reading that found nothing is no reason to drop what has come since.
    bench.input(Input::Dropped { job: id, why: "not ours".to_owned() });
    assert!(bench.engine.job(id).is_some());
}

#[tokio::test]
async fn a_retry_may_come_before_the_engine_has_heard_that_the_job_is_over() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 3);
    let mut job = spec(&[("a", 3, &[])]);
    job.stages[0].retries.failed = 0;
    let id = bench.submit(1, job).await;
    bench.commit_all().await;
    bench.launches();
    let ends: Vec<_> = (0..3)
        .map(|index| {
            let outcome = if index == 0 { v1::Outcome::Failed } else { v1::Outcome::Succeeded };
            ended(u64::from(index) + 1, (id, 0, index, 1), outcome)
        })
        .collect();
    let _answer = bench.finish(&key("e", 1), &ends);
    let over = bench.commit_one().await;
    // As `reopen` does, before `over` is known here.
    let failed = bench.store.get(&keys::failed_job(id)).await.unwrap().expect("its end is stored");
    let mut head: storage::JobHead = codec::decode(&keys::failed_job(id), &failed.value).unwrap();
    (head.retry_requested, head.finished_at_ms) = (true, 0);
    bench.elsewhere(Op::Delete(keys::failed_job(id))).await;
    bench.store.put(keys::active_job(id), codec::encode(&head).unwrap()).await.unwrap();
    bench.own(id).await;
    let (reply, mut answer) = oneshot::channel();
    let loaded = load::owned(&*bench.store, id, &bench.identity.session).await.unwrap();
    bench.input(Input::Adopted(Box::new(crate::engine::Loaded { retry: Some(reply), ..loaded })));
    bench.input(Input::Commits(over));
    assert!(answer.try_recv().is_err(), "the retry is not committed");
    assert_eq!(bench.engine.job(id).expect("it is ours again").graph.job().state, JobState::Running);
    bench.commit_all().await;
    assert_eq!(answer.try_recv().unwrap(), Some(1), "just what failed");
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 2)]);
}

#[tokio::test]
async fn a_taken_over_job_goes_on_with_what_its_executor_has() {
    let mut first = Bench::new().await;
    first.register(key("e", 1), 3);
    let id = first.submit(1, spec(&[("a", 4, &[])])).await;
    first.commit_all().await;
    let mut second = Bench::over(Arc::clone(&first.store), "two").await;
    second.register(key("e", 1), 3);
    second.own(id).await;
    second.load(id).await;
    let asked = second.outputs.iter().any(|output| matches!(output, Output::Ask { jobs, .. } if jobs.len() == 1));
    assert!(asked, "{:?}", second.outputs);
    second.commit_all().await;
    assert_eq!(second.launches(), [], "silence is no evidence, and its cores are booked");
    let task = |index| muster_graph::ids::TaskId::new(0, index);
    second.answer(&key("e", 1), vec![(id, task(0), 1), (id, task(2), 1)]);
    second.commit_all().await;
    let launches: Vec<_> = second.launches().into_iter().map(|(.., index, attempt)| (index, attempt)).collect();
    assert_eq!(launches, [(1, 2)], "what it denied, and the adopted ones keep their cores");
    // The former owner is fenced off by the store.
    let mut answer = first.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]);
    first.commit_all().await;
    assert_eq!(answer.try_recv().unwrap().settled, Vec::<u64>::new());
    assert!(first.engine.job(id).is_none());
}

#[tokio::test]
async fn what_an_earlier_life_was_given_since_the_question_died_with_it() {
    let mut first = Bench::new().await;
    first.register(key("e", 1), 1);
    let id = first.submit(1, spec(&[("a", 2, &[])])).await;
    first.commit_all().await;
    let mut second = Bench::over(Arc::clone(&first.store), "two").await;
    second.register(key("e", 1), 2);
    second.own(id).await;
    second.load(id).await;
    second.commit_all().await;
    assert_eq!(second.launches(), [(id.to_string(), 0, 1, 1)], "given while it is asked");
    // The executor has begun anew, which this scheduler has not heard: it is the new life that answers.
    let task = |index| muster_graph::ids::TaskId::new(0, index);
    second.answer(&key("e", 2), vec![(id, task(0), 1)]);
    let holds: Vec<_> = second.engine.job(id).unwrap().graph.holds("e").collect();
    assert!(holds.contains(&(task(0), 1)) && !holds.contains(&(task(1), 1)), "{holds:?}");
}

#[tokio::test]
async fn an_answer_to_a_question_under_an_earlier_token_denies_nothing() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), 1, "on its way");
    bench.own(id).await;
    bench.load(id).await;
    let asked_first = bench.question(&key("e", 1));
    // Read once more while the executor has not answered, and its answer was given before it heard of the newer token.
    bench.own(id).await;
    bench.load(id).await;
    bench.input(Input::Answered {
        executor: key("e", 1),
        question: asked_first,
        held: Vec::new(),
        refused: Vec::new(),
    });
    bench.commit_all().await;
    assert_eq!(bench.launches(), [], "the launch under the earlier token may still come");
    let second = bench.question(&key("e", 1));
    assert!(second > asked_first, "asked again under the newer token");
    // A refusal of what the earlier copy sent says nothing about the present one.
    let refusal = v1::Refusal {
        attempt: Some(v1::AttemptRef { job_id: id.to_string(), stage: 0, index: 0, attempt: 1 }),
        reason: v1::RefusalReason::StaleFence.into(),
        message: "a newer owner is known".to_owned(),
    };
    let earlier = bench.engine.job(id).unwrap().token() - 1;
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 1, refused: vec![(earlier, refusal)] });
    assert!(bench.engine.job(id).is_some(), "it is not read a third time");
    bench.answer(&key("e", 1), Vec::new());
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 2)]);
}

#[tokio::test]
async fn a_reading_of_a_packed_job_continues_its_sequence_of_deltas() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 100);
    let id = bench.submit(1, spec(&[("a", 100, &[])])).await;
    bench.commit_all().await;
    for index in 0..10u32 {
        bench.own(id).await;
        bench.load(id).await;
        let held = (index..100).map(|at| (id, muster_graph::ids::TaskId::new(0, at), 1)).collect();
        bench.answer(&key("e", 1), held);
        let mut answer =
            bench.finish(&key("e", 1), &[ended(u64::from(index) + 1, (id, 0, index, 1), v1::Outcome::Succeeded)]);
        bench.commit_all().await;
        assert_eq!(answer.try_recv().unwrap().settled, [u64::from(index) + 1]);
    }
    let deltas = bench.store.get_from_prefix(Keyspace::JobDeltas, &keys::job_prefix(id)).await.unwrap().entries;
    let sequences: Vec<_> = deltas.iter().filter_map(|entry| keys::sequence_of(&entry.name)).collect();
    assert_eq!(sequences, (1..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_epoch_begins_with_nothing_and_with_numbers_that_were_never_given() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 1)]);
    let identity = Identity { epoch: 2, ..bench.identity.clone() };
    bench.input(Input::Read(Box::new(move |engine| engine.take_identity(identity, 1))));
    assert!(bench.engine.job(id).is_none() && bench.engine.executor("e").is_none(), "it has to be told anew");
    let gone = |output: &Output| matches!(output, Output::Disconnect { executor } if executor.id == "e");
    assert!(bench.outputs.iter().any(gone), "nothing more is sent to it");
    bench.load(id).await;
    // Its record's revision is lower in a store that was restored.
    bench.register(key("e", 1), 2);
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 1, crate::options::ATTEMPTS_PER_EPOCH + 1)]);
}

#[tokio::test]
async fn a_moved_epoch_drops_the_job_and_lets_nothing_out() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.store.put(keys::epoch(), codec::encode(&Epoch(1)).unwrap()).await.unwrap();
    bench.commit_all().await;
    assert!(bench.engine.job(id).is_none());
    assert_eq!(bench.launches(), []);
    assert!(
        !bench.outputs.iter().any(|output| matches!(output, Output::Reload { .. })),
        "it would only be refused again"
    );
}

#[tokio::test]
async fn what_was_read_for_a_session_that_is_lost_does_not_come_into_the_next_one() {
    let mut bench = Bench::new().await;
    let (held, late) = (bench.submit(1, spec(&[("a", 1, &[])])).await, bench.submit(2, spec(&[("a", 1, &[])])).await);
    bench.commit_all().await;
    bench.input(Input::SessionLost);
    bench.load(held).await;
    let loaded = load::owned(&*bench.store, late, &bench.identity.session).await.unwrap();
    let next = Identity { session: SessionId("one again".to_owned()), ..bench.identity.clone() };
    bench.engine.take_identity(next, bench.now);
    assert!(bench.engine.job(held).is_none(), "it came between the two sessions");
    bench.input(Input::Adopted(Box::new(loaded)));
    assert!(bench.engine.job(late).is_none());
}

#[tokio::test]
async fn a_copy_that_nobody_would_fence_is_dropped_when_the_owners_are_looked_at() {
    let mut bench = Bench::new().await;
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    let token = bench.engine.job(id).unwrap().token();
    bench.input(Input::NotOurs { jobs: vec![id], as_of: token + 1 });
    assert!(bench.engine.job(id).is_some(), "its first commit will tell");
    bench.commit_all().await;
    bench.input(Input::NotOurs { jobs: vec![id], as_of: token });
    assert!(bench.engine.job(id).is_some(), "it was claimed since the owners were looked at");
    bench.input(Input::NotOurs { jobs: vec![id], as_of: token + 1 });
    assert!(bench.engine.job(id).is_none());
}
