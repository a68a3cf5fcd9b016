//! Executors that come, go, restart and are lost, at any moment.

use muster_proto::v1;

use super::*;
use crate::engine::{Link, Loss};
use crate::ways::Way;

fn loss(key: ExecutorKey, record: Revision) -> Input {
    Input::Lost(Loss { key, record, on_purpose: false })
}

#[tokio::test]
async fn a_launch_to_an_executor_that_was_lost_meanwhile_is_withheld() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.input(loss(key("e", 1), 9));
    bench.commit_all().await;
    assert_eq!(bench.launches(), []);
    assert_eq!(bench.engine.job(id).unwrap().graph.counts().pending, 2, "to be run elsewhere");
    let executor = bench.engine.executor("e").unwrap();
    assert_eq!((executor.unanswered, executor.running()), (0, 0));
}

#[tokio::test]
async fn a_job_read_after_the_loss_of_its_executor_is_told_of_it() {
    for known in [true, false] {
        let mut first = Bench::new().await;
        first.register(key("e", 3), 2);
        let id = first.submit(1, spec(&[("a", 2, &[])])).await;
        first.commit_all().await;
        let mut second = Bench::over(std::sync::Arc::clone(&first.store), "two").await;
        if known {
            second.input(Input::Registered(registration(key("e", 3), 2, "one".to_owned(), 5)));
        }
        second.input(loss(key("e", 3), 6));
        second.own(id).await;
        second.load(id).await;
        let counts = second.engine.job(id).unwrap().graph.counts();
        assert_eq!((counts.pending, counts.assigned), (2, 0), "nobody would ever answer for them; known: {known}");
    }
}

#[tokio::test]
async fn an_executor_that_no_record_knows_is_lost_in_all_its_lives() {
    let mut first = Bench::new().await;
    first.register(key("e", 3), 2);
    let id = first.submit(1, spec(&[("a", 2, &[])])).await;
    first.commit_all().await;
    let mut second = Bench::over(std::sync::Arc::clone(&first.store), "two").await;
    second.own(id).await;
    second.load(id).await;
    second.now += LOST_AFTER;
    second.input(Input::Tick);
    let asked = second.outputs.iter().find_map(|output| match output {
        Output::DeclareLost { executor } => Some(executor.clone()),
        _ => None,
    });
    second.input(loss(asked.expect("it has had no home for long enough"), 0));
    assert_eq!(second.engine.job(id).unwrap().graph.counts().pending, 2);
}

#[tokio::test]
async fn an_executor_that_had_a_home_meanwhile_begins_its_absence_anew() {
    let mut bench = Bench::new().await;
    let asked = |bench: &Bench| bench.outputs.iter().any(|output| matches!(output, Output::DeclareLost { .. }));
    bench.input(live(&[]));
    bench.input(Input::Registered(registration(key("e", 1), 2, "gone".to_owned(), 5)));
    bench.now += LOST_AFTER - 1;
    // A later record: it was there, at a scheduler that is gone too by the time the news comes.
    bench.input(Input::Registered(registration(key("e", 1), 2, "gone since".to_owned(), 6)));
    bench.now += LOST_AFTER - 1;
    bench.input(Input::Tick);
    assert!(!asked(&bench), "it was heard of less than that long ago");
    bench.now += 1;
    bench.input(Input::Tick);
    assert!(asked(&bench));
}

#[tokio::test]
async fn an_executor_loses_its_home_with_the_scheduler_that_was_it() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    bench.input(Input::Registered(registration(key("e", 1), 2, "two".to_owned(), 5)));
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Peer);
    bench.input(live(&["one"]));
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::None);
    // To read its record again and again does not begin its absence anew.
    bench.now += LOST_AFTER - 1;
    bench.input(Input::Registered(registration(key("e", 1), 2, "two".to_owned(), 5)));
    bench.now += 1;
    bench.input(Input::Tick);
    assert!(bench.outputs.iter().any(|output| matches!(output, Output::DeclareLost { .. })), "{:?}", bench.outputs);
}

#[tokio::test]
async fn an_absence_is_not_counted_before_the_end_of_the_home_is_known() {
    let mut bench = Bench::new().await;
    let link = |bench: &Bench| bench.engine.executor("e").unwrap().link;
    bench.input(live_as_of(4, &["one"]));
    // The news of its home, which came in between, may be late.
    bench.input(Input::Registered(registration(key("e", 1), 2, "two".to_owned(), 5)));
    assert_eq!(link(&bench), Link::Peer);
    bench.input(live_as_of(4, &["one"]));
    bench.now += LOST_AFTER;
    bench.input(Input::Tick);
    assert_eq!(link(&bench), Link::Peer);
    // Either these are that it went as well, or it was gone by then: the absence has only begun.
    bench.input(live_as_of(6, &["one"]));
    assert_eq!(link(&bench), Link::None);
    bench.now += LOST_AFTER - 1;
    bench.input(Input::Tick);
    let asked = |bench: &Bench| bench.outputs.iter().any(|output| matches!(output, Output::DeclareLost { .. }));
    assert!(!asked(&bench));
    bench.now += 1;
    bench.input(Input::Tick);
    assert!(asked(&bench));
}

