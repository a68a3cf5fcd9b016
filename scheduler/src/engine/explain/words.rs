//! Numbers, amounts and names in the words of people.

use std::borrow::Borrow;

use muster_graph::ids::Millis;
use muster_graph::spec::Resources;
use muster_proto::v1;

/// Names in one list for programs, and lines of one kind for people.
pub(super) const LISTED_MAX: usize = 20;
/// Names in one line.
const IN_A_LINE: usize = 5;

pub(super) fn reason(kind: v1::ReasonKind, tasks: u32, text: impl Into<String>) -> v1::Reason {
    v1::Reason { kind: kind.into(), tasks, text: text.into(), ..Default::default() }
}

/// `1 task`, `2 tasks`.
pub(super) fn count_of(number: u32, one: &str, more: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {more}") }
}

/// `a, b and 7 more`.
pub(super) fn in_a_line<T: Borrow<str>>(names: impl ExactSizeIterator<Item = T>) -> String {
    let total = names.len();
    let first: Vec<T> = names.take(IN_A_LINE).collect();
    let first_ones = first.join(", ");
    if total > first.len() { format!("{first_ones} and {} more", total - first.len()) } else { first_ones }
}

pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.take(LISTED_MAX).map(str::to_owned).collect()
}

/// A time, in its largest unit or two.
pub(super) fn time(ms: Millis) -> String {
    let seconds = ms / 1_000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{}.{} s", seconds, ms % 1_000 / 100),
        10_000..120_000 => format!("{seconds} s"),
        120_000..7_200_000 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

/// One thing that a task wants some of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing<'a> {
    Cpu,
    Memory,
    Named(&'a str),
}

impl<'a> Thing<'a> {
    /// What a task that wants this wants some of.
    pub(super) fn all(wanted: &'a Resources) -> impl Iterator<Item = Self> {
        let named = wanted.named.iter().filter(|(_, amount)| **amount > 0).map(|(name, _)| Self::Named(name));
        [Self::Cpu, Self::Memory].into_iter().chain(named).filter(|thing| thing.of(wanted) > 0)
    }

    /// How much of it is there.
    pub(super) fn of(self, resources: &Resources) -> u64 {
        match self {
            Self::Cpu => u64::from(resources.cpu_milli),
            Self::Memory => resources.memory_bytes,
            Self::Named(name) => resources.named.get(name).copied().map_or(0, u64::from),
        }
    }

    /// The same resources with another amount of it, which must be one that some resources have.
    pub(super) fn set(self, resources: &Resources, amount: u64) -> Resources {
        let mut changed = resources.clone();
        let small = u32::try_from(amount).unwrap_or(u32::MAX);
        match self {
            Self::Cpu => changed.cpu_milli = small,
            Self::Memory => changed.memory_bytes = amount,
            Self::Named(name) => drop(changed.named.insert(name.to_owned(), small)),
        }
        changed
    }

    /// `cpu <= 2`: never more than the amount.
    pub(super) fn at_most(self, amount: u64) -> String {
        match self {
            Self::Cpu => format!("cpu <= {}", cores(amount)),
            Self::Memory => format!("memory <= {}", memory(amount, false)),
            Self::Named(name) => format!("{name} <= {amount}"),
        }
    }

    /// `2 cores`, `1.5 GiB of memory`, `gpu: 1`; memory is rounded up where it is wanted, and down where it is offered.
    pub(super) fn amount(self, amount: u64, wanted: bool) -> String {
        match self {
            Self::Cpu if amount == 1_000 => "1 core".to_owned(),
            Self::Cpu => format!("{} cores", cores(amount)),
            Self::Memory => format!("{} of memory", memory(amount, wanted)),
            Self::Named(name) => format!("{name}: {amount}"),
        }
    }
}

/// `2 cores, 1.5 GiB of memory, gpu: 1`.
pub(super) fn wants(wanted: &Resources) -> String {
    let all: Vec<String> = Thing::all(wanted).map(|thing| thing.amount(thing.of(wanted), true)).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

fn cores(milli: u64) -> String {
    format!("{}", milli as f64 / 1_000.0)
}

/// To a tenth of its unit.
pub(super) fn memory(bytes: u64, up: bool) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((name, unit)) = UNITS.into_iter().find(|(_, unit)| bytes >= *unit) else { return format!("{bytes} B") };
    let (whole, rest) = (bytes / unit, bytes % unit);
    // A rest is below a tebibyte: ten times that is far from what fits.
    let tenths = if up { (rest * 10).div_ceil(unit) } else { rest * 10 / unit };
    match tenths {
        0 => format!("{whole} {name}"),
        10 => format!("{} {name}", whole + 1),
        _ => format!("{whole}.{tenths} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_never_told_as_more_than_is_offered_or_less_than_is_wanted() {
        let odd = (14 << 30) + 1;
        assert_eq!((memory(odd, false), memory(odd, true)), ("14 GiB".to_owned(), "14.1 GiB".to_owned()));
        assert_eq!(memory((2 << 30) - 1, true), "2 GiB");
        assert_eq!(memory(1 << 29, false), "512 MiB");
        assert_eq!(memory(u64::MAX, true), "16777216 TiB");
        assert_eq!(memory(7, false), "7 B");
        assert_eq!(Thing::Cpu.at_most(500), "cpu <= 0.5");
        let named = [("gpu".to_owned(), 2), ("none".to_owned(), 0)].into();
        let wanted = Resources { cpu_milli: 1_000, memory_bytes: odd, named };
        assert_eq!(wants(&wanted), "1 core, 14.1 GiB of memory, gpu: 2");
    }

    #[test]
    fn times_and_names_are_short() {
        assert_eq!([999, 1_250, 61_000, 600_000, 9_000_000].map(time), ["999 ms", "1.2 s", "61 s", "10 min", "2 h"]);
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(in_a_line(names.into_iter()), "a, b, c, d, e and 2 more");
        assert_eq!(in_a_line(names[..2].iter().copied()), "a, b");
    }
}
