//! Work that waits on an executor: how much, when not, and how it comes back.

use muster_graph::ids::TaskId;
use muster_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::engine::ahead::{CAREFUL_MS, LATE_AFTER_MS};
use crate::engine::commit::GATHER_MS;

/// Sent to an executor: stage, index and attempt.
type Sent = (u32, u32, u32);

impl Bench {
    /// An executor at which work may wait.
    fn register_patient(&mut self, key: ExecutorKey, cores: u32, backlog: u32) {
        let record = self.engine.executor(&key.id).map_or(1, |known| known.record + 1);
        let home = self.identity.session.0.clone();
        self.input(Input::Registered(Registration {
            backlog,
            home_here: true,
            held: Some(Vec::new()),
            ..registration(key, cores, home, record)
        }));
    }

    /// An attempt ran for so long.
    async fn ran(&mut self, job: JobId, by: &str, (stage, index, attempt): Sent, ms: u64) {
        let mut status = ended(1, (job, stage, index, attempt), v1::Outcome::Succeeded);
        if let Some(v1::attempt_status::What::Finished(finished)) = &mut status.what {
            (finished.started_at_ms, finished.finished_at_ms) = (1_000, 1_000 + ms);
        }
        drop(self.finish(&key(by, 1), &[status]));
        self.commit_all().await;
    }

    /// The same, and what nobody waited for is committed.
    async fn ran_and_gathered(&mut self, job: JobId, by: &str, what: Sent, ms: u64) {
        self.ran(job, by, what, ms).await;
        self.wait(GATHER_MS).await;
    }

    async fn given_back(&mut self, job: JobId, by: &str, (stage, index, attempt): Sent) {
        let mut status = ended(1, (job, stage, index, attempt), v1::Outcome::GivenBack);
        if let Some(v1::attempt_status::What::Finished(finished)) = &mut status.what {
            finished.output = None;
        }
        drop(self.finish(&key(by, 1), &[status]));
        self.commit_all().await;
    }

    fn sent_to(&mut self, id: &str) -> Vec<Sent> {
        let mut sent = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Launch { executor, groups } if executor.id == id => {
                sent.extend(groups.iter().flat_map(launched).map(|(_, stage, index, attempt)| (stage, index, attempt)));
                false
            }
            _ => true,
        });
        sent
    }

    /// What was asked back of an executor since this was last asked.
    fn asked_back(&mut self, id: &str) -> Vec<Sent> {
        let mut asked = Vec::new();
        self.outputs.retain(|output| match output {
            Output::CancelAttempts { executor, request } if executor.id == id && request.only_waiting => {
                asked.extend(request.attempts.iter().map(|a| (a.stage, a.index, a.attempt)));
                false
            }
            _ => true,
        });
        asked
    }

    fn waiting(&self, id: &str) -> usize {
        self.engine.executor(id).unwrap().waiting()
    }
}

