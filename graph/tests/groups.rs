//! Groups of jobs, a test for each rule: what they are called, what they count, when they are complete, what they show, and what a
//! cancel strikes. Random histories are compared with counting everything anew.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use muster_graph::groups::{
    Cancel, Cancels, Change, ChangeKind, GROUP_DEPTH_MAX, GROUP_NAME_CHARS_MAX, GroupPath, GroupPathError, GroupState,
    JobEnd, Spent, Sums, Tally, TaskTally, has_failed_enough, shown,
};
use muster_graph::spec::{Argument, Arguments, Format, JobSpec, NoFiles, Problems, Resources, Template, check, read};
use proptest::prelude::*;

fn path(text: &str) -> GroupPath {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> GroupPathError {
    text.parse::<GroupPath>().expect_err(text)
}

#[test]
fn a_path_has_no_slash_in_front_and_the_root_is_the_empty_one() {
    for (written, stored) in [("", ""), ("/", ""), ("a", "a"), ("/a", "a"), ("/a/B.9/c_d-e", "a/B.9/c_d-e")] {
        assert_eq!(path(written).as_str(), stored, "{written}");
        assert_eq!(path(stored), path(written));
        assert_eq!(path(&path(written).to_string()), path(written), "what is shown can be written");
    }
    assert_eq!((GroupPath::root(), GroupPath::root().is_root()), (path("/"), true));
    assert_eq!((GroupPath::root().to_string(), path("/a/b").to_string()), ("/".to_owned(), "a/b".to_owned()));
}

#[test]
fn a_wrong_name_is_named_with_the_rule() {
    let longest = "x".repeat(GROUP_NAME_CHARS_MAX);
    assert_eq!(path(&longest).name(), longest);
    let too_long = format!("{longest}x");
    let wrong = ["-a", ".", "..", "_a", "a b", "ü", "a:b", "id:17", "a\\b", "a\nb", too_long.as_str()];
    for name in wrong {
        for text in [name.to_owned(), format!("a/{name}"), format!("/a/{name}/b")] {
            let said = refused(&text).to_string();
            assert!(said.contains("cannot name a group") && said.contains("1 to 64 of letters"), "{said}");
            assert!(said.lines().count() == 1 && said.len() < 300, "{said}");
        }
    }
    for text in ["//", "a/", "a//b", "//a"] {
        assert_eq!(refused(text), GroupPathError::Name { name: String::new() }, "{text}");
    }
    assert_eq!(refused("a/b c/.d"), GroupPathError::Name { name: "b c".to_owned() }, "the first one");
}

#[test]
fn a_group_one_level_too_deep_is_refused_by_the_limits_name() {
    let names = |count: usize| vec!["a"; count].join("/");
    let deepest = path(&names(GROUP_DEPTH_MAX));
    assert_eq!(deepest.depth(), GROUP_DEPTH_MAX);
    let error = refused(&names(GROUP_DEPTH_MAX + 1));
    assert_eq!(error, GroupPathError::TooDeep { depth: GROUP_DEPTH_MAX + 1 });
    assert!(error.to_string().contains("GROUP_DEPTH_MAX"), "{error}");
}

#[test]
fn a_group_lies_in_exactly_one_up_to_the_root() {
    let deep = path("a/b/c");
    assert_eq!(deep.outwards().collect::<Vec<_>>(), ["a/b/c", "a/b", "a", ""]);
    assert_eq!(GroupPath::root().outwards().collect::<Vec<_>>(), [""]);
    assert_eq!((deep.depth(), path("a").depth(), GroupPath::root().depth()), (3, 1, 0));
    assert_eq!((deep.name(), path("a").name(), GroupPath::root().name()), ("c", "a", ""));
    assert_eq!((deep.parent(), path("a").parent()), (Some(path("a/b")), Some(GroupPath::root())));
    assert_eq!(GroupPath::root().parent(), None);
}

#[test]
fn a_group_holds_itself_and_what_is_in_it_and_no_neighbour_of_a_like_name() {
    let group = path("a/b");
    for (other, is_held) in [("a/b", true), ("a/b/c", true), ("a", false), ("", false), ("a/bc", false), ("b", false)] {
        assert_eq!(group.holds(other), is_held, "{other}");
    }
    assert!(["", "a", "a/b"].into_iter().all(|other| GroupPath::root().holds(other)));
}

fn because(reason: &str) -> Cancel {
    Cancel { reason: reason.to_owned(), at: 7, by_failures: false }
}

#[test]
fn cancelling_marks_only_that_group_and_strikes_only_what_is_in_it() {
    let mut cancels = Cancels::default();
    assert!(cancels.is_empty() && cancels.insert(&path("a/b"), because("enough")));
    assert_eq!(cancels.iter().collect::<Vec<_>>(), [("a/b", &because("enough"))]);
    for struck in ["a/b", "a/b/c", "a/b/c/d"] {
        assert_eq!(cancels.strikes(&path(struck)), Some(("a/b", &because("enough"))), "{struck}");
    }
    for free in ["", "a", "a/c", "a/bc", "b", "b/a/b"] {
        assert_eq!((cancels.strikes(&path(free)), cancels.of(&path(free))), (None, None), "{free}");
    }
    assert_eq!(cancels.of(&path("a/b/c")), None, "what is in it bears no mark of its own");
    assert!(cancels.insert(&GroupPath::root(), because("all")));
    assert_eq!(cancels.strikes(&path("b")), Some(("", &because("all"))));
}

#[test]
fn a_group_and_one_in_it_are_cancelled_in_any_order_and_twice_changes_nothing() {
    for order in [["a", "a/b"], ["a/b", "a"]] {
        let mut cancels = Cancels::default();
        assert!(order.into_iter().all(|group| cancels.insert(&path(group), because(group))));
        let once = cancels.clone();
        assert!(order.into_iter().all(|group| !cancels.insert(&path(group), because("again"))));
        assert_eq!((&cancels, cancels.len()), (&once, 2), "the first word stands");
        assert_eq!(cancels.of(&path("a/b")), Some(&because("a/b")));
        assert_eq!(cancels.strikes(&path("a/b/c")), Some(("a", &because("a"))), "the outermost one");
    }
}

fn change(kind: ChangeKind) -> Change {
    Change { kind, tasks: TaskTally::default(), spent: Spent::default() }
}

fn counted(changes: &[ChangeKind]) -> Tally {
    let mut tally = Tally::default();
    changes.iter().for_each(|kind| tally.add(&change(kind.clone())));
    tally
}

#[test]
fn failure_shows_over_cancelled_over_running_over_success() {
    use ChangeKind::{Ended, Submitted};
    use JobEnd::{Cancelled, Failed, Successful};
    let cases: [(&[ChangeKind], GroupState, GroupState); 6] = [
        (&[], GroupState::Successful, GroupState::Cancelled),
        (&[Submitted], GroupState::Running, GroupState::Cancelled),
        (&[Submitted, Ended(Successful)], GroupState::Successful, GroupState::Cancelled),
        (&[Submitted, Submitted, Ended(Successful)], GroupState::Running, GroupState::Cancelled),
        (&[Submitted, Submitted, Ended(Cancelled)], GroupState::Cancelled, GroupState::Cancelled),
        (&[Submitted, Submitted, Submitted, Ended(Cancelled), Ended(Failed)], GroupState::Failed, GroupState::Failed),
    ];
    for (changes, otherwise, if_cancelled) in cases {
        let tally = counted(changes);
        assert_eq!((shown(&tally, false), shown(&tally, true)), (otherwise, if_cancelled), "{changes:?}");
    }
}

#[test]
fn an_empty_group_is_complete_and_successful_and_never_became_so() {
    let sums = Sums::default();
    assert!(sums.tally.is_complete());
    assert_eq!((sums.completions, sums.completed_at), (0, 0));
    assert_eq!(shown(&sums.tally, false), GroupState::Successful);
}

#[test]
fn a_completion_is_seen_by_the_change_that_brings_it_and_a_new_job_opens_the_group_again() {
    use ChangeKind::{Ended, Returned, Submitted};
    use JobEnd::{Failed, Successful};
    let mut sums = Sums::default();
    let script = [
        (Submitted, false, 0),
        (Submitted, false, 0),
        (Ended(Failed), false, 0),
        (Ended(Successful), true, 4),
        (Submitted, false, 0),
        (Ended(Successful), true, 6),
        (Returned(Failed), false, 0),
        (Ended(Successful), true, 8),
    ];
    for (at, (kind, completes, completed_at)) in (1..).zip(script) {
        assert_eq!((sums.add(&change(kind), at), sums.completed_at), (completes, completed_at), "step {at}");
    }
    assert_eq!((sums.completions, sums.tally.failed, sums.tally.successful), (3, 0, 3));
}

#[test]
fn a_return_takes_back_exactly_what_the_end_added() {
    let tasks = TaskTally { pending: 1, successful: 20, failed: 3, cancelled: 4 };
    let took = |gpu| Spent { run_ms: 5, cpu_ms: 6, memory_mib_ms: 7, named_ms: [("gpu".to_owned(), gpu)].into() };
    let mut tally = counted(&[ChangeKind::Submitted, ChangeKind::Submitted]);
    tally.add(&Change { kind: ChangeKind::Ended(JobEnd::Successful), tasks, spent: took(8) });
    let before = tally.clone();
    let second = Change { kind: ChangeKind::Ended(JobEnd::Failed), tasks, spent: took(u64::MAX - 8) };
    tally.add(&second);
    assert_eq!((tally.failed, tally.tasks.successful, tally.spent.named_ms["gpu"]), (1, 40, u64::MAX));
    tally.add(&Change { kind: ChangeKind::Returned(JobEnd::Failed), ..second });
    assert_eq!(tally, before);
    tally.add(&Change { kind: ChangeKind::Returned(JobEnd::Successful), tasks, spent: took(8) });
    assert_eq!(tally, counted(&[ChangeKind::Submitted, ChangeKind::Submitted]), "nothing of it is left");
}

#[test]
fn what_is_too_much_to_count_stays_at_the_most() {
    let resources = Resources { cpu_milli: u32::MAX, memory_bytes: u64::MAX, named: [("gpu".to_owned(), 2)].into() };
    let mut spent = Spent::of(u64::MAX, &resources);
    spent.add(&Spent::of(1, &Resources { cpu_milli: 999, memory_bytes: 1, named: [("none".to_owned(), 0)].into() }));
    assert_eq!((spent.run_ms, spent.cpu_ms, spent.memory_mib_ms), (u64::MAX, u64::MAX, u64::MAX));
    assert_eq!(spent.named_ms, BTreeMap::from([("gpu".to_owned(), u64::MAX)]));
}

#[test]
fn a_group_has_failed_enough_when_so_many_of_its_jobs_have_and_never_without_a_number() {
    let failed = ChangeKind::Ended(JobEnd::Failed);
    let tally = counted(&[ChangeKind::Submitted, ChangeKind::Submitted, failed.clone(), failed.clone()]);
    let enough: Vec<bool> = (0..4).map(|after| has_failed_enough(&tally, after)).collect();
    assert_eq!(enough, [false, true, true, false]);
    let returned = ChangeKind::Returned(JobEnd::Failed);
    assert!(!has_failed_enough(&counted(&[ChangeKind::Submitted, failed, returned]), 1));
}

fn spec(text: &str) -> Result<JobSpec, Problems> {
    read(text, Format::Yaml)?.resolve(&NoFiles)
}

#[test]
fn a_spec_names_its_group_as_it_is_stored() {
    for (written, stored) in [("nightly/2026", "nightly/2026"), ("/nightly", "nightly"), ("2026", "2026"), ("/", "")] {
        assert_eq!(spec(&format!("name: x\nrun: ls\ngroup: {written}")).unwrap().group, stored);
    }
    let mut root = spec("name: x\nrun: ls").unwrap();
    assert_eq!(root.group, "");
    root.group = "a//b".to_owned();
    let problems = check(&root);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].field == "group" && problems[0].message.contains("cannot name a group"), "{problems:?}");
}

