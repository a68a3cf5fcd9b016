//! Assigning, retries, and reports that come late, twice or in contradiction.

use muster_graph::execution::{
    AttemptEnd, Event, Exit, FailureClass, JobState, Outcome, StageState, TaskPhase, TaskState, UnreadableInput, Why,
};
use muster_graph::groups::Spent;
use muster_graph::ids::{JobId, StageIndex};
use muster_graph::plan::{Edge, LossPolicy};
use muster_graph::spec::Resources;

use crate::plans::{self, reading, stage};
use crate::script::{FAILED, Job, ignored, job_moved, launch, life, moved, on, output, outputs_lost, task};

fn refused(job: &mut Job, index: u32, attempt: u32) -> Vec<muster_graph::execution::Effect> {
    job.apply(Event::LaunchRefused { task: task(0, index), attempt, by: on("a"), message: "no room".to_owned() })
}

#[test]
fn the_lowest_ready_tasks_are_assigned_and_what_is_too_much_is_answered() {
    let mut job = Job::of([stage(3)]);
    let begin = [job_moved(JobState::Running), moved(0, StageState::Running)];
    assert_eq!(job.assign(0, on("a"), 2), [&begin[..], &[launch(0, 0, 1, 0), launch(0, 1, 1, 0)]].concat());
    assert_eq!(job.assign(0, on("b"), 5), [vec![launch(0, 2, 1, 1)], ignored(Why::NotReady)].concat());
    assert_eq!(job.assign(0, on("b"), 1), ignored(Why::NotReady));
    assert_eq!(job.assign(9, on("b"), 1), ignored(Why::Unknown));
}

#[test]
fn an_executor_is_given_first_what_reads_outputs_of_its_own_and_then_the_lowest() {
    let mut job = Job::of([stage(5), reading(stage(5), Edge::Each, 0)]);
    for (id, checksum) in [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)] {
        job.run_on(id, 0, output(checksum));
    }
    assert_eq!(job.assign(1, on("b"), 1), [moved(1, StageState::Running), launch(1, 1, 1, 1)]);
    // Its disk outlives it.
    assert_eq!(job.assign(1, life("b", 2), 2), [launch(1, 3, 1, 2), launch(1, 0, 1, 2)]);
    assert_eq!(job.assign(1, on("a"), 1), [launch(1, 2, 1, 0)]);
    assert_eq!(job.assign(1, on("c"), 1), [launch(1, 4, 1, 3)], "who has nothing is not left without");
}

#[test]
fn a_failed_attempt_backs_off_longer_each_time_until_its_budget_is_spent() {
    let mut first = stage(1);
    first.retries.failed = 3;
    let mut job = Job::of([first]);
    for (attempt, longest) in [(1, 100), (2, 200), (3, 400)] {
        job.assign(0, on("a"), 1);
        let note = job.note(task(0, 0), attempt, 0, FailureClass::Failed, "as told", false);
        assert_eq!(job.end(0, 0, attempt, on("a"), FAILED), [note]);
        assert_eq!(job.ready(), []);
        let wait = job.graph.next_timer().expect("it backs off") - job.at;
        assert!((longest / 2..=longest).contains(&wait), "attempt {attempt} waits {wait} ms");
        assert_eq!(job.fire(), []);
        assert_eq!(job.ready(), [(0, 1)]);
    }
    job.assign(0, on("a"), 1);
    let note = job.note(task(0, 0), 4, 0, FailureClass::Failed, "as told", true);
    assert_eq!(job.end(0, 0, 4, on("a"), FAILED), [note, moved(0, StageState::Failed), job_moved(JobState::Failed)]);
    assert_eq!(job.graph.job().failures.len(), 1, "final failures are kept with the job");
}

