//! The checker's own tests: what is good passes, and each kind of bad history is caught by the rule that is meant.

mod bad;
mod edit;
mod good;

use muster_graph::ids::JobId;

use super::{Evidence, check};
use good::{Good, TASKS, good};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_good_history_passes_and_its_figures_are_true() {
    let Good { evidence, small, large, .. } = good().await;
    let verdict = check(&evidence);
    verdict.assert_clean();
    let statistics = &verdict.statistics;
    let accepted = TASKS as usize + 2 * 5;
    assert_eq!((statistics.jobs, statistics.jobs_over, statistics.unfinished), (3, 3, 0));
    assert_eq!((statistics.accepted, statistics.starts, statistics.accepted_twice), (accepted, accepted + 1, 0));
    assert_eq!(statistics.run_more_than_once, 1, "the one that failed once");
    let moved: Vec<JobId> = statistics.takeovers.iter().map(|takeover| takeover.job).collect();
    assert_eq!(moved, [large]);
    assert!(statistics.takeovers[0].wrote_at_us.is_some());
    assert_eq!(statistics.waits.len(), accepted, "one of each task");
    let of_small: Vec<_> = statistics.waits.iter().filter(|wait| wait.job == small).collect();
    // Started 3 us after the assignment, which is in the commit that ends the first stage.
    let last = &of_small[3..];
    assert!(last.iter().all(|wait| wait.started_us - wait.ready_us == 3), "{of_small:?}");
    let first_ready_us = evidence
        .writes
        .iter()
        .find(|write| {
            write
                .changes
                .iter()
                .any(|change| change.keyspace == muster_state::Keyspace::ActiveJobs && change.name == small.to_string())
        })
        .map(|write| write.at_us);
    assert!(of_small[..3].iter().all(|wait| Some(wait.ready_us) == first_ready_us), "{of_small:?}");
    assert!(folds(&evidence) > 0, "some parts were folded");
}

/// How many buckets were written.
fn folds(evidence: &Evidence) -> usize {
    let changes = evidence.writes.iter().flat_map(|write| &write.changes);
    changes.filter(|change| change.keyspace == muster_state::Keyspace::JobStages && change.value.is_some()).count()
}
