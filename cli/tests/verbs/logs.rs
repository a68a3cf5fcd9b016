//! `muster logs`

use muster_client::v1::JobState;

use crate::harness::{JOB, World, task, view};

/// Two tasks of `map`, the second with two attempts, and one of `reduce` that has not begun.
fn world() -> World {
    let world = World::new();
    {
        let mut state = world.cluster.state();
        state.views.push(view(JobState::Failed));
        state.tasks = vec![task("map", 0, 1), task("map", 1, 2), task("reduce", 0, 0)];
        for (index, attempt, stderr, text) in [
            (0, 1, false, "zero\n"),
            (0, 1, true, ""),
            (1, 1, false, "first try\n"),
            (1, 1, true, "broken\n"),
            (1, 2, false, "second try\nno end"),
            (1, 2, true, "warning\n"),
        ] {
            state.logs.insert(("map".to_owned(), index, attempt, stderr), text.as_bytes().to_vec());
        }
    }
    world
}

#[test]
fn both_streams_of_a_task_come_out_where_they_belong() {
    let answer = world().say(&["logs", &format!("{JOB}/map/1")]);
    assert_eq!(answer.code, Some(0));
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("second try\nno end", "warning\n"));
}

#[test]
fn an_older_attempt_and_a_single_stream_can_be_asked_for() {
    let world = world();
    let reference = format!("{JOB}/map/1");
    let answer = world.say(&["logs", &reference, "--attempt", "1", "--stderr"]);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", "broken\n"));
    let answer = world.say(&["logs", &reference, "--attempt", "1", "--stdout"]);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("first try\n", ""));
    assert_eq!(world.say(&["logs", &reference, "--attempt", "9"]).code, Some(4));
}

#[test]
fn several_tasks_get_headings_and_those_that_wrote_nothing_none() {
    let answer = world().say(&["logs", &JOB.to_string()]);
    assert_eq!(answer.out, "==> map/0 stdout <==\nzero\n==> map/1 stdout <==\nsecond try\nno end");
    assert_eq!(answer.err, "==> map/1 stderr <==\nwarning\n");
}

#[test]
fn following_several_tasks_says_of_each_line_whose_it_is() {
    let answer = world().say(&["logs", &JOB.to_string(), "--follow", "--stdout"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let mut lines: Vec<&str> = answer.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["map/0| zero", "map/1| no end", "map/1| second try"]);
}

#[test]
fn a_log_that_breaks_off_is_printed_whole() {
    let world = world();
    world.cluster.state().break_log_after = Some(4);
    let answer = world.say(&["logs", &format!("{JOB}/map/1"), "--stdout"]);
    assert_eq!(answer.out, "second try\nno end");
    assert_eq!(world.cluster.state().break_log_after, None, "the fault did not happen");
}

#[test]
fn a_task_that_has_not_begun_has_no_log() {
    let answer = world().say(&["logs", &format!("{JOB}/reduce/0")]);
    assert_eq!(answer.code, Some(4));
    assert!(answer.err.contains("has not been started"), "{}", answer.err);
}
