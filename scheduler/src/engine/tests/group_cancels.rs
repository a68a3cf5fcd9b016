//! Groups that somebody cancelled, whoever owns their jobs.

use muster_graph::ids::TaskId;
use muster_proto::v1;

use super::*;
use crate::groups::cancels;

impl Bench {
    /// A job of a group.
    async fn submit_into(&mut self, group: &str, number: u64, spec: JobSpec) -> JobId {
        self.submit(number, JobSpec { group: group.to_owned(), ..spec }).await
    }

    /// As any scheduler does; nobody is told.
    async fn cancel_group(&self, path: &str) -> Revision {
        let cancel = v1::GroupCancel { reason: "enough".to_owned(), at_ms: 1, by_failures: false };
        let (_, ops) = cancels::writes("default", &path.parse().unwrap(), cancel).unwrap();
        let txn = Txn { ops, ..Txn::default() };
        match self.store.put_txn(txn).await.unwrap() {
            TxnOutcome::Committed(revision) => revision,
            TxnOutcome::Refused { .. } => unreachable!("it has no guard"),
        }
    }

    /// The watch tells.
    async fn hear_of_cancels(&mut self) {
        let known = Arc::new(cancels::read(&*self.store, "default").await.unwrap());
        self.input(Input::GroupsCancelled { namespace: "default".into(), known });
    }

    fn is_cancelled(&self, id: JobId) -> bool {
        self.engine.job(id).is_some_and(|job| job.graph.job().cancel.is_some())
    }
}

#[tokio::test]
async fn after_a_groups_cancel_nothing_in_it_is_assigned_whoever_owns_the_job_and_whatever_it_knows() {
    for (tasks, cores) in [(3, 1), (200, 2)] {
        let mut bench = Bench::new().await;
        bench.register(key("e", 1), cores);
        let id = bench.submit_into("a/b", 1, spec(&[("work", tasks, &[])])).await;
        bench.commit_all().await;
        bench.launches();
        // The owner has not heard of it: the end that it takes in would let it assign the next task.
        bench.cancel_group("a").await;
        let mut answer = bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]);
        bench.commit_all().await;
        assert_eq!(bench.launches(), []);
        assert_eq!(answer.try_recv().unwrap().settled, Vec::<u64>::new(), "it is sent again");
        assert!(bench.engine.job(id).is_none(), "read again");
        bench.own(id).await;
        bench.load(id).await;
        assert!(bench.is_cancelled(id), "what the refusal brought along is known, without any watch");
        bench.answer(&key("e", 1), (0..cores).map(|index| (id, TaskId::new(0, index), 1)).collect());
        bench.commit_all().await;
        let ends: Vec<_> =
            (0..cores).map(|index| ended(u64::from(index) + 1, (id, 0, index, 1), v1::Outcome::Cancelled)).collect();
        let mut answer = bench.finish(&key("e", 1), &ends);
        bench.commit_all().await;
        assert_eq!(answer.try_recv().unwrap().settled.len(), ends.len());
        assert_eq!(bench.launches(), []);
        let over = bench.store.get(&keys::failed_job(id)).await.unwrap().expect("it is over");
        let head: storage::JobHead = codec::decode(&keys::failed_job(id), &over.value).unwrap();
        assert_eq!((head.state, head.message.as_str()), (v1::JobState::Cancelled.into(), "cancelled: group a: enough"));
    }
}

#[tokio::test]
async fn a_cancel_of_another_group_disturbs_no_job_though_nobody_has_heard_of_it() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let groups = ["", "b", "ab", "a-b"];
    for (number, group) in (1..).zip(groups) {
        bench.submit_into(group, number, spec(&[("work", 1, &[])])).await;
    }
    bench.cancel_group("a").await;
    bench.commit_all().await;
    for number in 1..=4 {
        assert_eq!(bench.launches().len(), 1, "one after the other");
        drop(bench.finish(&key("e", 1), &[ended(number, (JobId(number), 0, 0, 1), v1::Outcome::Succeeded)]));
        bench.commit_all().await;
        let over = bench.store.get(&keys::completed_job(JobId(number))).await.unwrap();
        assert!(over.is_some(), "no job was let go, or it would wait to be read");
    }
}

