//! A job of jobs, four levels deep, made of definitions, through the deaths of schedulers: what was made of it at its submit is what
//! runs, whatever becomes of the definitions; and a retry runs just the leaf that failed, and what never ran.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use muster_client::Client;
use muster_integration::eventually;
use muster_integration::processes::muster;
use muster_integration::recorder::Etcd as Recorder;
use muster_integration::world::{World, client, ready, succeeded};
use muster_integration::{checker, journal};
use muster_proto::v1;
use muster_state::testing::Etcd;

/// Beneath `north` all goes on by itself; beneath `south` a leaf waits for a gate, and fails until it is mended.
const DEFINITIONS: [(&str, &str); 4] = [
    (
        "campaign",
        r#"
        name: campaign
        stages:
          north: {job: region, with: {mend: north, gate: open}}
          south: {job: region, with: {mend: mended, gate: south}}
          summary: {after: [north, south], run: 'eval "$NOTE"'}
        "#,
    ),
    (
        "region",
        r#"
        name: region
        params: {mend: {type: text}, gate: {type: text}}
        stages:
          survey: {job: site, with: {mend: {$param: mend}, gate: {$param: gate}}}
          file: {after: [survey], run: 'eval "$NOTE"'}
        "#,
    ),
    (
        "site",
        r#"
        name: site
        params: {mend: {type: text}, gate: {type: text}}
        stages:
          camp: {run: 'eval "$NOTE"'}
          sample: {after: [camp], job: sample, with: {mend: {$param: mend}, gate: {$param: gate}}}
          pack: {after: [sample], run: 'eval "$NOTE"'}
        "#,
    ),
    (
        "sample",
        r#"
        name: sample
        params: {mend: {type: text}, gate: {type: text}}
        stages:
          prepare: {run: 'eval "$NOTE"'}
          measure:
            after: [prepare]
            env: {MEND: {$param: mend}, gate: {$param: gate}}
            run: |
              eval "$NOTE"
              eval "$WAIT"
              [ -e "$GATES/$MEND" ]
          weigh: {after: [prepare], run: 'eval "$NOTE"'}
          report: {after: [measure, weigh], run: 'eval "$NOTE"'}
        "#,
    ),
];

fn done(scheduler: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new(muster());
    command.env_clear().env("MUSTER_SCHEDULERS", scheduler.to_string());
    let said = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(said.status.success(), "{arguments:?}: {}", text(said.stderr));
    text(said.stdout)
}

fn define(world: &World, scheduler: SocketAddr, name: &str, text: &str) {
    let file = world.path(&format!("{name}.yaml"));
    std::fs::write(&file, text).unwrap();
    done(scheduler, &["define", file.to_str().unwrap()]);
}

fn state(view: &v1::JobView, path: &str) -> v1::StageState {
    view.stages.iter().find(|stage| stage.name == path).unwrap_or_else(|| panic!("no stage {path}")).state()
}

async fn running(client: &Client, job: muster_client::JobId, path: &str) {
    eventually(&format!("{path} runs"), 60, async || {
        let view = client.get_job(job).await.ok()?;
        let stage = view.stages.into_iter().find(|stage| stage.name == path)?;
        (stage.tasks?.running == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_runs_just_the_failed_leaf_and_what_never_ran_through_two_failovers() {
    const LEAF: &str = "south/survey/sample/measure";
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "default");
    let mut one = world.scheduler("one", &etcd.url(), &[]).await;
    let mut two = world.scheduler("two", &etcd.url(), &[]).await;
    let addresses = [one.address(), two.address()];
    let _executor = world.executor("node-1", "push", &addresses, &["--cpus", "4"]).await;
    let client = client(&addresses).await;
    ready(&client, 1).await;
    for (name, text) in DEFINITIONS.iter().rev() {
        define(&world, addresses[0], name, text);
    }
    for gate in ["open", "north"] {
        world.open(gate);
    }
    let env: Vec<String> = world.env().map(|(name, value)| format!("{name}={value}")).into();
    let mut arguments = vec!["submit", "campaign", "-o", "name"];
    arguments.extend(env.iter().flat_map(|pair| ["--env", pair]));
    let job = done(addresses[0], &arguments).trim().parse().unwrap();

    // The owner dies while the leaf runs; the definitions change and go meanwhile.
    running(&client, job, LEAF).await;
    define(
        &world,
        addresses[1],
        "sample",
        "{name: sample, params: {mend: {type: text}, gate: {type: text}}, run: 'exit 7'}",
    );
    done(addresses[1], &["undefine", "region", "--force"]);
    let owner = client.get_job(job).await.unwrap().owner;
    let dies = if owner == "one" { &mut one } else { &mut two };
    dies.kill();
    world.open("south");
    let view = tokio::time::timeout(Duration::from_secs(90), client.wait(job)).await.unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Failed, "{view:?}");
    // A failed child fails its reference, siblings finish, successors do not start.
    for path in [LEAF, "south/survey/sample", "south/survey", "south"] {
        assert_eq!(state(&view, path), v1::StageState::Failed, "{path}");
    }
    for path in ["south/survey/sample/weigh", "south/survey/camp", "north", "north/file", "north/survey/sample/measure"]
    {
        assert_eq!(state(&view, path), v1::StageState::Successful, "{path}");
    }
    let never_ran = ["south/survey/sample/report", "south/survey/pack", "south/file", "summary"];
    for path in never_ran {
        assert_eq!(state(&view, path), v1::StageState::Skipped, "{path}");
    }
    let before = world.starts();
    assert_eq!(before.len(), 11, "{before:?}");
    assert!(before.values().all(|attempts| *attempts == [1]), "{before:?}");

    // The retry's owner dies in its midst, too.
    let address = if owner == "one" { addresses[0] } else { addresses[1] };
    let replaced = world.scheduler(&owner, &etcd.url(), &["--listen", &address.to_string()]).await;
    std::fs::remove_file(world.path("gates").join("south")).unwrap();
    world.open("mended");
    let retried = client.retry_job(job).await.unwrap();
    assert_eq!(retried, 5, "the leaf and four that never ran");
    running(&client, job, LEAF).await;
    let mut schedulers = [replaced, if owner == "one" { two } else { one }];
    let owner = client.get_job(job).await.unwrap().owner;
    let dies = schedulers
        .iter_mut()
        .find(|scheduler| scheduler.address() == if owner == "one" { addresses[0] } else { addresses[1] });
    dies.unwrap().kill();
    world.open("south");
    let view = succeeded(&client, job).await;
    assert!(view.stages.iter().all(|stage| stage.state() == v1::StageState::Successful), "{view:?}");
    for (task, attempts) in world.starts() {
        let (path, _) = task.rsplit_once('/').unwrap();
        let expected: &[u32] = if path == LEAF { &[1, 2] } else { &[1] };
        assert_eq!(attempts, expected, "{task}");
    }
    assert_eq!(world.starts().len(), 11 + never_ran.len());
    assert_eq!(journal::starts(&world.path("node-1"), job), 11 + 1 + never_ran.len());
    checker::check(&world.evidence(recorder.finish().await.unwrap(), &["node-1"])).assert_clean();
}
