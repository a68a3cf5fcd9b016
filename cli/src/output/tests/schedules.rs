//! Schedules in every form.

use muster_client::v1;

use super::{NOW_MS, details, lists};
use crate::output::schedule::Schedule;

pub(super) fn schedule() -> Schedule {
    Schedule::from(v1::ScheduleView {
        namespace: "default".to_owned(),
        name: "nightly".to_owned(),
        schedule: Some(v1::Schedule {
            cron: "30 2 * * *".to_owned(),
            zone: "Europe/Berlin".to_owned(),
            run: Some(v1::RunDefinitionRequest {
                name: "etl".to_owned(),
                revision: 3,
                arguments: [(
                    "shards".to_owned(),
                    v1::Argument { value: Some(v1::argument::Value::Word("8".to_owned())) },
                )]
                .into(),
                ..Default::default()
            }),
            overlap: v1::Overlap::Queue.into(),
            missed: v1::Missed::All.into(),
            window_ms: Some(86_400_000),
        }),
        next_at_ms: vec![NOW_MS + 3_600_000, NOW_MS + 90_000_000],
        waiting_at_ms: vec![NOW_MS - 3_600_000],
        last_job: "0123456789abc".to_owned(),
        last_tick_ms: NOW_MS - 7_200_000,
        problem: "namespace default has no definition etl".to_owned(),
        problem_at_ms: NOW_MS - 60_000,
        passed_over: vec![v1::PassedOver {
            first_ms: NOW_MS - 172_800_000,
            last_ms: NOW_MS - 86_400_000,
            why: "missed".to_owned(),
        }],
        ..Default::default()
    })
}

#[test]
fn schedules() {
    let mut paused = schedule();
    (paused.namespace, paused.paused) = ("etl".to_owned(), true);
    insta::assert_snapshot!(lists(&[schedule(), paused]));
}

#[test]
fn a_schedule_at_length() {
    insta::assert_snapshot!(details(&schedule()));
}