/// A scheduler with one core, whose job of short tasks has one running and the rest of what it was sent waiting there.
async fn short_tasks(tasks: u32) -> (Bench, JobId, Vec<Sent>) {
    let mut bench = Bench::new().await;
    bench.register_patient(key("e", 1), 1, 1000);
    let id = bench.submit(5, spec(&[("a", tasks, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.sent_to("e"), [(0, 0, 1)], "nobody knows yet how long they take");
    bench.ran(id, "e", (0, 0, 1), 9).await;
    // Now it is known that one takes 10 ms.
    let mut sent = bench.sent_to("e");
    assert_eq!(sent.remove(0), (0, 1, 1));
    (bench, id, sent)
}

#[tokio::test]
async fn short_tasks_wait_where_the_next_slot_becomes_free() {
    let (mut bench, id, ahead) = short_tasks(100).await;
    assert_eq!(ahead, (2..12).map(|index| (0, index, 1)).collect::<Vec<_>>(), "a tenth of a second of work");
    assert_eq!((bench.waiting("e"), bench.engine.executor("e").unwrap().free().cpu_milli), (10, 0));
    bench.ran_and_gathered(id, "e", (0, 1, 1), 9).await;
    assert_eq!(bench.sent_to("e"), [(0, 12, 1)], "one began, one more waits");
    assert_eq!(bench.waiting("e"), 10);
}

#[tokio::test]
async fn what_nobody_waits_for_is_committed_together() {
    let (mut bench, id, _) = short_tasks(100).await;
    let begins = bench.now;
    for index in 1..4 {
        bench.ran(id, "e", (0, index, 1), 9).await;
        assert_eq!(bench.engine.next_wakeup(), Some(begins + GATHER_MS), "of the first of them");
        bench.wait(GATHER_MS / 5).await;
        assert_eq!(bench.sent_to("e"), [], "the slot has its next task all the same");
    }
    bench.wait(GATHER_MS).await;
    assert_eq!(bench.sent_to("e"), [(0, 12, 1), (0, 13, 1), (0, 14, 1)]);

    // While they gather less and less waits there, since nothing is sent; with half of it gone nothing gathers any more.
    for index in 4..9 {
        bench.ran(id, "e", (0, index, 1), 9).await;
        assert_eq!(bench.sent_to("e"), []);
    }
    bench.ran(id, "e", (0, 9, 1), 9).await;
    assert_eq!(bench.sent_to("e").len(), 6);

    // Somebody waits.
    bench.ran(id, "e", (0, 10, 1), 9).await;
    assert_eq!(bench.sent_to("e"), []);
    let other = bench.submit(1, spec(&[("other", 1, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.sent_to("e").len(), 1, "and what gathered goes along");
    assert!(bench.engine.job(other).is_some());
}

#[tokio::test]
async fn long_tasks_do_not_wait_behind_others() {
    let mut bench = Bench::new().await;
    bench.register_patient(key("e", 1), 2, 1000);
    let id = bench.submit(1, spec(&[("a", 20, &[])])).await;
    bench.commit_all().await;
    for index in 0..10 {
        bench.ran(id, "e", (0, index, 1), 200).await;
        bench.input(Input::Tick);
        bench.commit_all().await;
    }
    assert_eq!((bench.sent_to("e").len(), bench.waiting("e")), (12, 0));
}

#[tokio::test]
async fn nothing_waits_at_an_executor_that_lets_nothing_wait() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 1);
    let id = bench.submit(1, spec(&[("a", 20, &[])])).await;
    bench.commit_all().await;
    for index in 0..5 {
        bench.ran(id, "e", (0, index, 1), 1).await;
    }
    assert_eq!((bench.sent_to("e").len(), bench.waiting("e")), (6, 0));
}

#[tokio::test]
async fn nothing_more_waits_while_another_executor_is_free() {
    let (mut bench, id, _) = short_tasks(100).await;
    bench.register_patient(key("f", 1), 4, 1000);
    bench.commit_all().await;
    let sent = bench.outputs.iter().filter_map(|output| match output {
        Output::Launch { executor, groups } => {
            Some((executor.id.as_str(), groups.iter().map(|group| group.attempts.len()).sum::<usize>()))
        }
        _ => None,
    });
    assert_eq!(
        sent.collect::<Vec<_>>(),
        [("f", 4), ("f", 40)],
        "first what runs at once, and what waits when both are busy"
    );
    bench.ran_and_gathered(id, "e", (0, 1, 1), 9).await;
    assert_eq!(bench.sent_to("e").len(), 1);
}

#[tokio::test]
async fn whoever_is_first_in_line_and_needs_room_is_not_kept_out_by_what_would_wait() {
    let (mut bench, id, ahead) = short_tasks(100).await;
    // An older job: its turn comes first, and nobody knows how long its task takes.
    let older = bench.submit(1, spec(&[("first", 1, &[])])).await;
    bench.commit_all().await;
    for index in 1..=ahead.len() as u32 {
        bench.ran(id, "e", (0, index, 1), 9).await;
        assert_eq!(bench.launches(), [], "what waits is used up, and nothing more waits before it");
    }
    bench.ran(id, "e", (0, 11, 1), 9).await;
    assert_eq!(bench.launches(), [(older.to_string(), 0, 0, 1)]);
}

#[tokio::test]
async fn what_does_not_begin_in_time_is_asked_back_and_costs_nothing() {
    let (mut bench, id, ahead) = short_tasks(100).await;
    bench.now += LATE_AFTER_MS - 1;
    assert_eq!(bench.engine.next_wakeup(), Some(bench.now + 1));
    bench.input(Input::Tick);
    assert_eq!(bench.asked_back("e"), []);
    bench.now += 1;
    bench.input(Input::Tick);
    assert_eq!(bench.asked_back("e"), ahead, "all that waits, and not what runs");
    // The first one had just begun.
    for attempt in &ahead[1..] {
        bench.given_back(id, "e", *attempt).await;
    }
    assert_eq!(bench.sent_to("e"), [], "nothing more waits there as long as nothing ends");
    bench.register_patient(key("f", 1), 4, 1000);
    bench.commit_all().await;
    let again: Vec<Sent> = ahead[1..=4].iter().map(|(stage, index, attempt)| (*stage, *index, attempt + 1)).collect();
    assert_eq!(bench.sent_to("f")[..4], again);
    let graph = &bench.engine.job(id).unwrap().graph;
    for (_, index, _) in &again {
        assert_eq!(graph.task(TaskId::new(0, *index)).unwrap().spent, [0; 6]);
    }
    bench.ran(id, "e", (0, 1, 1), 9).await;
    assert!(bench.sent_to("e").len() > 1, "it gets on");
}

#[tokio::test]
async fn what_is_not_given_back_is_asked_for_again_ever_more_rarely() {
    let (mut bench, _, ahead) = short_tasks(20).await;
    let mut asked = Vec::new();
    for _ in 0..20 {
        bench.now += LATE_AFTER_MS;
        bench.input(Input::Tick);
        asked.push(bench.asked_back("e").len() / ahead.len());
    }
    assert_eq!(asked.iter().sum::<usize>(), 4, "after 1, 3, 7 and 15 times the time: {asked:?}");
}

#[tokio::test]
async fn an_executor_that_drains_is_asked_for_what_waits_at_once() {
    let (mut bench, _, ahead) = short_tasks(20).await;
    bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(0), running: 0, draining: true });
    assert_eq!(bench.asked_back("e"), ahead);
}

#[tokio::test]
async fn a_job_that_lost_something_with_an_executor_sends_nothing_ahead_for_a_while() {
    let (mut bench, id, _) = short_tasks(100).await;
    bench.register_patient(key("e", 2), 1, 1000);
    bench.commit_all().await;
    bench.outputs.clear();
    let first = bench.engine.job(id).unwrap().graph.holds("e").next().expect("one was sent anew");
    assert_eq!(bench.waiting("e"), 0);
    bench.now += CAREFUL_MS;
    // What runs was sent with care; the one after it shows again what they take.
    let mut status = ended(1, (id, 0, first.0.index.0, first.1), v1::Outcome::Succeeded);
    if let Some(v1::attempt_status::What::Finished(finished)) = &mut status.what {
        (finished.started_at_ms, finished.finished_at_ms) = (1_000, 1_009);
    }
    drop(bench.finish(&key("e", 2), &[status]));
    bench.commit_all().await;
    bench.input(Input::Tick);
    assert!(bench.waiting("e") > 0);
}

#[tokio::test]
async fn several_schedulers_have_an_equal_part_of_a_backlog() {
    let mut bench = Bench::new().await;
    bench.input(Input::Schedulers { live: ["one".to_owned(), "two".to_owned()].into(), revision: 1 });
    bench.register_patient(key("e", 1), 1, 8);
    let id = bench.submit(1, spec(&[("a", 100, &[])])).await;
    bench.commit_all().await;
    bench.ran(id, "e", (0, 0, 1), 0).await;
    bench.input(Input::Tick);
    assert_eq!(bench.waiting("e"), 4);
}

#[tokio::test]
async fn a_start_that_is_told_before_the_end_before_it_upsets_no_account() {
    let (mut bench, id, ahead) = short_tasks(100).await;
    let started = v1::AttemptStatus {
        sequence: 0,
        attempt: Some(v1::AttemptRef { job_id: id.to_string(), stage: 0, index: ahead[0].1, attempt: 1 }),
        what: Some(v1::attempt_status::What::Started(v1::AttemptStarted { started_at_ms: 1 })),
    };
    drop(bench.finish(&key("e", 1), &[started]));
    assert_eq!(bench.engine.executor("e").unwrap().free().cpu_milli, 0);
    bench.ran(id, "e", (0, 1, 1), 9).await;
    assert_eq!(bench.waiting("e"), 10, "the first runs, and another one waits in its place");
    for (stage, index, attempt) in ahead {
        bench.ran(id, "e", (stage, index, attempt), 9).await;
    }
    assert_eq!(bench.waiting("e"), 10);
}

proptest! {
    /// Whatever comes in whatever order: what is booked is either in use or waits, and all is free at the end.
    #[test]
    fn the_books_balance(steps in proptest::collection::vec((0u32..30, 0u8..5, 1u32..4), 1..150)) {
        let mut executor = crate::engine::Executor::unheard_of(key("e", 1), 0);
        executor.total = cpu(4000);
        let name = |index| (JobId(1), TaskId::new(0, index), 1);
        for (index, step, cores) in steps {
            let name = name(index);
            match step {
                0 | 1 if !executor.held.contains_key(&name) => {
                    let work = (step == 0).then_some(u64::from(cores));
                    executor.book(name, &Arc::new(cpu(cores * 1000)), work);
                }
                2 => executor.begun(&name),
                3 => executor.counted(&cpu(cores * 1000), 0),
                _ => drop(executor.release(&name)),
            }
            let milli = |waits: bool| {
                executor.held.values().filter(|b| b.waits == waits).map(|b| b.resources.cpu_milli).sum::<u32>()
            };
            prop_assert_eq!(executor.used.cpu_milli, milli(false));
            let waiting = executor.held.values().filter(|booking| booking.waits).count();
            prop_assert_eq!(executor.waiting(), waiting);
            let work: u64 = executor.held.values().filter(|b| b.waits).filter_map(|b| b.work).sum();
            prop_assert_eq!(executor.ahead.work(), work);
        }
        executor.release_where(|_| true);
        executor.counted(&cpu(4000), 0);
        prop_assert_eq!(executor.free().cpu_milli, 4000);
    }
}
