//! What is done to a cluster on purpose. Executors' absences are noted: the checker judges by them whether losses were
//! declared rightly.

use muster_state::{Keyspace, StateBackend as _};

use super::{CLUSTER, Cluster};
use crate::checker::Outage;
use crate::network::Node;
use crate::recorder;

impl Cluster {
    fn away(&mut self, executor: usize) {
        let executor = self.executors[executor].name.clone();
        self.outages.push(Outage { executor, from_us: recorder::boot_us(), until_us: None });
    }

    pub(super) fn back(&mut self, executor: usize) {
        let (name, now) = (&self.executors[executor].name, recorder::boot_us());
        for outage in self.outages.iter_mut().filter(|outage| outage.executor == *name) {
            outage.until_us.get_or_insert(now);
        }
    }

    /// No scheduler has a session, so no executor has a home.
    pub fn schedulers_away(&mut self) {
        (0..self.executors.len()).for_each(|number| self.away(number));
    }

    /// They have again.
    pub fn schedulers_back(&mut self) {
        (0..self.executors.len()).for_each(|number| self.back(number));
    }

    /// SIGKILL.
    pub fn kill_executor(&mut self, number: usize) {
        self.away(number);
        self.executors[number].kill();
        self.killed.insert(self.executors[number].name.clone());
    }

    /// SIGTERM; waits for the end.
    pub async fn terminate_executor(&mut self, number: usize) {
        self.away(number);
        self.executors[number].terminate().await;
    }

    /// Whether something else has killed it.
    pub fn executor_died(&mut self, number: usize) -> bool {
        let died = self.executors[number].has_died();
        if died {
            self.away(number);
            self.killed.insert(self.executors[number].name.clone());
        }
        died
    }

    /// SIGSTOP.
    pub fn stop_executor(&mut self, number: usize) {
        self.away(number);
        self.executors[number].stop();
    }

    /// SIGCONT.
    pub fn resume_executor(&mut self, number: usize) {
        self.executors[number].resume();
        self.back(number);
    }

    /// Cuts an executor off from all schedulers.
    pub fn cut_executor(&mut self, number: usize) {
        self.away(number);
        self.cut(&self.executors[number].node, &self.scheduler_nodes());
    }

    /// Connects it again, and answers how many packets were dropped.
    pub fn heal_executor(&mut self, number: usize) -> u64 {
        let dropped = self.heal(&self.executors[number].node, &self.scheduler_nodes());
        self.back(number);
        dropped
    }

    /// There was an election in etcd just now, which renews all leases.
    pub fn elected(&mut self) {
        self.elections_us.push(recorder::boot_us());
    }

    /// The session of a scheduler, as stored.
    ///
    /// # Panics
    /// When it has none for a long time.
    pub async fn session_of(&self, scheduler: usize) -> String {
        let prefix = format!("{}.", self.schedulers[scheduler].name);
        let store = self.etcd.store(CLUSTER);
        crate::eventually(&format!("{prefix} has a session"), 60, || async {
            let page = store.get_from_prefix(Keyspace::Schedulers, &prefix).await.ok()?;
            page.entries.into_iter().next_back().map(|entry| entry.name)
        })
        .await
    }

    /// Revokes a session's lease. Answers whether it had one.
    ///
    /// # Panics
    /// When etcd does not answer.
    pub async fn revoke(&self, session: &str) -> bool {
        let key = format!("/muster/{CLUSTER}/{}/{session}", Keyspace::Schedulers.name());
        self.etcd.revoke_lease_of(&key).await.expect("etcd answers")
    }

    /// Cuts both directions between a node and some others.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn cut(&self, node: &Node, others: &[&Node]) {
        for other in others {
            self.network.cut(node, other).expect("ways can be cut");
            self.network.cut(other, node).expect("ways can be cut");
        }
    }

    /// Heals what [`Cluster::cut`] cut, and answers how many packets were dropped.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn heal(&self, node: &Node, others: &[&Node]) -> u64 {
        let heal = |from, to| self.network.heal(from, to).expect("cut ways can be healed");
        others.iter().map(|other| heal(node, other) + heal(other, node)).sum()
    }

    /// The nodes of all schedulers.
    #[must_use]
    pub fn scheduler_nodes(&self) -> Vec<&Node> {
        self.schedulers.iter().map(|member| &member.node).collect()
    }

    /// Makes the file at which members wait whose point names it.
    ///
    /// # Panics
    /// When the test's folder cannot be written.
    pub fn hold(&self, name: &str) {
        std::fs::write(self.world.path(name), "").expect("the test's folder can be written");
    }

    /// Waits until a member waits there.
    pub async fn held(&self, name: &str) {
        let reached = self.world.path(name).with_extension("reached");
        crate::eventually(&format!("somebody waits at {name}"), 60, || async { reached.exists().then_some(()) }).await;
    }

    /// Lets everybody go on.
    ///
    /// # Panics
    /// When nobody was held.
    pub fn release(&self, name: &str) {
        std::fs::remove_file(self.world.path(name)).expect("it was held");
    }
}
