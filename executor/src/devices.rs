//! Which devices of a named resource an attempt has. Where a resource is made of whole devices, such as graphics cards, it is not
//! enough that two tasks fit: each must be told which ones are its own.
//!
//! **Invariant:** a device is free or in one share. Shares are taken and given back with the amounts that they stand for
//! ([`crate::resources::Account`]), so by the process's end and not before, and none is taken for an attempt that waits. A later
//! life of the executor starts with all of them free: it starts nothing before the last supervisor, and with it every task
//! of the earlier life, is gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::resources::Resources;

/// Devices by the name of their resource, in the order in which they are given away.
pub type DeviceNames = BTreeMap<String, Vec<String>>;

/// A device's name at most, in bytes: a UUID with a prefix fits, and a thousand of them fit into a variable.
pub(crate) const DEVICE_BYTES_MAX: usize = 64;
/// Devices of one resource: more than fit into one machine.
pub(crate) const DEVICES_MAX: usize = 1024;

/// What one attempt has: places in the list of each resource, lowest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Share(BTreeMap<String, Vec<usize>>);

/// All devices of the machine.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    names: DeviceNames,
    free: BTreeMap<String, BTreeSet<usize>>,
}

impl Devices {
    pub(crate) fn new(names: DeviceNames) -> Self {
        let free = names.iter().map(|(resource, names)| (resource.clone(), (0..names.len()).collect())).collect();
        Self { names, free }
    }

    /// Takes as many as are needed, of those resources that are made of devices.
    ///
    /// # Panics
    /// If there are not enough: the account says before whether there are.
    pub(crate) fn take(&mut self, need: &Resources) -> Share {
        let mut share = Share::default();
        for (resource, amount) in need.named.iter().filter(|(_, amount)| **amount > 0) {
            let Some(free) = self.free.get_mut(resource) else { continue };
            let mine = (0..*amount).map(|_| free.pop_first().expect("the account found enough of them free"));
            share.0.insert(resource.clone(), mine.collect());
        }
        share
    }

    pub(crate) fn give_back(&mut self, share: Share) {
        for (resource, places) in share.0 {
            let free = self.free.get_mut(&resource).expect("only what was taken is given back");
            for place in places {
                assert!(free.insert(place), "device {place} of {resource} was given back twice");
            }
        }
    }

    /// What a task is told of its named resources: its devices by name, or how many it has.
    pub(crate) fn told(&self, need: &Resources, share: &Share) -> BTreeMap<String, String> {
        let told = |(resource, amount): (&String, &u32)| {
            let text = match (self.names.get(resource), share.0.get(resource)) {
                (Some(names), Some(places)) => {
                    places.iter().map(|place| names[*place].as_str()).collect::<Vec<_>>().join(",")
                }
                _ => amount.to_string(),
            };
            (resource.clone(), text)
        };
        need.named.iter().filter(|(_, amount)| **amount > 0).map(told).collect()
    }
}

/// What is wrong with a list of devices, and what would be right.
pub(crate) fn check(devices: &DeviceNames) -> Result<(), String> {
    for (resource, names) in devices {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
        if let Some(bad) =
            names.iter().find(|name| name.is_empty() || name.len() > DEVICE_BYTES_MAX || !name.chars().all(fine))
        {
            return Err(format!(
                "'{bad}' cannot name a device of {resource}; use 1 to {DEVICE_BYTES_MAX} letters, digits, '-', '_', '.', ':' or '/'"
            ));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            return Err(format!("device {twice} of {resource} is given twice; name each once"));
        }
        if names.len() > DEVICES_MAX {
            return Err(format!("{resource} has {} devices; at most {DEVICES_MAX} can be named", names.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cards() -> DeviceNames {
        [("gpu".to_owned(), ["0", "1", "3", "GPU-5:a"].map(str::to_owned).to_vec())].into()
    }

    fn need(gpu: u32, licence: u32) -> Resources {
        let named = [("gpu".to_owned(), gpu), ("licence".to_owned(), licence)].into();
        Resources { named, ..Resources::default() }
    }

    #[test]
    fn whole_devices_are_told_by_name_and_what_is_counted_by_number() {
        let mut devices = Devices::new(cards());
        let first = devices.take(&need(1, 0));
        let second = devices.take(&need(2, 5));
        let told = |share, need| devices.told(&need, share).into_iter().map(|(name, text)| format!("{name}={text}"));
        assert_eq!(told(&first, need(1, 0)).collect::<Vec<_>>(), ["gpu=0"]);
        assert_eq!(told(&second, need(2, 5)).collect::<Vec<_>>(), ["gpu=1,3", "licence=5"]);
        devices.give_back(first);
        assert_eq!(devices.take(&need(2, 0)), Share([("gpu".to_owned(), vec![0, 3])].into()));
    }

    #[test]
    fn devices_that_cannot_be_told_apart_are_refused() {
        let with = |names: &[&str]| check(&[("gpu".to_owned(), names.iter().map(|&n| n.to_owned()).collect())].into());
        assert_eq!(with(&["0", "GPU-8a:b/c.d_e"]), Ok(()));
        for (names, said) in [(&["0", "0"][..], "given twice"), (&["0,1"], "'0,1' cannot"), (&[""], "'' cannot")] {
            let problem = with(names).expect_err("refused");
            assert!(problem.contains(said), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn no_device_is_in_two_shares(steps in proptest::collection::vec((0u32..5, any::<bool>()), 1..60)) {
            let mut devices = Devices::new(cards());
            let mut shares: Vec<Share> = Vec::new();
            for (amount, gives_back) in steps {
                let taken = |shares: &[Share]| shares.iter().flat_map(|s| s.0.values().flatten()).copied().collect::<Vec<_>>();
                if gives_back && !shares.is_empty() {
                    devices.give_back(shares.remove(amount as usize % shares.len()));
                } else if taken(&shares).len() + amount as usize <= 4 {
                    shares.push(devices.take(&need(amount, 0)));
                }
                let taken = taken(&shares);
                prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
                prop_assert_eq!(devices.free["gpu"].len() + taken.len(), 4);
            }
        }
    }
}
