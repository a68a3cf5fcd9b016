//! Random plans and random events, from a seed alone.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_graph::execution::{
    AnswerScope, AttemptEnd, Event, ExecutionGraph, Exit, FailureClass, Outcome, Output, TaskState, UnreadableInput,
    Verdict,
};
use muster_graph::ids::{Attempt, ExecutorKey, Millis, StageIndex, TaskId};
use muster_graph::plan::{Edge, Plan};
use muster_graph::spec::{Retries, When};

use crate::plans;

/// Random numbers (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound.max(1))) as u32
    }

    pub(crate) fn one_in(&mut self, bound: u32) -> bool {
        self.below(bound) == 0
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u32) as usize]
    }
}

/// One to six stages of none to five tasks, with all kinds of edges and conditions.
pub(crate) fn plan(dice: &mut Dice) -> Plan {
    let sizes = [dice.below(6), dice.below(6)];
    let mut stages = Vec::new();
    for index in 0..=dice.below(6) {
        let mut stage = plans::stage(dice.of(&sizes));
        let few = dice.of(&[2, 4]);
        for upstream in 0..index {
            if !dice.one_in(few) {
                continue;
            }
            let above: &muster_graph::plan::StagePlan = &stages[upstream as usize];
            let each = [Edge::Each, Edge::Each, Edge::All, Edge::Shuffle, Edge::After];
            let edge = dice.of(if above.tasks == stage.tasks { &each } else { &each[2..] });
            stage = plans::reading(stage, edge, upstream);
        }
        stage.when = dice.of(&[When::OnSuccess, When::OnSuccess, When::OnSuccess, When::OnFailure, When::Always]);
        stage.deterministic = !dice.one_in(4);
        stage.stop_after = dice.of(&[None, Some(1), Some(2)]);
        stage.retries = Retries {
            failed: dice.of(&[0, 1, 3]),
            timed_out: dice.of(&[0, 1]),
            out_of_memory: dice.of(&[0, 1]),
            executor_lost: dice.of(&[1, 3, 10]),
            launch_refused: dice.of(&[2, 255]),
            input_unreadable: dice.of(&[1, 10]),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_millis(400),
        };
        stages.push(stage);
    }
    let mut plan = plans::plan(stages);
    plan.timeout_ms = dice.of(&[None, None, Some(4_000)]);
    plan
}

/// The executors of a case: names with rising incarnations.
pub(crate) struct Fleet {
    incarnations: [u64; 3],
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self { incarnations: [1; 3] }
    }

    pub(crate) fn key(&self, executor: u32) -> ExecutorKey {
        let incarnation = self.incarnations[executor as usize];
        ExecutorKey { id: format!("executor-{executor}"), incarnation }
    }

    fn any(&self, dice: &mut Dice) -> ExecutorKey {
        let mut key = self.key(dice.below(3));
        match dice.below(12) {
            0 => key.incarnation = key.incarnation.saturating_sub(1),
            1 => key.incarnation += 1,
            _ => {}
        }
        key
    }
}

/// The next event: mostly one that fits, often enough one that does not.
pub(crate) fn event(dice: &mut Dice, graph: &ExecutionGraph, fleet: &mut Fleet, past: &[Event], at: Millis) -> Event {
    let cancel_is_rare = dice.one_in(8);
    match dice.below(100) {
        0..24 => {
            let ready: Vec<_> = graph.ready().map(|ready| ready.stage).collect();
            let stage = if ready.is_empty() || dice.one_in(12) { StageIndex(dice.below(7)) } else { dice.of(&ready) };
            Event::Assigned { stage, on: fleet.any(dice), count: dice.below(5) }
        }
        24..72 => {
            let held: Vec<_> = (0..3).flat_map(|one| holdings(graph, &fleet.key(one))).collect();
            let random = held.is_empty() || dice.one_in(8);
            let (task, attempt, by) = if random {
                let (task, newest) = any_task(dice, graph);
                (task, newest.saturating_add(dice.below(3)).saturating_sub(1), fleet.any(dice))
            } else {
                let (task, attempt, mut by) = held[dice.below(held.len() as u32) as usize].clone();
                if dice.one_in(10) {
                    by = fleet.any(dice);
                }
                (task, attempt, by)
            };
            match dice.below(12) {
                0..3 => Event::AttemptStarted { task, attempt, by, started_at: at - u64::from(dice.below(3)) },
                3 => Event::LaunchRefused { task, attempt, by, message: "no room".to_owned() },
                4 if dice.one_in(3) => {
                    let until = at + u64::from(dice.below(500));
                    let verdict = if dice.one_in(3) { Verdict::GivenUp } else { Verdict::HeldBack { until } };
                    Event::WentDown { task, attempt, with: by, verdict, message: "again".to_owned() }
                }
                _ => Event::AttemptFinished { task, attempt, by, end: end(dice, graph, task, at) },
            }
        }
        72..76 => {
            let executor = fleet.any(dice);
            if dice.one_in(2) {
                restart(fleet, &executor);
            }
            Event::ExecutorLost { executor }
        }
        76..82 => {
            let mut by = fleet.any(dice);
            let scope = dice.of(&[AnswerScope::EarlierIncarnations, AnswerScope::Everything]);
            if scope == AnswerScope::EarlierIncarnations || dice.one_in(3) {
                restart(fleet, &by);
                by.incarnation += 1;
            }
            Event::ExecutorAnswered { held: said(dice, graph, &by), by, scope }
        }
        82..84 => {
            let (task, newest) = any_task(dice, graph);
            let on = match graph.task(task).map(|task| task.state) {
                Some(TaskState::Successful(accepted)) => graph.executor(accepted.on).cloned(),
                _ => None,
            };
            let from = on.filter(|_| !dice.one_in(6)).unwrap_or_else(|| fleet.any(dice)).id;
            let attempt = if dice.one_in(6) { dice.below(4) } else { newest };
            Event::OutputMoved { task, attempt, from, to: fleet.any(dice) }
        }
        84..86 => {
            let (task, newest) = any_task(dice, graph);
            Event::OutputLost { task, attempt: if dice.one_in(6) { dice.below(4) } else { newest } }
        }
        86 if cancel_is_rare || graph.is_over() => Event::CancelRequested { reason: "enough".to_owned() },
        87..89 if graph.is_over() || cancel_is_rare => Event::RetryRequested,
        89 => Event::Submitted,
        90..96 if !past.is_empty() => past[dice.below(past.len() as u32) as usize].clone(),
        _ => Event::TimerFired,
    }
}

