//! Room asked for at executors that others use: when, of whom, and when no more.

use super::*;

impl Bench {
    fn accounts(&mut self, by: &ExecutorKey, room: u32, ours: u32) {
        let of = |milli| Some((&cpu(milli)).into());
        let account = v1::Account { room: of(room), yours: of(ours), others: 1 };
        self.input(Input::Account { executor: by.clone(), account });
    }

    fn later(&mut self, ms: Millis) {
        self.now += ms;
        self.input(Input::Tick);
    }

    /// What executors were asked for since this was last asked: cpu of one task, and how many.
    fn reserved(&mut self) -> Vec<(String, u32, u32)> {
        let mut reserved = Vec::new();
        self.outputs.retain(|output| {
            let Output::Reserve { executor, reservation } = output else { return true };
            let milli = reservation.need.as_ref().map_or(0, |need| need.cpu_milli);
            reserved.push((executor.id.clone(), milli, reservation.count));
            false
        });
        reserved
    }
}

#[tokio::test]
async fn room_is_asked_for_when_tasks_find_none_and_not_when_they_have_it() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    let e = key("e", 1);
    bench.register(e.clone(), 4);
    bench.accounts(&e, 0, 0);
    let job = bench.submit(1, spec(&[("a", 2, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches(), [], "all of it is somebody else's");
    assert_eq!(bench.reserved(), [], "there may be room at once");
    assert!(bench.engine.next_wakeup().is_some_and(|at| at <= bench.now + 20));
    bench.later(20);
    assert_eq!(bench.reserved(), [("e".to_owned(), 1000, 2)]);
    bench.later(300);
    assert_eq!(bench.reserved(), [], "it knows");
    bench.later(2000);
    assert_eq!(bench.reserved(), [("e".to_owned(), 1000, 2)], "it forgets what is not repeated");
    bench.accounts(&e, 1000, 0);
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(job.to_string(), 0, 0, 1)]);
    bench.later(300);
    assert_eq!(bench.reserved(), [("e".to_owned(), 1000, 1)]);
    // What was launched is in the account as soon as the executor has it.
    bench.accounts(&e, 1000, 1000);
    bench.commit_all().await;
    assert_eq!(bench.launches(), [(job.to_string(), 0, 1, 1)]);
    assert_eq!(bench.reserved(), [("e".to_owned(), 0, 0)], "nothing is left to be placed");
}

#[tokio::test]
async fn who_is_alone_asks_nobody() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one"]));
    bench.register(key("e", 1), 1);
    bench.submit(1, spec(&[("a", 5, &[])])).await;
    bench.commit_all().await;
    bench.later(1000);
    assert_eq!(bench.reserved(), []);
}

#[tokio::test]
async fn small_tasks_ask_many_executors_and_a_large_one_a_single_one() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    for number in 0..12 {
        let executor = key(&format!("e{number:02}"), 1);
        bench.register(executor.clone(), 8);
        bench.accounts(&executor, 0, 0);
    }
    let large = || {
        let mut large = spec(&[("a", 1, &[])]);
        large.stages[0].resources = cpu(6000);
        large
    };
    bench.submit(1, large()).await;
    bench.submit(2, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    bench.later(20);
    let reserved = bench.reserved();
    assert_eq!(reserved.iter().filter(|(_, milli, count)| (*milli, *count) == (6000, 1)).count(), 1);
    assert_eq!(reserved.iter().filter(|(_, milli, count)| (*milli, *count) == (1000, 1)).count(), 8);
}

#[tokio::test]
async fn what_is_on_its_way_is_counted_once_whatever_the_account_says_yet() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    let e = key("e", 1);
    bench.register(e.clone(), 4);
    bench.submit(1, spec(&[("a", 9, &[])])).await;
    bench.commit_all().await;
    assert_eq!(bench.launches().len(), 4);
    // Of before they arrived; others have one core.
    bench.accounts(&e, 3000, 0);
    bench.commit_all().await;
    assert_eq!(bench.launches(), []);
    bench.accounts(&e, 0, 3000);
    bench.accounts(&e, 1000, 3000);
    bench.commit_all().await;
    assert_eq!(bench.launches(), [], "the fourth is to find room there");
}

#[tokio::test]
async fn demands_that_fit_nowhere_do_not_keep_those_behind_them_from_asking() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    let e = key("e", 1);
    bench.register(e.clone(), 4);
    bench.accounts(&e, 0, 0);
    for number in 1..=100 {
        let mut large = spec(&[("a", 1, &[])]);
        large.stages[0].resources = cpu(5000 + u32::try_from(number % 3).unwrap());
        bench.submit(number, large).await;
    }
    bench.submit(101, spec(&[("a", 1, &[])])).await;
    bench.commit_all().await;
    bench.later(20);
    assert_eq!(bench.reserved(), [("e".to_owned(), 1000, 1)]);
}

#[tokio::test]
async fn room_for_a_large_task_is_asked_for_where_it_gathers_already() {
    let mut bench = Bench::new().await;
    bench.input(live(&["one", "two"]));
    for id in ["d", "e"] {
        bench.register(key(id, 1), 8);
        bench.accounts(&key(id, 1), 0, 0);
    }
    bench.accounts(&key("e", 1), 2000, 0);
    let mut large = spec(&[("a", 1, &[])]);
    large.stages[0].resources = cpu(6000);
    bench.submit(1, large).await;
    bench.commit_all().await;
    bench.accounts(&key("d", 1), 4000, 0);
    bench.later(20);
    assert_eq!(bench.reserved(), [("e".to_owned(), 6000, 1)]);
}
