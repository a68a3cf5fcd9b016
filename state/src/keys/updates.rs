//! Names of what belongs to updates: groups and jobs that come into being together. Neither namespaces nor tokens have a '/' in them.

use muster_graph::ids::JobId;

use crate::{Key, Keyspace};

/// A job that is submitted with others, as long as no scheduler has it.
#[must_use]
pub fn staged_job(job: JobId) -> Key {
    Key::new(Keyspace::StagedJobs, job.to_string())
}

/// An update.
#[must_use]
pub fn update(namespace: &str, token: &str) -> Key {
    Key::new(Keyspace::Updates, format!("{UPDATES}{namespace}/{token}"))
}

/// The names of all updates begin with this.
pub const UPDATES: &str = "u/";

/// Namespace and token of an update, from the name of its key.
#[must_use]
pub fn update_of(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(UPDATES)?.split_once('/')
}

/// What one transaction has staged of a bunch.
#[must_use]
pub fn update_part(namespace: &str, token: &str, bunch: u64, part: usize) -> Key {
    Key::new(Keyspace::Updates, format!("{}{bunch:016x}/{part:08x}", update_parts(namespace, token)))
}

/// The names of all parts of an update begin with this.
#[must_use]
pub fn update_parts(namespace: &str, token: &str) -> String {
    format!("{UPDATE_PARTS}{namespace}/{token}/")
}

/// The names of the parts of all updates begin with this.
pub const UPDATE_PARTS: &str = "p/";

/// Namespace and token of the update that a part is of, from its name.
#[must_use]
pub fn update_part_of(name: &str) -> Option<(&str, &str)> {
    let (namespace, rest) = name.strip_prefix(UPDATE_PARTS)?.split_once('/')?;
    Some((namespace, rest.split_once('/')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_again() {
        assert_eq!(update_of(&update("ns", "night-1").name), Some(("ns", "night-1")));
        let part = update_part("ns", "night-1", 7, 2);
        assert_eq!(part.name, "p/ns/night-1/0000000000000007/00000002");
        assert_eq!(update_part_of(&part.name), Some(("ns", "night-1")));
        assert_eq!((update_of(&part.name), update_part_of("u/ns/t")), (None, None));
    }
}
