//! Random nested jobs against a model that is as simple as the rules are: what becomes of each stage and reference follows from
//! those that it waits for, level by level.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::{Event, JobState, Outcome, StageReason, StageState, TaskState};
use muster_graph::ids::TaskId;
use muster_graph::spec::{Gate, JobSpec, Nested, NoLibrary, Outputs, Source, StageSpec, Tasks, When, Work, expand};
use proptest::prelude::*;

use super::Job;
use super::job::spec;

/// A stage: what it waits for (of those before it), its condition, and what is in it if it is a job.
#[derive(Debug, Clone)]
struct Node {
    after: Vec<usize>,
    when: When,
    inside: Option<Vec<Node>>,
}

fn nodes(depth: u32) -> BoxedStrategy<Vec<Node>> {
    let whens = prop_oneof![4 => Just(When::OnSuccess), 1 => Just(When::OnFailure), 1 => Just(When::Always)];
    let inside = if depth == 0 {
        Just(None).boxed()
    } else {
        prop_oneof![2 => Just(None), 1 => nodes(depth - 1).prop_map(Some)].boxed()
    };
    let node = (proptest::collection::vec(any::<prop::sample::Index>(), 0..3), whens, inside);
    let wired = |raw: Vec<(Vec<prop::sample::Index>, When, Option<Vec<Node>>)>| {
        let wire = |(place, (after, when, inside)): (usize, (Vec<prop::sample::Index>, When, _))| {
            let mut after: Vec<usize> =
                if place == 0 { Vec::new() } else { after.iter().map(|index| index.index(place)).collect() };
            after.sort_unstable();
            after.dedup();
            Node { when: if after.is_empty() { When::OnSuccess } else { when }, after, inside }
        };
        raw.into_iter().enumerate().map(wire).collect::<Vec<_>>()
    };
    proptest::collection::vec(node, 0..5).prop_map(wired).boxed()
}

fn written(name: &str, nodes: &[Node]) -> JobSpec {
    let blank = spec("stages: {a: {run: x}}");
    let stages = nodes.iter().enumerate().map(|(place, node)| StageSpec {
        name: format!("s{place}"),
        after: node.after.iter().map(|above| format!("s{above}")).collect(),
        when: node.when,
        tasks: if node.inside.is_some() { Tasks::Count(0) } else { Tasks::Count(1) },
        work: match &node.inside {
            None => blank.stages[0].work.clone(),
            Some(inside) => Work::Job(Nested {
                source: Source::Inline(Box::new(written(&format!("s{place}"), inside))),
                with: BTreeMap::new(),
            }),
        },
        ..blank.stages[0].clone()
    });
    let stages = stages.collect();
    JobSpec { name: name.to_owned(), stages, outputs: Outputs::None, ..blank }
}

/// How a stage looks to those that wait for it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Stand {
    Good,
    Bad,
    NothingFailed,
}

/// What becomes of the stages of a job that begins, or of one that does not.
fn model(
    nodes: &[Node],
    prefix: &str,
    begins: Option<Stand>,
    fails: &dyn Fn(&str) -> bool,
    states: &mut BTreeMap<String, StageState>,
) {
    let mut stands: Vec<Stand> = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let name = format!("{prefix}s{place}");
        let above = || node.after.iter().map(|above| stands[*above]);
        let skipped = match (begins, node.when) {
            (Some(stand), _) => Some(stand),
            (None, When::Always) => None,
            (None, When::OnFailure) if above().any(|stand| stand == Stand::Bad) => None,
            (None, When::OnFailure) => Some(Stand::NothingFailed),
            (None, When::OnSuccess) => {
                let bad = above().find(|stand| *stand == Stand::Bad);
                bad.or_else(|| above().find(|stand| *stand == Stand::NothingFailed))
            }
        };
        let state = match (&node.inside, skipped) {
            (None, None) if fails(&name) => StageState::Failed,
            (None, None) => StageState::Successful,
            (None, Some(_)) => StageState::Skipped,
            (Some(inside), skipped) => {
                let path = format!("{name}/");
                states
                    .insert(path.clone(), if skipped.is_some() { StageState::Skipped } else { StageState::Successful });
                model(inside, &path, skipped, fails, states);
                let failed = (0..inside.len()).any(|inner| states[&format!("{path}s{inner}")] == StageState::Failed);
                match skipped {
                    Some(_) => StageState::Skipped,
                    None if failed => StageState::Failed,
                    None => StageState::Successful,
                }
            }
        };
        stands.push(match (state, skipped) {
            (StageState::Successful, _) => Stand::Good,
            (StageState::Skipped, Some(stand)) => stand,
            _ => Stand::Bad,
        });
        states.insert(name, state);
    }
}

