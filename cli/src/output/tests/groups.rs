//! Groups in every form, and what becomes of wishes about them.

use muster_client::v1;

use super::{NOW_MS, details, lists};
use crate::output::answers::{GroupCancellation, GroupRetry};
use crate::output::group::{Group, tree};

fn view(path: &str, state: v1::GroupState) -> v1::GroupView {
    v1::GroupView {
        namespace: "default".to_owned(),
        path: path.to_owned(),
        id: "00c0ffee00c0ffee".to_owned(),
        spec: Some(v1::GroupSpec::default()),
        created_at_ms: NOW_MS - 3_600_000,
        state: state.into(),
        ..Default::default()
    }
}

/// Some of its jobs have failed, and others go on.
fn busy() -> v1::GroupView {
    v1::GroupView {
        spec: Some(v1::GroupSpec {
            attributes: [("owner".to_owned(), "search".to_owned()), ("ticket".to_owned(), "1234".to_owned())].into(),
            cancel_after_failures: 10,
            callback: "http://hooks.example/muster".to_owned(),
        }),
        jobs: Some(v1::JobCounts { live: 5, successful: 120, failed: 2, cancelled: 1 }),
        tasks: Some(v1::Counts { pending: 20, assigned: 1, running: 8, successful: 4_800, failed: 3, cancelled: 40 }),
        spent: Some(v1::Spent {
            run_ms: 5_400_000,
            cpu_ms: 9_000_000,
            memory_mib_ms: 1024 * 90_000,
            named_ms: [("gpu".to_owned(), 12_500)].into(),
        }),
        ..view("nightly/2027", v1::GroupState::Failed)
    }
}

/// It has cancelled itself.
fn cancelled() -> v1::GroupView {
    v1::GroupView {
        cancelled: Some(v1::GroupCancel {
            reason: "3 of its jobs have failed".to_owned(),
            at_ms: NOW_MS - 120_000,
            by_failures: true,
        }),
        cancelled_by: "nightly/2027/eu".to_owned(),
        is_cancelled: true,
        jobs: Some(v1::JobCounts { failed: 3, cancelled: 9, ..Default::default() }),
        tasks: Some(v1::Counts { failed: 3, cancelled: 9, ..Default::default() }),
        completed_at_ms: NOW_MS - 119_000,
        ..view("nightly/2027/eu", v1::GroupState::Failed)
    }
}

pub(super) fn group() -> Group {
    Group::from(busy())
}

pub(super) fn cancellation() -> GroupCancellation {
    let (namespace, group) = ("default".to_owned(), "nightly/2027".to_owned());
    GroupCancellation { namespace, group, state: "cancelled" }
}

pub(super) fn retry() -> GroupRetry {
    let (namespace, group) = ("default".to_owned(), "nightly/2027".to_owned());
    GroupRetry { namespace, group, jobs: 12, tasks: 40, passed_over: 1, unknown: 0 }
}

#[test]
fn groups() {
    let root = v1::GroupView { id: "root".to_owned(), created_at_ms: 0, ..view("", v1::GroupState::Failed) };
    let empty = view("nightly", v1::GroupState::Successful);
    // Another one of a name that begins alike does not come between a group and what is in it.
    let alike = view("nightly-old", v1::GroupState::Running);
    let under_cancelled = v1::GroupView {
        cancelled_by: "nightly/2027/eu".to_owned(),
        is_cancelled: true,
        ..view("nightly/2027/eu/tests", v1::GroupState::Cancelled)
    };
    insta::assert_snapshot!(lists(&tree(vec![root, alike, under_cancelled, cancelled(), busy(), empty])));
}

#[test]
fn a_tree_begins_with_the_whole_path_of_its_first_group() {
    insta::assert_snapshot!(lists(&tree(vec![busy(), cancelled()])));
}

#[test]
fn a_group_at_length() {
    insta::assert_snapshot!(details(&group()));
}

#[test]
fn groups_that_are_cancelled_say_by_whom_and_why() {
    let around = v1::GroupView { cancelled_by: String::new(), ..cancelled() };
    let only_around = v1::GroupView { cancelled: None, ..around.clone() };
    let by_people = v1::GroupView {
        cancelled: Some(v1::GroupCancel { at_ms: NOW_MS - 1_000, ..Default::default() }),
        ..cancelled()
    };
    let views = [cancelled(), around, only_around, by_people];
    let text: String = views.into_iter().map(|view| details(&Group::from(view))).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn answers_about_groups() {
    let mut text = lists(&[cancellation()]);
    text.push_str(&details(&retry()));
    insta::assert_snapshot!(text);
}