fn restart(fleet: &mut Fleet, key: &ExecutorKey) {
    let number: usize = key.id.trim_start_matches("executor-").parse().expect("names end in a number");
    fleet.incarnations[number] = fleet.incarnations[number].max(key.incarnation + 1);
}

pub(crate) fn holdings(graph: &ExecutionGraph, key: &ExecutorKey) -> Vec<(TaskId, Attempt, ExecutorKey)> {
    graph.holds(&key.id).map(|(task, attempt)| (task, attempt, key.clone())).collect()
}

fn said(dice: &mut Dice, graph: &ExecutionGraph, by: &ExecutorKey) -> BTreeSet<(TaskId, Attempt)> {
    let mut held: BTreeSet<_> = graph.holds(&by.id).filter(|_| !dice.one_in(3)).collect();
    if dice.one_in(3) {
        let (task, newest) = any_task(dice, graph);
        held.insert((task, dice.below(newest.saturating_add(2))));
    }
    held
}

/// A task, now and then one that is not in the plan, and its newest attempt.
fn any_task(dice: &mut Dice, graph: &ExecutionGraph) -> (TaskId, Attempt) {
    let stages = graph.plan().stages.len() as u32;
    let beyond = u32::from(dice.one_in(20));
    let stage = dice.below(stages + beyond);
    let tasks = graph.plan().stages.get(stage as usize).map_or(1, |stage| stage.tasks);
    let beyond = u32::from(dice.one_in(20));
    let task = TaskId::new(stage, dice.below(tasks + beyond));
    (task, graph.task(task).map_or(1, |task| task.attempt))
}

fn end(dice: &mut Dice, graph: &ExecutionGraph, task: TaskId, at: Millis) -> AttemptEnd {
    let outcome = match dice.below(20) {
        0..14 => Outcome::Succeeded(output(dice)),
        14 => Outcome::Failed(dice.of(&FailureClass::ALL)),
        15 => Outcome::Failed(FailureClass::Failed),
        16 | 17 => Outcome::Failed(FailureClass::InputUnreadable),
        18 => Outcome::GivenBack,
        _ => Outcome::Cancelled,
    };
    let mut unreadable = Vec::new();
    if outcome == Outcome::Failed(FailureClass::InputUnreadable) {
        let upstreams = graph.plan().stages.get(task.stage.0 as usize).map_or(&[][..], |stage| &stage.upstreams);
        for upstream in upstreams {
            for (index, input) in graph.tasks(upstream.stage, 0..8).filter(|_| dice.one_in(2)).collect::<Vec<_>>() {
                let attempt = input.attempt - u32::from(input.attempt > 0 && dice.one_in(5));
                let task = TaskId { stage: upstream.stage, index };
                let on = dice.of(&["", "executor-0", "executor-1"]).to_owned();
                unreadable.push(UnreadableInput { task, attempt, on, gone: !dice.one_in(3) });
            }
        }
        if dice.one_in(4) {
            let (task, attempt) = any_task(dice, graph);
            unreadable.push(UnreadableInput { task, attempt, on: String::new(), gone: true });
        }
    }
    let started_at = if dice.one_in(5) { 0 } else { at.saturating_sub(20) };
    let exit = dice.of(&[Exit::None, Exit::Code(0), Exit::Code(3), Exit::Signal(9)]);
    AttemptEnd { outcome, started_at, finished_at: at, exit, message: "as rolled".to_owned(), unreadable }
}

fn output(dice: &mut Dice) -> Output {
    let files = dice.of(&[0, 1, 2]);
    if files == 0 {
        Output::default()
    } else {
        Output { bytes: 10, checksum: u64::from(dice.of(&[1u32, 1, 1, 2])), files }
    }
}

/// The states in which a task's data must fit.
pub(crate) fn is_held(state: &TaskState) -> bool {
    matches!(state, TaskState::Assigned { .. } | TaskState::Running { .. })
}