#[test]
fn a_definitions_group_may_be_a_parameter() {
    let text = "name: x\nrun: ls\nparams: {day: {type: text}}\ngroup: {$param: day}";
    let template = Template::read(text, Format::Yaml).unwrap();
    assert!(template.canonical(&NoFiles).unwrap().contains(r#""group":{"$param":"day"}"#));
    assert!(template.sketch().is_ok());
    let given = |day: &str| Arguments::from([("day".to_owned(), Argument::Text(day.to_owned()))]);
    let job = template.draft(&given("/nightly/monday")).and_then(|draft| draft.resolve(&NoFiles)).unwrap();
    assert_eq!(job.group, "nightly/monday");
    let problems = template.draft(&given("a//b")).unwrap_err().to_string();
    assert!(problems.contains("group: ") && problems.contains("the parameter `day`"), "{problems}");
}

/// A job, and if it is over: how, and how much of everything it brings.
struct Job {
    group: GroupPath,
    over: Option<(JobEnd, u64)>,
}

#[derive(Debug, Clone)]
enum Step {
    Submit(GroupPath),
    End(prop::sample::Index, JobEnd, u64),
    Return(prop::sample::Index),
}

fn group() -> impl Strategy<Value = GroupPath> {
    let names = prop::collection::vec(prop::sample::select(vec!["a", "b", "bb"]), 0..=GROUP_DEPTH_MAX);
    names.prop_map(|names| path(&names.join("/")))
}

fn step() -> impl Strategy<Value = Step> {
    let ends = prop::sample::select(vec![JobEnd::Successful, JobEnd::Failed, JobEnd::Cancelled]);
    prop_oneof![
        2 => group().prop_map(Step::Submit),
        3 => (any::<prop::sample::Index>(), ends, 1u64..9).prop_map(|(which, end, size)| Step::End(which, end, size)),
        1 => any::<prop::sample::Index>().prop_map(Step::Return),
    ]
}

/// What a job that ends, or is active again, says of itself.
fn told(kind: ChangeKind, size: u64) -> Change {
    let tasks = TaskTally { pending: size, successful: 2 * size, failed: 3 * size, cancelled: 4 * size };
    let named_ms = if size.is_multiple_of(2) { BTreeMap::new() } else { [("gpu".to_owned(), size)].into() };
    Change { kind, tasks, spent: Spent { run_ms: size, cpu_ms: 2 * size, memory_mib_ms: 3 * size, named_ms } }
}

/// Lets the step happen, if there is a job for it.
fn happen(step: Step, jobs: &mut Vec<Job>) -> Option<(GroupPath, Change)> {
    let (which, is_over) = match &step {
        Step::Submit(group) => {
            jobs.push(Job { group: group.clone(), over: None });
            return Some((group.clone(), change(ChangeKind::Submitted)));
        }
        Step::End(which, ..) => (which, false),
        Step::Return(which) => (which, true),
    };
    let mut fitting: Vec<&mut Job> = jobs.iter_mut().filter(|job| job.over.is_some() == is_over).collect();
    if fitting.is_empty() {
        return None;
    }
    let at = which.index(fitting.len());
    let job = &mut *fitting[at];
    let change = match (step, job.over.take()) {
        (Step::End(_, end, size), _) => {
            job.over = Some((end, size));
            told(ChangeKind::Ended(end), size)
        }
        (_, Some((end, size))) => told(ChangeKind::Returned(end), size),
        (_, None) => return None,
    };
    Some((job.group.clone(), change))
}

/// What there is to count in a group, without adding up changes.
fn recount(jobs: &[Job], group: &GroupPath) -> Tally {
    let inside = || jobs.iter().filter(|job| group.holds(job.group.as_str()));
    let ended = |end| inside().filter(|job| job.over.is_some_and(|(known, _)| known == end)).count() as u64;
    let sizes = || inside().filter_map(|job| job.over.map(|(_, size)| size));
    let (all, odd): (u64, u64) = (sizes().sum(), sizes().filter(|size| size % 2 == 1).sum());
    Tally {
        submitted: inside().count() as u64,
        successful: ended(JobEnd::Successful),
        failed: ended(JobEnd::Failed),
        cancelled: ended(JobEnd::Cancelled),
        tasks: TaskTally { pending: all, successful: 2 * all, failed: 3 * all, cancelled: 4 * all },
        spent: Spent {
            run_ms: all,
            cpu_ms: 2 * all,
            memory_mib_ms: 3 * all,
            named_ms: (odd > 0).then(|| ("gpu".to_owned(), odd)).into_iter().collect(),
        },
    }
}

proptest! {
    /// Whatever happens where: each group around a job counts it once, no other group does, and each time that all jobs of a
    /// subtree are over is seen once, by the change that brings it.
    #[test]
    fn a_group_counts_its_whole_subtree_and_sees_each_completion_once(steps in prop::collection::vec(step(), 1..80)) {
        let mut jobs = Vec::new();
        let mut sums: BTreeMap<GroupPath, Sums> = BTreeMap::new();
        let mut completions: BTreeMap<GroupPath, u64> = BTreeMap::new();
        for (at, step) in (1..).zip(steps) {
            let Some((group, change)) = happen(step, &mut jobs) else { continue };
            for around in group.outwards().map(path) {
                let own = sums.entry(around.clone()).or_default();
                let became_complete = own.add(&change, at);
                let is_complete = jobs.iter().filter(|job| around.holds(job.group.as_str())).all(|job| job.over.is_some());
                // A job of it changed, so if it is complete now it was not before.
                prop_assert_eq!(became_complete, is_complete);
                prop_assert_eq!(own.tally.is_complete(), is_complete);
                prop_assert_eq!(own.completed_at, if is_complete { at } else { 0 });
                let seen = completions.entry(around).or_default();
                *seen += u64::from(became_complete);
                prop_assert_eq!(own.completions, *seen);
            }
            for (group, own) in &sums {
                prop_assert_eq!(&own.tally, &recount(&jobs, group), "{}", group);
            }
        }
    }

    #[test]
    fn cancels_strike_the_same_in_any_order(
        cancelled in prop::collection::vec(group(), 0..6),
        order in any::<prop::sample::Index>(),
        asked in group(),
    ) {
        let mut turned = cancelled.clone();
        turned.rotate_left(if cancelled.is_empty() { 0 } else { order.index(cancelled.len()) });
        turned.reverse();
        let known = |groups: &[GroupPath]| {
            let mut known = Cancels::default();
            for group in groups {
                known.insert(group, Cancel::default());
            }
            known
        };
        let (one, other) = (known(&cancelled), known(&turned));
        prop_assert_eq!(&one, &other);
        let outermost = cancelled.iter().filter(|group| group.holds(asked.as_str())).min_by_key(|group| group.depth());
        prop_assert_eq!(one.strikes(&asked).map(|(by, _)| by), outermost.map(GroupPath::as_str));
    }

    #[test]
    fn a_path_is_what_is_read_of_its_text_and_its_parents_hold_it(group in group()) {
        prop_assert_eq!(&path(group.as_str()), &group);
        prop_assert_eq!(group.outwards().count(), group.depth() + 1);
        let parents: Vec<GroupPath> = std::iter::successors(Some(group.clone()), GroupPath::parent).collect();
        prop_assert_eq!(parents.iter().map(GroupPath::as_str).collect::<Vec<_>>(), group.outwards().collect::<Vec<_>>());
        prop_assert!(parents.iter().all(|parent| parent.holds(group.as_str())));
        prop_assert!(parents.iter().skip(1).all(|parent| !group.holds(parent.as_str())));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}|(/?[a-z./]{0,9}){0,8}") {
        if let Ok(group) = text.parse::<GroupPath>() {
            prop_assert_eq!(group.as_str(), text.strip_prefix('/').unwrap_or(&text));
            prop_assert!(group.depth() <= GROUP_DEPTH_MAX);
        }
    }
}
