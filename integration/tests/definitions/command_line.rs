//! From the command line, on real processes.

use std::process::Command;

use muster_client::JobId;
use muster_integration::processes::muster;
use muster_integration::world::{World, client, ready, succeeded};
use muster_state::testing::Etcd;

fn say(scheduler: std::net::SocketAddr, world: &World, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(muster());
    command.env_clear().env("MUSTER_SCHEDULERS", scheduler.to_string()).current_dir(world.path("gates"));
    let said = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if said.status.success() { Ok(text(said.stdout)) } else { Err(text(said.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_kept_run_and_removed_from_the_command_line() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let one = world.scheduler("one", &etcd.url(), &[]).await;
    let two = world.scheduler("two", &etcd.url(), &[]).await;
    let _executor = world.executor("node-1", "push", &[one.address(), two.address()], &[]).await;
    let client = client(&[two.address()]).await;
    ready(&client, 1).await;
    let file = |name: &str, text: &str| std::fs::write(world.path("gates").join(name), text).unwrap();
    file("names.txt", "ada\ngrace\n");
    file(
        "greet.yaml",
        "name: greet\nparams: {greeting: {default: hello, help: what is said}}\nrun: echo \"$GREETING $MUSTER_ITEM\"\n\
         for_each: {lines: names.txt}\nenv: {GREETING: {$param: greeting}}\n",
    );
    let defined = say(one.address(), &world, &["define", "greet.yaml", "-o", "name"]).unwrap();
    assert_eq!(defined, "greet@1\n");
    // Through the other one, and without the file that the items came from.
    std::fs::remove_file(world.path("gates").join("names.txt")).unwrap();
    let ran = say(two.address(), &world, &["run", "greet", "-p", "greeting=good day"]).unwrap();
    let mut lines: Vec<&str> = ran.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["good day ada", "good day grace"]);
    let refused = say(two.address(), &world, &["run", "greet", "-p", "greting=x"]).unwrap_err();
    assert!(refused.contains("did you mean `greeting`?"), "{refused}");

    let shown = say(two.address(), &world, &["definition", "greet"]).unwrap();
    assert!(shown.contains("what is said") && shown.contains("for_each: {lines: names.txt}"), "{shown}");
    let bundle = say(two.address(), &world, &["export", "greet"]).unwrap();
    file("bundle.json", &bundle);
    say(one.address(), &world, &["rename", "greet", "welcome"]).unwrap();
    assert_eq!(say(two.address(), &world, &["definitions", "-o", "name"]).unwrap(), "welcome\n");
    assert_eq!(say(one.address(), &world, &["define", "bundle.json", "-o", "name"]).unwrap(), "greet@2\n");
    let job = say(one.address(), &world, &["submit", "welcome@1", "-o", "name"]).unwrap();
    let job: JobId = job.trim().parse().unwrap();
    succeeded(&client, job).await;
    let shown = say(two.address(), &world, &["job", &job.to_string()]).unwrap();
    assert!(shown.contains("welcome@1"), "{shown}");
    say(two.address(), &world, &["undefine", "welcome"]).unwrap();
    let refused = say(one.address(), &world, &["run", "welcome"]).unwrap_err();
    assert!(refused.contains("has no definition welcome") && refused.contains("`muster definitions`"), "{refused}");
}
