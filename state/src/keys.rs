//! Which name a record has inside its keyspace. The only place where names are put together and taken apart.
//!
//! Numbers are hexadecimal of one width, so that names sort as their numbers do. A name that belongs to a job begins with
//! the job's id and '/', so `job-1/` never selects what is `job-10`'s. Names are never changed once released.

use muster_graph::ids::{JobId, StageIndex};

use crate::{Key, Keyspace, Op, SessionId};

mod groups;
mod updates;

pub use groups::*;
pub use updates::*;

/// The life of the cluster's store.
#[must_use]
pub fn epoch() -> Key {
    Key::new(Keyspace::Meta, "epoch")
}

/// Says that the store was restored from a backup that is older than what was seen since.
#[must_use]
pub fn safe_mode() -> Key {
    Key::new(Keyspace::Meta, "safe-mode")
}

/// What the janitor did last.
#[must_use]
pub fn janitor() -> Key {
    Key::new(Keyspace::Meta, "janitor")
}

/// A session's own key, as `open_session` writes it.
#[must_use]
pub fn session(id: &SessionId) -> Key {
    Key::new(Keyspace::Schedulers, id.0.clone())
}

/// A job's head while it is active; the same name serves in CompletedJobs and FailedJobs.
#[must_use]
pub fn active_job(job: JobId) -> Key {
    Key::new(Keyspace::ActiveJobs, job.to_string())
}

/// A successful job's head.
#[must_use]
pub fn completed_job(job: JobId) -> Key {
    Key::new(Keyspace::CompletedJobs, job.to_string())
}

/// A failed or cancelled job's head.
#[must_use]
pub fn failed_job(job: JobId) -> Key {
    Key::new(Keyspace::FailedJobs, job.to_string())
}

/// A job's owner; the mod revision is the token.
#[must_use]
pub fn owner(job: JobId) -> Key {
    Key::new(Keyspace::JobOwners, job.to_string())
}

/// A cancel that the job's owner has not carried out yet.
#[must_use]
pub fn cancel_mark(job: JobId) -> Key {
    Key::new(Keyspace::JobRequests, format!("{job}/cancel"))
}

/// The job that a cancel mark's name belongs to.
#[must_use]
pub fn cancel_mark_of(name: &str) -> Option<JobId> {
    name.strip_suffix("/cancel")?.parse().ok()
}

/// What an operator has set for a namespace.
#[must_use]
pub fn namespace(name: &str) -> Key {
    Key::new(Keyspace::Namespaces, name)
}

/// What the jobs of a scheduler's session have and want, by namespace.
#[must_use]
pub fn usage(id: &SessionId) -> Key {
    Key::new(Keyspace::Usage, id.0.clone())
}

/// An executor's registration.
#[must_use]
pub fn executor(id: &str) -> Key {
    Key::new(Keyspace::Executors, id)
}

/// Everything that belongs to a job in one keyspace begins with this.
#[must_use]
pub fn job_prefix(job: JobId) -> String {
    format!("{job}/")
}

/// One piece of a blob: a spec, a plan, a stage's spec.
#[must_use]
pub fn blob_chunk(job: JobId, digest: &str, chunk: u32) -> Key {
    Key::new(Keyspace::JobPlans, format!("{}{chunk:08x}", blob_prefix(job, digest)))
}

/// All pieces of a blob begin with this, in their order.
#[must_use]
pub fn blob_prefix(job: JobId, digest: &str) -> String {
    format!("{job}/{digest}/")
}

/// One commit's changes.
#[must_use]
pub fn delta(job: JobId, sequence: u64) -> Key {
    Key::new(Keyspace::JobDeltas, sequenced(job, sequence))
}

/// One commit's events.
#[must_use]
pub fn events(job: JobId, sequence: u64) -> Key {
    Key::new(Keyspace::JobEvents, sequenced(job, sequence))
}

fn sequenced(job: JobId, sequence: u64) -> String {
    format!("{job}/{sequence:016x}")
}