#[test]
fn jitter_depends_on_the_task_and_on_nothing_that_changes_between_two_runs() {
    let waits = |job: u64| -> Vec<u64> {
        let mut first = stage(16);
        first.retries.failed = 1;
        let graph = muster_graph::execution::ExecutionGraph::new(plans::shared([first]), JobId(job));
        let mut job = Job { graph, at: 1_000 };
        job.apply(Event::Submitted);
        job.assign(0, on("a"), 16);
        (0..16).for_each(|index| drop(job.end(0, index, 1, on("a"), FAILED)));
        let tasks = job.graph.tasks(StageIndex(0), 0..16);
        tasks.map(|(_, task)| if let TaskState::Pending { not_before } = task.state { not_before } else { 0 }).collect()
    };
    assert_eq!(waits(1), waits(1));
    assert_ne!(waits(1), waits(2));
    let mut distinct = waits(1);
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 8, "{distinct:?} do not spread");
}

#[test]
fn classes_have_separate_budgets() {
    let mut first = stage(1);
    (first.retries.failed, first.retries.timed_out) = (1, 1);
    let mut job = Job::of([first]);
    job.run(0, FAILED);
    job.fire();
    job.run(0, Outcome::Failed(FailureClass::TimedOut));
    assert_eq!(job.phases(0), [TaskPhase::Pending]);
    assert_eq!(job.spent(0, 0), [1, 1, 0, 0, 0, 0]);
    job.fire();
    job.run(0, Outcome::Failed(FailureClass::OutOfMemory));
    assert_eq!(job.phases(0), [TaskPhase::Failed]);
}

#[test]
fn a_refusal_costs_time_only_and_contradicts_a_start() {
    let mut job = Job::of([stage(2)]);
    job.assign(0, on("a"), 2);
    let note = job.note(task(0, 0), 1, 0, FailureClass::LaunchRefused, "no room", false);
    assert_eq!(refused(&mut job, 0, 1), [note]);
    assert_eq!(refused(&mut job, 0, 1), ignored(Why::Superseded));
    job.start(0, 1, 1, on("a"));
    assert_eq!(refused(&mut job, 1, 1), ignored(Why::Contradicts));
}

#[test]
fn late_and_repeated_reports_change_nothing() {
    let mut first = stage(1);
    first.retries.failed = 9;
    let mut job = Job::of([first, stage(1)]);
    job.run(0, FAILED);
    job.fire();
    job.assign(0, on("b"), 1);
    let _ = job.graph.take_delta();
    assert_eq!(job.end(0, 0, 1, on("a"), output(1)), ignored(Why::Superseded), "an earlier attempt");
    assert_eq!(job.end(0, 0, 2, on("a"), output(1)), ignored(Why::Superseded), "another executor");
    assert_eq!(job.end(0, 0, 2, life("b", 0), output(1)), ignored(Why::Superseded), "an earlier incarnation");
    assert_eq!(job.end(0, 0, 3, on("b"), output(1)), ignored(Why::Superseded), "an attempt never made");
    assert_eq!(job.end(0, 7, 1, on("b"), output(1)), ignored(Why::Unknown));
    assert!(job.graph.take_delta().is_empty());
    job.start(0, 0, 2, on("b"));
    assert_eq!(job.start(0, 0, 2, on("b")), ignored(Why::Duplicate));
    assert_eq!(job.end(0, 0, 2, life("b", 2), output(1)), [moved(0, StageState::Successful)], "a later incarnation");
    assert_eq!(job.end(0, 0, 2, on("b"), FAILED), ignored(Why::Duplicate));
    job.run(1, output(1));
    assert_eq!(job.end(0, 0, 1, on("b"), output(2)), ignored(Why::Over));
    assert_eq!(job.assign(0, on("b"), 1), ignored(Why::Over));
}

