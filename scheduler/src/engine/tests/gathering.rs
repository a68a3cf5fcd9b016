//! Large tasks among small ones: where room gathers for them, for how long, and what is left of it afterwards.

use muster_proto::v1;

use super::*;
use crate::engine::gathering::{CHOOSE_AGAIN_MS, PATIENCE_MS};

/// Where an attempt went, and which one.
type Sent = (String, JobId, u32);

impl Bench {
    /// A job of tasks that want so many cores each.
    async fn wants(&mut self, number: u64, cores: u32, tasks: u32) -> JobId {
        self.wants_in("default", number, cores, tasks).await
    }

    async fn wants_in(&mut self, namespace: &str, number: u64, cores: u32, tasks: u32) -> JobId {
        let mut wanted = spec(&[("a", tasks, &[])]);
        wanted.namespace = namespace.to_owned();
        wanted.stages[0].resources = cpu(cores * 1000);
        let id = self.submit(number, wanted).await;
        self.commit_all().await;
        id
    }

    /// The first attempt of a task ended, after a second.
    async fn ended_on(&mut self, by: &str, job: JobId, index: u32) {
        let mut status = ended(1, (job, 0, index, 1), v1::Outcome::Succeeded);
        if let Some(v1::attempt_status::What::Finished(finished)) = &mut status.what {
            (finished.started_at_ms, finished.finished_at_ms) = (1_000, 2_000);
        }
        drop(self.finish(&key(by, 1), &[status]));
        self.commit_all().await;
    }

    /// What was launched since this was last asked.
    fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        self.outputs.retain(|output| {
            let Output::Launch { executor, groups } = output else { return true };
            for (_, _, index, _) in groups.iter().flat_map(launched) {
                let job = groups[0].job_id.parse().unwrap();
                sent.push((executor.id.clone(), job, index));
            }
            false
        });
        sent
    }

    /// Executors that are kept.
    fn kept(&self) -> Vec<&str> {
        self.engine.room_gathers.places.keys().map(String::as_str).collect()
    }

    /// Time goes by in which every executor is heard.
    fn passes(&mut self, ms: Millis) {
        let until = self.now + ms;
        while self.now < until {
            self.now = until.min(self.now + 1_000);
            let heard = |known: &crate::engine::Executor| (known.key.clone(), known.left(), known.running());
            let heard: Vec<_> = self.engine.executors().map(heard).collect();
            for (executor, free, running) in heard {
                self.input(Input::Heartbeat { executor, free, running, draining: false });
            }
        }
    }
}

/// One executor of four cores with four of a hundred small tasks, and an older job whose task wants three cores.
async fn one_large() -> (Bench, JobId, JobId) {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 4);
    let small = bench.wants(20, 1, 100).await;
    assert_eq!(bench.sent().len(), 4);
    let large = bench.wants(10, 3, 1).await;
    (bench, small, large)
}

fn sent(by: &str, job: JobId, index: u32) -> Sent {
    (by.to_owned(), job, index)
}

#[tokio::test]
async fn room_gathers_for_a_large_task_and_is_everybodys_again_when_it_runs() {
    let (mut bench, small, large) = one_large().await;
    for index in [0, 1] {
        bench.ended_on("e", small, index).await;
        assert_eq!((bench.sent(), bench.kept()), (Vec::new(), vec!["e"]));
    }
    bench.ended_on("e", small, 2).await;
    assert_eq!((bench.sent(), bench.kept()), (vec![sent("e", large, 0)], Vec::new()));
    bench.ended_on("e", small, 3).await;
    assert_eq!(bench.sent(), [sent("e", small, 4)]);
    bench.ended_on("e", large, 0).await;
    assert_eq!(bench.sent().len(), 3);
}

#[tokio::test]
async fn nothing_is_kept_for_a_job_that_is_cancelled() {
    let (mut bench, small, large) = one_large().await;
    bench.ended_on("e", small, 0).await;
    assert_eq!(bench.sent(), []);
    let (reply, _cancelled) = oneshot::channel();
    bench.input(Input::Cancel { job: large, reason: String::new(), reply });
    bench.commit_all().await;
    assert_eq!((bench.sent(), bench.kept()), (vec![sent("e", small, 4)], Vec::new()));
}