/// The sequence in the name of a delta or of events.
#[must_use]
pub fn sequence_of(name: &str) -> Option<u64> {
    let (job, sequence) = name.split_once('/')?;
    job.parse::<JobId>().ok()?;
    parse_hex(sequence, 16)
}

/// Deletes a job's deltas (or events) with sequences in `from..to`.
#[must_use]
pub fn delete_sequences(keyspace: Keyspace, job: JobId, from: u64, to: u64) -> Op {
    Op::DeleteRange { keyspace, from: sequenced(job, from), to: sequenced(job, to) }
}

/// Deletes everything that begins with `<job>/` in one keyspace.
#[must_use]
pub fn delete_all_of(keyspace: Keyspace, job: JobId) -> Op {
    // '0' is the character after '/'.
    Op::DeleteRange { keyspace, from: job_prefix(job), to: format!("{job}0") }
}

/// A part of a job's packed state. In the order of their names: executors come before the tasks that refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatePart {
    /// Executors, by bucket.
    Executors(u32),
    /// The job's own record.
    Job,
    /// Stages' records, by bucket.
    Stages(u32),
    /// Tasks of one stage, by bucket.
    Tasks(StageIndex, u32),
}

/// A part of a job's packed state.
#[must_use]
pub fn state_part(job: JobId, part: StatePart) -> Key {
    let name = match part {
        StatePart::Executors(bucket) => format!("{job}/e/{bucket:08x}"),
        StatePart::Job => format!("{job}/j"),
        StatePart::Stages(bucket) => format!("{job}/s/{bucket:08x}"),
        StatePart::Tasks(stage, bucket) => format!("{job}/t/{:08x}/{bucket:08x}", stage.0),
    };
    Key::new(Keyspace::JobStages, name)
}

/// The part that a name in JobStages stands for.
#[must_use]
pub fn state_part_of(name: &str) -> Option<(JobId, StatePart)> {
    let mut fields = name.split('/');
    let job = fields.next()?.parse().ok()?;
    let number = |field: &str| parse_hex(field, 8).and_then(|value| u32::try_from(value).ok());
    let part = match (fields.next()?, fields.next(), fields.next(), fields.next()) {
        ("e", Some(bucket), None, None) => StatePart::Executors(number(bucket)?),
        ("j", None, None, None) => StatePart::Job,
        ("s", Some(bucket), None, None) => StatePart::Stages(number(bucket)?),
        ("t", Some(stage), Some(bucket), None) => StatePart::Tasks(StageIndex(number(stage)?), number(bucket)?),
        _ => return None,
    };
    Some((job, part))
}

/// A request for a job whose owner could not be reached.
#[must_use]
pub fn request(job: JobId, id: &str) -> Key {
    Key::new(Keyspace::JobRequests, format!("{job}/{id}"))
}

/// The job's id at the beginning of a name, whether or not something follows.
#[must_use]
pub fn job_of(name: &str) -> Option<JobId> {
    name.split('/').next()?.parse().ok()
}

/// What a name of a namespace stands for.
#[must_use]
pub fn definition(namespace: &str, name: &str) -> Key {
    Key::new(Keyspace::Definitions, format!("{}{name}", definitions_of(namespace)))
}

/// The names of all definitions of a namespace begin with this.
#[must_use]
pub fn definitions_of(namespace: &str) -> String {
    format!("{DEFINITIONS}{namespace}/")
}

/// The names of all definitions begin with this.
pub const DEFINITIONS: &str = "n/";

/// Namespace and name of a definition, from the name of its key.
#[must_use]
pub fn definition_of(key: &str) -> Option<(&str, &str)> {
    // No namespace has a '/' in it; a definition's name may.
    key.strip_prefix(DEFINITIONS)?.split_once('/')
}

/// One revision of a definition.
#[must_use]
pub fn definition_revision(namespace: &str, id: &str, revision: u32) -> Key {
    Key::new(Keyspace::Definitions, format!("r/{namespace}/{id}/{revision:08x}"))
}

/// A spec or a text of a definition, by its digest.
#[must_use]
pub fn definition_content(namespace: &str, id: &str, digest: &str) -> Key {
    Key::new(Keyspace::Definitions, format!("c/{namespace}/{id}/{digest}"))
}