#[test]
fn an_input_that_is_gone_is_made_again_at_no_cost_to_its_reader() {
    let mut job = Job::of([stage(2), reading(stage(1), Edge::All, 0)]);
    job.run(0, output(1));
    job.run(0, output(2));
    job.assign(1, on("b"), 1);
    let unreadable = vec![UnreadableInput { task: task(0, 1), attempt: 1, on: "a".to_owned(), gone: true }];
    let note = job.note(task(1, 0), 1, 1, FailureClass::InputUnreadable, "as told", false);
    assert_eq!(
        job.end_with(1, 0, 1, on("b"), Outcome::Failed(FailureClass::InputUnreadable), unreadable),
        [outputs_lost(0, 1), moved(0, StageState::Running), note]
    );
    assert_eq!(job.spent(1, 0), [0; 6]);
    assert_eq!(job.ready(), [(0, 1)], "the reader waits");
    assert_eq!(job.run_on("b", 0, output(2)), [moved(0, StageState::Successful)]);
    assert_eq!(job.ready(), [(1, 1)]);
    assert_eq!(job.inputs_revision(1), 1);
}

#[test]
fn an_input_that_cannot_be_reached_costs_the_reader_and_leaves_the_output_alone() {
    let mut job = Job::of([stage(1), reading(stage(1), Edge::All, 0)]);
    job.run(0, output(1));
    job.assign(1, on("b"), 1);
    let unreadable = vec![UnreadableInput { task: task(0, 0), attempt: 1, on: String::new(), gone: false }];
    let note = job.note(task(1, 0), 1, 1, FailureClass::InputUnreadable, "as told", false);
    assert_eq!(job.end_with(1, 0, 1, on("b"), Outcome::Failed(FailureClass::InputUnreadable), unreadable), [note]);
    assert_eq!(job.spent(1, 0), [0, 0, 0, 0, 0, 1]);
    assert_eq!(job.phases(0), [TaskPhase::Successful]);
}

#[test]
fn who_waits_for_an_executor_for_ever_waits_for_its_outputs_too() {
    let mut reader = reading(stage(1), Edge::All, 0);
    reader.retries.input_unreadable = 0;
    let mut plan = plans::plan([stage(1), reader]);
    plan.lost_after = LossPolicy::Never;
    let mut job = Job::with(plan);
    job.run(0, output(1));
    for attempt in 1..=20 {
        job.assign(1, on("b"), 1);
        let unreadable = vec![UnreadableInput { task: task(0, 0), attempt: 1, on: String::new(), gone: false }];
        job.end_with(1, 0, attempt, on("b"), Outcome::Failed(FailureClass::InputUnreadable), unreadable);
        assert_eq!(job.ready(), [], "after a moment");
        job.at += 60_000;
        job.fire();
        assert_eq!(job.ready(), [(1, 1)]);
    }
    assert_eq!(job.spent(1, 0), [0; 6]);
}

#[test]
fn a_reader_that_finds_every_new_output_corrupt_pays_in_the_end() {
    let mut reader = reading(stage(1), Edge::All, 0);
    reader.retries.input_unreadable = 0;
    let mut job = Job::of([stage(1), reader]);
    for round in 1..100 {
        job.run(0, output(1));
        job.assign(1, on("b"), 1);
        let unreadable = vec![UnreadableInput { task: task(0, 0), attempt: round, on: String::new(), gone: true }];
        job.end_with(1, 0, round, on("b"), Outcome::Failed(FailureClass::InputUnreadable), unreadable);
        if job.phases(1) == [TaskPhase::Failed] {
            assert_eq!(round, u32::from(muster_graph::execution::FREE_REMAKES) + 1);
            return;
        }
    }
    panic!("the producer runs for ever");
}