#[tokio::test]
async fn a_job_that_is_behind_has_nothing_kept_from_those_before_it() {
    let mut bench = Bench::new().await;
    bench.register(key("e", 1), 4);
    let small = bench.wants(10, 1, 100).await;
    bench.wants(20, 3, 1).await;
    bench.sent();
    bench.ended_on("e", small, 0).await;
    assert_eq!((bench.sent(), bench.kept()), (vec![sent("e", small, 4)], Vec::new()));
}

#[tokio::test]
async fn room_gathers_on_another_executor_when_the_first_one_takes_nothing_more() {
    let mut bench = Bench::new().await;
    bench.register(key("d", 1), 4);
    bench.register(key("e", 1), 4);
    let small = bench.wants(20, 1, 100).await;
    let large = bench.wants(10, 4, 1).await;
    let at = |sent: Vec<Sent>, id: &str| -> Vec<u32> {
        sent.into_iter().filter(|(on, ..)| on == id).map(|(_, _, index)| index).collect()
    };
    let first = bench.sent();
    let (on_d, on_e) = (at(first.clone(), "d"), at(first, "e"));
    bench.ended_on("e", small, on_e[0]).await;
    bench.ended_on("d", small, on_d[0]).await;
    assert_eq!(bench.kept(), ["e"], "it stays with what it has begun");
    assert_eq!(at(bench.sent(), "d").len(), 1);
    bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(1000), running: 3, draining: true });
    bench.now += 1_000;
    bench.ended_on("d", small, on_d[1]).await;
    assert_eq!((bench.sent(), bench.kept()), (Vec::new(), vec!["d"]));
    bench.input(Input::Heartbeat { executor: key("e", 1), free: cpu(1000), running: 3, draining: false });
    bench.commit_all().await;
    assert_eq!(at(bench.sent(), "e").len(), 1, "it is anybody's");
    assert_eq!(bench.kept(), ["d"]);
    bench.register(key("f", 1), 4);
    bench.commit_all().await;
    assert_eq!(
        (bench.sent()[0].clone(), bench.kept()),
        (sent("f", large, 0), Vec::new()),
        "wherever there is room first"
    );
}

#[tokio::test]
async fn a_part_of_the_executors_is_kept_and_not_all_of_them() {
    let mut bench = Bench::new().await;
    let names: Vec<String> = (0..8).map(|number| format!("e{number}")).collect();
    names.iter().for_each(|id| bench.register(key(id, 1), 2));
    let small = bench.wants(20, 1, 500).await;
    let running = bench.sent();
    bench.wants(10, 2, 50).await;
    for id in &names {
        let (.., index) = running.iter().find(|(on, ..)| on == id).unwrap();
        bench.ended_on(id, small, *index).await;
        bench.passes(1_000);
    }
    assert_eq!(bench.kept(), ["e0", "e1"], "one of four");
    assert_eq!(bench.sent().len(), 6, "small ones go on on the others");
}

#[tokio::test]
async fn one_that_has_been_patient_for_long_looks_for_room_that_gathers_sooner() {
    let mut bench = Bench::new().await;
    bench.register(key("d", 1), 2);
    let long = bench.wants(20, 1, 2).await;
    bench.register(key("f", 1), 2);
    let small = bench.wants(30, 1, 100).await;
    assert_eq!(bench.sent().len(), 4);
    let large = bench.wants(10, 2, 1).await;
    bench.ended_on("d", long, 0).await;
    assert_eq!(bench.kept(), ["d"]);
    // What else runs there does not end.
    bench.passes(PATIENCE_MS - 1);
    bench.ended_on("f", small, 0).await;
    assert_eq!(bench.sent(), [sent("f", small, 2)]);
    assert_eq!(bench.kept(), ["d"]);
    bench.passes(1);
    bench.now += CHOOSE_AGAIN_MS;
    bench.ended_on("f", small, 1).await;
    assert_eq!(bench.kept(), ["f"], "there a task has just begun of which others were short");
    assert_eq!(bench.sent(), [sent("d", small, 3)], "what was kept is everybody's");
    bench.ended_on("f", small, 2).await;
    assert_eq!(bench.sent(), [sent("f", large, 0)]);
}