/// A name that is in the set, or rather one in three by its letters and a number.
fn is_failing(seed: u64) -> impl Fn(&str) -> bool {
    move |name: &str| {
        name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) >> 20 & 3 == 0
    }
}

/// Runs to the end, in an order that the numbers choose; now and then another owner takes it over.
fn run(mut job: Job, order: &[prop::sample::Index], fails: &dyn Fn(&str) -> bool) -> Job {
    let mut step = 0;
    loop {
        let ready = job.ready();
        if ready.is_empty() {
            return job;
        }
        let choice = order[step % order.len()];
        step += 1;
        let name = choice.get(&ready).clone();
        job.run(&name, !fails(&name));
        if choice.index(4) == 0 {
            job = job.taken_over();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_stage_and_reference_ends_as_its_level_says_and_a_retry_runs_what_is_below_failures(
        nodes in nodes(3),
        seed in any::<u64>(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let fails = is_failing(seed);
        let expanded = expand(written("job", &nodes), &NoLibrary).unwrap();
        let mut job = run(Job::start(&expanded.spec), &order, &fails);
        let mut expected = BTreeMap::new();
        model(&nodes, "", None, &fails, &mut expected);
        prop_assert_eq!(&job.states(), &expected);
        let any_failed = expected.values().any(|state| *state == StageState::Failed);
        prop_assert_eq!(job.job_state(), if any_failed { JobState::Failed } else { JobState::Successful });

        if any_failed {
            let before: BTreeSet<String> = job.ran.iter().cloned().collect();
            let below = below_failures(&job);
            job.retry();
            let job = run(job, &order, &|_| false);
            let mut expected = BTreeMap::new();
            model(&nodes, "", None, &|_| false, &mut expected);
            prop_assert_eq!(&job.states(), &expected, "as if nothing had ever failed");
            for name in job.ran.iter().filter(|name| before.contains(*name)) {
                prop_assert!(below.contains(name), "{} ran again", name);
            }
        }
    }

    #[test]
    fn ends_say_what_is_inside_also_when_outputs_are_lost(
        nodes in nodes(3),
        seed in any::<u64>(),
        steps in proptest::collection::vec((0u8..8, any::<prop::sample::Index>()), 1..40),
    ) {
        let fails = is_failing(seed);
        let expanded = expand(written("job", &nodes), &NoLibrary).unwrap();
        let mut job = Job::start(&expanded.spec);
        for (kind, choice) in steps {
            let ready = job.ready();
            match (kind, successful(&job, choice)) {
                (0 | 1, Some((task, attempt))) => drop(job.apply(Event::OutputLost { task, attempt })),
                (2, _) => job = job.taken_over(),
                (3, _) if choice.index(8) == 0 => drop(job.apply(Event::CancelRequested { reason: String::new() })),
                (4, _) => job.retry(),
                _ if ready.is_empty() => continue,
                _ => {
                    let name = choice.get(&ready).clone();
                    job.run(&name, !fails(&name));
                }
            }
            assert_ends(&job);
        }
        job.run_all(&[]);
        assert_ends(&job);
        prop_assert!(job.graph.is_over());
    }

    #[test]
    fn after_a_cancel_only_what_runs_always_is_begun(
        nodes in nodes(3),
        seed in any::<u64>(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..20),
        steps in 0usize..6,
    ) {
        let fails = is_failing(seed);
        let expanded = expand(written("job", &nodes), &NoLibrary).unwrap();
        let mut job = Job::start(&expanded.spec);
        for step in 0..steps {
            let ready = job.ready();
            if ready.is_empty() {
                break;
            }
            let name = order[step % order.len()].get(&ready).clone();
            job.run(&name, !fails(&name));
        }
        let ready = job.ready();
        if ready.is_empty() {
            return Ok(());
        }
        let held = job.assign(&ready[0]);
        job.apply(Event::CancelRequested { reason: String::new() });
        job.ran.clear();
        let job_over = {
            job.end(held, Outcome::Cancelled);
            run(job, &order, &fails)
        };
        for name in &job_over.ran {
            prop_assert!(inside_or_own_condition(&job_over, name), "{} began after the cancel", name);
        }
        prop_assert!(job_over.graph.is_over());
        for (name, state) in job_over.states() {
            let inside: Vec<StageState> = job_over.states().into_iter()
                .filter(|(other, _)| muster_graph::spec::path::parent(other) == Some(name.as_str()) && !other.ends_with('/'))
                .map(|(_, state)| state).collect();
            if name.ends_with('/') || inside.is_empty() {
                continue;
            }
            let begin = job_over.state(&format!("{name}/"));
            let expected = match begin {
                StageState::Skipped | StageState::Cancelled => begin,
                _ if inside.contains(&StageState::Failed) => StageState::Failed,
                _ if inside.contains(&StageState::Cancelled) => StageState::Cancelled,
                _ => state,
            };
            prop_assert_eq!(state, expected, "{}", name);
        }
    }
}

/// What the end of a nested job must say by what is directly inside.
fn end_by_what_is_inside(job: &Job, path: &str) -> StageState {
    let begin = job.state(&format!("{path}/"));
    let is_inside = |name: &str| muster_graph::spec::path::parent(name) == Some(path) && !name.ends_with('/');
    let plan = job.graph.plan();
    let records = job.graph.stages().filter(|(stage, _)| is_inside(&plan.stages[stage.0 as usize].name));
    let inside: Vec<_> = records.map(|(_, record)| *record).collect();
    let any = |wanted: StageState| inside.iter().any(|record| record.state == wanted);
    let for_a_reason = |record: &&muster_graph::execution::StageRecord| {
        record.state == StageState::Skipped && record.reason != StageReason::NothingFailed
    };
    if !begin.is_over() || inside.iter().any(|record| !record.state.is_over()) {
        StageState::Unresolved
    } else if matches!(begin, StageState::Skipped | StageState::Cancelled) {
        begin
    } else if any(StageState::Failed) {
        StageState::Failed
    } else if any(StageState::Cancelled) {
        StageState::Cancelled
    } else if inside.iter().find(for_a_reason).is_some() {
        StageState::Failed
    } else {
        StageState::Successful
    }
}

fn assert_ends(job: &Job) {
    let plan = job.graph.plan();
    for end in plan.stages.iter().filter(|stage| stage.gate == Some(Gate::End)) {
        assert_eq!(job.state(&end.name), end_by_what_is_inside(job, &end.name), "{}", end.name);
    }
}

/// A task whose output was accepted.
fn successful(job: &Job, choice: prop::sample::Index) -> Option<(TaskId, u32)> {
    let stages = (0u32..).zip(&job.graph.plan().stages).filter(|(_, stage)| stage.tasks > 0);
    let tasks = stages.filter_map(|(stage, _)| {
        let task = job.graph.task(TaskId::new(stage, 0))?;
        matches!(task.state, TaskState::Successful(_)).then_some((TaskId::new(stage, 0), task.attempt))
    });
    let tasks: Vec<_> = tasks.collect();
    if tasks.is_empty() { None } else { Some(*choice.get(&tasks)) }
}

/// The stages that failed, and all below them.
fn below_failures(job: &Job) -> BTreeSet<String> {
    let plan = job.graph.plan();
    let failed = job.graph.stages().filter(|(_, record)| record.state == StageState::Failed).map(|(stage, _)| stage);
    let mut left: Vec<_> = failed.collect();
    let mut below = BTreeSet::new();
    while let Some(stage) = left.pop() {
        let described = &plan.stages[stage.0 as usize];
        if below.insert(described.name.clone()) {
            left.extend(&described.downstreams);
        }
    }
    below
}

/// Whether a stage, or a job around it, has a condition other than success.
fn inside_or_own_condition(job: &Job, name: &str) -> bool {
    let plan = job.graph.plan();
    let when = |name: &str| plan.stage_named(name).map(|stage| plan.stages[stage.0 as usize].when);
    let mut around = Some(name);
    let mut name_of = name.to_owned();
    while let Some(path) = around {
        if when(&name_of) != Some(When::OnSuccess) {
            return true;
        }
        around = muster_graph::spec::path::parent(path);
        name_of = around.map_or_else(String::new, |path| format!("{path}/"));
        if around.is_none() {
            break;
        }
    }
    false
}
