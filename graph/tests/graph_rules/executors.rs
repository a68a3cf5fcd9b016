//! Executors that are lost, restart, or answer a new owner.

use muster_graph::execution::{
    AnswerScope, Effect, Event, FailureClass, Outcome, StageState, TaskPhase, UnreadableInput, Verdict, Why,
};
use muster_graph::ids::StageIndex;
use muster_graph::plan::Edge;

use crate::plans::{reading, stage};
use crate::script::{Job, cancel_attempt, ignored, launch, life, moved, on, output, outputs_lost, task};

#[test]
fn lost_executor_requeues_only_its_running_attempts() {
    let mut job = Job::of([stage(4)]);
    job.assign(0, on("a"), 2);
    job.assign(0, on("b"), 1);
    job.start(0, 0, 1, on("a"));
    let lost = |index| job.note(task(0, index), 1, 0, FailureClass::ExecutorLost, "executor a was lost", false);
    let expected = [lost(0), lost(1)];
    assert_eq!(job.lose("a"), expected);
    assert_eq!(job.phases(0), [TaskPhase::Pending, TaskPhase::Pending, TaskPhase::Assigned, TaskPhase::Pending]);
    assert_eq!(job.ready(), [(0, 3)], "nobody waits for it");
    assert_eq!(job.lose("a"), ignored(Why::NotConcerned));
    assert_eq!(job.lose("c"), ignored(Why::NotConcerned));
    assert_eq!(job.assign(0, on("b"), 1), [launch(0, 0, 2, 1)]);
}

#[test]
fn a_loss_does_not_reach_later_incarnations() {
    let mut job = Job::of([stage(1)]);
    job.assign(0, life("a", 5), 1);
    assert_eq!(job.lose("a"), ignored(Why::NotConcerned));
}

#[test]
fn a_restarted_executor_gives_up_what_its_earlier_life_had_and_keeps_what_is_on_its_way() {
    let mut job = Job::of([stage(3)]);
    job.assign(0, life("a", 1), 2);
    job.start(0, 0, 1, life("a", 1));
    job.assign(0, life("a", 2), 1);
    let gone = job.note(task(0, 1), 1, 0, FailureClass::ExecutorLost, "executor a has started again without it", false);
    // A finished result in the outbox of the earlier life counts as held.
    assert_eq!(job.answer(life("a", 2), [(task(0, 0), 1)], AnswerScope::EarlierIncarnations), [gone]);
    assert_eq!(job.phases(0), [TaskPhase::Running, TaskPhase::Pending, TaskPhase::Assigned]);
    assert_eq!(job.ready(), [(0, 1)], "without a backoff");
    assert_eq!(job.end(0, 0, 1, life("a", 2), output(1)), []);
}

#[test]
fn a_new_owner_adopts_what_runs_and_requeues_what_the_executor_denies() {
    let mut job = Job::of([stage(3)]);
    job.assign(0, on("a"), 3);
    job.start(0, 0, 1, on("a"));
    job.start(0, 1, 1, on("a"));
    let holds: Vec<_> = job.graph.holds("a").collect();
    assert_eq!(holds, [(task(0, 0), 1), (task(0, 1), 1), (task(0, 2), 1)]);
    assert_eq!(job.graph.holders(), ["a"]);
    let lost = job.note(task(0, 1), 1, 0, FailureClass::ExecutorLost, "executor a does not run it any more", false);
    let never = job.note(task(0, 2), 1, 0, FailureClass::LaunchRefused, "executor a never got it", false);
    assert_eq!(job.answer(on("a"), [(task(0, 0), 1)], AnswerScope::Everything), [lost, never]);
    assert_eq!(job.phases(0), [TaskPhase::Running, TaskPhase::Pending, TaskPhase::Pending]);
    assert_eq!(job.answer(on("a"), [(task(0, 0), 1)], AnswerScope::Everything), ignored(Why::NotConcerned));
}

#[test]
fn an_answer_that_names_attempts_which_will_never_count_ends_them() {
    let mut job = Job::of([stage(1)]);
    job.assign(0, on("a"), 1);
    job.lose("a");
    job.assign(0, on("b"), 1);
    assert_eq!(
        job.answer(life("a", 2), [(task(0, 0), 1)], AnswerScope::EarlierIncarnations),
        [cancel_attempt(0, 0, 1, 2)]
    );
    assert_eq!(job.graph.executor(muster_graph::execution::ExecutorRef(2)), Some(&life("a", 2)));
}

