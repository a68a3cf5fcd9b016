//! A whole cluster of real processes: three etcd members, schedulers, and executors of both modes, each on a node of the
//! test's own network. Every member can be killed, stopped, started again and cut off by name.

mod breaking;
mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_client::Client;
use muster_state::testing::{EtcdCluster, Place};

pub use member::Member;

use crate::checker::{self, Outage, Outages, Scenario, Submitted, Verdict, Write};
use crate::network::{Network, Node};
use crate::world::{self, World};
use crate::{journal, recorder};

/// The cluster's name where none is given.
const CLUSTER: &str = "default";
/// Schedulers listen here, each on its own node.
const SCHEDULER_PORT: u16 = 7077;
/// How much each executor offers of a resource that bears its name: a task that needs some can run nowhere else.
const ONLY_HERE: u32 = 100;
/// How patient the test's client is: longer than any fault here lasts.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Schedulers, `s0`, `s1`, …
    pub schedulers: usize,
    /// Executors that are sent work, `push0`, …
    pub push: usize,
    /// Executors that ask for it, `pull0`, …
    pub pull: usize,
    /// Cores that each executor offers. They are words: the tests' tasks use little.
    pub cpus: u32,
    /// A session's time to live.
    pub session_ttl: Duration,
    /// After which an executor is declared lost.
    pub lost_after: Duration,
    /// For so long at most, a job of a session that has ended is without an owner (C4); none: not decided.
    pub takeover_within: Option<Duration>,
    /// More arguments for etcd's members.
    pub etcd: Vec<String>,
    /// Points to set in members, by their names.
    pub failpoints: BTreeMap<&'static str, String>,
    /// The binary that members are started with at first; none: this build's.
    pub older: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            schedulers: 3,
            push: 2,
            pull: 2,
            cpus: 4,
            session_ttl: Duration::from_secs(3),
            lost_after: Duration::from_secs(5),
            // Every peer looks every two seconds; the rest is for a machine that others use, too.
            takeover_within: Some(Duration::from_secs(10)),
            etcd: Vec::new(),
            failpoints: BTreeMap::new(),
            older: None,
        }
    }
}

impl Plan {
    /// Sets a point in one member. `FOLDER/` becomes the test's folder.
    #[must_use]
    pub fn failpoint(mut self, member: &'static str, points: impl Into<String>) -> Self {
        self.failpoints.insert(member, points.into());
        self
    }
}

/// See the module. Dropping it ends everything.
#[derive(Debug)]
pub struct Cluster {
    /// `s0`, …
    pub schedulers: Vec<Member>,
    /// `push0`, …, `pull0`, …
    pub executors: Vec<Member>,
    /// Three members.
    pub etcd: EtcdCluster,
    /// Where the members of etcd live.
    pub etcd_nodes: Vec<Node>,
    /// The test's folder.
    pub world: World,
    /// Everything is connected by it.
    pub network: Network,
    /// At the hub: no cut concerns it.
    pub client: Client,
    /// Submits that clients were told of.
    pub acknowledged: Vec<Submitted>,
    /// When etcd elected a leader, in microseconds of the boot-time clock.
    pub elections_us: Vec<u64>,
    /// When executors were dead, stopped or cut off.
    pub outages: Vec<Outage>,
    /// Executors that were killed.
    pub killed: BTreeSet<String>,
    lost_after: Duration,
    takeover_within: Option<Duration>,
    older_versions: bool,
    recorder: recorder::Etcd,
}

/// What became of a cluster's past.
#[derive(Debug)]
pub struct Judged {
    /// What the checker says.
    pub verdict: Verdict,
    /// The store's past.
    pub writes: Vec<Write>,
    /// The folder, with all logs.
    pub world: World,
}

