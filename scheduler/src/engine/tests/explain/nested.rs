//! What stages in nested jobs wait for, and what nested jobs do.

use muster_graph::spec::{Format, NoFiles, NoLibrary, expand, read};

use super::*;

const TEXT: &str = "name: job\nstages: {a: {run: x}, c: {after: [a], job: {stages: {i: {job: {stages: {d: {run: x}}}}, \
                    e: {after: [i], run: x}}}}, f: {after: [c], run: x}}";

fn place(bench: &Bench, id: JobId, name: &str) -> u32 {
    bench.engine.job(id).unwrap().graph.plan().stage_named(name).unwrap().0
}

#[tokio::test]
async fn stages_wait_for_what_their_nested_job_waits_for_and_others_for_the_whole_of_it() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let spec = read(TEXT, Format::Yaml).and_then(|draft| draft.resolve(&NoFiles)).unwrap();
    let id = bench.submit(1, expand(spec, &NoLibrary).unwrap().spec).await;
    bench.commit_all().await;
    let text = |bench: &Bench, name: &str| bench.only(id, place(bench, id, name)).text;
    assert_eq!(text(&bench, "c/i/d"), "waits for a (0 of 1 task done)");
    assert_eq!(text(&bench, "f"), "waits for c (0 of 2 tasks done)");
    assert_eq!(
        text(&bench, "c"),
        "waits for the end of a (0 of 1 task done), c/i (0 of 1 task done), c/e (0 of 1 task done)"
    );
    let told = bench.explain(id, Question::default());
    let stages: Vec<&str> = told.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["a", "c/i/d", "c/e", "f"], "borders are not told of");

    let view = bench.engine.job_view(bench.engine.job(id).unwrap());
    let of = |name: &str| view.stages.iter().find(|stage| stage.name == name).unwrap();
    assert_eq!((of("c/i/d").reason.as_str(), of("f").reason.as_str()), ("waits for a", "waits for c"));
    assert_eq!(of("c").tasks.unwrap().pending, 2, "a nested job adds up what is in it");
    assert_eq!((of("c").gate(), of("c/").gate()), (v1::Gate::End, v1::Gate::Begin));
}
