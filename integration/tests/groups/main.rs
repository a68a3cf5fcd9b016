//! Groups of jobs: each rule of theirs, asked of one scheduler and shown by another, on etcd.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod after;
mod callbacks;
mod cancels;
mod cost;
mod counts;
mod tree;
mod updates;

use std::collections::BTreeMap;

use muster_client::{Client, Error, JobId};
use muster_integration::eventually;
use muster_integration::processes::Process;
use muster_integration::world::{World, client, ready};
use muster_proto::v1;
use muster_state::testing::Etcd;
use muster_state::{Keyspace, StateBackend as _};

/// Two schedulers on one etcd, and an executor that both reach.
struct Cluster {
    world: World,
    etcd: Etcd,
    schedulers: Vec<Process>,
    _executor: Process,
    /// Of each scheduler one.
    clients: [Client; 2],
}

/// What a task does that notes its start and waits for the gate `gate`.
const WAITS: &str = r#"eval "$NOTE"; eval "$WAIT""#;

impl Cluster {
    async fn start() -> Self {
        Self::start_in(World::new(), &[]).await
    }

    /// With these arguments for each scheduler.
    async fn start_in(world: World, arguments: &[&str]) -> Self {
        let etcd = Etcd::start().await.unwrap();
        let one = world.scheduler("one", &etcd.url(), arguments).await;
        let two = world.scheduler("two", &etcd.url(), arguments).await;
        let addresses = [one.address(), two.address()];
        let executor = world.executor("node-1", "push", &addresses, &["--cpus", "8"]).await;
        let clients = [client(&addresses[..1]).await, client(&addresses[1..]).await];
        ready(&clients[0], 1).await;
        ready(&clients[1], 1).await;
        Self { world, etcd, schedulers: vec![one, two], _executor: executor, clients }
    }

    /// The store, as schedulers see it.
    fn store(&self) -> muster_state::Etcd {
        self.etcd.store("default")
    }

    async fn create(&self, paths: &[&str]) {
        for path in paths {
            self.clients[0].create_group(group(path, v1::GroupSpec::default())).await.unwrap();
        }
    }

    /// One task that does this.
    async fn submit(&self, into: &str, script: &str) -> JobId {
        self.submit_stages(into, &format!("work: {{run: {}}}", serde_json::json!(script))).await.unwrap()
    }

    async fn submit_stages(&self, into: &str, stages: &str) -> Result<JobId, Error> {
        let group = if into.is_empty() { String::new() } else { format!("group: {into}, ") };
        let job = self.world.job(&format!("{{name: j, {group}stages: {{{stages}}}}}"));
        // Whoever is asked: all of them have the same groups.
        let at = usize::from(into.len() % 2 == 1);
        self.clients[at].submit(job, None).await.map(|submitted| submitted.job)
    }

    /// As the scheduler shows it that was not asked to make it.
    async fn view(&self, path: &str) -> v1::GroupView {
        self.clients[1].group("", path).await.unwrap()
    }

    /// Waits until there is nothing live in a group.
    async fn complete(&self, path: &str) -> v1::GroupView {
        self.clients[1].wait_group("", path).await.unwrap()
    }
}

fn group(path: &str, spec: v1::GroupSpec) -> v1::CreateGroupRequest {
    v1::CreateGroupRequest { namespace: String::new(), path: path.to_owned(), spec: Some(spec) }
}

/// Live, successful, failed, cancelled.
fn jobs(view: &v1::GroupView) -> [u64; 4] {
    let jobs = view.jobs.unwrap();
    [jobs.live, jobs.successful, jobs.failed, jobs.cancelled]
}

/// The paths of a namespace's groups with their counts, the root first.
async fn all(client: &Client) -> BTreeMap<String, [u64; 4]> {
    client.list_groups("", "", 0).await.unwrap().iter().map(|view| (view.path.clone(), jobs(view))).collect()
}

async fn is_over(client: &Client, job: JobId) -> v1::JobView {
    client.wait(job).await.unwrap()
}
