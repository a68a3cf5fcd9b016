//! What crosses a border: parameters, outputs, inputs, settings.

use muster_graph::execution::JobState;
use muster_graph::plan::{Edge, Plan};
use muster_graph::spec::{InputKind, JobSpec, StageSpec};

use super::{Defined, Job, expanded, refused};

fn stage<'s>(spec: &'s JobSpec, name: &str) -> &'s StageSpec {
    spec.stages.iter().find(|stage| stage.name == name).unwrap()
}

fn reads(spec: &JobSpec, name: &str) -> Vec<(String, InputKind, Vec<String>)> {
    let inputs = &stage(spec, name).inputs;
    inputs.iter().map(|input| (input.stage.clone(), input.kind, input.seen_as.clone())).collect()
}

fn own(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn parameters_cross_the_border() {
    let library = Defined::of(&[("work", "stages: {a: {run: [work, $what], tasks: $shards}}")]);
    let spec = expanded(
        "stages: {x: {job: work, with: {what: sort, shards: 3}}, y: {job: work, with: {what: sum, shards: 1}}}",
        &library,
    )
    .spec;
    assert_eq!((stage(&spec, "x/a").tasks.count(), stage(&spec, "y/a").tasks.count()), (3, 1));
    assert!(format!("{:?}", stage(&spec, "x/a").work).contains("sort"));
}

#[test]
fn outputs_cross_the_border_with_all_each_and_shuffle() {
    let inner = "{outputs: out, stages: {in: {run: x, tasks: 3}, out: {inputs: {in: each}, run: x, tasks: 3}}}";
    for (kind, edge) in [("all", Edge::All), ("each", Edge::Each), ("shuffle", Edge::Shuffle)] {
        let text = format!("stages: {{c: {{job: {inner}}}, d: {{inputs: {{c: {kind}}}, tasks: 3, run: x}}}}");
        let spec = expanded(&text, &Defined::default()).spec;
        let plan = Plan::compile(&spec, |_| String::new()).unwrap();
        let d = &plan.stages[plan.stage_named("d").unwrap().0 as usize];
        let upstreams: Vec<_> =
            d.upstreams.iter().map(|up| (plan.stages[up.stage.0 as usize].name.as_str(), up.edge)).collect();
        assert_eq!(upstreams, [("c", Edge::After), ("c/out", edge)]);
        assert_eq!(d.upstreams[1].seen_as, ["c"]);
        let mut job = Job::of(&text);
        job.run_all(&[]);
        assert_eq!(job.job_state(), JobState::Successful);
    }
}

#[test]
fn several_outputs_are_read_each_by_its_own_name_also_through_two_borders() {
    let inner = "{outputs: {left: a, right: b}, stages: {a: {run: x}, b: {run: x}}}";
    let spec = expanded(
        &format!("stages: {{o: {{job: {{outputs: i, stages: {{i: {{job: {inner}}}}}}}}}, d: {{inputs: [o], run: x}}}}"),
        &Defined::default(),
    )
    .spec;
    let all = InputKind::All;
    let expected = [("o/i/a", all, own(&["o", "left"])), ("o/i/b", all, own(&["o", "right"]))];
    assert_eq!(reads(&spec, "d"), expected.map(|(stage, kind, seen)| (stage.to_owned(), kind, seen)));
    assert_eq!(stage(&spec, "d").after, ["o"]);
}

#[test]
fn inputs_cross_the_border_with_all_each_and_shuffle() {
    let inner = "{takes: [raw], stages: {w: {inputs: {raw: all}, run: x}, e: {inputs: {raw: each}, tasks: 2, run: x}, \
                 s: {inputs: {raw: shuffle}, tasks: 5, run: x}}}";
    let spec = expanded(
        &format!("stages: {{fetch: {{run: x, tasks: 2}}, c: {{inputs: {{raw: fetch}}, job: {inner}}}}}"),
        &Defined::default(),
    )
    .spec;
    for (name, kind) in [("c/w", InputKind::All), ("c/e", InputKind::Each), ("c/s", InputKind::Shuffle)] {
        assert_eq!(reads(&spec, name), [("fetch".to_owned(), kind, own(&["raw"]))]);
        assert_eq!(stage(&spec, name).after, ["c/"]);
    }
    assert_eq!(stage(&spec, "c/").after, ["fetch"]);
}

#[test]
fn an_input_is_passed_on_through_two_borders_and_an_output_is_bound_to_it() {
    let deep = "{takes: [r], stages: {z: {inputs: {r: all}, run: x}}}";
    let text = format!(
        "stages: {{p: {{job: {{outputs: q, stages: {{q: {{run: x}}}}}}}}, \
         c: {{inputs: {{raw: p}}, job: {{takes: [raw], stages: {{d: {{inputs: {{r: raw}}, job: {deep}}}}}}}}}}}"
    );
    let spec = expanded(&text, &Defined::default()).spec;
    assert_eq!(reads(&spec, "c/d/z"), [("p/q".to_owned(), InputKind::All, own(&["r"]))]);
    let mut job = Job::of(&text);
    job.run_all(&[]);
    assert_eq!(job.ran, ["p/q", "c/d/z"]);
}

#[test]
fn what_does_not_fit_at_a_border_is_refused_with_a_remedy() {
    let none = Defined::default();
    let cases = [
        ("stages: {c: {job: {stages: {a: {run: x}}}}, d: {inputs: [c], run: x}}", "declares no outputs"),
        ("stages: {f: {run: x}, c: {inputs: [f], job: {stages: {a: {run: x}}}}}", "takes no input `f`"),
        (
            "stages: {c: {job: {takes: [raw], stages: {a: {inputs: [raw], run: x}}}}}",
            "nothing is given for the input `raw`",
        ),
        ("takes: [raw], stages: {a: {inputs: [raw], run: x}}", "cannot run alone"),
        (
            "stages: {f: {run: x, tasks: 2}, c: {inputs: {raw: f}, job: {takes: [raw], stages: {a: {inputs: {raw: each}, run: x}}}}}",
            "`each` pairs tasks",
        ),
    ];
    for (text, expected) in cases {
        let said = refused(text, &none);
        assert!(said.contains(expected) && said.contains("help: "), "{text}: {said}");
    }
}

#[test]
fn settings_come_from_the_root_and_the_environment_from_all() {
    let inner = "name: inner\ngroup: theirs\ntimeout: 1s\npriority: 9\nmax_running: 1\nenv: {CHILD: c, REF: c, ROOT: c}\nplacement: {require: {zone: c, disk: c}}\n\
                 stages: {a: {run: x, env: {CHILD: s}, placement: {require: {disk: s}}}}";
    let library = Defined::of(&[("inner", inner)]);
    let root = "name: root\ngroup: ours\ntimeout: 7s\npriority: 3\nenv: {ROOT: r, REF: r, CHILD: r, ONLY: r}\nplacement: {policy: pack}\n\
                stages: {c: {job: inner, env: {REF: f, ROOT: f}, placement: {require: {zone: f, arch: f}}}}";
    let spec = expanded(root, &library).spec;
    assert_eq!(
        (spec.name.as_str(), spec.group.as_str(), spec.timeout.unwrap().as_secs(), spec.priority, spec.max_running),
        ("root", "ours", 7, 3, None)
    );
    let a = stage(&spec, "c/a");
    let env: Vec<String> = a.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["CHILD=s", "REF=c", "ROOT=c"]);
    assert_eq!(spec.env["ONLY"], "r");
    let require: Vec<String> = a.placement.require.iter().map(|(label, rule)| format!("{label} {rule}")).collect();
    assert_eq!(require, ["arch = f", "disk = s", "zone = c"]);
}

#[test]
fn a_spec_without_jobs_is_left_as_it_is() {
    let text = "stages: {a: {run: x, tasks: 3}, b: {inputs: {a: each}, tasks: 3, run: x, when: always}}";
    assert_eq!(expanded(text, &Defined::default()).spec, super::job::spec(text));
}

#[test]
fn gates_are_never_submitted() {
    let spec = expanded("stages: {c: {job: {stages: {a: {run: x}}}}}", &Defined::default()).spec;
    let said: Vec<String> = muster_graph::spec::check(&spec).iter().map(ToString::to_string).collect();
    assert_eq!(said.iter().filter(|said| said.contains("a stage cannot be a gate")).count(), 2, "{said:?}");
}
