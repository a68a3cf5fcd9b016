//! Jobs in jobs on real processes: what crosses a border, and that a retry and a takeover reach the innermost stages.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::process::Command;

use muster_integration::processes::muster;
use muster_integration::recorder::Etcd as Recorder;
use muster_integration::world::{World, client, ready, succeeded};
use muster_integration::{checker, eventually};
use muster_proto::v1::{self, JobState, StageState};
use muster_state::testing::Etcd;

/// `muster` with these arguments: standard output and error.
fn run(arguments: &[&str]) -> (String, String) {
    let output = Command::new(muster()).args(arguments).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (out, err)
}

#[test]
fn the_example_of_three_levels_says_what_it_should() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/nested.yaml");
    let (out, err) = run(&["run", example]);
    assert_eq!(out, "sum: 30\nlines: 12\nwritten by page at report/page\n", "{err}");
    // Folded, for everything went well.
    assert!(err.contains("report: successful, 4 of 4 tasks successful") && !err.contains("report/page"), "{err}");
}

/// Four levels; one of the innermost stages fails until a gate is open.
const DEEP: &str = r#"
name: deep
stages:
  first: {run: 'eval "$NOTE"'}
  a:
    after: [first]
    job:
      stages:
        b:
          job:
            stages:
              c:
                job:
                  outputs: work
                  stages:
                    work:
                      tasks: 2
                      run: 'eval "$NOTE"; gate=work; eval "$WAIT"; echo $MUSTER_STAGE > $MUSTER_OUTPUT_DIR/n'
                    flaky:
                      after: [work]
                      run: 'eval "$NOTE"; [ -e "$GATES/mended" ]'
                    then:
                      after: [flaky]
                      run: 'eval "$NOTE"; gate=then; eval "$WAIT"'
              reader:
                inputs: [c]
                run: 'eval "$NOTE"; cat $MUSTER_INPUT_DIR/c/*/n > $MUSTER_OUTPUT_DIR/n'
        sibling: {run: 'eval "$NOTE"'}
        "7": {run: 'echo seven'}
  last:
    after: [a]
    run: 'eval "$NOTE"'
"#;

fn states(view: &v1::JobView) -> BTreeMap<&str, StageState> {
    view.stages.iter().map(|stage| (stage.name.as_str(), stage.state())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_four_levels_outlives_its_schedulers_and_a_retry_runs_the_failed_leaf_and_what_never_ran() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "default");
    let mut first = world.scheduler("first", &etcd.url(), &[]).await;
    let mut second = world.scheduler("second", &etcd.url(), &[]).await;
    let _executor = world.executor("e", "push", &[first.address(), second.address()], &[]).await;
    let at_first = client(&[first.address()]).await;
    ready(&at_first, 1).await;
    let job = at_first.submit(world.job(DEEP), None).await.unwrap().job;
    world.started("a/b/c/work", 2).await;
    first.kill();

    let at_second = client(&[second.address()]).await;
    world.open("work");
    let ended = eventually("the job has failed", 60, || async {
        let view = at_second.get_job(job).await.ok()?;
        (view.state() == JobState::Failed).then_some(view)
    })
    .await;
    let found = states(&ended);
    for (name, expected) in [
        ("a/b/c/flaky", StageState::Failed),
        ("a/b/c/then", StageState::Skipped),
        ("a/b/c", StageState::Failed),
        ("a/b/reader", StageState::Skipped),
        ("a/b", StageState::Failed),
        ("a", StageState::Failed),
        ("a/sibling", StageState::Successful),
        ("last", StageState::Skipped),
    ] {
        assert_eq!(found[name], expected, "{name}");
    }
    let id = job.to_string();
    let address = second.address().to_string();
    let (shown, _) = run(&["--schedulers", &address, "job", &id]);
    for line in ["a/ ", "a/b/ ", "a/b/c/ ", "a/b/c/flaky ", "a/sibling "] {
        assert!(shown.contains(&format!("\n{line}")), "the failing path is unfolded:\n{shown}");
    }

    // The retry's owner dies in the middle of it.
    world.open("mended");
    at_second.retry_job(job).await.unwrap();
    world.started("a/b/c/then", 1).await;
    // Where the executor looks for one.
    let listen = first.address().to_string();
    let third = world.scheduler("third", &etcd.url(), &["--listen", &listen]).await;
    second.kill();
    world.open("then");
    let at_third = client(&[third.address()]).await;
    let view = succeeded(&at_third, job).await;
    assert!(states(&view).values().all(|state| *state == StageState::Successful));
    assert_eq!(world.output(&at_third, job, "a/b/reader", "n").await, "work\nwork\n");
    let starts: BTreeMap<String, usize> =
        world.starts().into_iter().map(|(task, starts)| (task, starts.len())).collect();
    let once = |task: &str| (task.to_owned(), 1);
    let expected = ["first/0", "a/b/c/work/0", "a/b/c/work/1", "a/b/c/then/0", "a/b/reader/0", "a/sibling/0", "last/0"];
    let mut expected: BTreeMap<String, usize> = expected.map(once).into();
    expected.insert("a/b/c/flaky/0".to_owned(), 2);
    assert_eq!(starts, expected, "exactly the failed leaf ran again");

    let (log, _) =
        run(&["--schedulers", &third.address().to_string(), "outputs", &format!("{id}/a/b/c"), "-o", "name"]);
    assert_eq!(log.lines().count(), 2, "the outputs of all that is in a nested job:\n{log}");
    let (log, _) = run(&["--schedulers", &third.address().to_string(), "logs", &format!("{id}/a/7")]);
    assert_eq!(log, "seven\n", "a number behind a nested job is a stage in it");
    checker::check(&world.evidence(recorder.finish().await.unwrap(), &["e"])).assert_clean();
}
