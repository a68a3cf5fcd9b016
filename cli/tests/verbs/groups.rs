//! Groups: what is asked of a scripted cluster and how it ends, and one real cluster that counts, cancels and retries by group.

use muster_client::fake::Fault;
use muster_client::v1::{self, GroupState, JobState};
use muster_client::{JobId, v1::JobView};
use rustix::process::Signal;
use serde_json::{Value, json};
use tonic::Status;

use crate::embedded::{signal, up};
use crate::harness::{World, bare, heard, said, view};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn group(path: &str, state: GroupState, live: u64) -> v1::GroupView {
    let jobs = Some(v1::JobCounts { live, successful: 1, ..Default::default() });
    v1::GroupView { path: path.to_owned(), state: state.into(), jobs, ..Default::default() }
}

fn job(number: u64, state: JobState, group: &str) -> JobView {
    JobView { job_id: JobId(number).to_string(), group: group.to_owned(), ..view(state) }
}

fn count(world: &World, call: &str) -> usize {
    world.cluster.state().calls.iter().filter(|(name, _)| name == call).count()
}

#[test]
fn a_group_is_created_with_what_is_missing_around_it_and_stays_as_it_was_made() {
    let world = World::new();
    let missing = world.say(&["groups", "create", "a/b/c"]);
    assert_eq!((missing.code, missing.out.as_str()), (Some(4), ""));
    assert!(missing.err.contains("there is no group 'a/b'") && missing.err.contains("--parents"), "{}", missing.err);

    let options = ["--attribute", "owner=search", "--cancel-after-failures", "3"];
    let create = [&["groups", "create", "a/b/c", "--parents", "-o", "json"][..], &options].concat();
    let answer = world.say(&create);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let created = parsed(&answer.out);
    assert_eq!(created.as_array().unwrap().len(), 1, "those around it are not what was asked for");
    assert_eq!((&created[0]["group"], &created[0]["cancel_after_failures"]), (&json!("a/b/c"), &json!(3)));
    assert_eq!(created[0]["attributes"], json!({"owner": "search"}));
    {
        let state = world.cluster.state();
        let paths: Vec<&str> = state.groups.iter().map(|group| group.path.as_str()).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c"]);
        assert_eq!(state.groups[1].spec, Some(v1::GroupSpec::default()));
    }

    assert_eq!(world.say(&create).code, Some(0), "the same again is the same group");
    assert_eq!(world.cluster.state().groups.len(), 3);
    let otherwise = world.say(&["groups", "create", "a/b/c"]);
    assert_eq!(otherwise.code, Some(7));
    assert!(otherwise.err.contains("muster group PATH"), "{}", otherwise.err);
    let below = world.say(&["groups", "create", "/a/b/c/d", "--parents", "-o", "name"]);
    assert_eq!((below.code, below.out.as_str()), (Some(0), "a/b/c/d\n"), "{}", below.err);
    assert_eq!(world.say(&["groups", "create"]).code, Some(2));
    assert_eq!(world.say(&["groups", "--depth", "1", "create", "x"]).code, Some(2), "a list and a creation at once");
}

#[test]
fn groups_are_shown_as_a_tree_and_one_at_length() {
    let world = World::new();
    world.cluster.state().groups = vec![
        group("a", GroupState::Running, 2),
        group("a-b", GroupState::Successful, 0),
        group("a/b", GroupState::Running, 2),
        group("a/b/c", GroupState::Successful, 0),
    ];
    let names = |arguments: &[&str]| {
        let answer = world.say(&[&["groups"], arguments].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.err);
        answer.out
    };
    assert_eq!(names(&["-o", "name"]), "a\na/b\na/b/c\na-b\n");
    assert_eq!(names(&["a", "--depth", "1", "-o", "name"]), "a\na/b\n");
    let table = names(&["a/b"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].starts_with("a/b ") && lines[2].starts_with("  c "), "{table}");
    let one = world.say(&["group", "/a/b", "-o", "json"]);
    let one = parsed(&one.out);
    assert_eq!((&one["group"], &one["complete"], &one["jobs"]["live"]), (&json!("a/b"), &json!(false), &json!(2)));
    for arguments in [&["group", "x"][..], &["groups", "x"], &["wait", "--group", "x"], &["cancel", "--group", "x"]] {
        let answer = world.say(arguments);
        assert_eq!(answer.code, Some(4), "{arguments:?}: {}", answer.err);
        for part in ["there is no group 'x'", "muster groups create"] {
            assert!(answer.err.contains(part), "{arguments:?}: {}", answer.err);
        }
    }
}

