//! What `muster explain` prints.

use super::*;
use crate::output::explain::Explanation;

/// A job of which one task is too large and others wait.
fn told() -> v1::Explanation {
    let too_large = v1::Reason {
        kind: v1::ReasonKind::TooLarge.into(),
        tasks: 5,
        text: "no executor is large enough: a task wants 1 core, 20 GiB of memory".to_owned(),
        evidence: vec!["it wants 20 GiB of memory; the largest executor offers 14 GiB of memory".to_owned()],
        remedies: vec!["fits on 3 executors if memory <= 14 GiB".to_owned()],
        index: Some(0),
        ..Default::default()
    };
    let runs = v1::Reason {
        kind: v1::ReasonKind::Running.into(),
        tasks: 2,
        text: "run on node-1".to_owned(),
        executors: vec!["node-1".to_owned()],
        index: Some(5),
        ..Default::default()
    };
    let waits = v1::Reason {
        kind: v1::ReasonKind::Upstream.into(),
        tasks: 4,
        text: "waits for map (7 of 14 tasks done)".to_owned(),
        stages: vec!["map".to_owned()],
        ..Default::default()
    };
    let stage = |name: &str, state: v1::StageState, reasons| v1::StageExplanation {
        stage: name.to_owned(),
        state: state.into(),
        counts: Some(v1::Counts { pending: 5, running: 2, successful: 7, ..Default::default() }),
        reasons,
    };
    v1::Explanation {
        job_id: ID.to_owned(),
        name: "word-count".to_owned(),
        namespace: "default".to_owned(),
        state: v1::JobState::Running.into(),
        counts: Some(v1::Counts { pending: 9, running: 2, successful: 7, ..Default::default() }),
        owner: "scheduler-a".to_owned(),
        reasons: vec![v1::Reason {
            kind: v1::ReasonKind::StoreSilent.into(),
            text: "the store has not answered a commit for 7 s".to_owned(),
            remedies: vec!["the store's health: see `muster admin status`".to_owned()],
            ..Default::default()
        }],
        stages: vec![
            stage("map", v1::StageState::Running, vec![too_large, runs]),
            stage("reduce", v1::StageState::Unresolved, vec![waits]),
        ],
        ..Default::default()
    }
}

pub(super) fn explanation() -> Explanation {
    let mut told = told();
    let backs_off = v1::Reason {
        kind: v1::ReasonKind::Backoff.into(),
        tasks: 1,
        text: "backs off after a failed attempt; attempt 3 may follow in 12 s".to_owned(),
        evidence: vec!["attempt 2: exit code 1".to_owned(), "failed 2 times; 5 are allowed".to_owned()],
        until_ms: NOW_MS + 12_000,
        index: Some(3),
        ..Default::default()
    };
    told.tasks.push(v1::TaskExplanation {
        stage: "map".to_owned(),
        index: 3,
        state: v1::TaskState::Pending.into(),
        attempt: 2,
        reasons: vec![backs_off],
        ..Default::default()
    });
    told.into()
}

#[test]
fn a_job_explained() {
    insta::assert_snapshot!(details(&Explanation::from(told())));
}

#[test]
fn a_stage_explained() {
    let mut told = told();
    told.stages.truncate(1);
    insta::assert_snapshot!(details(&Explanation { at_length: true, ..told.into() }));
}

#[test]
fn a_task_explained() {
    let told = explanation();
    insta::assert_snapshot!(details(&Explanation { at_length: true, stages: Vec::new(), reasons: Vec::new(), ..told }));
}
