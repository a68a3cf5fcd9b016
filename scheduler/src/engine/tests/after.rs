//! Jobs that wait for others: when they begin, how they never do, and who remembers.

use muster_graph::groups::JobEnd;
use muster_graph::spec::{AfterJob, AwaitedEnd};

use super::*;

const PARENTS: [JobId; 2] = [JobId(1), JobId(2)];

fn after(ends: &[AwaitedEnd]) -> JobSpec {
    let after_jobs = PARENTS.iter().zip(ends).map(|(job, end)| AfterJob { job: *job, end: *end }).collect();
    JobSpec { after_jobs, ..spec(&[("a", 1, &[])]) }
}

/// A scheduler with room, and a job that waits for others to end so.
async fn waiting(ends: &[AwaitedEnd]) -> (Bench, JobId) {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 4);
    let id = bench.submit(7, after(ends)).await;
    (bench, id)
}

impl Bench {
    fn looked_at(&mut self) -> Vec<JobId> {
        let mut looked = Vec::new();
        self.outputs.retain(|output| {
            let Output::LookAtEnds { jobs } = output else { return true };
            looked.extend(jobs);
            false
        });
        looked
    }

    async fn ended(&mut self, job: JobId, end: Option<JobEnd>) {
        self.input(Input::JobsEnded(vec![(job, end)]));
        self.commit_all().await;
    }

    fn explained(&self, id: JobId) -> Vec<String> {
        let question = crate::engine::explain::Question { limit: 10, ..Default::default() };
        let told = self.engine.explain(self.engine.job(id).unwrap(), &question, self.now);
        told.reasons.into_iter().map(|reason| reason.text).collect()
    }

    async fn stored_state(&self, id: JobId) -> v1::JobState {
        load::head(&*self.store, id).await.unwrap().unwrap().head.state()
    }
}

#[tokio::test]
async fn a_job_begins_when_all_that_it_waits_for_has_ended_so_and_not_before() {
    let (mut bench, id) = waiting(&[AwaitedEnd::Success, AwaitedEnd::Any]).await;
    assert_eq!(bench.looked_at(), PARENTS);
    bench.commit_all().await;
    let shown = bench.engine.job_view(bench.engine.job(id).unwrap());
    assert_eq!((bench.launches().len(), shown.state()), (0, v1::JobState::Queued));
    assert_eq!(
        bench.explained(id),
        ["the job waits for the success of job 0000000000001, the end of job 0000000000002"]
    );
    // What the watch brings is only a hint; it is looked at by whom it concerns.
    bench.input(Input::JobsChanged(vec![JobId(9), PARENTS[0]]));
    assert_eq!(bench.looked_at(), [PARENTS[0]]);
    bench.ended(JobId(9), Some(JobEnd::Failed)).await;
    bench.ended(PARENTS[0], Some(JobEnd::Successful)).await;
    assert_eq!(bench.launches().len(), 0, "the other one has not ended");
    assert_eq!(bench.engine.awaited(), [PARENTS[1]]);
    bench.ended(PARENTS[1], Some(JobEnd::Failed)).await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 1)]);
    assert_eq!(bench.engine.awaited(), []);
    // Once it has begun it means nothing that the other one is active again, and ends otherwise.
    bench.ended(PARENTS[0], Some(JobEnd::Failed)).await;
    assert!(bench.engine.job(id).unwrap().graph.job().cancel.is_none());
}

#[tokio::test]
async fn a_job_whose_condition_can_not_be_met_any_more_ends_as_cancelled_and_says_why() {
    let cases = [
        (AwaitedEnd::Success, Some(JobEnd::Failed), "failed; this one waited for its success"),
        (AwaitedEnd::Success, Some(JobEnd::Cancelled), "was cancelled; this one waited for its success"),
        (AwaitedEnd::Failure, Some(JobEnd::Successful), "was successful; this one waited for its failure"),
        (AwaitedEnd::Any, None, "is not known any more; this one waited for its end"),
    ];
    for (awaited, end, why) in cases {
        let (mut bench, id) = waiting(&[awaited, AwaitedEnd::Success]).await;
        bench.ended(PARENTS[0], end).await;
        assert_eq!(bench.launches().len(), 0);
        assert_eq!(bench.stored_state(id).await, v1::JobState::Cancelled);
        let stored = load::head(&*bench.store, id).await.unwrap().unwrap();
        assert!(stored.head.message.contains(&format!("job 0000000000001 {why}")), "{}", stored.head.message);
        assert_eq!(bench.engine.awaited(), [], "the other one does not matter any more");
    }
}

#[tokio::test]
async fn a_failure_is_also_a_cancel() {
    for end in [JobEnd::Failed, JobEnd::Cancelled] {
        let (mut bench, id) = waiting(&[AwaitedEnd::Failure]).await;
        bench.ended(PARENTS[0], Some(end)).await;
        assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 1)]);
    }
}

#[tokio::test]
async fn a_waiting_job_that_is_cancelled_ends_but_for_what_always_runs() {
    let (mut bench, _) = waiting(&[AwaitedEnd::Success]).await;
    let mut spec = JobSpec { stages: spec(&[("a", 1, &[]), ("z", 1, &[])]).stages, ..after(&[AwaitedEnd::Success]) };
    (spec.stages[1].when, spec.stages[1].after) = (When::Always, vec!["a".to_owned()]);
    let id = bench.submit(8, spec).await;
    let (reply, answer) = oneshot::channel();
    bench.input(Input::Cancel { job: id, reason: "no".to_owned(), reply });
    bench.commit_all().await;
    assert!(answer.await.unwrap().is_some());
    assert_eq!(bench.launches(), [(id.to_string(), 1, 0, 1)]);
    bench.ended(PARENTS[0], Some(JobEnd::Successful)).await;
    assert_eq!(bench.launches().len(), 1, "only the other job that waited begins");
}

#[tokio::test]
async fn the_next_owner_of_a_waiting_job_waits_anew() {
    let (mut first, id) = waiting(&[AwaitedEnd::Success]).await;
    first.commit_all().await;
    let mut second = Bench::over(Arc::clone(&first.store), "two").await;
    second.register(key("e", 1), 4);
    second.own(id).await;
    second.load(id).await;
    second.commit_all().await;
    assert_eq!((second.looked_at(), second.launches().len()), (vec![PARENTS[0]], 0));
    second.ended(PARENTS[0], Some(JobEnd::Successful)).await;
    assert_eq!(second.launches(), [(id.to_string(), 0, 0, 1)]);
    // And one that has begun does not wait again.
    let mut third = Bench::over(Arc::clone(&first.store), "three").await;
    third.own(id).await;
    third.load(id).await;
    assert_eq!(third.looked_at(), []);
    assert_eq!(third.engine.awaited(), []);
}
