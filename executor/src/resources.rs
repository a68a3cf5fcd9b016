//! What the machine offers and what is in use. Pure arithmetic: the executor's own account, the last word on
//! admission.

use std::collections::BTreeMap;

use muster_proto::v1;

use crate::devices::{DeviceNames, Devices, Share};

/// An amount of resources, offered or needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Named ones, for instance `gpu`: 1.
    pub named: BTreeMap<String, u32>,
}

impl Resources {
    /// What this machine has: its cores, and its memory or the container's limit if that is lower.
    #[must_use]
    pub fn detected() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cpu_milli: u32::try_from(cores).unwrap_or(u32::MAX / 1000).saturating_mul(1000),
            memory_bytes: detected_memory().unwrap_or(1 << 30),
            named: BTreeMap::new(),
        }
    }

    pub(crate) fn from_wire(wire: Option<&v1::Resources>) -> Self {
        wire.map_or_else(Self::default, |wire| Self {
            cpu_milli: wire.cpu_milli,
            memory_bytes: wire.memory_bytes,
            named: wire.named.clone(),
        })
    }

    /// Whether so much is here.
    pub(crate) fn has(&self, need: &Self) -> bool {
        let named = need.named.iter().all(|(name, amount)| self.named.get(name).copied().unwrap_or(0) >= *amount);
        self.cpu_milli >= need.cpu_milli && self.memory_bytes >= need.memory_bytes && named
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(more.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(more.memory_bytes);
        for (name, amount) in &more.named {
            let sum = self.named.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// What is left without as much, nothing where there is less.
    pub(crate) fn subtract(&mut self, less: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(less.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_sub(less.memory_bytes);
        for (name, amount) in &less.named {
            if let Some(has) = self.named.get_mut(name) {
                *has = has.saturating_sub(*amount);
            }
        }
    }

    /// How much of `total` this is, of whatever it is the most of; in millionths.
    pub(crate) fn dominant_share(&self, total: &Self) -> u64 {
        let part = |used: u64, total: u64| used.saturating_mul(1_000_000).checked_div(total).unwrap_or(0);
        let named = self
            .named
            .iter()
            .map(|(name, used)| part(u64::from(*used), total.named.get(name).copied().unwrap_or(0).into()));
        let cpu = part(self.cpu_milli.into(), total.cpu_milli.into());
        // In MiB, which is exact enough and cannot overflow.
        let memory = part(self.memory_bytes >> 20, total.memory_bytes >> 20);
        named.chain([cpu, memory]).max().unwrap_or(0)
    }

    pub(crate) fn to_wire(&self) -> v1::Resources {
        v1::Resources { cpu_milli: self.cpu_milli, memory_bytes: self.memory_bytes, named: self.named.clone() }
    }
}

fn detected_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min();
    Some(limit.map_or(kib * 1024, |limit| limit.min(kib * 1024)))
}

/// The account: the total, and what is taken of it.
#[derive(Debug)]
pub(crate) struct Account {
    total: Resources,
    used: Resources,
    devices: Devices,
}

impl Account {
    /// Of a machine that has these amounts, and as much of each resource that is made of devices as these are.
    pub(crate) fn new(mut total: Resources, devices: DeviceNames) -> Self {
        let amount = |names: &Vec<String>| u32::try_from(names.len()).expect("the number of devices is limited");
        total.named.extend(devices.iter().map(|(resource, names)| (resource.clone(), amount(names))));
        Self { total, used: Resources::default(), devices: Devices::new(devices) }
    }

    /// Says what does not fit, or takes it.
    pub(crate) fn take(&mut self, need: &Resources) -> Result<Share, String> {
        self.fits_free(need)?;
        self.used.cpu_milli += need.cpu_milli;
        self.used.memory_bytes += need.memory_bytes;
        for (name, amount) in &need.named {
            *self.used.named.entry(name.clone()).or_default() += amount;
        }
        Ok(self.devices.take(need))
    }

    /// What a task with that share is told of its named resources.
    pub(crate) fn told(&self, need: &Resources, share: &Share) -> BTreeMap<String, String> {
        self.devices.told(need, share)
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, taken: &Resources, share: Share) {
        self.devices.give_back(share);
        let missing = "only what was taken is given back";
        self.used.cpu_milli = self.used.cpu_milli.checked_sub(taken.cpu_milli).expect(missing);
        self.used.memory_bytes = self.used.memory_bytes.checked_sub(taken.memory_bytes).expect(missing);
        for (name, amount) in &taken.named {
            let used = self.used.named.get_mut(name).expect(missing);
            *used = used.checked_sub(*amount).expect(missing);
        }
    }

    /// Whether it would fit into the empty machine.
    pub(crate) fn fits_total(&self, need: &Resources) -> Result<(), String> {
        Self::compare(&self.total, need, "in all")
    }

    /// Whether it would fit now.
    pub(crate) fn fits_free(&self, need: &Resources) -> Result<(), String> {
        Self::compare(&self.free(), need, "free")
    }

    pub(crate) fn total(&self) -> &Resources {
        &self.total
    }

    pub(crate) fn free(&self) -> Resources {
        Resources {
            cpu_milli: self.total.cpu_milli - self.used.cpu_milli,
            memory_bytes: self.total.memory_bytes - self.used.memory_bytes,
            named: self
                .total
                .named
                .iter()
                .map(|(name, total)| (name.clone(), total - self.used.named.get(name).copied().unwrap_or(0)))
                .collect(),
        }
    }

    fn compare(have: &Resources, need: &Resources, where_: &str) -> Result<(), String> {
        if need.cpu_milli > have.cpu_milli {
            return Err(format!("cpu: {} thousandths of a core needed, {} {where_}", need.cpu_milli, have.cpu_milli));
        }
        if need.memory_bytes > have.memory_bytes {
            return Err(format!("memory: {} bytes needed, {} {where_}", need.memory_bytes, have.memory_bytes));
        }
        for (name, amount) in &need.named {
            let has = have.named.get(name).copied().unwrap_or(0);
            if *amount > has {
                return Err(format!("{name}: {amount} needed, {has} {where_}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount(cpu_milli: u32, memory_bytes: u64, gpu: u32) -> Resources {
        Resources { cpu_milli, memory_bytes, named: BTreeMap::from([("gpu".to_owned(), gpu)]) }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut account = Account::new(amount(2000, 100, 1), DeviceNames::new());
        assert!(account.take(&amount(3000, 0, 0)).unwrap_err().starts_with("cpu: 3000"));
        assert!(account.take(&amount(0, 101, 0)).unwrap_err().starts_with("memory: 101"));
        assert!(account.take(&amount(0, 0, 2)).unwrap_err().starts_with("gpu: 2 needed, 1 free"));
        let tape = Resources { named: BTreeMap::from([("tape".to_owned(), 1)]), ..Resources::default() };
        assert_eq!(account.fits_total(&tape).unwrap_err(), "tape: 1 needed, 0 in all");
        assert_eq!(account.free(), amount(2000, 100, 1), "a refusal takes nothing");
    }

    proptest! {
        #[test]
        fn taking_and_giving_back_balances(needs in proptest::collection::vec((0u32..900, 0u64..50, 0u32..2), 1..40)) {
            let total = amount(2000, 100, 2);
            let mut account = Account::new(total.clone(), DeviceNames::new());
            let mut taken = Vec::new();
            for (cpu, memory, gpu) in needs {
                let need = amount(cpu, memory, gpu);
                if let Ok(share) = account.take(&need) {
                    taken.push((need, share));
                } else if let Some((back, share)) = taken.pop() {
                    account.give_back(&back, share);
                }
                prop_assert!(taken.iter().map(|(n, _): &(Resources, Share)| n.cpu_milli).sum::<u32>() <= 2000);
            }
            for (back, share) in taken {
                account.give_back(&back, share);
            }
            prop_assert_eq!(account.free(), total);
        }
    }
}