impl Cluster {
    /// Starts everything on a network that this thread is at the hub of.
    ///
    /// # Panics
    /// When something cannot be started.
    pub async fn start(mut network: Network, plan: &Plan) -> Self {
        let world = World::new();
        let mut node = || network.node().expect("a node can be made");
        let etcd_nodes: Vec<Node> = (0..3).map(|_| node()).collect();
        let places = etcd_nodes.iter().map(|node| {
            let namespace = Arc::clone(&node.namespace);
            Place::at(node.address.to_string(), Arc::new(move |command| namespace.spawn(command)))
        });
        let more: Vec<&str> = plan.etcd.iter().map(String::as_str).collect();
        let etcd = EtcdCluster::start_at(places.collect(), &more).await.expect("etcd can be started");
        let recorder = recorder::Etcd::start(&etcd.endpoints(), CLUSTER);
        let folder = world.path("").display().to_string();
        let member = |name: String, node: Node, arguments: Vec<String>| Member {
            failpoints: plan
                .failpoints
                .get(name.as_str())
                .map_or_else(String::new, |points| points.replace("FOLDER/", &folder)),
            older: plan.older.clone(),
            data_dir: world.path(&name),
            process: None,
            name,
            node,
            arguments,
        };
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let mut schedulers: Vec<Member> = (0..plan.schedulers)
            .map(|number| {
                let (name, node) = (format!("s{number}"), node());
                let listen = format!("{}:{SCHEDULER_PORT}", node.address);
                let (ttl, lost_after) = (millis(plan.session_ttl), millis(plan.lost_after));
                let words = ["scheduler", "--id", &name, "--state", &etcd.url(), "--listen", &listen, "--allow-remote"];
                let times = ["--session-ttl", &ttl, "--lost-after", &lost_after];
                let arguments = words.iter().chain(&times).map(ToString::to_string).collect();
                member(name, node, arguments)
            })
            .collect();
        let addresses: Vec<SocketAddr> =
            schedulers.iter().map(|member| (member.node.address, SCHEDULER_PORT).into()).collect();
        let listed = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let modes = (0..plan.push).map(|number| ("push", number)).chain((0..plan.pull).map(|number| ("pull", number)));
        let mut executors: Vec<Member> = modes
            .map(|(mode, number)| {
                let (name, node) = (format!("{mode}{number}"), node());
                let listen = format!("{}:0", node.address);
                let data_dir = world.path(&name).display().to_string();
                let cpus = plan.cpus.to_string();
                let words = ["executor", "--id", &name, "--mode", mode, "--schedulers", &listed];
                let only_here = format!("{name}={ONLY_HERE}");
                let more = ["--data-dir", &data_dir, "--listen", &listen, "--allow-remote", "--cpus", &cpus];
                let offers = ["--resource", &only_here];
                let arguments = words.iter().chain(&more).chain(&offers).map(ToString::to_string).collect();
                member(name, node, arguments)
            })
            .collect();
        for member in schedulers.iter_mut().chain(&mut executors) {
            member.start(&world).await;
        }
        let options = muster_client::Options {
            first_contact_timeout: Duration::from_secs(20),
            try_timeout: Duration::from_secs(10),
            call_timeout: CALL_TIMEOUT,
            ..muster_client::Options::default()
        };
        let client = Client::connect(addresses.iter().map(ToString::to_string), options).await;
        let client = client.expect("a scheduler answers");
        let cluster = Self {
            schedulers,
            executors,
            etcd,
            etcd_nodes,
            world,
            network,
            client,
            acknowledged: Vec::new(),
            elections_us: Vec::new(),
            outages: Vec::new(),
            killed: BTreeSet::new(),
            lost_after: plan.lost_after,
            takeover_within: plan.takeover_within,
            older_versions: plan.older.is_some(),
            recorder,
        };
        world::ready(&cluster.client, plan.push + plan.pull).await;
        cluster
    }

    /// The position of the scheduler that owns a job.
    ///
    /// # Panics
    /// When nobody does for a long time.
    pub async fn owner(&self, job: muster_client::JobId) -> usize {
        crate::eventually(&format!("job {job} has an owner"), 60, || async {
            let owner = self.client.get_job(job).await.ok()?.owner;
            let at = |member: &&Member| owner == format!("{}:{SCHEDULER_PORT}", member.node.address);
            self.schedulers.iter().position(|member| at(&member))
        })
        .await
    }

    /// Starts a scheduler that is dead.
    pub async fn start_scheduler(&mut self, number: usize) {
        self.schedulers[number].start(&self.world).await;
    }

    /// Starts an executor that is dead, on its old data.
    pub async fn start_executor(&mut self, number: usize) {
        self.executors[number].start(&self.world).await;
        self.back(number);
    }

    /// Starts whatever is dead.
    pub async fn start_all(&mut self) {
        for member in self.schedulers.iter_mut().chain(&mut self.executors) {
            if !member.is_running() {
                member.start(&self.world).await;
            }
        }
        (0..self.executors.len()).for_each(|number| self.back(number));
    }

    /// The position of an executor.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn executor(&self, name: &str) -> usize {
        let found = self.executors.iter().position(|member| member.name == name);
        found.unwrap_or_else(|| panic!("there is no executor {name}"))
    }

    /// What an executor is, as the schedulers say.
    pub async fn state_of(&self, executor: &str) -> Option<String> {
        let views = self.client.list_executors().await.ok()?;
        views.into_iter().find(|view| view.executor_id == executor).map(|view| view.state)
    }

    /// Whether an executor runs something now, as its own record says.
    #[must_use]
    pub fn is_at_work(&self, executor: usize) -> bool {
        let lines = journal::read(self.executors[executor].data_dir());
        let count = |event: &str| lines.iter().filter(|line| line.event == event).count();
        count("start") > count("end")
    }

    /// Waits until so many schedulers have a session.
    pub async fn live_schedulers(&self, count: usize) {
        crate::eventually(&format!("{count} schedulers live"), 60, || async {
            (self.client.list_schedulers().await.ok()?.len() == count).then_some(())
        })
        .await;
    }

    /// Waits until an executor is in a state.
    pub async fn executor_is(&self, executor: &str, state: &str) {
        crate::eventually(&format!("{executor} is {state}"), 60, || async {
            (self.state_of(executor).await? == state).then_some(())
        })
        .await;
    }

    /// Ends everything but the store, and judges all that has happened.
    ///
    /// # Panics
    /// When the store's past was not recorded whole.
    pub async fn judge(self) -> Judged {
        let Self { schedulers, executors, etcd, world, recorder, .. } = self;
        // Executors write their records in order, so what they say at their end is whole.
        let mut names: Vec<String> = Vec::new();
        for mut member in executors {
            if member.is_running() {
                member.terminate().await;
            }
            names.push(member.name);
        }
        drop(schedulers);
        let ended_at_us = recorder::boot_us();
        let writes = recorder.finish().await.expect("the recording is whole");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut evidence = world.evidence(writes, &names);
        evidence.clients.submitted = self.acknowledged;
        evidence.scenario = Scenario {
            ended_at_us,
            elections_us: self.elections_us,
            takeover_within: self.takeover_within,
            outages: Some(Outages { times: self.outages, lost_after: self.lost_after }),
            killed: self.killed,
            older_versions: self.older_versions,
            ..Scenario::default()
        };
        drop(etcd);
        Judged { verdict: checker::check(&evidence), writes: evidence.writes, world }
    }
}
