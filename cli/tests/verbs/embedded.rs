//! Real clusters in one process: every example, `up`, and the way they end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Said, bare, heard, said};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
/// Far more than anything here takes, on a machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(60);

fn run(home: &Path, example: &str, more: &[&str]) -> Said {
    let file = format!("{EXAMPLES}/{example}");
    let mut arguments = vec!["run", &file];
    arguments.extend(more);
    let mut command = bare(home, &arguments);
    // Temporary directories of the run go where the test cleans up.
    command.env("TMPDIR", home);
    said(command)
}

#[test]
fn the_smallest_example_says_hello_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let answer = run(home.path(), "hello.yaml", &["--quiet"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.starts_with("Hello from task 0 of job "), "{}", answer.out);
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_run_offers_what_its_flags_and_the_file_say() {
    let home = tempfile::tempdir().unwrap();
    let spec = home.path().join("devices.yaml");
    let text = "{name: devices, resources: {gpu: 2, seat: 1}, run: 'echo $MUSTER_RESOURCE_gpu $MUSTER_RESOURCE_seat'}";
    std::fs::write(&spec, text).unwrap();
    let settings = home.path().join("settings.toml");
    std::fs::write(&settings, "executor.resources = { seat = 3 }").unwrap();
    let file = ["--config", settings.to_str().unwrap()];
    let flags = ["run", spec.to_str().unwrap(), "--quiet", "--device", "gpu=4,7", "--cpus", "1"];
    let answer = said(bare(home.path(), &[&flags[..], &file].concat()));
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "4,7 1\n"), "{}", answer.err);
}

#[test]
fn the_sweep_sorts_the_rules_by_their_error() {
    let home = tempfile::tempdir().unwrap();
    let answer = run(home.path(), "sweep.yaml", &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines.len(), 17, "a headline and 4 x 4 combinations: {}", answer.out);
    assert!(lines[1].contains("simpson"), "{}", lines[1]);
    assert!(lines[16].ends_with("1.983523537509"), "{}", lines[16]);
}

#[test]
fn the_diamond_fails_with_its_branch_and_cleans_up() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let answer = run(home.path(), "diamond.yaml", &["--data-dir", data.to_str().unwrap()]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{}", answer.err);
    assert!(answer.err.contains("the right branch cannot halve 21"), "{}", answer.err);
    for line in ["join: skipped", "complain: successful", "clean-up: successful"] {
        assert!(answer.err.contains(line), "{line}: {}", answer.err);
    }
    assert!(data.join("state").exists(), "a data directory that was named is kept");
}

#[test]
fn the_other_diamond_is_successful_and_cleans_up_too() {
    let home = tempfile::tempdir().unwrap();
    let answer = run(home.path(), "diamond-successful.yaml", &[]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "left 84, right 21\ncleaned up\n"), "{}", answer.err);
    assert!(answer.err.contains("complain: skipped"), "{}", answer.err);
}

#[test]
fn the_word_count_equals_the_reference_pipeline() {
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("text");
    std::fs::create_dir_all(text.join("deep/er")).unwrap();
    // Among them: no line end at the end, an empty file, a name with a space, bytes that are no UTF-8.
    for (name, content) in [
        ("a", &b"the quick brown fox"[..]),
        ("b", b"jumps over The lazy dog\n"),
        ("empty", b""),
        ("deep/er/with space", b"fox\xff\xfedog don't"),
        ("deep/numbers 1", b"1 2 3 fox4fox"),
    ] {
        std::fs::write(text.join(name), content).unwrap();
    }
    for number in 0..60 {
        let words: String = (0..200).map(|i| format!("w{} ", "abcdefghij".get(..(i * number) % 10).unwrap())).collect();
        std::fs::write(text.join(format!("file-{number}")), words).unwrap();
    }
    let text = text.to_str().unwrap();
    let results = home.path().join("results");
    let answer = run(
        home.path(),
        "wordcount.yaml",
        &["--env", &format!("TEXT_DIR={text}"), "--outputs", results.to_str().unwrap()],
    );
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/wordcount-reference.sh");
    let expected = Command::new(script).arg(text).output().unwrap();
    assert!(expected.status.success());
    let expected = String::from_utf8(expected.stdout).unwrap();
    assert_eq!(answer.out, expected);
    assert_eq!(std::fs::read_to_string(results.join("top/0/top.txt")).unwrap(), expected);
    assert_eq!(expected.lines().count(), 21);
}

#[test]
fn the_word_count_without_its_text_says_how_to_name_it() {
    let home = tempfile::tempdir().unwrap();
    let answer = run(home.path(), "wordcount.yaml", &[]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("--env TEXT_DIR="), "{}", answer.err);
}

