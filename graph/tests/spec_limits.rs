//! The rules at the size of the largest jobs, and limits whose specs are too large for the corpus.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;

use muster_graph::ids::StageIndex;
use muster_graph::plan::{Edge, LossPolicy, Plan, Upstream};
use muster_graph::spec::limits::{
    EDGES_MAX, ITEM_BYTES_MAX, ITEMS_BYTES_MAX, PROBLEMS_MAX, SPEC_BYTES_MAX, SPEC_VALUES_MAX, STAGES_MAX,
    TASKS_PER_STAGE_MAX,
};
use muster_graph::spec::{
    Files, Format, Input, InputKind, JobSpec, NoFiles, Problem, Problems, Run, StageSpec, Tasks, Work, check, read,
};

fn read_all(text: &str, format: Format) -> Result<JobSpec, Problems> {
    read(text, format)?.resolve(&NoFiles)
}

fn small() -> JobSpec {
    read_all("name: x\nrun: ls\n", Format::Yaml).unwrap()
}

/// A job of so many stages, of which each is changed a little.
fn many(count: usize, change: impl Fn(usize, &mut StageSpec)) -> JobSpec {
    let mut spec = small();
    let blank = spec.stages[0].clone();
    spec.stages = (0..count)
        .map(|index| {
            let mut stage = StageSpec { name: format!("s{index}"), ..blank.clone() };
            change(index, &mut stage);
            stage
        })
        .collect();
    spec
}

/// Runs on a stack so small that any recursion over stages would overflow it.
fn on_a_small_stack<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(256 << 10).spawn(act).unwrap().join().unwrap()
}

