//! `kill -9` of `muster up` in the middle of a job, and `muster up` on the same directory again.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};

use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_integration::{journal, word_count};
use muster_proto::v1;

#[tokio::test(flavor = "multi_thread")]
async fn the_job_goes_on_from_where_it_was_and_what_was_finished_is_not_run_again() {
    let world = World::new();
    let mut up = world.up("data").await;
    let client_before = client(&[up.address()]).await;
    ready(&client_before, 1).await;
    // As many as the machine can run at once, so that none is on its way to a start at the kill.
    let cores = client_before.list_executors().await.unwrap()[0].total.clone().unwrap().cpu_milli / 1000;
    let waiting = cores as usize + 3;
    let spec = world.job(&format!(
        r#"
        name: interrupted
        stages:
          early: {{tasks: 5, run: 'eval "$NOTE"; echo $((MUSTER_TASK_INDEX * 10)) > $MUSTER_OUTPUT_DIR/n'}}
          late:
            tasks: {waiting}
            inputs: {{early: all}}
            run: |
              eval "$NOTE"
              gate=go; eval "$WAIT"
              cat $MUSTER_INPUT_DIR/early/*/n | awk -v i=$MUSTER_TASK_INDEX '{{ s += $1 }} END {{ print s + i }}' \
                > $MUSTER_OUTPUT_DIR/n
          sum:
            inputs: {{late: all}}
            run: |
              eval "$NOTE"
              cat $MUSTER_INPUT_DIR/late/*/n | awk '{{ s += $1 }} END {{ print s }}' > $MUSTER_OUTPUT_DIR/n
        "#
    ));
    let job = client_before.submit(spec, None).await.unwrap().job;
    world.started("late", cores as usize).await;
    up.kill();
    let before = world.starts();
    assert_eq!(before.keys().filter(|task| task.starts_with("early/")).count(), 5, "{before:?}");
    let interrupted: BTreeSet<&String> = before.keys().filter(|task| task.starts_with("late/")).collect();
    assert_eq!(interrupted.len(), cores as usize, "{before:?}");

    let up = world.up("data").await;
    let client = client(&[up.address()]).await;
    world.open("go");
    succeeded(&client, job).await;
    let sum = (0..waiting).map(|index| 100 + index).sum::<usize>();
    assert_eq!(world.output(&client, job, "sum", "n").await, format!("{sum}\n"));
    for (task, attempts) in world.starts() {
        let expected = if interrupted.contains(&task) { vec![1, 2] } else { vec![1] };
        assert_eq!(attempts, expected, "{task}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_count_that_is_killed_again_and_again_counts_right() {
    const MAP_TASKS: u32 = 40;
    /// How many attempts are over at each kill.
    const KILLS_AT: [usize; 3] = [5, 15, 30];
    let world = World::new();
    let text = world.path("text");
    word_count::write_text(&text);
    let mut up = world.up("data").await;
    let executor = up.data_dir.join("executor");
    let job = client(&[up.address()]).await.submit(word_count::job(&text, MAP_TASKS), None).await.unwrap().job;
    let mut seen_finished: BTreeMap<(String, u32), u32> = BTreeMap::new();
    for finished in KILLS_AT {
        muster_integration::eventually(&format!("{finished} attempts have ended"), 60, || async {
            let ends = journal::read(&executor).iter().filter(|line| line.event == "end").count();
            (ends >= finished).then_some(())
        })
        .await;
        for task in tasks(&client(&[up.address()]).await, job, "map").await {
            if task.state() == v1::TaskState::Successful {
                seen_finished.insert((task.stage.clone(), task.index), task.attempt);
            }
        }
        up.kill();
        up = world.up("data").await;
    }
    let client = client(&[up.address()]).await;
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "top", "top.txt").await, word_count::expected(&text));
    let lives: BTreeSet<u64> = journal::read(&executor).iter().map(|line| line.incarnation).collect();
    assert_eq!(lives.len(), KILLS_AT.len() + 1, "each life ran something: {lives:?}");
    // What was seen to be finished was never run again.
    assert!(seen_finished.len() >= KILLS_AT[0], "{seen_finished:?}");
    for task in tasks(&client, job, "map").await {
        if let Some(attempt) = seen_finished.get(&(task.stage.clone(), task.index)) {
            assert_eq!(task.attempt, *attempt, "{task:?}");
        }
    }
}
