//! What the machine can do at all: the raw limits that Muster's figures are compared with, in the same round.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_state::{Guard, Key, Keyspace, Op, StateBackend as _, Txn, TxnOutcome};
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::quantiles::Times;
use crate::rows::Notes;
use crate::scale::Scale;

/// Guarded transactions of the commit limit.
const COMMITS: u32 = 500;
/// Bytes of each: what a small delta has.
const COMMIT_BYTES: usize = 256;
/// Calls in flight of the ping limit.
const PINGS_AT_ONCE: u32 = 64;
/// Calls that each of them makes.
const PINGS: u32 = 500;

/// S and T: `/bin/true` through the standard library's posix_spawn path, two at once.
pub(crate) fn spawn(scale: &Scale, notes: &mut Notes) -> anyhow::Result<()> {
    let (started, each) = (Instant::now(), scale.spawns / 2);
    let worker = || -> std::io::Result<Vec<Duration>> {
        let start_one = |_| {
            let started = Instant::now();
            Command::new("/bin/true").process_group(0).stdin(Stdio::null()).status()?;
            Ok(started.elapsed())
        };
        (0..each).map(start_one).collect()
    };
    let times = std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        let times = workers.into_iter().map(|worker| worker.join().expect("it does not panic"));
        times.collect::<std::io::Result<Vec<_>>>()
    })?;
    notes.set("spawn.rate", f64::from(each * 2) / started.elapsed().as_secs_f64());
    notes.set("spawn.p50_ms", Times::of(times.concat()).quantile_ms(0.5));
    Ok(())
}

/// `xargs -P2 -n1 /bin/true`.
pub(crate) fn xargs(scale: &Scale, notes: &mut Notes) -> anyhow::Result<()> {
    let started = Instant::now();
    let line = format!("seq {} | xargs -P2 -n1 /bin/true", scale.spawns);
    let status = Command::new("sh").arg("-c").arg(line).status()?;
    anyhow::ensure!(status.success(), "xargs: {status}");
    notes.set("xargs.rate", f64::from(scale.spawns) / started.elapsed().as_secs_f64());
    Ok(())
}

/// C: a guarded transaction of one client on an etcd of three members.
pub(crate) async fn commit(notes: &mut Notes) -> anyhow::Result<()> {
    let etcd = muster_state::testing::EtcdCluster::start().await?;
    let (store, key) = (etcd.store("limit"), Key::new(Keyspace::Meta, "bench"));
    let value = bytes::Bytes::from(vec![0; COMMIT_BYTES]);
    let mut revision = store.put(key.clone(), value.clone()).await?;
    let mut times = Vec::new();
    for _ in 0..COMMITS {
        let txn = Txn {
            guards: vec![Guard::AtRevision(key.clone(), revision)],
            ops: vec![Op::Put { key: key.clone(), value: value.clone(), session: None }],
            read_on_failure: Vec::new(),
        };
        let started = Instant::now();
        match store.put_txn(txn).await? {
            TxnOutcome::Committed(at) => revision = at,
            refused @ TxnOutcome::Refused { .. } => anyhow::bail!("refused: {refused:?}"),
        }
        times.push(started.elapsed());
    }
    notes.set("commit.p50_ms", Times::of(times).quantile_ms(0.5));
    Ok(())
}

/// Unary calls of gRPC over loopback, client and server in this process.
pub(crate) async fn ping(notes: &mut Notes) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (_health, service) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(service);
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let client = HealthClient::new(endpoint.connect().await.context("the server was started just now")?);
    let mut alone = Vec::new();
    for _ in 0..PINGS {
        let started = Instant::now();
        client.clone().check(HealthCheckRequest::default()).await?;
        alone.push(started.elapsed());
    }
    let started = Instant::now();
    let callers = (0..PINGS_AT_ONCE).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for _ in 0..PINGS {
                client.check(HealthCheckRequest::default()).await?;
            }
            Ok::<(), tonic::Status>(())
        })
    });
    for done in futures::future::join_all(callers).await {
        done??;
    }
    notes.set("ping.rate", f64::from(PINGS_AT_ONCE * PINGS) / started.elapsed().as_secs_f64());
    notes.set("ping.p50_ms", Times::of(alone).quantile_ms(0.5));
    serving.abort();
    Ok(())
}
