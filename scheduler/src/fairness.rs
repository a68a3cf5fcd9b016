//! What each namespace has of the cluster, and how much that is for its weight.
//!
//! Weighted dominant-resource fairness (Ghodsi et al., NSDI 2011): a namespace's share is the part that it has of the resource of
//! which it has the largest part; whoever has least, for its weight, is next. With equal weights nobody would rather have another's
//! share, and nobody has a reason to ask for what it does not need.

use std::collections::BTreeMap;

use muster_graph::spec::Resources;
use muster_proto::v1;

/// Of a namespace for which nothing was set.
pub const WEIGHT_DEFAULT: u32 = 100;
/// Largest weight.
pub const WEIGHT_MAX: u32 = 10_000;
/// All of a resource, as a share of one namespace with the default weight.
pub const WHOLE: u64 = 1_000_000_000;

/// Resources of many tasks, or of many executors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amount {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// For instance `gpu`; what is not there is 0.
    pub named: BTreeMap<String, u64>,
}

impl Amount {
    /// Adds so many times as much.
    pub fn add(&mut self, resources: &Resources, times: u32) {
        let times = u64::from(times);
        self.cpu_milli = self.cpu_milli.saturating_add(u64::from(resources.cpu_milli) * times);
        self.memory_bytes = self.memory_bytes.saturating_add(resources.memory_bytes.saturating_mul(times));
        for (name, amount) in resources.named.iter().filter(|(_, amount)| **amount > 0 && times > 0) {
            let known = self.named.entry(name.clone()).or_default();
            *known = known.saturating_add(u64::from(*amount) * times);
        }
    }

    /// Adds another one.
    pub fn join(&mut self, more: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(more.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(more.memory_bytes);
        for (name, amount) in &more.named {
            let known = self.named.entry(name.clone()).or_default();
            *known = known.saturating_add(*amount);
        }
    }

    /// Takes another one away; what is not there is not missed.
    pub fn leave(&mut self, less: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(less.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_sub(less.memory_bytes);
        for (name, amount) in &less.named {
            if let Some(known) = self.named.get_mut(name) {
                *known = known.saturating_sub(*amount);
            }
        }
        self.named.retain(|_, amount| *amount > 0);
    }

    /// The part of `total` that it is, of the resource of which it is the largest part; [`WHOLE`] is all. What the cluster has none
    /// of does not count.
    #[must_use]
    pub fn dominant_share(&self, total: &Self) -> u64 {
        let named = self.named.iter().map(|(name, amount)| (*amount, total.named.get(name).copied().unwrap_or(0)));
        let parts =
            [(self.cpu_milli, total.cpu_milli), (self.memory_bytes, total.memory_bytes)].into_iter().chain(named);
        let part = |(used, of): (u64, u64)| (u128::from(used) * u128::from(WHOLE)).checked_div(u128::from(of));
        parts.filter_map(part).max().map_or(0, |share| u64::try_from(share).unwrap_or(u64::MAX))
    }
}

impl From<&Amount> for v1::Amount {
    fn from(amount: &Amount) -> Self {
        Self { cpu_milli: Some(amount.cpu_milli), memory_bytes: Some(amount.memory_bytes), named: amount.named.clone() }
    }
}

impl From<v1::Amount> for Amount {
    fn from(wire: v1::Amount) -> Self {
        Self { cpu_milli: wire.cpu_milli.unwrap_or(0), memory_bytes: wire.memory_bytes.unwrap_or(0), named: wire.named }
    }
}

/// What some jobs of a namespace have and want.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Use {
    /// Jobs that are not over.
    pub jobs: u32,
    /// Tasks that executors have.
    pub running: u32,
    /// Tasks that could run; counted when it is told, and not kept up.
    pub ready: u32,
    /// Of the tasks that executors have.
    pub in_use: Amount,
}

impl Use {
    pub(crate) fn join(&mut self, more: &Self) {
        self.jobs = self.jobs.saturating_add(more.jobs);
        self.running = self.running.saturating_add(more.running);
        self.ready = self.ready.saturating_add(more.ready);
        self.in_use.join(&more.in_use);
    }

