//! Records of every released version go on decoding: one sample of each kind is kept in `state/samples`, and must be read as
//! what it was written from.
//!
//! A sample is never changed once its version was released. `MUSTER_WRITE_SAMPLES=1 cargo test -p muster-state --test samples`
//! writes those that are missing or different; do that only for a version that nobody has stored anything with yet.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod delta;

use std::fmt::Debug;
use std::path::PathBuf;

use muster_graph::execution::{JobEvent, JobState, StageState};
use muster_graph::ids::StageIndex;
use muster_proto::storage::{
    CallbackRecord, CancelMark, Content, DefinitionContent, DefinitionRecord, DefinitionRevision, ExecutorRecord,
    GroupAuditRecord, GroupCancelRecord, GroupCancelsHead, GroupChange, GroupPath, GroupRecord, GroupSums,
    IdempotencyRecord, JanitorRecord, JobHead, NamespaceRecord, OwnerRecord, SafeModeRecord, ScheduleRecord,
    SchedulerRecord, StageItems, StagedJob, StoredEdge, StoredPlan, StoredSpec, StoredStage, StoredUpstream, TaskSums,
    UpdatePart, UpdateRecord, UsageRecord,
};
use muster_proto::v1;
use muster_state::codec::blob::Chunk;
use muster_state::codec::{Bucket, Commit, Epoch, Events, Kind, Record, decode_bytes, encode};

use delta::{delta, note};

fn check<R: Record + PartialEq + Debug>(record: &R) -> Kind {
    let name = format!("{}.v{}", R::KIND.name().replace(' ', "-"), record.version());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("samples").join(&name);
    if std::env::var_os("MUSTER_WRITE_SAMPLES").is_some() {
        std::fs::write(&path, encode(record).unwrap()).unwrap();
    }
    let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("the sample {name}: {error}"));
    let decoded: R = decode_bytes(&stored).unwrap_or_else(|why| panic!("the sample {name} is no longer read: {why}"));
    assert_eq!(&decoded, record, "the sample {name} is read as something else");
    R::KIND
}