/// Deletes all revisions of a definition, and what they consist of.
#[must_use]
pub fn delete_revisions(namespace: &str, id: &str) -> [Op; 2] {
    // '0' is the character after '/'.
    ["r", "c"].map(|kind| Op::DeleteRange {
        keyspace: Keyspace::Definitions,
        from: format!("{kind}/{namespace}/{id}/"),
        to: format!("{kind}/{namespace}/{id}0"),
    })
}

/// A schedule.
#[must_use]
pub fn schedule(namespace: &str, name: &str) -> Key {
    Key::new(Keyspace::Schedules, format!("{namespace}/{name}"))
}

/// Namespace and name of a schedule, from the name of its key.
#[must_use]
pub fn schedule_of(key: &str) -> Option<(&str, &str)> {
    // No namespace has a '/' in it; a schedule's name may.
    key.split_once('/')
}

/// A submit's idempotency key. The user's text is any text of any length, so its digest stands for it.
#[must_use]
pub fn idempotency(namespace: &str, key: &str) -> Key {
    Key::new(Keyspace::Idempotency, format!("{namespace}/{}", blake3::hash(key.as_bytes()).to_hex()))
}

/// Exactly `width` lower-case hexadecimal digits: one number has one name.
fn parse_hex(text: &str, width: usize) -> Option<u64> {
    let digits = text.len() == width && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(77);

    #[test]
    fn names_sort_as_their_numbers_do() {
        let parts = [
            StatePart::Executors(0),
            StatePart::Executors(16),
            StatePart::Job,
            StatePart::Stages(9),
            StatePart::Stages(10),
            StatePart::Tasks(StageIndex(0), u32::MAX),
            StatePart::Tasks(StageIndex(255), 1),
            StatePart::Tasks(StageIndex(256), 0),
        ];
        let names: Vec<String> = parts.iter().map(|&part| state_part(JOB, part).name).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert!(parts.is_sorted(), "the type sorts as the names do");
        for (name, part) in names.iter().zip(parts) {
            assert_eq!(state_part_of(name), Some((JOB, part)));
        }
        assert!(delta(JOB, 9).name < delta(JOB, 10).name && delta(JOB, 255).name < delta(JOB, 256).name);
        assert_eq!(sequence_of(&delta(JOB, u64::MAX).name), Some(u64::MAX));
        assert!(blob_chunk(JOB, "d", 9).name < blob_chunk(JOB, "d", 10).name);
    }

    #[test]
    fn other_names_are_not_taken_for_ours() {
        let job = JOB.to_string();
        for bad in [
            String::new(),
            job.clone(),
            format!("{job}/"),
            format!("{job}/x"),
            format!("{job}/t/1/2"),
            format!("{job}/t/0000000G/00000001"),
            format!("{job}/j/00000001"),
            "nojob/j".to_owned(),
        ] {
            assert_eq!(state_part_of(&bad), None, "{bad:?}");
        }
        assert_eq!(sequence_of(&format!("{job}/1")), None);
        assert_eq!(sequence_of(&format!("{job}/000000000000000A")), None, "upper case would be a second name");
        assert_eq!(sequence_of("x/0000000000000001"), None);
        assert_eq!(job_of(&format!("{job}/anything")), Some(JOB));
    }

    #[test]
    fn a_range_covers_the_job_and_no_other() {
        let Op::DeleteRange { from, to, .. } = delete_all_of(Keyspace::JobDeltas, JOB) else { panic!("a range") };
        let inside = |key: &Key| from <= key.name && key.name < to;
        assert!(inside(&delta(JOB, 0)) && inside(&delta(JOB, u64::MAX)));
        assert!(!inside(&delta(JobId(76), u64::MAX)) && !inside(&delta(JobId(78), 0)));
    }

    #[test]
    fn any_idempotency_key_has_a_usable_name() {
        let key = idempotency("team", &"\u{0}/x".repeat(1000));
        assert!(crate::limits::check_name(&key).is_ok());
        assert_ne!(idempotency("team", "a"), idempotency("team", "b"));
    }
}