#[test]
fn a_cancel_is_sent_again_for_what_a_new_owner_adopts() {
    let mut job = Job::of([stage(1)]);
    job.assign(0, on("a"), 1);
    job.cancel();
    assert_eq!(job.answer(on("a"), [(task(0, 0), 1)], AnswerScope::Everything), [cancel_attempt(0, 0, 1, 0)]);
}

#[test]
fn outputs_on_a_lost_executor_are_made_again_up_to_where_the_need_reaches() {
    // 0 → 1 → 2, where all of 0 and 1 lies on `a`, and 2 has not begun.
    let mut job = Job::of([stage(1), reading(stage(2), Edge::All, 0), reading(stage(1), Edge::Shuffle, 1)]);
    job.run(0, output(1));
    job.run(1, output(1));
    job.run_on("b", 1, output(2));
    assert_eq!(
        job.lose("a"),
        [outputs_lost(1, 1), moved(1, StageState::Running), outputs_lost(0, 1), moved(0, StageState::Running),]
    );
    assert_eq!(job.phases(1), [TaskPhase::Pending, TaskPhase::Successful]);
    assert_eq!(job.ready(), [(0, 1)], "1 waits for 0 again, 2 for 1");
}

#[test]
fn outputs_that_every_reader_has_read_stay_lost() {
    let mut job = Job::of([stage(1), reading(stage(1), Edge::All, 0), reading(stage(1), Edge::All, 1)]);
    job.run(0, output(1));
    job.run_on("b", 1, output(1));
    assert_eq!(job.lose("a"), [], "noted, should it be needed later");
    assert_eq!(job.phases(0), [TaskPhase::Successful]);
    assert_eq!(job.lose("a"), ignored(Why::NotConcerned));
    // Now stage 1 has to run again, and reads what was lost before.
    assert_eq!(
        job.lose("b"),
        [outputs_lost(1, 1), moved(1, StageState::Running), outputs_lost(0, 1), moved(0, StageState::Running)]
    );
}

#[test]
fn an_each_edge_needs_the_outputs_of_unfinished_tasks_only() {
    let mut job = Job::of([stage(2), reading(stage(2), Edge::Each, 0)]);
    job.run(0, output(1));
    job.run(0, output(2));
    job.run_on("b", 1, output(1));
    assert_eq!(job.lose("a"), [outputs_lost(0, 1), moved(0, StageState::Running)]);
    assert_eq!(job.phases(0), [TaskPhase::Successful, TaskPhase::Pending]);
    assert_eq!(job.graph.stage_counts(StageIndex(0)).pending, 1);
}

#[test]
fn a_task_that_kills_its_executor_before_its_start_is_told_fails_within_its_budget() {
    let mut plan = stage(1);
    plan.retries.executor_lost = 2;
    let mut job = Job::of([plan]);
    for incarnation in 1..=3 {
        assert_eq!(job.phases(0), [TaskPhase::Pending]);
        job.assign(0, life("a", incarnation), 1);
        job.answer(life("a", incarnation + 1), [], AnswerScope::EarlierIncarnations);
    }
    assert_eq!(job.phases(0), [TaskPhase::Failed]);
}

fn needs(job: &Job, executor: &str) -> bool {
    job.graph.needed_outputs_of(executor).next().is_some()
}

#[test]
fn outputs_are_needed_until_their_readers_are_over() {
    let mut job = Job::of([stage(1), reading(stage(1), Edge::All, 0), stage(1)]);
    assert!(!needs(&job, "a") && !job.graph.knows("a"));
    job.run_on("a", 0, output(1));
    assert!(needs(&job, "a") && job.graph.knows("a"));
    assert!(!needs(&job, "b"));
    job.run_on("b", 1, output(2));
    assert!(!needs(&job, "a"), "its reader has read it");
    assert!(needs(&job, "b"), "the job's result");
    job.run_on("a", 2, output(3));
    assert!(!needs(&job, "b"), "the job is over");
}

