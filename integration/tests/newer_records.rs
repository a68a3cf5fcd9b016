//! Records that a newer version wrote: refused by name, left alone, and in nobody's way.

use std::sync::Arc;

use bytes::Bytes;
use muster_graph::ids::JobId;
use muster_integration::jobs::{client, finished, job, submit};
use muster_integration::simulated::{Simulated, succeed};
use muster_integration::{cluster, eventually};
use muster_proto::storage::{ExecutorRecord, JobHead, OwnerRecord, SchedulerRecord};
use muster_proto::v1;
use muster_state::codec::{self, Record};
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
    for id in [unowned, owned, over] {
        let refused = client.get_job(v1::GetJobRequest { job_id: id.to_string() }).await.expect_err("it is newer");
        let said = refused.message();
        assert!(said.contains("version 2") && said.contains("upgrade this program"), "{id}: {said}");
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
    assert!(unread.is_some_and(|view| view.message.contains("version 2")), "{listed:?}");
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