#[test]
fn an_attempt_that_its_executor_cancels_unasked_runs_again_and_is_counted() {
    let mut job = Job::of([stage(1)]);
    job.run(0, Outcome::Cancelled);
    assert_eq!(job.phases(0), [TaskPhase::Pending]);
    assert_eq!(job.spent(0, 0), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn an_attempt_that_is_given_back_costs_nothing_and_is_ready_at_once_under_another_number() {
    let mut job = Job::of([stage(1)]);
    job.assign(0, on("a"), 1);
    let end = AttemptEnd {
        outcome: Outcome::GivenBack,
        started_at: 0,
        finished_at: job.at,
        exit: Exit::None,
        message: "given back".to_owned(),
        unreadable: Vec::new(),
    };
    assert_eq!(job.apply(Event::AttemptFinished { task: task(0, 0), attempt: 1, by: on("a"), end }), []);
    assert_eq!(job.phases(0), [TaskPhase::Pending]);
    assert_eq!(job.spent(0, 0), [0; 6]);
    assert_eq!(job.assign(0, on("b"), 1), [launch(0, 0, 2, 1)]);
}

#[test]
fn an_attempt_that_is_given_back_after_it_began_was_lost() {
    let mut job = Job::of([stage(1)]);
    job.run(0, Outcome::GivenBack);
    assert_eq!(job.spent(0, 0), [0, 0, 0, 1, 0, 0], "its executor contradicts itself, which must not go on for ever");
}

#[test]
fn a_job_restored_from_a_backup_uses_no_number_that_may_be_in_use_out_there() {
    let mut job = Job::of([stage(2)]);
    job.assign(0, on("a"), 1);
    job.graph.number_attempts_above(1_000);
    assert_eq!(job.assign(0, on("a"), 1), [launch(0, 1, 1_001, 0)], "a task that had no attempt as far as is known");
    assert_eq!(job.graph.task(task(0, 0)).map(|task| task.attempt), Some(1), "what is known to run keeps its number");
    job.apply(Event::LaunchRefused { task: task(0, 0), attempt: 1, by: on("a"), message: "no room".to_owned() });
    job.apply(Event::LaunchRefused { task: task(0, 1), attempt: 1_001, by: on("a"), message: "no room".to_owned() });
    while let Some(at) = job.graph.next_timer() {
        job.at = job.at.max(at);
        job.fire();
    }
    assert_eq!(job.assign(0, on("b"), 2), [launch(0, 0, 1_001, 1), launch(0, 1, 1_002, 1)]);
}

#[test]
fn what_a_job_took_is_the_time_of_the_attempts_that_count_by_what_their_stages_need() {
    let mut first = stage(3);
    first.resources = Resources { cpu_milli: 1500, memory_bytes: (3 << 20) + 1, named: [("gpu".to_owned(), 2)].into() };
    first.retries.failed = 1;
    let mut job = Job::of([first, stage(1)]);
    assert_eq!(job.graph.spent(), Spent::default());
    let ran = |job: &mut Job, id, attempt, outcome, ran_ms: u64| {
        let end = AttemptEnd {
            outcome,
            started_at: job.at,
            finished_at: job.at + ran_ms,
            exit: Exit::Code(0),
            message: String::new(),
            unreadable: Vec::new(),
        };
        job.apply(Event::AttemptFinished { task: id, attempt, by: on("a"), end });
    };
    job.assign(0, on("a"), 2);
    ran(&mut job, task(0, 0), 1, output(1), 2_000);
    ran(&mut job, task(0, 1), 1, FAILED, 100_000);
    assert_eq!(job.graph.spent().run_ms, 2_000, "what is tried again does not count");
    job.fire();
    job.assign(0, on("a"), 2);
    ran(&mut job, task(0, 1), 2, FAILED, 1_000);
    job.assign(1, on("a"), 1);
    ran(&mut job, task(1, 0), 1, output(2), 10);
    let named_ms = [("gpu".to_owned(), 6_000)].into();
    let spent = Spent { run_ms: 3_010, cpu_ms: 4_500, memory_mib_ms: 4 * 3_000, named_ms };
    assert_eq!(job.graph.spent(), spent, "one task still runs, and the other stage asks for nothing");
    job.lose("a");
    assert_eq!(job.graph.spent().run_ms, 1_000, "results that are lost with their outputs are taken back");
}
