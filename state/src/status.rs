//! How a store itself is: its members, how full they are, and what they complain of. Told by
//! [`StateBackend::status`](crate::StateBackend::status); nothing here decides anything.

/// What a member complains of, until somebody disarms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// Its quota is used up: the store takes no writes but deletions.
    NoSpace,
    /// Its data differ from the other members': only an operator can mend that.
    Corrupt,
}

/// A member of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Where it is, or what it is.
    pub name: String,
    /// Its number in the store's own words; 0: not known.
    pub id: u64,
    /// The version of its program; empty: not known.
    pub version: String,
    /// Bytes that it takes on its disk (or in memory): what a quota is compared with.
    pub size_bytes: u64,
    /// Bytes of that in use; the rest is free for what comes, and given back by defragmentation.
    pub in_use_bytes: u64,
    /// Its quota, if it has told.
    pub quota_bytes: Option<u64>,
    /// Whether it leads the others.
    pub is_leader: bool,
    /// What it complains of.
    pub alarms: Vec<Alarm>,
    /// Why it could not be asked; `None`: it answered.
    pub unreachable: Option<String>,
}

impl Member {
    /// Whether its program is at least of this version. One that is not known counts as such.
    #[must_use]
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.version.split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(found_major)), Some(Ok(found_minor))) => (found_major, found_minor) >= (major, minor),
            _ => true,
        }
    }
}

/// A store, as its members tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Whether a quota bounds it: beyond it, writes are refused.
    pub has_quota: bool,
    /// Its members, in the order in which they were named.
    pub members: Vec<Member>,
}

impl StoreStatus {
    /// The fullest member's size: the first to reach its quota stops the whole store.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.members.iter().map(|member| member.size_bytes).max().unwrap_or(0)
    }

    /// The largest number of bytes in use.
    #[must_use]
    pub fn in_use_bytes(&self) -> u64 {
        self.members.iter().map(|member| member.in_use_bytes).max().unwrap_or(0)
    }

    /// The members that complain of this.
    pub fn with_alarm(&self, alarm: Alarm) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.alarms.contains(&alarm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let member = |version: &str| Member { version: version.to_owned(), ..Member::default() };
        for (version, expected) in [("3.4.23", false), ("3.5.0", true), ("3.10.1", true), ("4.0.0", true), ("", true)] {
            assert_eq!(member(version).is_at_least(3, 5), expected, "{version}");
        }
    }
}