    pub(crate) fn leave(&mut self, less: &Self) {
        self.jobs = self.jobs.saturating_sub(less.jobs);
        self.running = self.running.saturating_sub(less.running);
        self.ready = self.ready.saturating_sub(less.ready);
        self.in_use.leave(&less.in_use);
    }
}

impl From<&Use> for v1::NamespaceUse {
    fn from(known: &Use) -> Self {
        Self { jobs: known.jobs, running: known.running, ready: known.ready, in_use: Some((&known.in_use).into()) }
    }
}

impl From<v1::NamespaceUse> for Use {
    fn from(wire: v1::NamespaceUse) -> Self {
        Self {
            jobs: wire.jobs,
            running: wire.running,
            ready: wire.ready,
            in_use: wire.in_use.map(Amount::from).unwrap_or_default(),
        }
    }
}

/// What an operator has set for a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    weight: Option<u32>,
    /// Tasks at the same time.
    pub max_running: Option<u32>,
    /// Jobs that are not over.
    pub max_jobs: Option<u32>,
    /// Of the tasks that run at the same time: cpu, memory, and named resources. What is not named has no limit.
    pub max_in_use: Limits,
}

/// Limits on resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// For instance `gpu`.
    pub named: BTreeMap<String, u64>,
}

impl Rules {
    /// From the wire, or from the store.
    #[must_use]
    pub fn of(wire: &v1::NamespaceRules) -> Self {
        let limits = wire.max_in_use.clone().unwrap_or_default();
        Self {
            weight: wire.weight,
            max_running: wire.max_running,
            max_jobs: wire.max_jobs,
            max_in_use: Limits { cpu_milli: limits.cpu_milli, memory_bytes: limits.memory_bytes, named: limits.named },
        }
    }

    /// How much it counts.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(WEIGHT_DEFAULT).clamp(1, WEIGHT_MAX)
    }

    /// A share, for this weight.
    #[must_use]
    pub fn weighted(&self, share: u64) -> u64 {
        let weighted = u128::from(share) * u128::from(WEIGHT_DEFAULT) / u128::from(self.weight());
        u64::try_from(weighted).unwrap_or(u64::MAX)
    }

    /// The part of its limits that is one scheduler's, of so many that have jobs of the namespace, if this one is `place`th of them:
    /// all parts together are the limits.
    #[must_use]
    pub fn part(&self, place: u32, of: u32) -> Self {
        let (place, of) = (u64::from(place), u64::from(of.max(1)));
        let part = |most: u64| most / of + u64::from(place < most % of);
        Self {
            max_running: self.max_running.map(|most| u32::try_from(part(most.into())).unwrap_or(u32::MAX)),
            max_in_use: Limits {
                cpu_milli: self.max_in_use.cpu_milli.map(part),
                memory_bytes: self.max_in_use.memory_bytes.map(part),
                named: self.max_in_use.named.iter().map(|(name, most)| (name.clone(), part(*most))).collect(),
            },
            ..self.clone()
        }
    }

    /// How many more tasks with this need may run.
    #[must_use]
    pub fn leaves(&self, known: &Use, need: &Resources) -> u32 {
        let running = self.max_running.map(|most| u64::from(most.saturating_sub(known.running)));
        let limits = &self.max_in_use;
        let more = |most: u64, used: u64, one: u64| most.saturating_sub(used).checked_div(one);
        let cpu = limits.cpu_milli.and_then(|most| more(most, known.in_use.cpu_milli, need.cpu_milli.into()));
        let memory = limits.memory_bytes.and_then(|most| more(most, known.in_use.memory_bytes, need.memory_bytes));
        let named = limits.named.iter().filter_map(|(name, most)| {
            let used = known.in_use.named.get(name).copied().unwrap_or(0);
            more(*most, used, need.named.get(name).copied().unwrap_or(0).into())
        });
        let least = [running, cpu, memory].into_iter().flatten().chain(named).min();
        least.map_or(u32::MAX, |least| u32::try_from(least).unwrap_or(u32::MAX))
    }

    /// Whether it limits what may run.
    #[must_use]
    pub fn limits(&self) -> bool {
        self.max_running.is_some() || self.max_in_use != Limits::default()
    }
}

#[cfg(test)]
mod tests;