#[test]
fn samples_of_every_kind_and_version_are_read_as_they_were_written() {
    let head = JobHead {
        name: "words".to_owned(),
        namespace: "default".to_owned(),
        labels: [("team".to_owned(), "search".to_owned())].into(),
        priority: -3,
        spec: Some(Content { digest: "ab".repeat(32), inline: b"spec".to_vec() }),
        plan: Some(Content { digest: "cd".repeat(32), inline: Vec::new() }),
        submitted_at_ms: 1_800_000_000_000,
        message: "a task failed".to_owned(),
        idempotency_key: "once".to_owned(),
        states: encode(&Bucket { folded_to: 9, delta: delta() }).unwrap().to_vec(),
        packed: true,
        retry_requested: true,
        sequence: 9,
        commit_id: "commit".to_owned(),
        task_total: 60,
        ..JobHead::default()
    };
    let scheduler = SchedulerRecord {
        scheduler_id: "s-1".to_owned(),
        address: "127.0.0.1:7070".to_owned(),
        version: "0.1.0".to_owned(),
        started_at_ms: 1_800_000_000_000,
        draining: false,
    };
    let executor = ExecutorRecord {
        executor_id: "node-1".to_owned(),
        incarnation: 7,
        address: "127.0.0.1:7071".to_owned(),
        pull: true,
        home: "session".to_owned(),
        state: "ready".to_owned(),
        since_ms: 1_800_000_000_000,
        ..ExecutorRecord::default()
    };
    let owner = OwnerRecord {
        session_id: "session".to_owned(),
        scheduler_id: "s-1".to_owned(),
        address: "127.0.0.1:7070".to_owned(),
        ..OwnerRecord::default()
    };
    let idempotency =
        IdempotencyRecord { job_id: "0123456789abc".to_owned(), request_digest: "ef".repeat(32), at_ms: 5 };
    let events = Events {
        at: 1_800_000_000_000,
        events: vec![
            JobEvent::AttemptFailed(note()),
            JobEvent::StageMoved { stage: StageIndex(1), state: StageState::Skipped },
            JobEvent::JobMoved { state: JobState::Cancelled },
            JobEvent::OutputsLost { stage: StageIndex(0), tasks: 12 },
            JobEvent::CancelRequested { reason: "enough".to_owned() },
            JobEvent::RetryRequested { tasks: 4 },
            JobEvent::InputsChanged { stage: StageIndex(1), tasks: 2 },
            JobEvent::JobTimedOut,
        ],
    };
    let spec = StoredSpec {
        spec: Some(v1::JobSpec {
            name: "words".to_owned(),
            env: [("LANG".to_owned(), "C".to_owned())].into(),
            stages: vec![v1::StageSpec {
                name: "map".to_owned(),
                tasks: Some(v1::stage_spec::Tasks::Count(3)),
                work: Some(v1::stage_spec::Work::Process(v1::Process {
                    run: Some(v1::process::Run::Argv(v1::Argv { args: vec!["/bin/true".to_owned()] })),
                })),
                ..v1::StageSpec::default()
            }],
            ..v1::JobSpec::default()
        }),
        items: vec![StageItems { stage: 0, items_per_chunk: 1024, chunks: vec!["ab".repeat(32)] }],
    };
    let plan = StoredPlan {
        stages: vec![StoredStage {
            name: "reduce".to_owned(),
            tasks: 3,
            upstreams: vec![StoredUpstream { stage: 0, edge: StoredEdge::Shuffle.into(), seen_as: Vec::new() }],
            resources: Some(v1::Resources { cpu_milli: 1000, ..v1::Resources::default() }),
            stop_after: Some(v1::StopAfter { failures: Some(1) }),
            spec_digest: "cd".repeat(32),
            ..StoredStage::default()
        }],
        timeout_ms: 60_000,
        lost_after_ms: 0,
        priority: 5,
        never_lost: false,
        ..StoredPlan::default()
    };
    let label = |rule| v1::LabelRule { rule: Some(rule) };
    let values = || v1::LabelValues { values: vec!["eu-1".to_owned(), "eu-2".to_owned()] };
    let placement = v1::Placement {
        require: [
            ("zone".to_owned(), label(v1::label_rule::Rule::OneOf(values()))),
            ("site".to_owned(), label(v1::label_rule::Rule::NoneOf(values()))),
            ("gpu-model".to_owned(), label(v1::label_rule::Rule::Exists(true))),
        ]
        .into(),
        prefer: Some(v1::Preferences {
            list: vec![v1::Preference {
                label: "disk".to_owned(),
                is: Some(label(v1::label_rule::Rule::Exists(false))),
                weight: 10,
            }],
        }),
        policy: v1::PlacementPolicy::Pack.into(),
    };
    let mut placed_spec = spec.clone();
    placed_spec.spec.as_mut().unwrap().stages[0].placement = Some(placement.clone());
    let mut placed_plan = plan.clone();
    placed_plan.stages[0].placement = Some(v1::Placement { policy: 1, ..v1::Placement::default() });
    placed_plan.placement = Some(placement);
    assert_eq!((check(&placed_spec), check(&placed_plan)), (Kind::JobSpec, Kind::JobPlan), "versions of their own");
    let mut limited_spec = placed_spec.clone();
    limited_spec.spec.as_mut().unwrap().max_running = Some(10);
    let limited_plan = StoredPlan { max_running: Some(10), ..placed_plan.clone() };
    assert_eq!((check(&limited_spec), check(&limited_plan)), (Kind::JobSpec, Kind::JobPlan), "versions of their own");
    let mut nested_spec = limited_spec.clone();
    let mut begin = v1::StageSpec {
        name: "etl/".to_owned(),
        work: Some(v1::stage_spec::Work::Gate(v1::Gate::Begin.into())),
        ..v1::StageSpec::default()
    };
    nested_spec.spec.as_mut().unwrap().stages.push(begin.clone());
    begin.name = "etl".to_owned();
    begin.work = Some(v1::stage_spec::Work::Gate(v1::Gate::End.into()));
    nested_spec.spec.as_mut().unwrap().stages.push(begin);
    let mut nested_plan = limited_plan.clone();
    nested_plan.stages[0].gate = v1::Gate::Begin.into();
    nested_plan.stages[0].upstreams.push(StoredUpstream {
        stage: 0,
        edge: StoredEdge::Begin.into(),
        seen_as: vec!["report".to_owned(), "text".to_owned()],
    });
    assert_eq!((check(&nested_spec), check(&nested_plan)), (Kind::JobSpec, Kind::JobPlan), "versions of their own");
    let mut waiting_spec = nested_spec.clone();
    let after = v1::AfterJob { job_id: "0thx2ck81tp2v".to_owned(), end: v1::AwaitedEnd::Any.into() };
    waiting_spec.spec.as_mut().unwrap().after_jobs = vec![after];
    assert_eq!(check(&waiting_spec), Kind::JobSpec, "a version of its own");
    let mut grouped_spec = nested_spec.clone();
    grouped_spec.spec.as_mut().unwrap().group = "nightly/2026".to_owned();
    let spent = v1::Spent {
        run_ms: 5_000,
        cpu_ms: 7_500,
        memory_mib_ms: 640_000,
        named_ms: [("gpu".to_owned(), 10_000)].into(),
    };
    let grouped_head = JobHead { group: "nightly/2026".to_owned(), counted: true, spent: Some(spent), ..head.clone() };
    assert_eq!((check(&grouped_spec), check(&grouped_head)), (Kind::JobSpec, Kind::JobHead), "versions of their own");
    let amount =
        || v1::Amount { cpu_milli: Some(64_000), memory_bytes: Some(1 << 40), named: [("gpu".to_owned(), 8)].into() };
    let namespace = NamespaceRecord {
        rules: Some(v1::NamespaceRules {
            weight: Some(300),
            max_running: Some(1000),
            max_jobs: Some(50),
            max_in_use: Some(amount()),
        }),
        set_at_ms: 1_800_000_000_000,
    };
    let used = v1::NamespaceUse { jobs: 3, running: 64, ready: 9, in_use: Some(amount()) };
    let schedule = ScheduleRecord {
        id: "0123456789abcdef".to_owned(),
        schedule: Some(v1::Schedule {
            cron: "30 2 * * *".to_owned(),
            zone: "Europe/Berlin".to_owned(),
            run: Some(v1::RunDefinitionRequest { name: "etl".to_owned(), revision: 3, ..Default::default() }),
            overlap: v1::Overlap::Queue.into(),
            missed: v1::Missed::All.into(),
            window_ms: Some(86_400_000),
        }),
        set_at_ms: 1_800_000_000_000,
        paused: true,
        decided_until_ms: 1_800_000_000_001,
        waiting_ms: vec![1_800_000_000_000],
        last_job: "0123456789abc".to_owned(),
        last_tick_ms: 1_799_999_999_000,
        problem: "there is no definition".to_owned(),
        problem_at_ms: 1_800_000_000_002,
        passed_over: vec![v1::PassedOver { first_ms: 1, last_ms: 2, why: "overlap".to_owned() }],
    };
    let usage = UsageRecord { namespaces: [("etl".to_owned(), used)].into() };
    let cancel =
        CancelMark { request_id: "0123456789abcdef".to_owned(), reason: "enough".to_owned(), at_ms: 1_800_000_000_000 };
    let safe_mode = SafeModeRecord {
        epoch: 1,
        revision: 700,
        seen_epoch: 2,
        seen_revision: 900,
        seen_by: "executor node-1".to_owned(),
        scheduler_id: "s-1".to_owned(),
        since_ms: 1_800_000_000_000,
    };
    let janitor =
        JanitorRecord { scheduler_id: "s-1".to_owned(), at_ms: 1_800_000_000_000, compacted_to: 600, jobs_swept: 2 };
    let uses = || vec![v1::DefinitionUse { name: "clean".to_owned(), revision: 2 }];
    let definition = DefinitionRecord {
        id: "0123456789abcdef".to_owned(),
        latest: 3,
        digest: "ab".repeat(32),
        uses: uses(),
        defined_at_ms: 1_800_000_000_000,
        renamed_to: "etl-daily".to_owned(),
    };
    let revision = DefinitionRevision {
        digest: "ab".repeat(32),
        text_digest: "cd".repeat(32),
        format: "yaml".to_owned(),
        uses: uses(),
        defined_at_ms: 1_800_000_000_000,
    };
    let seen = [
        check(&head),
        check(&scheduler),
        check(&executor),
        check(&owner),
        check(&idempotency),
        check(&delta()),
        check(&Commit { id: "commit".to_owned(), token: 1234, at: 1_800_000_000_000, delta: delta() }),
        check(&Bucket { folded_to: 300, delta: delta() }),
        check(&events),
        check(&Chunk { index: 1, count: 2, content_bytes: 1 << 20, piece: b"a piece".repeat(200) }),
        check(&Epoch(3)),
        check(&spec),
        check(&plan),
        check(&cancel),
        check(&safe_mode),
        check(&janitor),
        check(&namespace),
        check(&usage),
        check(&definition),
        check(&revision),
        check(&DefinitionContent { content: b"{\"name\":\"etl\"}".repeat(50) }),
        check(&schedule),
        check(&GroupRecord {
            id: "0123456789abcdef".to_owned(),
            spec: Some(v1::GroupSpec {
                attributes: [("campaign".to_owned(), "spring".to_owned())].into(),
                cancel_after_failures: 10,
                ..v1::GroupSpec::default()
            }),
            created_at_ms: 1_800_000_000_000,
            update: "night-1".to_owned(),
        }),
        check(&GroupPath { path: "nightly/2026".to_owned() }),
        check(&GroupCancelRecord {
            cancel: Some(v1::GroupCancel {
                reason: "10 of its jobs failed".to_owned(),
                at_ms: 1_800_000_000_000,
                by_failures: true,
            }),
        }),
        check(&GroupCancelsHead { newest: "nightly/2026".to_owned() }),
        check(&GroupChange {
            group: "nightly/2026".to_owned(),
            failed: -1,
            tasks: Some(v1::Counts { successful: 7, failed: 1, cancelled: 2, ..v1::Counts::default() }),
            spent: grouped_head.spent.clone(),
            taken_back: true,
            ..GroupChange::default()
        }),
        check(&GroupSums {
            submitted: 5,
            successful: 2,
            failed: 1,
            cancelled: 2,
            tasks: Some(TaskSums { pending: 1, successful: 70, failed: 8, cancelled: 9 }),
            spent: grouped_head.spent.clone(),
            completed_at_ms: 1_800_000_000_000,
            completions: 2,
        }),
        check(&GroupAuditRecord { scheduler_id: "s1".to_owned(), at_ms: 1_800_000_000_000, corrected: 3 }),
        check(&CallbackRecord {
            event_id: "00112233445566778899aabbccddeeff".to_owned(),
            namespace: "default".to_owned(),
            path: "nightly/2027".to_owned(),
            group_id: "0123456789abcdef".to_owned(),
            url: "http://hooks.example:8080/muster".to_owned(),
            completion: 2,
            completed_at_ms: 1_800_000_000_000,
            state: v1::GroupState::Failed.into(),
            jobs: Some(v1::JobCounts { live: 0, successful: 4, failed: 1, cancelled: 0 }),
            tries: 3,
            next_try_at_ms: 1_800_000_008_000,
        }),
        check(&UpdateRecord {
            state: v1::UpdateState::Committed.into(),
            opened_at_ms: 1_800_000_000_000,
            expires_at_ms: 1_800_086_400_000,
            committed_at_ms: 1_800_000_060_000,
            groups: 4,
            jobs: 100_000,
            taken_up: true,
        }),
        check(&UpdatePart {
            digest: "00112233".to_owned(),
            jobs: vec![StagedJob { job_id: "job-1".to_owned(), group: "nightly".to_owned(), tasks: 7 }],
            groups: vec!["nightly".to_owned()],
            groups_named: 2,
            taken_up: true,
        }),
    ];
    assert_eq!(seen, Kind::ALL, "every kind has its sample");
}
