//! What else lies in a store: records that a newer version wrote, which are left alone, and leftovers, which are not.

use std::sync::Arc;

use bytes::Bytes;
use muster_graph::ids::JobId;
use muster_integration::jobs::{client, finished, job, submit};
use muster_integration::simulated::{Simulated, succeed};
use muster_integration::{cluster, eventually};
use muster_proto::storage::{ExecutorRecord, IdempotencyRecord, JobHead, OwnerRecord, SchedulerRecord};
use muster_proto::v1;
use muster_state::codec::{self, Kind, Record};
use muster_state::testing::of_a_newer_version;
use muster_state::{Key, Keyspace, Memory, StateBackend, keys};

fn newer(record: &impl Record) -> Bytes {
    Bytes::from(of_a_newer_version(&codec::encode(record).expect("it is small")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_wrote_is_named_left_alone_and_in_nobodys_way() -> anyhow::Result<()> {
    cluster::logs();
    let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
    // A job that nobody owns, one with an owner's record that cannot be read, and one that is over; a peer and an executor.
    let [unowned, owned, over] = [JobId::new(1_000, 1), JobId::new(1_000, 2), JobId::new(1_000, 3)];
    let head = JobHead { name: "of-tomorrow".to_owned(), ..JobHead::default() };
    let written = [
        (keys::active_job(unowned), newer(&head)),
        (keys::active_job(owned), codec::encode(&head)?),
        (keys::owner(owned), newer(&OwnerRecord::default())),
        (keys::completed_job(over), newer(&head)),
        (Key::new(Keyspace::Schedulers, "newer"), newer(&SchedulerRecord::default())),
        (keys::executor("newer"), newer(&ExecutorRecord::default())),
        (keys::blob_chunk(over, "digest", 0), Bytes::from_static(b"of tomorrow")),
    ];
    let mut before = Vec::new();
    for (key, value) in written {
        state.put(key.clone(), value).await?;
        before.push(state.get(&key).await?.map(|entry| (key, entry)));
    }
    let scheduler = cluster::scheduler("one", Arc::clone(&state)).await?;
    let _executor = Simulated::start("e1", scheduler.address(), 4, succeed()).await?;
    let mut client = client(scheduler.address()).await?;
    let ahead = |kind: Kind| format!("version {}", kind.version() + 1);
    for (id, kind) in [(unowned, Kind::JobHead), (owned, Kind::Owner), (over, Kind::JobHead)] {
        let refused = client.get_job(v1::GetJobRequest { job_id: id.to_string() }).await.expect_err("it is newer");
        let said = refused.message();
        assert!(said.contains(&ahead(kind)) && said.contains("upgrade this program"), "{id}: {said}");
        assert!(said.contains(&id.to_string()), "the record is named: {said}");
    }
    // Others go on: those that are submitted now, and one whose owner is gone, which a later scan finds.
    let id = submit(&mut client, job("of-today", &[("a", 3, &[])]), "").await?;
    assert_eq!(finished(&mut client, &id, 20).await?.state(), v1::JobState::Successful);
    let left = submit(&mut client, job("left", &[("a", 1, &[])]), "").await?;
    finished(&mut client, &left, 20).await?;
    let listed = client.list_jobs(v1::ListJobsRequest::default()).await?.into_inner().jobs;
    assert!(listed.iter().any(|view| view.job_id == id), "{listed:?}");
    let unread = listed.iter().find(|view| view.job_id == unowned.to_string());
    assert!(unread.is_some_and(|view| view.message.contains(&ahead(Kind::JobHead))), "{listed:?}");
    scheduler.stop().await;
    let second = cluster::scheduler("two", Arc::clone(&state)).await?;
    let mut client = muster_integration::jobs::client(second.address()).await?;
    eventually("it is asked again", 20, || {
        let mut client = client.clone();
        async move { client.get_job(v1::GetJobRequest { job_id: unowned.to_string() }).await.err() }
    })
    .await;
    assert!(client.list_jobs(v1::ListJobsRequest::default()).await.is_ok());
    for (key, entry) in before.into_iter().flatten() {
        assert_eq!(state.get(&key).await?, Some(entry), "{} was touched", key.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_jobs_that_were_never_accepted_are_deleted_and_no_others() -> anyhow::Result<()> {
    let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let now = u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?;
    let [old, over, fresh] = [JobId::new(1_000, 1), JobId::new(1_000, 2), JobId::new(now, 3)];
    let head = codec::encode(&JobHead::default())?;
    state.put(keys::completed_job(over), head).await?;
    for job in [old, over, fresh] {
        for piece in 0..3 {
            state.put(keys::blob_chunk(job, "digest", piece), Bytes::from_static(b"piece")).await?;
        }
        state.put(keys::events(job, 1), Bytes::from_static(b"events")).await?;
    }
    let remembered = |at_ms| IdempotencyRecord { job_id: old.to_string(), at_ms, ..IdempotencyRecord::default() };
    let [long_ago, lately] = [keys::idempotency("default", "a"), keys::idempotency("default", "b")];
    state.put(long_ago.clone(), codec::encode(&remembered(1_000))?).await?;
    state.put(lately.clone(), codec::encode(&remembered(now))?).await?;
    let _scheduler = cluster::scheduler("one", Arc::clone(&state)).await?;
    eventually("the last thing that is swept is gone", 20, || async {
        state.get(&long_ago).await.ok()?.is_none().then_some(())
    })
    .await;
    assert!(state.get(&lately).await?.is_some());
    for (job, left) in [(old, 0), (over, 4), (fresh, 4)] {
        let blobs = state.get_from_prefix(Keyspace::JobPlans, &keys::job_prefix(job)).await?.entries.len();
        let events = state.get_from_prefix(Keyspace::JobEvents, &keys::job_prefix(job)).await?.entries.len();
        assert_eq!(blobs + events, left, "{job}");
    }
    Ok(())
}