#[tokio::test]
async fn a_job_that_is_cancelled_already_is_not_disturbed_by_the_cancel_of_a_group_around_it() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit_into("a/b", 1, spec(&[("work", 3, &[])])).await;
    bench.commit_all().await;
    for path in ["a/b", "a"] {
        bench.cancel_group(path).await;
        if path == "a/b" {
            bench.hear_of_cancels().await;
            assert!(bench.is_cancelled(id));
        }
        bench.commit_all().await;
        assert!(bench.engine.job(id).is_some(), "{path}: it is not read again");
    }
    drop(bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Cancelled)]));
    bench.commit_all().await;
    let head = bench.store.get(&keys::failed_job(id)).await.unwrap().expect("it is over");
    let head: storage::JobHead = codec::decode(&keys::failed_job(id), &head.value).unwrap();
    assert_eq!(head.message, "cancelled: group a/b: enough", "the first word stands");
}

#[tokio::test]
async fn what_was_being_assigned_when_the_owner_heard_of_it_is_not() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit_into("a", 1, spec(&[("work", 3, &[])])).await;
    bench.commit_all().await;
    bench.launches();
    drop(bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]));
    let landed = bench.commit_one().await;
    // Assigned while that commit is on its way, and so to be committed by the next one.
    bench.register(key("f", 1), 1);
    bench.cancel_group("a").await;
    bench.hear_of_cancels().await;
    bench.input(Input::Commits(landed));
    bench.commit_all().await;
    assert!(bench.engine.job(id).is_none(), "read again");
    bench.load(id).await;
    bench.answer(&key("e", 1), vec![(id, TaskId::new(0, 1), 1)]);
    bench.commit_all().await;
    assert_eq!(bench.launches().iter().filter(|(.., index, _)| *index == 2).count(), 0, "not the third task");
    assert_eq!(bench.engine.job(id).unwrap().graph.task(TaskId::new(0, 2)).unwrap().attempt, 0);
}

#[tokio::test]
async fn a_job_that_gets_in_beside_the_cancel_ends_as_cancelled_and_always_stages_still_run() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    bench.cancel_group("a").await;
    bench.hear_of_cancels().await;
    let mut job = spec(&[("work", 2, &[]), ("tidy", 1, &[])]);
    job.stages[1].after = vec!["work".to_owned()];
    job.stages[1].when = When::Always;
    let id = bench.submit_into("a/b/c", 1, job).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 1, 0, 1)], "nothing but the tidying up");
    drop(bench.finish(&key("e", 1), &[ended(1, (id, 1, 0, 1), v1::Outcome::Succeeded)]));
    bench.commit_all().await;
    let head = bench.store.get(&keys::failed_job(id)).await.unwrap().expect("it is over");
    let head: storage::JobHead = codec::decode(&keys::failed_job(id), &head.value).unwrap();
    assert_eq!(head.state, i32::from(v1::JobState::Cancelled));
}

#[tokio::test]
async fn a_store_that_was_restored_may_know_of_fewer_cancels() {
    let mut bench = Bench::new().await;
    bench.cancel_group("a").await;
    bench.hear_of_cancels().await;
    bench.elsewhere(Op::Delete(keys::group_cancel("default", "a"))).await;
    bench.elsewhere(Op::Delete(keys::group_cancels_head("default"))).await;
    let epoch = bench.store.put(keys::epoch(), codec::encode(&Epoch(2)).unwrap()).await.unwrap();
    let identity = Identity { epoch: 2, epoch_revision: epoch, ..bench.identity.clone() };
    bench.engine.take_identity(identity, bench.now);
    bench.register(key("e", 1), 1);
    let id = bench.submit_into("a", 1, spec(&[("work", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), 1);
    assert!(!bench.is_cancelled(id));
}

#[tokio::test]
async fn what_was_assigned_before_its_job_was_cancelled_by_itself_is_not_committed_after_the_groups_cancel() {
    for heard in [false, true] {
        let mut bench = Bench::new().await;
        bench.register(key("e", 1), 1);
        let id = bench.submit_into("a", 1, spec(&[("work", 3, &[])])).await;
        bench.commit_all().await;
        bench.launches();
        drop(bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]));
        let landed = bench.commit_one().await;
        // Assigned, and not committed; then a user cancels the job, and another one its group, which is acknowledged.
        bench.register(key("f", 1), 1);
        let (reply, _answer) = oneshot::channel();
        bench.input(Input::Cancel { job: id, reason: "mine".to_owned(), reply });
        bench.cancel_group("a").await;
        if heard {
            bench.hear_of_cancels().await;
        }
        bench.input(Input::Commits(landed));
        bench.commit_all().await;
        assert!(bench.engine.job(id).is_none(), "{heard}: read again");
        bench.load(id).await;
        bench.answer(&key("e", 1), vec![(id, TaskId::new(0, 1), 1)]);
        bench.commit_all().await;
        assert_eq!(bench.engine.job(id).unwrap().graph.task(TaskId::new(0, 2)).unwrap().attempt, 0, "{heard}");
    }
}
