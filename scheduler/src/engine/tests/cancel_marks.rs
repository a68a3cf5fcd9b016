//! Cancels that somebody else acknowledged, and left in the store.

use std::collections::BTreeSet;

use muster_graph::execution::JobState;
use muster_graph::ids::TaskId;
use muster_proto::v1;

use super::*;

impl Bench {
    /// As a scheduler does that cannot reach the job's owner.
    async fn mark(&self, id: JobId) -> Revision {
        let mark = storage::CancelMark { reason: "enough".to_owned(), ..Default::default() };
        self.store.put(keys::cancel_mark(id), codec::encode(&mark).unwrap()).await.unwrap()
    }

    async fn is_marked(&self, id: JobId) -> bool {
        self.store.get(&keys::cancel_mark(id)).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn after_a_cancel_mark_nothing_is_assigned_whoever_owns_the_job_and_whatever_it_knows() {
    for (tasks, cores) in [(3, 1), (200, 2)] {
        let mut bench = Bench::new().await;
        bench.register(key("e", 1), cores);
        let id = bench.submit(1, spec(&[("a", tasks, &[])])).await;
        bench.commit_all().await;
        bench.launches();
        // The owner has not heard of it: the end that it takes in would let it assign the next task.
        bench.mark(id).await;
        let mut answer = bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]);
        bench.commit_all().await;
        assert_eq!(bench.launches(), []);
        assert_eq!(answer.try_recv().unwrap().settled, Vec::<u64>::new(), "it is sent again");
        assert!(bench.engine.job(id).is_none(), "read again");
        bench.own(id).await;
        bench.load(id).await;
        let running: Vec<_> = (0..cores).map(|index| (id, TaskId::new(0, index), 1)).collect();
        bench.answer(&key("e", 1), running.clone());
        bench.commit_all().await;
        assert!(!bench.is_marked(id).await, "carried out, and gone with the same commit");
        // A watch that is late tells of what is done.
        let ends: Vec<_> =
            (0..cores).map(|index| ended(u64::from(index) + 1, (id, 0, index, 1), v1::Outcome::Cancelled)).collect();
        let mut answer = bench.finish(&key("e", 1), &ends);
        bench.commit_all().await;
        assert_eq!(answer.try_recv().unwrap().settled.len(), ends.len());
        assert_eq!(bench.launches(), []);
        let over = bench.store.get(&keys::failed_job(id)).await.unwrap().expect("it is over");
        let head: storage::JobHead = codec::decode(&keys::failed_job(id), &over.value).unwrap();
        assert_eq!(head.state, i32::from(v1::JobState::Cancelled));
    }
}

#[tokio::test]
async fn what_was_being_assigned_when_the_mark_came_is_not() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 3, &[])])).await;
    bench.commit_all().await;
    bench.launches();
    drop(bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]));
    let landed = bench.commit_one().await;
    // Assigned while that commit is on its way, and so to be committed by the next one.
    bench.register(key("f", 1), 1);
    let mark = bench.mark(id).await;
    bench.input(Input::CancelMarked { job: id, reason: "enough".to_owned(), mark });
    bench.input(Input::Commits(landed));
    bench.commit_all().await;
    assert!(bench.engine.job(id).is_none(), "read again");
    bench.load(id).await;
    bench.answer(&key("e", 1), vec![(id, TaskId::new(0, 1), 1)]);
    bench.commit_all().await;
    assert!(!bench.is_marked(id).await, "carried out");
    assert_eq!(bench.launches().iter().filter(|(.., index, _)| *index == 2).count(), 0, "not the third task");
    assert_eq!(bench.engine.job(id).unwrap().graph.task(TaskId::new(0, 2)).unwrap().attempt, 0);
}

#[tokio::test]
async fn an_owner_that_hears_of_a_mark_carries_it_out_and_once() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 4, &[])])).await;
    bench.commit_all().await;
    bench.launches();
    let mark = bench.mark(id).await;
    let told = || Input::CancelMarked { job: id, reason: "enough".to_owned(), mark };
    bench.input(told());
    bench.commit_all().await;
    assert!(!bench.is_marked(id).await);
    assert_eq!(bench.engine.job(id).unwrap().graph.job().state, JobState::Running, "what runs has to end first");
    // Told again of what is done: nothing is written, and above all no guard fails.
    bench.input(told());
    assert_eq!(bench.commits.len(), 0);
    let mut told_to_end = BTreeSet::new();
    for output in &bench.outputs {
        if let Output::CancelAttempts { request, .. } = output {
            told_to_end.extend(request.attempts.iter().map(|attempt| attempt.index));
        }
    }
    assert_eq!(told_to_end, [0, 1].into());
    // Cancelled already, by a user who reached the owner: the mark goes with a commit of its own.
    bench.mark(id).await;
    let again = bench.store.get(&keys::cancel_mark(id)).await.unwrap().unwrap().mod_revision;
    bench.input(Input::CancelMarked { job: id, reason: "again".to_owned(), mark: again });
    bench.commit_all().await;
    assert!(!bench.is_marked(id).await);
    assert!(bench.engine.job(id).is_some(), "no guard failed");
}
