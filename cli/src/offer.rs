//! What an executor of this process offers to tasks: flags, and in the place of what they do not say, the configuration file.

use clap::Args;
use muster_executor::{DeviceNames, Options};

use crate::configuration::ExecutorSection;
use crate::quantity;

/// The flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What this machine offers")]
pub(crate) struct Offer {
    /// Cores to offer, for instance 4 or 0.5 [default: what the machine has]
    #[arg(long, value_parser = quantity::cpus, value_name = "CORES")]
    cpus: Option<u32>,
    /// Memory to offer, for instance 2GiB [default: what the machine has]
    #[arg(long, value_parser = quantity::memory, value_name = "SIZE")]
    memory: Option<u64>,
    /// A named resource to offer, for instance gpu=1; may be given several times
    #[arg(long = "resource", value_parser = quantity::named_amount, value_name = "NAME=NUMBER")]
    resources: Vec<(String, u32)>,
    /// Whole devices to offer as a named resource, for instance gpu=0,1,3: each task is told which ones are its own; may be
    /// given several times
    #[arg(long = "device", value_parser = quantity::named_devices, value_name = "NAME=ID,ID")]
    devices: Vec<(String, Vec<String>)>,
}

impl Offer {
    /// Puts it, and the file's labels, into an executor's options.
    pub(crate) fn apply(self, file: &ExecutorSection, options: &mut Options) {
        options.resources.cpu_milli = self.cpus.or(file.cpus).unwrap_or(options.resources.cpu_milli);
        options.resources.memory_bytes = self.memory.or(file.memory).unwrap_or(options.resources.memory_bytes);
        options.resources.named.extend(file.resources.clone());
        options.resources.named.extend(self.resources);
        options.devices = devices(&file.devices, self.devices);
        options.labels.extend(file.labels.clone());
    }
}

/// What flags say of a resource stands in the place of what the file says; several flags for one resource add up.
fn devices(file: &DeviceNames, flags: Vec<(String, Vec<String>)>) -> DeviceNames {
    let mut given = DeviceNames::new();
    for (resource, names) in flags {
        given.entry(resource).or_default().extend(names);
    }
    let mut devices = file.clone();
    devices.extend(given);
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn flags_name_devices_in_the_place_of_the_file_and_add_up() {
        let file = [("gpu".to_owned(), names(&["0"])), ("fpga".to_owned(), names(&["a"]))].into();
        let flags = vec![("gpu".to_owned(), names(&["1", "2"])), ("gpu".to_owned(), names(&["3"]))];
        let expected = [("gpu".to_owned(), names(&["1", "2", "3"])), ("fpga".to_owned(), names(&["a"]))].into();
        assert_eq!(devices(&file, flags), expected);
    }

    #[test]
    fn what_no_flag_says_the_file_says_and_else_the_machine() {
        let mut file = ExecutorSection { cpus: Some(500), memory: Some(1 << 30), ..ExecutorSection::default() };
        file.resources = [("licence".to_owned(), 5), ("seat".to_owned(), 1)].into();
        let mut options = Options::new("data", Vec::new());
        let offer = Offer { cpus: Some(2000), resources: vec![("seat".to_owned(), 2)], ..Offer::default() };
        offer.apply(&file, &mut options);
        assert_eq!((options.resources.cpu_milli, options.resources.memory_bytes), (2000, 1 << 30));
        assert_eq!(options.resources.named, [("licence".to_owned(), 5), ("seat".to_owned(), 2)].into());
        let mut machine = Options::new("data", Vec::new());
        let has = machine.resources.clone();
        Offer::default().apply(&ExecutorSection::default(), &mut machine);
        assert_eq!(machine.resources, has);
    }
}