#[test]
fn waiting_for_a_group_ends_as_its_jobs_end() {
    for (state, code) in [(GroupState::Successful, 0), (GroupState::Failed, 1), (GroupState::Cancelled, 3)] {
        let world = World::new();
        world.cluster.state().groups.extend([group("a", GroupState::Running, 1), group("a", state, 0)]);
        let answer = world.say(&["wait", "--group", "a", "-o", "json"]);
        assert_eq!(answer.code, Some(code), "{state:?}: {}", answer.err);
        assert_eq!(parsed(&answer.out)[0]["complete"], true);
        let watched = world.say(&["group", "a", "--watch", "-o", "json"]);
        assert_eq!(watched.code, Some(code), "{state:?}: {}", watched.err);
        let complete: Vec<Value> = watched.out.lines().map(|line| parsed(line)["complete"].clone()).collect();
        assert_eq!(complete, [false, true]);
        let people = world.say(&["group", "a", "--watch"]);
        assert!(people.err.contains("a: 1 of 2 jobs over, running"), "{}", people.err);
        assert_eq!(people.out.matches("Group:").count(), 1, "{}", people.out);
    }
}

#[test]
fn waiting_for_a_group_for_a_time_ends_with_its_own_code() {
    let world = World::new();
    world.cluster.state().groups.push(group("a", GroupState::Running, 1));
    world.cluster.state().faults.insert("watch_group", [Fault::Hang].into());
    let answer = world.say(&["wait", "--group", "a", "--timeout", "200ms"]);
    assert_eq!(answer.code, Some(124), "{}", answer.err);
}

