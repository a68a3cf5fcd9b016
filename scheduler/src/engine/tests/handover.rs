//! Jobs that are given to a peer: in what order things happen, and that nothing is lost between the two owners.

use muster_graph::groups::JobEnd;
use muster_graph::spec::{AfterJob, AwaitedEnd};
use muster_proto::v1;
use muster_state::{Guard, SessionId};

use super::*;
use crate::engine::{Departing, Successor};

fn peer() -> Successor {
    let record = storage::SchedulerRecord { scheduler_id: "two".to_owned(), ..Default::default() };
    Successor { session: SessionId("two".to_owned()), record }
}

impl Bench {
    /// Jobs that have left the engine since this was last asked.
    fn departed(&mut self) -> Vec<Departing> {
        let mut departed = Vec::new();
        self.outputs.retain(|output| {
            let Output::HandOver { to, jobs } = output else { return true };
            assert_eq!(**to, peer());
            departed.extend(jobs.iter().cloned());
            false
        });
        departed
    }

    fn hand_over(&mut self, id: JobId) {
        self.input(Input::HandOver { jobs: vec![id], to: peer() });
    }
}

#[tokio::test]
async fn a_job_leaves_when_its_transaction_is_back_and_what_followed_from_it_is_done() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 4, &[])])).await;
    bench.commit_all().await;
    bench.launches();
    let mut acknowledged = bench.finish(&key("e", 1), &[ended(7, (id, 0, 0, 1), v1::Outcome::Succeeded)]);
    bench.hand_over(id);
    assert_eq!(bench.departed().len(), 0, "a transaction is in flight");
    // What comes in now is for the next owner to hear.
    let mut late = bench.finish(&key("e", 1), &[ended(8, (id, 0, 1, 1), v1::Outcome::Succeeded)]);
    assert_eq!(late.try_recv().unwrap().elsewhere[&id].len(), 1);
    let before = bench.engine.job(id).unwrap().token();
    bench.commit_all().await;
    assert_eq!(acknowledged.try_recv().unwrap().settled, [7]);
    assert_eq!(bench.launches(), [(id.to_string(), 0, 2, 1)], "what was decided before is carried out");
    let departed = bench.departed();
    assert_eq!(departed.len(), 1);
    assert!(bench.engine.job(id).is_none());
    assert_eq!(bench.commits.len(), 0, "nothing is written for it any more");
    // The transaction that gives it away compares what the store really has.
    let Departing { job, token, predecessor } = &departed[0];
    assert_eq!((*job, *token), (id, before));
    let newest = bench.store.get(&predecessor.0).await.unwrap().unwrap();
    assert_eq!(newest.mod_revision, predecessor.1);
    bench.hand_over(id);
    assert_eq!(bench.departed().len(), 0, "it is not here any more");
}

#[tokio::test]
async fn nothing_is_placed_of_a_job_that_leaves_and_a_quiet_one_leaves_at_once() {
    let mut bench = Bench::new().await;
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.hand_over(id);
    assert_eq!(bench.commits.len(), 1, "its beginning");
    bench.register(key("e", 1), 2);
    bench.commit_all().await;
    assert_eq!(bench.launches(), []);
    assert_eq!(bench.departed().len(), 1);
    let quiet = bench.submit(2, spec(&[("a", 3, &[])])).await;
    bench.commit_all().await;
    bench.launches();
    bench.hand_over(quiet);
    assert_eq!((bench.departed().len(), bench.commits.len()), (1, 0));
    assert_eq!(bench.engine.executor("e").unwrap().free().cpu_milli, 2000, "what it booked is free for others");
}

#[tokio::test]
async fn a_job_that_ends_while_it_is_told_to_leave_just_ends() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    let mut answer = bench.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]);
    bench.hand_over(id);
    bench.commit_all().await;
    assert_eq!(answer.try_recv().unwrap().settled, [1]);
    assert_eq!(bench.departed().len(), 0);
    assert!(bench.store.get(&keys::completed_job(id)).await.unwrap().is_some());
}