/// `muster up` on a free port, and the address that it printed.
pub(crate) fn up(home: &Path) -> (Child, String) {
    let data = home.join("data");
    let mut child =
        bare(home, &["up", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "-o", "jsonl", "-q"])
            .spawn()
            .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let started: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: '{line}' {:?}", heard_error(&mut child)));
    (child, started["address"].as_str().unwrap().to_owned())
}

fn heard_error(child: &mut Child) -> String {
    std::io::read_to_string(child.stderr.take().unwrap()).unwrap()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn up_serves_every_verb_and_stops_in_good_order() {
    let home = tempfile::tempdir().unwrap();
    let (child, address) = up(home.path());
    let muster = |arguments: &[&str]| {
        let mut command = bare(home.path(), arguments);
        command.env("MUSTER_SCHEDULERS", &address);
        said(command)
    };
    let spec = home.path().join("job.yaml");
    let text = "name: n\ntasks: 3\nrun: |\n  echo out $MUSTER_TASK_INDEX\n  echo err >&2\n  echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/file\n";
    std::fs::write(&spec, text).unwrap();
    let submitted = muster(&["submit", spec.to_str().unwrap(), "-o", "name"]);
    assert_eq!(submitted.code, Some(0), "{}", submitted.err);
    let id = submitted.out.trim();
    let waited = muster(&["wait", id, "--timeout", "60s", "-o", "name"]);
    assert_eq!((waited.code, waited.out.trim()), (Some(0), id), "{}", waited.err);
    assert_eq!(muster(&["jobs", "--state", "successful", "-o", "name"]).out.trim(), id);
    assert_eq!(muster(&["job", id, "--tasks", "-o", "json"]).code, Some(0));
    let task = muster(&["job", &format!("{id}/main/2"), "-o", "jsonl"]);
    assert!(task.out.contains("\"state\":\"successful\""), "{}{}", task.out, task.err);
    let logs = muster(&["logs", &format!("{id}/main/2")]);
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("out 2\n", "err\n"));
    let followed = muster(&["logs", id, "-f", "--stdout"]);
    assert_eq!(followed.out.lines().count(), 3, "{}{}", followed.out, followed.err);
    let results = home.path().join("results");
    let brought = muster(&["outputs", id, "--to", results.to_str().unwrap()]);
    assert_eq!(brought.code, Some(0), "{}", brought.err);
    assert_eq!(std::fs::read_to_string(results.join("main/1/file")).unwrap(), "1\n");
    assert_eq!(muster(&["retry", id]).code, Some(7), "nothing failed");
    assert_eq!(muster(&["executors", "-o", "name"]).out.lines().count(), 1);
    assert_eq!(muster(&["schedulers", "-o", "name"]).out.lines().count(), 1);
    signal(&child, Signal::TERM);
    let ended = heard(child);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(muster(&["jobs", "--call-timeout", "300ms"]).code, Some(5));
}

#[test]
fn a_data_directory_belongs_to_one_process_and_the_second_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let (child, _) = up(home.path());
    let data = home.path().join("data");
    let second = said(bare(home.path(), &["up", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]));
    assert_ne!(second.code, Some(0));
    assert!(second.err.contains("data") && second.err.contains("help: "), "{}", second.err);
    signal(&child, Signal::INT);
    assert_eq!(heard(child).code, Some(0));
}

#[test]
fn an_interrupted_run_ends_its_tasks() {
    let home = tempfile::tempdir().unwrap();
    let spec = home.path().join("job.yaml");
    let began = home.path().join("began");
    std::fs::write(&spec, format!("name: n\nrun: |\n  echo $$ > {}\n  exec sleep 600\n", began.display())).unwrap();
    let mut command = bare(home.path(), &["run", spec.to_str().unwrap()]);
    command.env("TMPDIR", home.path());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let pid = loop {
        assert!(Instant::now() < deadline, "the task never began");
        match std::fs::read_to_string(&began).ok().and_then(|text| text.trim().parse::<i32>().ok()) {
            Some(pid) => break Pid::from_raw(pid).unwrap(),
            None => std::thread::yield_now(),
        }
    };
    signal(&child, Signal::INT);
    let answer = heard(child);
    assert_eq!(answer.code, Some(130), "{}", answer.err);
    let deadline = Instant::now() + DEADLINE;
    while rustix::process::test_kill_process(pid).is_ok() {
        assert!(Instant::now() < deadline, "the task outlived its run");
        std::thread::yield_now();
    }
}