#[test]
fn a_group_is_cancelled_as_a_whole_and_with_its_reason() {
    let world = World::new();
    world.cluster.state().groups.push(group("a", GroupState::Running, 100));
    world.cluster.state().faults.insert("cancel_group", [Fault::LoseAnswer].into());
    let answer = world.say(&["cancel", "--group", "a", "--reason", "wrong input", "-o", "json"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert_eq!(parsed(&answer.out), json!([{"namespace": "default", "group": "a", "state": "cancelled"}]));
    assert_eq!(world.cluster.state().cancels, ["wrong input", "wrong input"], "the fault did not happen");
    assert_eq!(count(&world, "cancel_job"), 0);
    let shown = world.say(&["group", "a"]);
    assert!(shown.out.contains("wrong input"), "{}", shown.out);
    let id = JobId(1).to_string();
    for arguments in [&["cancel"][..], &["cancel", &id, "--group", "a"], &["cancel", &id, "-n", "default"]] {
        assert_eq!(world.say(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn jobs_are_listed_by_group() {
    let world = World::new();
    world.cluster.state().views = vec![
        job(1, JobState::Failed, "a"),
        job(2, JobState::Failed, "a/b"),
        job(3, JobState::Failed, "ab"),
        job(4, JobState::Failed, ""),
    ];
    let listed = |arguments: &[&str]| {
        let answer = world.say(&[&["jobs", "-o", "name"], arguments].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.err);
        answer.out.lines().map(|id| id.parse::<JobId>().unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), [1, 2, 3, 4]);
    assert_eq!(listed(&["--group", "a"]), [1]);
    assert_eq!(listed(&["--group", "/a", "--recursive"]), [1, 2]);
    assert_eq!(listed(&["--group", "/"]), [4]);
    assert_eq!(world.say(&["jobs", "--recursive"]).code, Some(2), "of which group?");
    let shown = world.say(&["job", &JobId(2).to_string()]);
    assert!(shown.out.lines().any(|line| line.starts_with("Group:") && line.ends_with(" a/b")), "{}", shown.out);
}

#[test]
fn a_submit_gets_into_the_group_that_is_named_last() {
    let world = World::new();
    let spec = world.file("job.yaml", "{name: n, group: a/b, run: echo}\n");
    assert_eq!(world.say(&["submit", &spec]).code, Some(0));
    assert_eq!(world.say(&["submit", &spec, "--group", "/a/c"]).code, Some(0));
    assert_eq!(world.say(&["submit", &spec, "--group", "/"]).code, Some(0));
    let groups: Vec<String> =
        world.cluster.state().accepted.iter().map(|accepted| accepted.spec.group.clone()).collect();
    assert_eq!(groups, ["a/b", "a/c", ""]);

    let refused = |status: Status, code: i32, help: &str| {
        world.cluster.state().faults.insert("submit", [Fault::Refuse(status)].into());
        let answer = world.say(&["submit", &spec]);
        assert_eq!(answer.code, Some(code), "{}", answer.err);
        assert!(answer.err.contains(help), "{}", answer.err);
    };
    refused(Status::not_found("group: there is no group 'a/b'"), 4, "muster groups create");
    refused(Status::failed_precondition("group: a/b takes nothing new: make another group"), 7, "another group");
}

#[test]
fn what_failed_in_a_group_is_retried_once_each_and_what_became_of_it_is_counted() {
    let world = World::new();
    world.cluster.state().groups.extend([group("a", GroupState::Failed, 1), group("a/b", GroupState::Failed, 0)]);
    world.cluster.state().views = vec![
        job(1, JobState::Failed, "a"),
        job(2, JobState::Cancelled, "a/b"),
        job(3, JobState::Successful, "a"),
        job(4, JobState::Running, "a"),
        job(5, JobState::Failed, "c"),
        job(6, JobState::Failed, "a/b"),
    ];
    let active = Status::failed_precondition("job 2 is not over yet");
    world.cluster.state().faults.insert("retry_job", [Fault::Refuse(active), Fault::LoseAnswer].into());
    let retry = ["retry", "--group", "a", "--failed", "-o", "json"];
    let answer = world.say(&retry);
    assert_eq!(answer.code, Some(8), "{}", answer.err);
    let expected = json!({"namespace": "", "group": "a", "jobs": 1, "tasks": 2, "passed_over": 1, "unknown": 1});
    assert_eq!(parsed(&answer.out), expected);
    for part in ["job 2 is not over yet", "not known whether 1 jobs were retried", "do it again"] {
        assert!(answer.err.contains(part), "{part}: {}", answer.err);
    }
    assert_eq!(world.cluster.state().retries, 2);

    let again = world.say(&retry);
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert_eq!((&parsed(&again.out)["jobs"], &parsed(&again.out)["tasks"]), (&json!(3), &json!(6)));
    let nothing = world.say(&["retry", "--group", "a", "--failed", "-n", "none", "-o", "json"]);
    assert_eq!((nothing.code, &parsed(&nothing.out)["jobs"]), (Some(0), &json!(0)), "{}", nothing.err);
    for arguments in [&["retry"][..], &["retry", "--group", "a"], &["retry", "--failed"]] {
        assert_eq!(world.say(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn nothing_is_retried_in_a_cancelled_group() {
    let world = World::new();
    let cancelled = v1::GroupView { is_cancelled: true, ..group("a/b", GroupState::Cancelled, 0) };
    world.cluster.state().groups.push(v1::GroupView { cancelled_by: "a".to_owned(), ..cancelled });
    world.cluster.state().views.push(job(1, JobState::Cancelled, "a/b"));
    let answer = world.say(&["retry", "--group", "a/b", "--failed"]);
    assert_eq!(answer.code, Some(7), "{}", answer.err);
    for part in ["group a around a/b is cancelled", "another group", "`muster group a`"] {
        assert!(answer.err.contains(part), "{part}: {}", answer.err);
    }
    assert_eq!(count(&world, "retry_job"), 0);
}

#[test]
fn a_job_that_runs_by_itself_is_in_no_group() {
    let home = tempfile::tempdir().unwrap();
    let spec = home.path().join("job.yaml");
    std::fs::write(&spec, "{name: n, group: a/b, run: echo hi}\n").unwrap();
    let run = |more: &[&str]| {
        let mut command = bare(home.path(), &[&["run", spec.to_str().unwrap()], more].concat());
        command.env("TMPDIR", home.path());
        said(command)
    };
    let alone = run(&[]);
    assert_eq!((alone.code, alone.out.as_str()), (Some(0), "hi\n"), "{}", alone.err);
    assert!(alone.err.contains("not in its group a/b"), "{}", alone.err);
    let named = run(&["--group", "c"]);
    assert_eq!(named.code, Some(2));
    assert!(named.err.contains("--schedulers"), "{}", named.err);
}

#[test]
fn a_real_cluster_counts_retries_and_cancels_by_group() {
    let home = tempfile::tempdir().unwrap();
    let (child, address) = up(home.path());
    let muster = |arguments: &[&str]| {
        let mut command = bare(home.path(), arguments);
        command.env("MUSTER_SCHEDULERS", &address);
        said(command)
    };
    let done = |arguments: &[&str]| {
        let answer = muster(arguments);
        assert_eq!(answer.code, Some(0), "{arguments:?}: {}", answer.err);
        answer.out.trim().to_owned()
    };
    let file = |name: &str, text: String| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mended = home.path().join("mended");
    let good = file("good.yaml", "{name: good, group: nightly, tasks: 3, run: 'true'}\n".to_owned());
    let flaky = file("flaky.yaml", format!("{{name: flaky, run: 'test -e {}'}}\n", mended.display()));
    let long = file("long.yaml", "{name: long, run: 'exec sleep 600'}\n".to_owned());

    let missing = muster(&["submit", &good]);
    assert_eq!(missing.code, Some(4), "{}", missing.err);
    assert!(missing.err.contains("nightly") && missing.err.contains("muster groups create"), "{}", missing.err);
    assert_eq!(muster(&["groups", "create", "nightly/eu"]).code, Some(4));
    done(&["groups", "create", "nightly/eu", "nightly/us", "--parents", "--attribute", "owner=search"]);
    assert_eq!(done(&["groups", "-o", "name"]), "/\nnightly\nnightly/eu\nnightly/us");
    assert_eq!(done(&["groups", "--depth", "1", "-o", "name"]), "/\nnightly");
    done(&["wait", "--group", "nightly"]);

    let first = done(&["submit", &good, "-o", "name"]);
    let second = done(&["submit", &flaky, "--group", "nightly/eu", "-o", "name"]);
    let waited = muster(&["wait", "--group", "nightly", "--timeout", "60s", "-o", "name"]);
    assert_eq!((waited.code, waited.out.as_str()), (Some(1), "nightly\n"), "{}", waited.err);
    let counts = |path: &str| {
        let group = parsed(&done(&["group", path, "-o", "json"]));
        assert_eq!(group["complete"], group["jobs"]["live"] == 0, "{group}");
        (group["state"].clone(), group["jobs"].clone(), group["tasks"]["successful"].clone())
    };
    let jobs = |live: u64, successful: u64, failed: u64, cancelled: u64| {
        let total = live + successful + failed + cancelled;
        json!({"live": live, "successful": successful, "failed": failed, "cancelled": cancelled, "total": total})
    };
    assert_eq!(counts("nightly"), (json!("failed"), jobs(0, 1, 1, 0), json!(3)));
    assert_eq!(counts("nightly/eu"), (json!("failed"), jobs(0, 0, 1, 0), json!(0)));
    assert_eq!(counts("/"), (json!("failed"), jobs(0, 1, 1, 0), json!(3)));
    assert_eq!(counts("nightly/us"), (json!("successful"), jobs(0, 0, 0, 0), json!(0)));
    assert_eq!(done(&["jobs", "--group", "nightly", "-o", "name"]), first);
    let all = done(&["jobs", "--group", "nightly", "--recursive", "-o", "name"]);
    assert_eq!(all.lines().collect::<Vec<_>>(), [second.as_str(), first.as_str()], "newest first");
    assert_eq!(parsed(&done(&["job", &second, "-o", "json"]))["group"], "nightly/eu");

    std::fs::write(&mended, "").unwrap();
    let retried = parsed(&done(&["retry", "--group", "nightly", "--failed", "-o", "json"]));
    assert_eq!((&retried["jobs"], &retried["tasks"], &retried["passed_over"]), (&json!(1), &json!(1), &json!(0)));
    done(&["wait", "--group", "nightly", "--timeout", "60s"]);
    assert_eq!(counts("nightly"), (json!("successful"), jobs(0, 2, 0, 0), json!(4)));
    assert_eq!(parsed(&done(&["retry", "--group", "nightly", "--failed", "-o", "json"]))["jobs"], 0);

    let running = done(&["submit", &long, "--group", "nightly/eu", "-o", "name"]);
    assert_eq!(counts("nightly/eu"), (json!("running"), jobs(1, 1, 0, 0), json!(1)));
    done(&["cancel", "--group", "nightly/eu", "--reason", "no longer wanted"]);
    assert_eq!(muster(&["wait", "--group", "nightly/eu", "--timeout", "60s"]).code, Some(3));
    assert_eq!(muster(&["wait", &running]).code, Some(3));
    assert_eq!(counts("nightly"), (json!("cancelled"), jobs(0, 2, 0, 1), json!(4)));
    for refused in [
        &["submit", &good, "--group", "nightly/eu"][..],
        &["groups", "create", "nightly/eu/tests"],
        &["retry", "--group", "nightly/eu", "--failed"],
        &["retry", &running],
    ] {
        let answer = muster(refused);
        assert_eq!(answer.code, Some(7), "{refused:?}: {}", answer.err);
        assert!(answer.err.contains("cancelled") && answer.err.contains("another group"), "{}", answer.err);
    }
    let shown = done(&["group", "nightly/eu"]);
    assert!(shown.contains("ago: no longer wanted"), "{shown}");
    done(&["submit", &good, "--group", "nightly/us", "--wait"]);
    let unknown = muster(&["group", "nightly/asia"]);
    assert_eq!(unknown.code, Some(4));
    assert!(unknown.err.contains("muster groups"), "{}", unknown.err);
    signal(&child, Signal::TERM);
    assert_eq!(heard(child).code, Some(0));
}