/// As `handover::give` does it.
async fn name_owner(from: &Bench, to: &Bench, departing: &Departing) -> TxnOutcome {
    let owner = storage::OwnerRecord { session_id: to.identity.session.0.clone(), ..Default::default() };
    let key = keys::owner(departing.job);
    let (newest, revision) = departing.predecessor.clone();
    let guards = vec![Guard::AtRevision(key.clone(), departing.token), Guard::AtRevision(newest, revision)];
    let ops = vec![Op::Put { key, value: codec::encode(&owner).unwrap(), session: None }];
    from.store.put_txn(Txn { guards, ops, read_on_failure: Vec::new() }).await.unwrap()
}

#[tokio::test]
async fn of_the_giver_and_the_taker_no_two_commits_land_on_one_another() {
    let mut giver = Bench::new().await;
    let mut taker = Bench::over(Arc::clone(&giver.store), "two").await;
    giver.register(key("e", 1), 1);
    // A small job, which is rewritten, and a large one, which is added to.
    for (number, tasks) in [(1, 2), (2, 100)] {
        let id = giver.submit(number, spec(&[("a", tasks, &[])])).await;
        let sent: Vec<JobCommit> = giver.commits.iter().cloned().collect();
        giver.commit_all().await;
        giver.hand_over(id);
        giver.commit_all().await;
        let departing = giver.departed().remove(0);
        assert!(matches!(name_owner(&giver, &taker, &departing).await, TxnOutcome::Committed(_)));
        taker.load(id).await;
        let token = taker.engine.job(id).unwrap().token();
        assert!(token > departing.token, "the transaction that gave it away made a new one");
        taker.register(key(&format!("f{number}"), 1), 1);
        let taken = taker.commits.front().cloned().expect("the taker has something to write");
        // What the giver had sent arrives once more, before and after the taker's first commit.
        for late in [false, true] {
            for JobCommit { guards, ops, .. } in sent.iter().cloned() {
                let again = giver.store.put_txn(Txn { guards, ops, read_on_failure: Vec::new() }).await.unwrap();
                assert!(matches!(again, TxnOutcome::Refused { .. }), "{again:?}");
            }
            if !late {
                let landed = taker.commit_one().await;
                assert!(matches!(landed[..], [(_, CommitResult::Committed(_))]), "{landed:?}");
            }
        }
        assert!(taken.guards.contains(&Guard::AtRevision(keys::owner(id), token)));
    }
}

#[tokio::test]
async fn a_job_is_not_given_away_of_which_something_has_landed_that_was_not_known_of() {
    let mut giver = Bench::new().await;
    let taker = Bench::over(Arc::clone(&giver.store), "two").await;
    let id = giver.submit(1, spec(&[("a", 2, &[])])).await;
    giver.commit_all().await;
    giver.hand_over(id);
    giver.commit_all().await;
    let departing = giver.departed().remove(0);
    let (newest, _) = departing.predecessor.clone();
    let value = giver.store.get(&newest).await.unwrap().unwrap().value;
    giver.elsewhere(Op::Put { key: newest, value, session: None }).await;
    assert!(matches!(name_owner(&giver, &taker, &departing).await, TxnOutcome::Refused { .. }));
}

#[tokio::test]
async fn a_job_that_waits_for_others_is_given_away_as_it_was_accepted_and_waits_there() {
    let mut bench = Bench::new().await;
    let after = AfterJob { job: JobId(7), end: AwaitedEnd::Success };
    let id = bench.submit(1, JobSpec { after_jobs: vec![after], ..spec(&[("a", 4, &[])]) }).await;
    bench.hand_over(id);
    assert_eq!((bench.departed().len(), bench.commits.len()), (1, 0));
    let stored = load::head(&*bench.store, id).await.unwrap().unwrap();
    assert!(stored.head.plan.is_none());
    let mut second = Bench::over(Arc::clone(&bench.store), "two").await;
    second.register(key("e", 1), 4);
    second.own(id).await;
    second.load(id).await;
    assert_eq!(second.engine.awaited(), [JobId(7)]);
    second.input(Input::JobsEnded(vec![(JobId(7), Some(JobEnd::Successful))]));
    second.commit_all().await;
    assert_eq!(second.launches().len(), 4);
}