#[tokio::test]
async fn an_old_record_of_an_executor_does_not_undo_a_newer_one() {
    let mut bench = Bench::new().await;
    let here = |record| Registration {
        home_here: true,
        held: Some(Vec::new()),
        ..registration(key("e", 1), 2, "one".to_owned(), record)
    };
    bench.input(Input::Registered(here(10)));
    bench.input(loss(key("e", 1), 9));
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Home, "it has come back since");
    bench.input(Input::Registered(registration(key("e", 1), 2, "two".to_owned(), 8)));
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Home, "it has moved here since");
    bench.input(loss(key("e", 1), 11));
    bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(2000), running: 0, draining: false });
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Gone, "it has to register first");
}

#[tokio::test]
async fn attempts_of_others_are_counted_as_the_executor_tells() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 4);
    bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    let running = |bench: &Bench| bench.engine.executor("e").unwrap().running();
    assert_eq!(running(&bench), 2);
    bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(1000), running: 3, draining: false });
    assert_eq!(running(&bench), 3, "a peer has one there");
}

#[tokio::test]
async fn a_stream_that_ends_late_says_nothing_of_an_executor_at_home_elsewhere() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    bench.input(live(&["one", "two"]));
    bench.input(Input::Registered(registration(key("e", 1), 2, "two".to_owned(), 50)));
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Peer);
}

#[tokio::test]
async fn registering_again_keeps_the_link_with_what_is_on_its_way() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), 2);
    bench.outputs.clear();
    bench.input(Input::SessionEnded { executor: key("e", 1) });
    bench.register(key("e", 1), 2);
    assert!(!bench.outputs.iter().any(|output| matches!(output, Output::Connect { .. })), "{:?}", bench.outputs);
    assert_eq!(bench.engine.executor("e").unwrap().unanswered, 2, "still on their way");
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 2, refused: Vec::new() });
    assert_eq!(bench.engine.executor("e").unwrap().unanswered, 0);
}

#[tokio::test]
async fn a_restarted_executor_keeps_only_what_it_lists() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    let survived = (id, muster_graph::ids::TaskId::new(0, 1), 1);
    bench.register_with(key("e", 2), 2, false, vec![survived]);
    let counts = bench.engine.job(id).unwrap().graph.counts();
    assert_eq!(counts.assigned, 2, "one adopted, one given anew: {counts:?}");
    bench.commit_all().await;
    let launches: Vec<_> = bench.launches().into_iter().map(|(.., index, attempt)| (index, attempt)).collect();
    assert_eq!(launches, [(0, 1), (1, 1), (0, 2)]);
    assert_eq!(bench.engine.executor("e").unwrap().free().cpu_milli, 0);
}

#[tokio::test]
async fn a_refusal_for_lack_of_room_passes() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    bench.input(Input::Registered(registration(key("e", 1), 1, "two".to_owned(), 5)));
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    let refusal = v1::Refusal {
        attempt: Some(v1::AttemptRef { job_id: id.to_string(), stage: 0, index: 0, attempt: 1 }),
        reason: v1::RefusalReason::DoesNotFit.into(),
        message: "full".to_owned(),
    };
    let token = bench.engine.job(id).unwrap().token();
    bench.input(Input::LaunchAnswered { executor: key("e", 1), count: 1, refused: vec![(token, refusal)] });
    bench.commit_all().await;
    bench.launches();
    bench.now += 2_000;
    bench.input(Input::Tick);
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 2)], "its home never tells us its account");
}

#[tokio::test]
async fn demands_that_fit_nowhere_keep_nobody_waiting() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    for number in 1..=600 {
        let mut wide = spec(&[("a", 1, &[])]);
        wide.stages[0].resources = cpu(64_000);
        bench.submit(number, wide).await;
    }
    let id = bench.submit(601, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 1)]);
}

#[tokio::test]
async fn a_scheduler_is_cut_off_when_only_peers_reach_the_executors_and_for_long() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    assert!(!bench.engine.is_cut_off(bench.now), "there are none");
    for (id, record) in [("e", 5), ("f", 6)] {
        bench.input(Input::Registered(registration(key(id, 1), 1, "two".to_owned(), record)));
        bench.input(Input::Reached { executor: key(id, 1), way: Way::None });
    }
    assert!(!bench.engine.is_cut_off(bench.now), "that may pass");
    // As long as homes take to notice that an executor is gone, and as long again.
    let later = bench.now + 2 * SILENT_AFTER;
    assert!(!bench.engine.is_cut_off(later - 1));
    assert!(bench.engine.is_cut_off(later));
    // Told again, it is not broken since just now. What a peer passes on is not reached from here.
    bench.now += 9_000;
    bench.input(Input::Reached { executor: key("e", 1), way: Way::ThroughHome });
    assert!(bench.engine.is_cut_off(later));
    bench.input(Input::Reached { executor: key("f", 1), way: Way::Straight });
    assert!(!bench.engine.is_cut_off(later), "one is enough");
    bench.input(Input::Reached { executor: key("f", 1), way: Way::None });
    bench.register(key("g", 1), 1);
    assert!(!bench.engine.is_cut_off(later + 60_000), "one has its session here");
}

