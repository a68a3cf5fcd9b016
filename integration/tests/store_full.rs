//! A store whose quota is used up: the cluster is read-mostly, loses nothing, and makes room by itself where it can.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use muster_client::Client;
use muster_integration::jobs;
use muster_integration::world::{World, client, ready, succeeded};
use muster_integration::{cluster, eventually};
use muster_proto::v1;
use muster_state::testing::Etcd;
use muster_state::{Alarm, Error, Key, Keyspace, Op, StateBackend, Txn, VALUE_BYTES_MAX};

/// What `--quota-backend-bytes` and `--store-quota` say.
const QUOTA: [&str; 2] = ["--quota-backend-bytes=16777216", "16MiB"];
/// More values than fit into the quota.
const VALUES: usize = 200;

async fn etcd() -> Etcd {
    Etcd::start_with(&[QUOTA[0]]).await.unwrap()
}

fn filler(number: usize) -> Key {
    Key::new(Keyspace::JobPlans, format!("filler-{number}"))
}

/// Puts until the store is full, as somebody else who uses it would. `again`: the same key, so that history alone fills it.
async fn fill(etcd: &Etcd, again: bool) {
    let store = etcd.store("somebody-else");
    for number in 0..VALUES {
        let key = filler(if again { 0 } else { number });
        match store.put(key, Bytes::from(vec![7; VALUE_BYTES_MAX])).await {
            Ok(_) => {}
            Err(Error::NoSpace(_)) => {
                alarmed(etcd).await;
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{VALUES} values did not fill it: {:?}", store.status().await);
}

/// The fault has happened: the store itself says so.
async fn alarmed(etcd: &Etcd) {
    let store = etcd.store("somebody-else");
    eventually("alarm NOSPACE", 30, || async {
        let status = store.status().await.ok()?;
        let raised = status.with_alarm(Alarm::NoSpace).next().is_some();
        raised.then_some(())
    })
    .await;
}

/// Deletions are taken by a full store too.
async fn delete_what_fills(etcd: &Etcd) {
    let all = Op::DeleteRange { keyspace: Keyspace::JobPlans, from: "filler-".to_owned(), to: "filler.".to_owned() };
    etcd.store("somebody-else").put_txn(Txn { ops: vec![all], ..Txn::default() }).await.unwrap();
}

async fn mode(client: &Client) -> String {
    client.store().await.unwrap().read_mostly
}

fn waiting(world: &World) -> v1::JobSpec {
    world.job(
        r#"
        name: waiting
        stages:
          wait:
            tasks: 2
            run: |
              eval "$NOTE"
              gate=$MUSTER_TASK_INDEX; eval "$WAIT"
          after:
            inputs: {wait: all}
            run: eval "$NOTE"
        "#,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_nothing_new_in_loses_nothing_and_recovers_when_there_is_room() {
    cluster::logs();
    let world = World::new();
    let etcd = etcd().await;
    let schedulers = [
        world.scheduler("first", &etcd.url(), &["--store-quota", QUOTA[1]]).await,
        world.scheduler("second", &etcd.url(), &["--store-quota", QUOTA[1]]).await,
    ];
    let addresses = [schedulers[0].address(), schedulers[1].address()];
    let _push = world.executor("pushed", "push", &addresses, &["--cpus", "1"]).await;
    let _pull = world.executor("pulling", "pull", &addresses, &["--cpus", "1"]).await;
    let client = client(&addresses).await;
    ready(&client, 2).await;
    let job = client.submit(waiting(&world), None).await.unwrap().job;
    world.started("wait", 2).await;

    fill(&etcd, false).await;
    // Each scheduler learns of it, by the end of a task that cannot be committed or by looking.
    world.open("0");
    for address in addresses {
        let mut at = jobs::client(address).await.unwrap();
        let refused = eventually("a submit is refused", 30, || {
            let mut at = at.clone();
            async move { jobs::submit(&mut at, jobs::job("late", &[("a", 1, &[])]), "").await.err() }
        })
        .await;
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
        assert!(refused.metadata().contains_key("retry-after-ms"), "{refused:?}");
        let read = at.get_job(v1::GetJobRequest { job_id: job.to_string() }).await.unwrap().into_inner();
        assert_eq!(read.state(), v1::JobState::Running, "reads go on");
        assert!(!at.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs.is_empty());
    }
    eventually("it is said why", 30, || async { mode(&client).await.contains("alarm NOSPACE").then_some(()) }).await;
    eventually("an explanation says so", 30, || async {
        let question = v1::ExplainRequest { job_id: job.to_string(), ..Default::default() };
        let told = client.explain_page(question).await.ok()?;
        let why = told.reasons.into_iter().find(|reason| reason.kind() == v1::ReasonKind::StoreFull)?;
        why.text.contains("alarm NOSPACE").then_some(())
    })
    .await;
    assert_eq!(world.starts_of("after"), 0);

    delete_what_fills(&etcd).await;
    eventually("it takes writes again", 60, || async { mode(&client).await.is_empty().then_some(()) }).await;
    world.open("1");
    succeeded(&client, job).await;
    let starts = world.starts();
    assert!(starts.values().all(|attempts| *attempts == [1]) && starts.len() == 3, "{starts:?}");
    let late = client.submit(waiting(&world), None).await.unwrap().job;
    succeeded(&client, late).await;
    let store = client.store().await.unwrap();
    assert!(store.members.iter().all(|member| member.alarms.is_empty()), "{store:?}");
    assert!(store.members[0].size_bytes < store.quota_bytes / 2, "what was free was given back: {store:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_finds_its_store_full_of_history_makes_room_and_starts() {
    let world = World::new();
    let etcd = etcd().await;
    fill(&etcd, true).await;
    // Without its quota, which it concludes from the size at which the store is full.
    let scheduler = world.scheduler("first", &etcd.url(), &[]).await;
    let _executor = world.executor("e1", "push", &[scheduler.address()], &[]).await;
    let client = client(&[scheduler.address()]).await;
    ready(&client, 1).await;
    let job = client.submit(world.job("name: short\nstages: {only: {run: 'true'}}"), None).await.unwrap().job;
    succeeded(&client, job).await;
    assert_eq!(etcd.store("somebody-else").status().await.unwrap().with_alarm(Alarm::NoSpace).count(), 0);
}
