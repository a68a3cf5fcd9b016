//! Names of what belongs to groups of jobs. No namespace has a '/' in it; a group's path may.

use muster_graph::ids::JobId;

use super::job_of;
use crate::{Key, Keyspace, Revision};

/// A group of jobs. The root's path is empty.
#[must_use]
pub fn group(namespace: &str, path: &str) -> Key {
    Key::new(Keyspace::Groups, format!("g/{namespace}/{path}"))
}

/// The names of a group and of all groups in it begin with the second, if not with the first alone: it is the first itself.
#[must_use]
pub fn groups_within(namespace: &str, path: &str) -> (String, String) {
    within("g", namespace, path)
}

/// The path in the name of a group's record.
#[must_use]
pub fn group_of(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("g/")?.split_once('/')
}

/// Where a group is found by its id.
#[must_use]
pub fn group_id(namespace: &str, id: &str) -> Key {
    Key::new(Keyspace::Groups, format!("i/{namespace}/{id}"))
}

/// A group was cancelled.
#[must_use]
pub fn group_cancel(namespace: &str, path: &str) -> Key {
    Key::new(Keyspace::Groups, format!("{}{path}", group_cancels_of(namespace)))
}

/// The names of all cancels of groups of a namespace begin with this.
#[must_use]
pub fn group_cancels_of(namespace: &str) -> String {
    format!("{GROUP_CANCELS}{namespace}/")
}

/// The names of all cancels of groups begin with this.
pub const GROUP_CANCELS: &str = "c/";

/// Namespace and path of a cancelled group, from the name of its key.
#[must_use]
pub fn group_cancel_of(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(GROUP_CANCELS)?.split_once('/')
}

/// Written with each cancel of a group of the namespace.
#[must_use]
pub fn group_cancels_head(namespace: &str) -> Key {
    Key::new(Keyspace::Groups, format!("h/{namespace}"))
}

/// A job is in a group other than the root.
#[must_use]
pub fn group_member(namespace: &str, path: &str, job: JobId) -> Key {
    Key::new(Keyspace::Groups, format!("{}{job}", group_members_within(namespace, path)))
}

/// The names of the jobs of a group, and of those in groups in it, begin with this.
#[must_use]
pub fn group_members_within(namespace: &str, path: &str) -> String {
    format!("m/{namespace}/{path}/")
}

/// The path of the very group that a job is in, and the job, from the name of its membership.
#[must_use]
pub fn group_member_of(name: &str) -> Option<(&str, JobId)> {
    let (_, member) = name.strip_prefix("m/")?.split_once('/')?;
    let (path, job) = member.rsplit_once('/')?;
    Some((path, job.parse().ok()?))
}

/// What one transaction of a job changes for its groups. `of` tells the transactions of one job apart.
#[must_use]
pub fn group_change(namespace: &str, job: JobId, of: &str) -> Key {
    Key::new(Keyspace::GroupCounts, format!("{}{job}/{of}", group_changes_of(namespace)))
}

/// The names of all changes to a namespace's groups that are not added up begin with this.
#[must_use]
pub fn group_changes_of(namespace: &str) -> String {
    format!("{GROUP_CHANGES}{namespace}/")
}

/// The names of all changes that are not added up begin with this.
pub const GROUP_CHANGES: &str = "e/";

/// The namespace of a change, from the name of its key.
#[must_use]
pub fn group_change_of(name: &str) -> Option<&str> {
    let (namespace, _) = name.strip_prefix(GROUP_CHANGES)?.split_once('/')?;
    Some(namespace)
}

/// The job of whose transaction a change tells; `None`: it tells of something else.
#[must_use]
pub fn group_change_job(name: &str) -> Option<JobId> {
    let (_, rest) = name.strip_prefix(GROUP_CHANGES)?.split_once('/')?;
    job_of(rest)
}

/// What a recount as of this revision found of a group.
#[must_use]
pub fn group_correction(namespace: &str, path: &str, as_of: Revision) -> Key {
    Key::new(Keyspace::GroupCounts, format!("{}audit/{as_of:016x}/{path}", group_changes_of(namespace)))
}

/// The names of all that was added up begin with this.
pub const GROUP_SUMS: &str = "s/";

/// The newest recount that corrected something.
#[must_use]
pub fn group_audit() -> Key {
    Key::new(Keyspace::Meta, "group-audit")
}

/// What was added up of a group.
#[must_use]
pub fn group_sums(namespace: &str, path: &str) -> Key {
    Key::new(Keyspace::GroupCounts, format!("{GROUP_SUMS}{namespace}/{path}"))
}

/// As [`groups_within`], for what was added up.
#[must_use]
pub fn group_sums_within(namespace: &str, path: &str) -> (String, String) {
    within("s", namespace, path)
}

/// What a group's callback is to be told of one of its completions.
#[must_use]
pub fn callback(namespace: &str, path: &str, completion: u64) -> Key {
    Key::new(Keyspace::Outbox, format!("{namespace}/{path}/{completion:016x}"))
}

/// Namespace and path of what was added up, from the name of its key.
#[must_use]
pub fn group_sums_of(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(GROUP_SUMS)?.split_once('/')
}

fn within(kind: &str, namespace: &str, path: &str) -> (String, String) {
    let own = format!("{kind}/{namespace}/{path}");
    let inside = if path.is_empty() { own.clone() } else { format!("{own}/") };
    (own, inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_holds_what_is_in_it_and_not_what_only_begins_like_it() {
        let (own, inside) = groups_within("team", "a");
        assert_eq!((own.as_str(), inside.as_str()), (group("team", "a").name.as_str(), "g/team/a/"));
        assert!(group("team", "a/b").name.starts_with(&inside) && !group("team", "ab").name.starts_with(&inside));
        let (root, everything) = groups_within("team", "");
        assert_eq!((&root, &everything), (&group("team", "").name, &"g/team/".to_owned()));
        assert!(!group("team-2", "a").name.starts_with(&everything));
        let job = JobId(7);
        let member = group_member("team", "a/b", job);
        assert!(member.name.starts_with(&group_members_within("team", "a")));
        assert!(!member.name.starts_with(&group_members_within("team", "b")));
        assert_eq!(group_member_of(&member.name), Some(("a/b", job)));
    }

    #[test]
    fn names_are_taken_apart_as_they_were_put_together() {
        for path in ["", "a", "a/b/c"] {
            assert_eq!(group_of(&group("team", path).name), Some(("team", path)));
            assert_eq!(group_cancel_of(&group_cancel("team", path).name), Some(("team", path)));
            assert_eq!(group_sums_of(&group_sums("team", path).name), Some(("team", path)));
        }
        let change = group_change("team", JobId(7), "accepted");
        assert_eq!(group_change_of(&change.name), Some("team"));
        assert_eq!(group_change_job(&change.name), Some(JobId(7)));
        let correction = group_correction("team", "a/b", 7);
        assert_eq!((group_change_of(&correction.name), group_change_job(&correction.name)), (Some("team"), None));
        assert_eq!(group_sums_of(&change.name), None);
        assert_eq!(group_change_of(&group_sums("team", "a").name), None);
    }
}
