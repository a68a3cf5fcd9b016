//! What the engine counts, for each thing once.

use muster_proto::v1;

use super::{Bench, ended, key, spec};
use crate::engine::{Counts, Input, Loss};

#[tokio::test]
async fn refused_launches_are_counted_by_their_reason() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.engine.take_counts(), Counts::default());
    let refusal = v1::Refusal {
        attempt: Some(v1::AttemptRef { job_id: id.to_string(), stage: 0, index: 0, attempt: 1 }),
        reason: v1::RefusalReason::DoesNotFit.into(),
        message: "full".to_owned(),
    };
    let refused = vec![(bench.engine.job(id).unwrap().token(), refusal)];
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 1, refused });
    let launches_refused = [(v1::RefusalReason::DoesNotFit, 1)].into();
    assert_eq!(bench.engine.take_counts(), Counts { launches_refused, ..Counts::default() });
    assert_eq!(bench.engine.take_counts(), Counts::default(), "taken is taken");
}

#[tokio::test]
async fn a_launch_whose_executor_is_lost_before_the_commit_is_withheld() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.input(Input::Lost(Loss { key: key("e", 1), record: 100, on_purpose: false }));
    bench.commit_all().await;
    assert_eq!(bench.launches(), []);
    let expected = Counts { launches_withheld: 1, executors_lost: 1, ..Counts::default() };
    assert_eq!(bench.engine.take_counts(), expected);
    assert_eq!(bench.engine.executors_by_link(), [("home", 0), ("peer", 0), ("out_of_reach", 0), ("gone", 1)]);
}

#[tokio::test]
async fn a_status_is_settled_once_and_its_repetition_ignored() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    bench.engine.take_counts();
    let status = ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded);
    let _first = bench.finish(&key("e", 1), std::slice::from_ref(&status));
    bench.commit_all().await;
    assert_eq!(bench.engine.take_counts(), Counts { statuses_settled: 1, ..Counts::default() });
    let _again = bench.finish(&key("e", 1), &[status]);
    bench.commit_all().await;
    let expected = Counts { statuses_settled: 1, events_ignored: 1, ..Counts::default() };
    assert_eq!(bench.engine.take_counts(), expected, "acknowledged, since nothing more will come of it");
}