fn the_only(problems: Vec<Problem>) -> Problem {
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn a_chain_of_the_most_stages_compiles() {
    let plan = on_a_small_stack(|| {
        let spec = many(STAGES_MAX, |index, stage| {
            if index > 0 {
                stage.inputs = vec![Input::of(format!("s{}", index - 1), InputKind::Each)];
            }
        });
        Plan::compile(&spec, |index| index.to_string()).unwrap()
    });
    assert_eq!(plan.task_count(), STAGES_MAX as u64);
    let last = plan.stage_named("s99999").unwrap();
    let upstream = Upstream { stage: StageIndex(99_998), edge: Edge::Each, seen_as: Vec::new() };
    assert_eq!(plan.stages[last.0 as usize].upstreams, [upstream]);
    assert_eq!(plan.stages[99_998].downstreams, [last]);
    assert_eq!(plan.stages[99_999].spec_digest, "99999");
}

#[test]
fn a_chain_of_the_most_stages_reads_from_text() {
    let mut text = String::from("name: chain\nstages:\n  s0: {run: ls}\n");
    for index in 1..STAGES_MAX {
        writeln!(text, "  s{index}: {{run: ls, after: [s{}]}}", index - 1).unwrap();
    }
    let spec = on_a_small_stack(move || read_all(&text, Format::Yaml)).unwrap();
    assert_eq!(spec.stages.len(), STAGES_MAX);
}

#[test]
fn a_circle_of_the_most_stages_is_found() {
    let problem = on_a_small_stack(|| {
        the_only(check(&many(STAGES_MAX, |index, stage| {
            stage.after = vec![format!("s{}", (index + 1) % STAGES_MAX)];
        })))
    });
    assert_eq!(problem.field, "stages.s0.after[0]");
    assert!(problem.message.ends_with("s8 → s9 → … 99990 more … → s0"), "{}", problem.message);
}

#[test]
fn more_than_the_most_stages_are_refused() {
    let problem = the_only(check(&many(STAGES_MAX + 1, |_, _| {})));
    assert!(problem.message.contains("100001 stages are more than the 100000"), "{}", problem.message);
}

#[test]
fn more_than_the_most_edges_are_refused() {
    // 2,000 stages that all wait for all of 501 others.
    let spec = many(2_501, |index, stage| {
        if index > 500 {
            stage.after = (0..=500).map(|upstream| format!("s{upstream}")).collect();
        }
    });
    let edges = 2_000 * 501;
    assert!(edges > EDGES_MAX);
    let problem = the_only(check(&spec));
    assert!(problem.message.starts_with(&format!("{edges} inputs and afters")), "{}", problem.message);
}

#[test]
fn the_most_items_are_read_from_text_and_one_more_is_refused() {
    let most = usize::try_from(TASKS_PER_STAGE_MAX).unwrap();
    let items = (0..most).map(|item| item.to_string()).collect::<Vec<_>>().join(",");
    let text = format!(r#"{{"name": "x", "run": "ls", "for_each": [{items}]}}"#);
    let mut spec = read_all(&text, Format::Json).unwrap();
    assert_eq!(spec.stages[0].tasks.count() as usize, most);
    spec.stages[0].tasks = Tasks::Items(vec!["item".to_owned(); most + 1]);
    let problem = the_only(check(&spec));
    assert_eq!(problem.field, "stages.main.for_each");
    assert!(problem.message.starts_with("1000001 tasks are more than"), "{}", problem.message);
}

#[test]
fn a_text_that_is_too_long_or_holds_too_many_values_is_refused() {
    let long = format!("name: x\nrun: ls\n# {}", "x".repeat(SPEC_BYTES_MAX));
    let problem = the_only(read_all(&long, Format::Yaml).unwrap_err().0);
    assert!(problem.message.contains("more than the 32 MiB"), "{}", problem.message);
    let values = vec!["1"; SPEC_VALUES_MAX + 1].join(",");
    for (format, text) in [
        (Format::Json, format!("[{values}]")),
        (Format::Yaml, format!("[{values}]")),
        (Format::Toml, format!("a = [{values}]")),
    ] {
        let problem = the_only(read_all(&text, format).unwrap_err().0);
        assert!(problem.message.contains("more than 2000000 values"), "{format:?}: {}", problem.message);
    }
}

#[test]
fn a_stage_that_names_another_a_million_times_is_answered_in_linear_time() {
    let mut spec = many(2, |_, _| {});
    spec.stages[1].inputs = vec![Input::of("s0", InputKind::All); EDGES_MAX / 2];
    spec.stages[1].after = vec!["s0".into(); EDGES_MAX / 2];
    let problems = check(&spec);
    assert_eq!(problems[0].message, "`s0` is named twice");
    assert_eq!(problems[PROBLEMS_MAX].message, format!("there are {} more problems", EDGES_MAX - 1 - PROBLEMS_MAX));
}

#[test]
fn numbers_in_toml_keep_their_value_however_they_are_written() {
    let text = "name = \"x\"\nrun = [\"echo\", 1_000, +5, 1.50]\ntasks = 1_000\ngrace = +7\n";
    let stage = read_all(text, Format::Toml).unwrap().stages.remove(0);
    assert_eq!((stage.tasks, stage.grace.as_secs()), (Tasks::Count(1_000), 7));
    let Work::Process(run) = stage.work else { panic!("it runs a process") };
    assert_eq!(run, Run::Argv(["echo", "1000", "+5", "1.50"].map(str::to_owned).to_vec()));
}

#[test]
fn at_most_a_hundred_problems_are_shown_and_the_others_counted() {
    let mut text = String::from("name: x\nstages:\n");
    for index in 0..150 {
        writeln!(text, "  s{index}: {{run: ls, tsks: 1}}").unwrap();
    }
    let problems = read_all(&text, Format::Yaml).unwrap_err().0;
    assert_eq!(problems.len(), PROBLEMS_MAX + 1);
    assert_eq!(problems[99].field, "stages.s99.tsks");
    assert_eq!(problems[100].message, "there are 50 more problems");
}

#[test]
fn items_from_files_are_limited_too() {
    struct Fake(Vec<String>);
    impl Files for Fake {
        fn lines(&self, _: &str) -> std::io::Result<Vec<String>> {
            Ok(self.0.clone())
        }
        fn glob(&self, _: &str) -> std::io::Result<Vec<String>> {
            Ok(self.0.clone())
        }
    }
    let resolve = |items: Vec<String>| {
        let draft = read("name: x\nrun: ls\nfor_each: {lines: items.txt}\n", Format::Yaml).unwrap();
        assert_eq!(draft.deferred().count(), 1);
        draft.resolve(&Fake(items)).map_err(|problems| the_only(problems.0))
    };
    assert_eq!(
        resolve(vec!["a".into(), "b".into()]).unwrap().stages[0].tasks,
        Tasks::Items(vec!["a".into(), "b".into()])
    );
    let problem = resolve(vec!["i".into(); 1_000_001]).unwrap_err();
    assert!(problem.message.starts_with("it gives 1000001 items"), "{}", problem.message);
    let problem = resolve(vec!["a".into(), "i".repeat(ITEM_BYTES_MAX + 1)]).unwrap_err();
    assert_eq!((problem.place.unwrap().line, problem.message.as_str()), (3, "item 1 has more than 16 KiB"));
    let many = ITEMS_BYTES_MAX / ITEM_BYTES_MAX + 1;
    let problem = resolve(vec!["i".repeat(ITEM_BYTES_MAX); many]).unwrap_err();
    assert!(problem.message.contains("the job's items take more than 64 MiB"), "{}", problem.message);
}

#[test]
fn a_spec_that_needs_files_is_refused_where_there_are_none() {
    let problem = the_only(read_all("name: x\nrun: ls\nfor_each: {glob: \"*\"}\n", Format::Yaml).unwrap_err().0);
    assert_eq!(problem.field, "for_each.glob");
    assert!(problem.message.contains("files are not read here"), "{}", problem.message);
}

#[test]
fn rules_without_a_text_name_the_field() {
    let mut spec = small();
    spec.stages[0].timeout = Some(std::time::Duration::ZERO);
    spec.stages[0].resources.named.insert("cpu".to_owned(), 1);
    spec.stages[0].stop_after = Some(0);
    spec.stages[0].tasks = Tasks::Count(2_000_000);
    let fields: Vec<String> = check(&spec).into_iter().map(|problem| problem.field).collect();
    assert_eq!(
        fields,
        ["stages.main.tasks", "stages.main.resources.cpu", "stages.main.timeout", "stages.main.stop_after"]
    );
    assert_eq!(Plan::compile(&spec, |_| panic!("asked for a digest of a bad spec")).unwrap_err(), check(&spec));
}

#[test]
fn a_plan_has_both_ends_of_each_edge_and_asks_for_each_digest_once() {
    let text = "
name: x
priority: 7
timeout: 1h
lost_after: 1.5
stages:
  a: {run: ls, tasks: 2}
  b: {run: ls, tasks: 2, inputs: {a: each}, after: [c], when: always}
  c: {run: ls, tasks: 3, inputs: {a: shuffle}}
  d: {run: ls, inputs: [c, b], stop_after: never, deterministic: false}
";
    let spec = read_all(text, Format::Yaml).unwrap();
    let mut asked = Vec::new();
    let plan = Plan::compile(&spec, |index| {
        asked.push(index);
        format!("digest {index}")
    })
    .unwrap();
    assert_eq!(asked, [0, 1, 2, 3]);
    assert_eq!(
        (plan.task_count(), plan.priority, plan.timeout_ms, plan.lost_after),
        (8, 7, Some(3_600_000), LossPolicy::Time(1_500))
    );
    let upstreams: Vec<Vec<(u32, Edge)>> =
        plan.stages.iter().map(|stage| stage.upstreams.iter().map(|up| (up.stage.0, up.edge)).collect()).collect();
    assert_eq!(
        upstreams,
        [
            vec![],
            vec![(0, Edge::Each), (2, Edge::After)],
            vec![(0, Edge::Shuffle)],
            vec![(2, Edge::All), (1, Edge::All)],
        ]
    );
    let downstreams: Vec<Vec<u32>> =
        plan.stages.iter().map(|stage| stage.downstreams.iter().map(|down| down.0).collect()).collect();
    assert_eq!(downstreams, [vec![1, 2], vec![3], vec![1, 3], vec![]]);
    assert_eq!(plan.stages[3].spec_digest, "digest 3");
    assert_eq!((plan.stages[3].stop_after, plan.stages[3].deterministic), (None, false));
    assert_eq!((plan.stage_named("d"), plan.stage_named("e")), (Some(StageIndex(3)), None));
}
