//! Every form of every answer, from fixed views.

mod definitions;
mod explain;
mod groups;
mod schedules;
mod store;

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_client::v1;

use super::answers::{Cancellation, Retry, Submission};
use super::executor::Executor;
use super::namespace::Namespace;
use super::scheduler::Scheduler;
use super::store::Store;
use super::views::{Downloaded, Job, JobAtLength, Started, Task, TaskOutput};
use super::{Detail, Form, Output, Row};

/// The present, in all of these tests.
const NOW_MS: u64 = 1_800_000_000_000;
const FORMS: [Form; 5] = [Form::Table, Form::Wide, Form::Json, Form::Jsonl, Form::Name];
const ID: &str = "0thx2ck81tp2v";

fn output(form: Form) -> Output {
    Output { form, color: false, now: Timestamp::from_millisecond(NOW_MS as i64).unwrap() }
}

fn lists<T: Row>(rows: &[T]) -> String {
    forms(|output, out| output.list_to(out, rows))
}

fn details<T: Detail>(thing: &T) -> String {
    forms(|output, out| output.one_to(out, thing))
}

fn forms(print: impl Fn(Output, &mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut text = String::new();
    for form in FORMS {
        let mut out = Vec::new();
        print(output(form), &mut out).unwrap();
        text.push_str(&format!("--- {form:?}\n{}", String::from_utf8(out).unwrap()));
    }
    text
}

fn running_job() -> v1::JobView {
    let exit = |code| Some(v1::Exit { how: Some(v1::exit::How::Code(code)) });
    v1::JobView {
        job_id: ID.to_owned(),
        name: "word-count".to_owned(),
        namespace: "default".to_owned(),
        state: v1::JobState::Running.into(),
        labels: BTreeMap::from([("team".to_owned(), "search".to_owned())]),
        submitted_at_ms: NOW_MS - 90_000,
        started_at_ms: NOW_MS - 80_000,
        finished_at_ms: 0,
        tasks: Some(v1::Counts { pending: 5, assigned: 1, running: 2, successful: 7, failed: 1, cancelled: 0 }),
        stages: vec![
            v1::StageView {
                stage: 0,
                name: "map".to_owned(),
                state: v1::StageState::Running.into(),
                tasks: Some(v1::Counts { running: 2, successful: 7, failed: 1, assigned: 1, ..Default::default() }),
                started_at_ms: NOW_MS - 80_000,
                ..Default::default()
            },
            v1::StageView {
                stage: 1,
                name: "reduce".to_owned(),
                state: v1::StageState::Unresolved.into(),
                tasks: Some(v1::Counts { pending: 5, ..Default::default() }),
                reason: "waits for map".to_owned(),
                needs: vec!["map".to_owned()],
                ..Default::default()
            },
        ],
        failures: vec![v1::Failure {
            stage: "map".to_owned(),
            index: 3,
            attempt: 2,
            outcome: v1::Outcome::Failed.into(),
            exit: exit(3),
            message: "exited with code 3".to_owned(),
            executor: "node-1".to_owned(),
            at_ms: NOW_MS - 10_000,
            r#final: true,
        }],
        cancel_requested: false,
        owner: "scheduler-a".to_owned(),
        message: String::new(),
        group: "nightly/2027".to_owned(),
        made_of: vec![v1::DefinitionUse { name: "count".to_owned(), revision: 3 }],
    }
}

fn queued_job() -> v1::JobView {
    v1::JobView {
        job_id: "0thx2ck81tp30".to_owned(),
        name: "tiny".to_owned(),
        namespace: "team-b".to_owned(),
        state: v1::JobState::Queued.into(),
        submitted_at_ms: NOW_MS - 100,
        ..Default::default()
    }
}

fn tasks() -> Vec<Task> {
    let done = v1::TaskView {
        stage: "map".to_owned(),
        index: 0,
        state: v1::TaskState::Successful.into(),
        attempt: 1,
        executor: "node-1".to_owned(),
        started_at_ms: NOW_MS - 80_000,
        finished_at_ms: NOW_MS - 75_500,
        outcome: v1::Outcome::Succeeded.into(),
        exit: Some(v1::Exit { how: Some(v1::exit::How::Code(0)) }),
        output: Some(v1::Output { bytes: 123_456, checksum: 0xfeed_0000_0000_beef, files: 4 }),
        message: String::new(),
    };
    let killed = v1::TaskView {
        index: 1,
        state: v1::TaskState::Running.into(),
        attempt: 2,
        finished_at_ms: 0,
        outcome: v1::Outcome::TimedOut.into(),
        exit: Some(v1::Exit { how: Some(v1::exit::How::Signal(15)) }),
        output: None,
        message: "ran longer than 10s".to_owned(),
        ..done.clone()
    };
    let pending =
        v1::TaskView { stage: "a/b".to_owned(), index: 2, state: v1::TaskState::Pending.into(), ..Default::default() };
    [done, killed, pending].into_iter().map(|view| Task::new(ID, view)).collect()
}

#[test]
fn jobs() {
    let jobs: Vec<Job> = [running_job(), queued_job()].into_iter().map(Job::from).collect();
    insta::assert_snapshot!(lists(&jobs));
}

#[test]
fn no_jobs() {
    insta::assert_snapshot!(lists::<Job>(&[]));
}

#[test]
fn job_at_length() {
    let mut job = JobAtLength::from(running_job());
    job.tasks = Some(tasks());
    job.more_tasks = true;
    insta::assert_snapshot!(details(&job));
}

#[test]
fn job_that_was_cancelled() {
    let mut view = queued_job();
    view.state = v1::JobState::Cancelled.into();
    view.cancel_requested = true;
    view.finished_at_ms = NOW_MS;
    view.message = "cancelled: no longer needed".to_owned();
    insta::assert_snapshot!(details(&JobAtLength::from(view)));
}

#[test]
fn task_list() {
    insta::assert_snapshot!(lists(&tasks()));
}

fn ready_executor() -> v1::ExecutorView {
    let named = BTreeMap::from([("gpu".to_owned(), 2)]);
    let total = v1::Resources { cpu_milli: 8000, memory_bytes: 16 << 30, named: named.clone() };
    let free = v1::Resources { cpu_milli: 6500, memory_bytes: 10 << 30, named };
    v1::ExecutorView {
        executor_id: "node-1".to_owned(),
        address: "127.0.0.1:7101".to_owned(),
        state: "ready".to_owned(),
        mode: "push".to_owned(),
        total: Some(total),
        free: Some(free),
        running: 3,
        home: "scheduler-a".to_owned(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        version: "0.1.0".to_owned(),
        incarnation: 4,
        problem: String::new(),
    }
}

fn scheduler() -> v1::SchedulerView {
    v1::SchedulerView {
        scheduler_id: "scheduler-a".to_owned(),
        address: "127.0.0.1:7077".to_owned(),
        jobs: 12,
        version: "0.1.0".to_owned(),
        self_: true,
        draining: false,
    }
}

fn output_of_top() -> TaskOutput {
    let view = v1::OutputView {
        stage: "top".to_owned(),
        index: 0,
        attempt: 1,
        output: Some(v1::Output { bytes: 400, checksum: 7, files: 1 }),
        executor: "node-1".to_owned(),
    };
    TaskOutput::new(ID, view)
}

fn download() -> Downloaded {
    let (job, stage, directory) = (ID.to_owned(), "top".to_owned(), "results/top/0".to_owned());
    Downloaded { job, stage, index: 0, directory, files: 1, bytes: 400 }
}

fn submission() -> Submission {
    let idempotency_key = "auto-00112233445566778899aabbccddeeff".to_owned();
    Submission { id: ID.to_owned(), existed: false, idempotency_key }
}

fn cancellation() -> Cancellation {
    Cancellation { id: ID.to_owned(), state: "cancelled" }
}

fn retry() -> Retry {
    Retry { id: ID.to_owned(), tasks: 3 }
}

fn started() -> Started {
    let (address, data_dir) = ("127.0.0.1:7077".to_owned(), Some("/var/lib/muster".to_owned()));
    Started { what: "up", id: None, address, data_dir }
}

/// The JSON shapes of docs/cli.md.
pub(crate) fn documented_views() -> Vec<(&'static str, String)> {
    fn json<T: serde::Serialize>(thing: &T) -> String {
        serde_json::to_string_pretty(thing).unwrap() + "\n"
    }
    let mut job = JobAtLength::from(running_job());
    job.tasks = None;
    let mut extra = serde_json::to_value(&job).unwrap();
    let of_lists = serde_json::to_value(Job::from(running_job())).unwrap();
    // What lists show too is documented there.
    extra.as_object_mut().unwrap().retain(|key, _| of_lists.get(key).is_none());
    vec![
        ("jobs", json(&Job::from(running_job()))),
        ("job", json(&extra)),
        ("task", json(&tasks()[0])),
        ("submit", json(&submission())),
        ("cancel", json(&cancellation())),
        ("retry", json(&retry())),
        ("outputs", json(&output_of_top())),
        ("downloads", json(&download())),
        ("executors", json(&Executor::from(ready_executor()))),
        ("explain", json(&explain::explanation())),
        ("schedulers", json(&Scheduler::from(scheduler()))),
        ("namespaces", json(&Namespace::from(namespace()))),
        ("define", json(&definitions::defined())),
        ("definitions", json(&definitions::definition())),
        ("definition", json(&definitions::at_length())),
        ("groups", json(&groups::group())),
        ("cancel-group", json(&groups::cancellation())),
        ("retry-group", json(&groups::retry())),
        ("schedules", json(&schedules::schedule())),
        ("store", json(&Store::from(store::full_store()))),
        ("recovered", json(&store::recovered())),
        ("audit", json(&store::audit())),
        ("update", json(&store::update())),
        ("started", json(&started())),
    ]
}

fn namespace() -> v1::NamespaceView {
    let max_in_use =
        v1::Amount { cpu_milli: Some(64_000), memory_bytes: Some(1 << 40), named: [("gpu".to_owned(), 8)].into() };
    v1::NamespaceView {
        namespace: "etl".to_owned(),
        rules: Some(v1::NamespaceRules {
            weight: Some(300),
            max_running: Some(1000),
            max_jobs: Some(50),
            max_in_use: Some(max_in_use),
        }),
        usage: Some(v1::NamespaceUse { jobs: 3, running: 64, ready: 1200, ..Default::default() }),
        share_ppm: 312_500,
    }
}

#[test]
fn namespaces() {
    let nothing_set = v1::NamespaceView { namespace: "default".to_owned(), ..Default::default() };
    insta::assert_snapshot!(lists(&[Namespace::from(namespace()), Namespace::from(nothing_set)]));
}

#[test]
fn executors() {
    let lost = v1::ExecutorView {
        executor_id: "node-2".to_owned(),
        state: "lost".to_owned(),
        mode: "push".to_owned(),
        address: "127.0.0.1:7102".to_owned(),
        problem: "no connection to executor node-2 at 127.0.0.1:7102".to_owned(),
        ..Default::default()
    };
    insta::assert_snapshot!(lists(&[Executor::from(ready_executor()), Executor::from(lost)]));
}

#[test]
fn schedulers() {
    insta::assert_snapshot!(lists(&[Scheduler::from(scheduler())]));
}

#[test]
fn outputs() {
    insta::assert_snapshot!(lists(&[output_of_top()]));
}

#[test]
fn downloads() {
    insta::assert_snapshot!(lists(&[download()]));
}

#[test]
fn answers_to_changes() {
    let mut text = details(&submission());
    text.push_str(&lists(&[cancellation()]));
    text.push_str(&details(&retry()));
    text.push_str(&details(&started()));
    insta::assert_snapshot!(text);
}

#[test]
fn colors_say_nothing_that_the_text_does_not_say() {
    let jobs: Vec<Job> = [running_job(), queued_job()].into_iter().map(Job::from).collect();
    let print = |color| {
        let mut out = Vec::new();
        Output { color, ..output(Form::Wide) }.list_to(&mut out, &jobs).unwrap();
        String::from_utf8(out).unwrap()
    };
    let colored = print(true);
    assert!(colored.contains("\x1b["));
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&plain), words(&print(false)));
}