#[tokio::test]
async fn work_is_placed_on_an_executor_as_long_as_some_way_there_is_open() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    bench.input(Input::Registered(registration(key("e", 1), 3, "two".to_owned(), 5)));
    bench.input(Input::Reached { executor: key("e", 1), way: Way::None });
    let id = bench.submit(1, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), [], "it has a home, which says nothing of this scheduler");
    bench.input(Input::Reached { executor: key("e", 1), way: Way::ThroughHome });
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(id.to_string(), 0, 0, 1)]);
    // Its home does not pass anything on any more.
    bench.input(Input::Reached { executor: key("e", 1), way: Way::None });
    let next = bench.submit(2, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), []);
    bench.input(Input::Reached { executor: key("e", 1), way: Way::Straight });
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(next.to_string(), 0, 0, 1)]);
}

#[tokio::test]
async fn an_executor_that_is_heard_and_cannot_be_reached_has_no_home_here() {
    let mut bench = Bench::new().await;
    bench.connects = false;
    bench.register(key("e", 1), 2);
    let id = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), [], "nothing is placed before the way to it is open");
    let beat = || Input::Heartbeat { executor: key("e", 1), free: cpu(2000), running: 0, draining: false };
    let reached = |way| Input::Reached { executor: key("e", 1), way };
    bench.input(reached(Way::Straight));
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), 2);
    bench.input(reached(Way::None));
    for _ in 1..SILENT_AFTER / 1_000 {
        bench.now += 1_000;
        bench.input(beat());
        bench.input(Input::Tick);
    }
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Home, "it is not for long");
    // To register again is no way around it, as long as nothing reaches it.
    bench.register_with(key("e", 1), 2, false, vec![(id, muster_graph::ids::TaskId::new(0, 0), 1)]);
    bench.now += 1_000;
    bench.input(beat());
    bench.input(Input::Tick);
    let executor = bench.engine.executor("e").unwrap();
    assert_eq!((executor.link, executor.is_here(&key("e", 1))), (Link::None, false));
    assert_eq!(bench.engine.job(id).unwrap().graph.counts().assigned, 2, "silence is never evidence");
    bench.input(beat());
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::None, "it has to register");
    bench.now += 500;
    bench.input(Input::Tick);
    assert!(bench.outputs.iter().any(|output| matches!(output, Output::TellAway { .. })), "{:?}", bench.outputs);
    // The store has not taken that yet: it is told so once more, and then it is time.
    bench.now += LOST_AFTER;
    bench.input(Input::Tick);
    bench.input(Input::Tick);
    assert!(bench.outputs.iter().any(|output| matches!(output, Output::DeclareLost { .. })), "{:?}", bench.outputs);
}

#[tokio::test]
async fn one_that_was_registered_here_and_never_heard_of_again_does_not_stay_at_home() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one"]));
    bench.register(key("e", 1), 2);
    let own = |incarnation, record| Input::Registered(registration(key("e", incarnation), 2, "one".to_owned(), record));
    bench.input(own(1, 2));
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Home, "its session says more than its record");
    bench.input(loss(key("e", 1), 3));
    // Its next life wrote its record here, and the word of that never came: it may have gone since.
    bench.outputs.clear();
    bench.input(own(2, 4));
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::None);
    bench.now += 500;
    bench.input(own(2, 4));
    bench.input(Input::Tick);
    let told = |output: &Output| matches!(output, Output::TellAway { executor } if *executor == key("e", 2));
    assert!(bench.outputs.iter().any(told), "{:?}", bench.outputs);
    // The word comes after all.
    let here =
        Registration { home_here: true, held: Some(Vec::new()), ..registration(key("e", 2), 2, "one".to_owned(), 4) };
    bench.input(Input::Registered(here));
    assert_eq!(bench.engine.executor("e").unwrap().link, Link::Home);
}

#[tokio::test]
async fn a_new_owner_whose_clock_is_behind_waits_no_longer_than_a_backoff() {
    const BACKOFF: Duration = Duration::from_millis(300);
    let mut ahead = Bench::new().await;
    ahead.now += 3_600_000;
    ahead.register(key("e", 1), 1);
    let mut flaky = spec(&[("a", 1, &[])]);
    (flaky.stages[0].retries.backoff, flaky.stages[0].retries.backoff_max) = (BACKOFF, BACKOFF);
    let id = ahead.submit(1, flaky).await;
    ahead.commit_all().await;
    let _settled = ahead.finish(&key("e", 1), &[ended(1, (id, 0, 0, 1), v1::Outcome::Failed)]);
    ahead.commit_all().await;
    assert!(ahead.engine.job(id).unwrap().graph.next_timer() > Some(ahead.now), "it backs off");
    let mut behind = Bench::over(std::sync::Arc::clone(&ahead.store), "two").await;
    assert!(behind.now < ahead.now);
    behind.own(id).await;
    behind.load(id).await;
    let timer = behind.engine.job(id).unwrap().graph.next_timer();
    assert_eq!(timer, Some(behind.now + BACKOFF.as_millis() as Millis));
}
