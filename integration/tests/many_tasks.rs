//! A job of a hundred thousand tasks that do nothing, with executors that run nothing: the price of deciding, and of the
//! store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_integration::jobs::{client, job, submit};
use muster_integration::simulated::{Decide, Simulated};
use muster_integration::{checker, cluster, recorder};
use muster_proto::v1;
use muster_state::testing::Etcd;
use muster_state::{Keyspace, Memory, Scan, StateBackend};

const TASKS: u32 = 100_000;
/// The design's limit for one value in the store.
const VALUE_BYTES_MAX: usize = 256 << 10;
/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Each task leaves something else behind, so that nothing that is stored compresses to less than it does in life.
fn leave_outputs() -> Decide {
    Arc::new(|attempt| {
        // Spread by the golden ratio.
        let spread = u64::from(attempt.index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let started_at_ms = 1_800_000_000_000 + u64::from(attempt.index);
        Some(v1::AttemptFinished {
            outcome: v1::Outcome::Succeeded.into(),
            started_at_ms,
            finished_at_ms: started_at_ms + (spread >> 50),
            output: Some(v1::Output { bytes: spread >> 40, checksum: spread, files: 1 }),
            ..Default::default()
        })
    })
}

/// Runs the job, looks at all values in the store meanwhile, and lists what became of the tasks.
async fn run_on(state: Arc<dyn StateBackend>, name: &str) -> anyhow::Result<()> {
    cluster::logs();
    let scheduler = cluster::scheduler("one", Arc::clone(&state)).await?;
    let executor = Simulated::start("e1", scheduler.address(), 1000, leave_outputs()).await?;
    let mut client = client(scheduler.address()).await?;
    let started = Instant::now();
    let id = submit(&mut client, job("many", &[("only", TASKS, &[])]), "").await?;
    let accepted = started.elapsed();
    let (mut largest, mut looks) = (0, 0);
    let view = loop {
        largest = largest.max(largest_value(&*state).await?);
        looks += 1;
        let view = client.get_job(v1::GetJobRequest { job_id: id.clone() }).await?.into_inner();
        if view.finished_at_ms > 0 {
            break view;
        }
        assert!(started.elapsed() < PATIENCE, "{:?}", view.tasks);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!(
        "{TASKS} no-op tasks on {name} in {:?}, accepted in {accepted:?}; largest value {largest} bytes in {looks} looks",
        started.elapsed()
    );
    largest = largest.max(largest_value(&*state).await?);
    assert_eq!(view.state(), v1::JobState::Successful, "{}", view.message);
    assert_eq!(view.tasks.map(|counts| counts.successful), Some(TASKS));
    // A full bucket's checksums alone are 8 KiB: what was looked at was the real thing.
    assert!(largest > 8 << 10 && largest < VALUE_BYTES_MAX, "largest value {largest}");
    executor.seen(|seen| {
        assert_eq!(seen.launches.len(), TASKS as usize);
        assert!(seen.launches.values().all(|times| *times == 1));
    });
    let mut listed = 0;
    let mut page_token = String::new();
    loop {
        let request = v1::ListTasksRequest { job_id: id.clone(), limit: 10_000, page_token, ..Default::default() };
        let page = client.list_tasks(request).await?.into_inner();
        assert!(page.tasks.iter().zip(listed..).all(|(task, index)| task.index == index && task.attempt == 1));
        listed += u32::try_from(page.tasks.len())?;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, TASKS);
    scheduler.stop().await;
    Ok(())
}

async fn largest_value(state: &dyn StateBackend) -> anyhow::Result<usize> {
    let mut largest = 0;
    for keyspace in Keyspace::ALL {
        let mut scan = Scan::default();
        loop {
            let page = state.scan(keyspace, scan).await?;
            largest = page.entries.iter().map(|entry| entry.value.len()).fold(largest, usize::max);
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
                None => break,
            }
        }
    }
    Ok(largest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_tasks_of_one_stage_run_on_memory_and_no_value_is_large() -> anyhow::Result<()> {
    let store = Memory::new();
    run_on(Arc::new(store.clone()), "memory").await?;
    // It took less than the time for which history is kept.
    let writes = recorder::Memory::new(&store).finish(recorder::boot_us())?;
    let started = Instant::now();
    let verdict = checker::check(&checker::Evidence { writes, ..Default::default() });
    println!("{} revisions judged in {:?}", verdict.statistics.revisions, started.elapsed());
    verdict.assert_clean();
    assert_eq!(verdict.statistics.accepted, TASKS as usize);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_tasks_of_one_stage_run_on_etcd_and_no_value_is_large() -> anyhow::Result<()> {
    let etcd = Etcd::start().await?;
    run_on(Arc::new(etcd.store("many")), "etcd").await
}
