//! What concerns a job as a whole, and large ones.

use muster_graph::ids::TaskId;

use super::*;
use crate::engine::{Departing, Successor};

#[tokio::test]
async fn a_cancel_says_what_is_still_to_end() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let mut spec = spec(&[("a", 2, &[]), ("last", 1, &[("a", InputKind::All)])]);
    spec.stages[1].when = When::Always;
    let id = bench.submit(1, spec).await;
    bench.commit_all().await;
    let (reply, _answer) = oneshot::channel();
    bench.input(Input::Cancel { job: id, reason: "enough".to_owned(), reply });
    let [why] = &bench.of_job(id)[..] else { panic!("one reason") };
    let text = "the job is cancelled: enough; only tasks of `always` stages are started, and 1 task is still to end";
    assert_eq!((why.kind(), why.text.as_str()), (Kind::CancelRequested, text));
    assert_eq!(bench.only(id, 1).text, "waits for the end of a (1 of 2 tasks done)");
    assert_eq!(bench.task(id, 0, 1).kind(), Kind::Cancelled);
}

#[tokio::test]
async fn a_job_that_stands_still_as_a_whole_says_so_of_each_ready_task() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 3, &[])])).await;
    bench.commit_all().await;
    bench.engine.jobs.get_mut(&id).unwrap().waiting.settled = vec![(u64::MAX, 0); 5_000];
    assert_eq!(kinds(&bench.of_job(id)), [(Kind::StoreSilent, 0)]);
    assert_eq!(kinds(&bench.stage(id, 0)), [(Kind::StoreSilent, 2), (Kind::Launching, 1)]);
    bench.engine.jobs.get_mut(&id).unwrap().waiting.settled.clear();

    let record = storage::SchedulerRecord { address: "two:1".to_owned(), ..Default::default() };
    let to = Successor { session: SessionId("two".to_owned()), record };
    // It does not leave before its commit is there.
    bench.ends_unseen(id).await;
    bench.input(Input::HandOver { jobs: vec![id], to });
    let why = &bench.of_job(id)[0];
    assert_eq!((why.kind(), why.text.as_str()), (Kind::Moving, "the job is on its way to the scheduler at two:1"));
    assert!(kinds(&bench.stage(id, 0)).contains(&(Kind::Moving, 1)), "{:?}", bench.stage(id, 0));
    bench.commit_all().await;
    let left = bench.outputs.iter().any(|output| matches!(output, Output::HandOver { jobs, .. } if is(jobs, id)));
    assert!(left && bench.engine.job(id).is_none());
}

fn is(jobs: &[Departing], id: JobId) -> bool {
    jobs.iter().any(|departing| departing.job == id)
}

impl Bench {
    /// The task that runs is over, which is still to be committed.
    async fn ends_unseen(&mut self, id: JobId) {
        drop(self.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded)]));
        assert!(!self.commits.is_empty());
    }
}

#[tokio::test]
async fn after_a_takeover_it_is_said_who_is_still_to_answer() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    let mut two = Bench::over(Arc::clone(&bench.store), "two").await;
    two.register(key("e", 1), 1);
    two.own(id).await;
    two.load(id).await;
    two.commit_all().await;
    let [why] = &two.of_job(id)[..] else { panic!("{:?}", two.of_job(id)) };
    assert_eq!((why.kind(), why.executors.as_slice()), (Kind::Asking, ["e".to_owned()].as_slice()));
    two.answer(&key("e", 1), vec![(id, TaskId::new(0, 0), 1)]);
    assert_eq!(two.of_job(id), []);
}

#[tokio::test]
async fn a_large_job_is_told_page_by_page() {
    let mut bench = Bench::new().await;
    let id = bench.submit(1, spec(&[("a", 40_000, &[]), ("b", 1, &[])])).await;
    bench.commit_all().await;
    let question = Question { stage: Some(StageIndex(0)), tasks: true, limit: 5_000, from: 0, index: None };
    let job = bench.engine.job(id).unwrap();
    let page = bench.engine.explain(job, &question, bench.now);
    assert_eq!((page.tasks.len(), page.next_page_token.as_str()), (1_000, "1000"));
    let page = bench.engine.explain(job, &Question { from: 39_999, ..question }, bench.now);
    assert_eq!((page.tasks.len(), page.next_page_token.as_str()), (1, ""));
    assert_eq!(page.tasks[0].reasons[0].kind(), Kind::NoExecutor);
    let page = bench.engine.explain(job, &Question { limit: 1, ..Question::default() }, bench.now);
    assert_eq!((page.stages.len(), page.stages[0].reasons[0].tasks, page.next_page_token.as_str()), (1, 40_000, "1"));
    let page = bench.engine.explain(job, &Question { limit: 1, from: 1, ..Question::default() }, bench.now);
    assert_eq!((page.stages[0].stage.as_str(), page.next_page_token.as_str()), ("b", ""));
}
