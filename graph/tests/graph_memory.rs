//! How much a task costs, in memory and in the store. The figures are printed; the limits are asserted.
#![allow(unsafe_code, reason = "counting what is allocated takes a global allocator, and its trait is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bincode::Options;
use muster_graph::execution::{
    AttemptEnd, Delta, Event, ExecutionGraph, Exit, JobState, Outcome, Output, Part, Task, TaskRun,
};
use muster_graph::ids::{ExecutorKey, JobId, StageIndex, TaskId};
use muster_graph::spec::{
    Arguments, Format, Found, JobSpec, Library, NoFiles, Outline, Problems, Unknown, expand, read,
};
use plans::stage;

mod plans;

/// The system's allocator, and how many bytes of it are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// The most that was in use at a time.
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on unchanged to the system's allocator, which upholds the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let before = IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(before + layout.size(), Ordering::Relaxed);
        // SAFETY: as given by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as given by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TASKS: u32 = 1_000_000;
const BUCKET: u32 = 1_024;
const START: u64 = 1_790_000_000_000;

fn executor(number: u32) -> ExecutorKey {
    ExecutorKey { id: format!("executor-{number:03}"), incarnation: 1_790_000_000_000 }
}

fn success(index: u32) -> AttemptEnd {
    let output = Output {
        bytes: 20_000 + u64::from(index % 5_000),
        checksum: u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        files: 1,
    };
    AttemptEnd {
        outcome: Outcome::Succeeded(output),
        started_at: START + u64::from(index),
        finished_at: START + u64::from(index) + 1_500,
        exit: Exit::Code(0),
        message: String::new(),
        unreadable: Vec::new(),
    }
}

#[test]
fn a_million_finished_tasks_take_at_most_64_bytes_each_and_a_cancel_of_them_is_one_entry() {
    let plan = plans::shared([stage(TASKS)]);
    let before = IN_USE.load(Ordering::Relaxed);
    let mut graph = ExecutionGraph::new(plan.clone(), JobId(1));
    let mut effects = Vec::new();
    graph.apply(Event::Submitted, START, &mut effects);
    assert!(size_of::<Task>() <= 64);

    let cancelled = Instant::now();
    let mut doomed = graph.clone();
    doomed.apply(Event::CancelRequested { reason: "enough".to_owned() }, START, &mut effects);
    let _ = graph.take_delta();
    let delta = doomed.take_delta();
    assert_eq!(doomed.job().state, JobState::Cancelled);
    let [TaskRun { first: 0, count: TASKS, .. }] = delta.tasks[..] else { panic!("{} runs", delta.tasks.len()) };
    let cancelled = cancelled.elapsed();
    drop((doomed, delta));

    let started = Instant::now();
    for batch in 0..TASKS / 100 {
        let on = executor(batch % 100);
        effects.clear();
        graph.apply(Event::Assigned { stage: StageIndex(0), on: on.clone(), count: 100 }, START, &mut effects);
        for index in batch * 100..(batch + 1) * 100 {
            effects.clear();
            let task = TaskId::new(0, index);
            let finished = Event::AttemptFinished { task, attempt: 1, by: on.clone(), end: success(index) };
            graph.apply(finished, START, &mut effects);
        }
        let delta = graph.take_delta();
        assert!(delta.tasks.len() <= 100, "a delta holds what changed and nothing else");
    }
    let walked = started.elapsed();
    assert_eq!(graph.job().state, JobState::Successful);
    drop(std::mem::take(&mut effects));

    let heap = IN_USE.load(Ordering::Relaxed) - before;
    let each = heap as f64 / f64::from(TASKS);
    println!(
        "in memory: {each:.2} bytes a task ({heap} in all); {walked:?} for a million tasks; {cancelled:?} to cancel them"
    );
    assert!(each <= 64.0, "{each} bytes a task");

    // In the store: buckets as they are folded, in the encoding of the codec (varints).
    let options = bincode::DefaultOptions::new().with_limit(1 << 20);
    let (mut stored, mut compressed, mut largest, mut buckets) = (0, 0, 0, 0);
    let mut parts = Vec::new();
    for first in (0..TASKS).step_by(BUCKET as usize) {
        let bucket = graph.extract(Part::Tasks { stage: StageIndex(0), first, count: BUCKET });
        let bytes = options.serialize(&bucket).expect("it is plain data, below the limit");
        let back: Delta = options.deserialize(&bytes).expect("it was just written");
        assert_eq!(back, bucket);
        compressed += zstd::bulk::compress(&bytes, 3).expect("memory suffices").len();
        (stored, largest, buckets) = (stored + bytes.len(), largest.max(bytes.len()), buckets + 1);
        parts.push(back);
    }
    let each = stored as f64 / f64::from(TASKS);
    let zstd = f64::from(compressed as u32) / f64::from(TASKS);
    println!(
        "in the store: {each:.2} bytes a task, {zstd:.2} by zstd -3; {buckets} buckets, the largest {largest} bytes"
    );
    assert!(each <= 64.0, "{each} bytes a task");

    for part in [Part::Job, Part::Executors { first: 0, count: 1_000 }, Part::Stages { first: 0, count: 1 }] {
        parts.push(graph.extract(part));
    }
    let restored = ExecutionGraph::restore(plan, JobId(1), parts).expect("it was just extracted");
    assert_eq!(restored.counts(), graph.counts());
    assert_eq!(restored.job(), graph.job());
    assert!(restored.tasks(StageIndex(0), 0..TASKS).eq(graph.tasks(StageIndex(0), 0..TASKS)));
}

/// A definition of a hundred stages with its gates, each reading the one before it.
struct Hundred;

impl Library for Hundred {
    fn find(&self, _: &str, _: Option<u32>) -> Result<Found, Unknown> {
        Ok(Found { revision: 1, outline: Arc::new(Outline { stages: 98, ..Outline::default() }) })
    }

    fn instantiate(&self, _: &str, _: u32, _: &Arguments) -> Result<JobSpec, Problems> {
        let stage = |stage: u32| {
            let inputs = if stage == 0 { String::new() } else { format!("inputs: {{stage-{}: all}}, ", stage - 1) };
            format!("stage-{stage}: {{{inputs}run: [python3, work.py, --stage, {stage}], env: {{STAGE: '{stage}'}}}}")
        };
        let stages: Vec<String> = (0..98).map(stage).collect();
        read(&format!("name: hundred\nstages: {{{}}}", stages.join(", ")), Format::Yaml)?.resolve(&NoFiles)
    }
}

#[test]
fn a_thousand_references_become_a_hundred_thousand_stages_in_bounded_memory() {
    let references: Vec<String> = (0..1_000).map(|stage| format!("reference-{stage}: {{job: hundred}}")).collect();
    let root = format!("name: root\nstages: {{{}}}", references.join(", "));
    let root = read(&root, Format::Yaml).expect("it is right").resolve(&NoFiles).expect("it is right");
    let (before, began) = (IN_USE.load(Ordering::Relaxed), Instant::now());
    PEAK.store(before, Ordering::Relaxed);
    let expanded = expand(root, &Hundred).expect("it is not too large");
    let (peak, took) = (PEAK.load(Ordering::Relaxed) - before, began.elapsed());
    assert_eq!(expanded.spec.stages.len(), 100_000);
    println!(
        "expanded in {took:?}: {} MB at most, {} MB left",
        peak >> 20,
        (IN_USE.load(Ordering::Relaxed) - before) >> 20
    );
    assert!(peak < 200_000_000, "{peak} bytes");
}