#[test]
fn what_is_held_to_have_taken_its_executor_down_waits_or_ends_whatever_its_budget() {
    let down = |index, verdict| Event::WentDown {
        task: task(0, index),
        attempt: 1,
        with: on("a"),
        verdict,
        message: "again".to_owned(),
    };
    let mut plan = stage(3);
    plan.retries.executor_lost = 255;
    let mut job = Job::of([plan]);
    job.assign(0, on("a"), 3);
    job.start(0, 0, 1, on("a"));
    job.apply(down(0, Verdict::GivenUp));
    job.apply(down(1, Verdict::HeldBack { until: job.at + 500 }));
    job.lose("a");
    assert_eq!(job.phases(0), [TaskPhase::Failed, TaskPhase::Pending, TaskPhase::Pending]);
    let failure = &job.graph.job().failures[0];
    assert_eq!(
        (failure.class, failure.message.as_str(), failure.is_final),
        (FailureClass::ExecutorLost, "again", true)
    );
    assert_eq!(job.graph.ready_count(StageIndex(0)), 1, "the other one is held back");
    assert_eq!(job.apply(down(1, Verdict::GivenUp)), ignored(Why::Superseded), "it is not there any more");
    assert_eq!(job.graph.next_timer(), Some(job.at + 500));
    job.at += 500;
    job.apply(Event::TimerFired);
    assert_eq!(job.graph.ready_count(StageIndex(0)), 2);
}

fn hand_over(job: &mut Job, attempt: u32, from: &str, to: &str) -> Vec<Effect> {
    job.apply(Event::OutputMoved { task: task(0, 0), attempt, from: from.to_owned(), to: on(to) })
}

#[test]
fn an_output_that_was_handed_over_is_lost_with_who_has_it_now() {
    let mut job = Job::of([stage(1), reading(stage(1), Edge::All, 0)]);
    job.run(0, output(1));
    assert_eq!(hand_over(&mut job, 1, "b", "c"), ignored(Why::Superseded), "it is not there");
    assert_eq!(hand_over(&mut job, 2, "a", "b"), ignored(Why::Superseded), "another attempt's");
    let revision = job.inputs_revision(1);
    assert_eq!(hand_over(&mut job, 1, "a", "b"), []);
    assert_eq!(hand_over(&mut job, 1, "a", "b"), ignored(Why::Superseded), "said twice");
    assert_eq!(job.inputs_revision(1), revision, "whoever has read it goes on");
    assert!(!needs(&job, "a") && needs(&job, "b"));
    assert_eq!(job.lose("a"), ignored(Why::NotConcerned));
    assert_eq!(job.lose("b"), [outputs_lost(0, 1), moved(0, StageState::Running)]);
}

#[test]
fn an_output_is_handed_over_by_who_was_already_given_up_with_it() {
    let mut job = Job::of([stage(1), reading(stage(1), Edge::All, 0), reading(stage(1), Edge::All, 1)]);
    job.run(0, output(1));
    job.run_on("b", 1, output(1));
    assert_eq!(job.lose("a"), [], "nothing needs it");
    hand_over(&mut job, 1, "a", "c");
    // Were it still on a lost executor, it would be made again, too.
    assert_eq!(job.lose("b"), [outputs_lost(1, 1), moved(1, StageState::Running)]);
}

#[test]
fn a_reader_that_looked_where_an_output_lay_before_tries_again_at_no_cost() {
    let mut reader = reading(stage(1), Edge::All, 0);
    reader.retries.input_unreadable = 0;
    let mut job = Job::of([stage(1), reader]);
    job.run(0, output(1));
    job.assign(1, on("d"), 1);
    hand_over(&mut job, 1, "a", "b");
    for gone in [true, false] {
        let unreadable = vec![UnreadableInput { task: task(0, 0), attempt: 1, on: "a".to_owned(), gone }];
        let attempt = if gone { 1 } else { 2 };
        job.end_with(1, 0, attempt, on("d"), Outcome::Failed(FailureClass::InputUnreadable), unreadable);
        assert_eq!(job.phases(0), [TaskPhase::Successful], "it is not lost");
        assert_eq!((job.spent(1, 0), job.ready()), ([0; 6], vec![(1, 1)]));
        job.assign(1, on("d"), 1);
    }
}