#[tokio::test]
async fn a_namespace_that_has_the_first_turn_takes_over_what_gathered_for_another_one() {
    let mut bench = Bench::new().await;
    bench.register(key("d", 1), 4);
    bench.register(key("e", 1), 4);
    let small = bench.wants_in("small", 5, 1, 100).await;
    let running = bench.sent();
    let on =
        |id: &str| -> Vec<u32> { running.iter().filter(|(on, ..)| on == id).map(|(_, _, index)| *index).collect() };
    bench.wants_in("large", 10, 4, 1).await;
    bench.ended_on("d", small, on("d")[0]).await;
    let first = bench.wants_in("first", 20, 4, 1).await;
    assert_eq!(bench.kept(), ["d"]);
    bench.now += CHOOSE_AGAIN_MS;
    // More is free on the other one.
    let two = [0, 1].map(|at| ended(1, (small, 0, on("e")[at], 1), v1::Outcome::Succeeded));
    drop(bench.finish(&key("e", 1), &two));
    bench.commit_all().await;
    assert_eq!(bench.kept(), ["d"]);
    assert_eq!(bench.sent().len(), 2, "that is the small ones'");
    for index in &on("d")[1..] {
        assert_eq!(bench.sent(), []);
        bench.ended_on("d", small, *index).await;
    }
    assert_eq!(bench.sent(), [sent("d", first, 0)]);
}

#[tokio::test]
async fn an_executor_that_fetches_its_work_is_kept_between_two_of_its_polls() {
    let mut bench = Bench::new().await;
    bench.register_with(key("p", 1), 4, true, Vec::new());
    let mut sequence = 0;
    let mut poll = |bench: &mut Bench, held: &[(JobId, u32)]| {
        sequence += 1;
        let (reply, answer) = oneshot::channel();
        let held = held.iter().map(|(job, index)| v1::HeldAttempt {
            attempt: Some(v1::AttemptRef { job_id: job.to_string(), stage: 0, index: *index, attempt: 1 }),
            state: v1::HeldState::Running.into(),
        });
        let held: Vec<v1::HeldAttempt> = held.collect();
        let free = Some((&cpu(4000 - 1000 * u32::try_from(held.len()).unwrap())).into());
        let id = "p".to_owned();
        let poll = v1::PollWorkRequest { executor_id: id, incarnation: 1, sequence, held, free, ..Default::default() };
        bench.input(Input::Poll { poll: Box::new(poll), reply });
        answer
    };
    let given = |mut answer: oneshot::Receiver<v1::PollWorkResponse>| -> Vec<(JobId, u32)> {
        let launches = answer.try_recv().map(|answer| answer.launches).unwrap_or_default();
        launches.iter().flat_map(launched).map(|(job, _, index, _)| (job.parse().unwrap(), index)).collect()
    };
    let answer = poll(&mut bench, &[]);
    let small = bench.wants(20, 1, 100).await;
    let mut running = given(answer);
    assert_eq!(running.len(), 4);
    let large = bench.wants(10, 3, 1).await;
    for index in 0..2 {
        bench.ended_on("p", small, index).await;
        running.remove(0);
        let answer = poll(&mut bench, &running);
        bench.commit_all().await;
        assert_eq!(given(answer), []);
        assert_eq!(bench.kept(), ["p"]);
        bench.input(Input::PollExpired { executor: "p".to_owned(), sequence: u64::from(index) + 2 });
        assert_eq!(bench.kept(), ["p"], "it will be back");
    }
    bench.ended_on("p", small, 2).await;
    running.remove(0);
    let answer = poll(&mut bench, &running);
    bench.commit_all().await;
    assert_eq!(given(answer), [(large, 0)]);
}
