//! Damaging a history: records are decoded, changed, and written back.

use muster_graph::execution::{Delta, Task};
use muster_graph::ids::{JobId, TaskId};
use muster_proto::storage::JobHead;
use muster_state::codec::{self, Bucket, Commit, Record};
use muster_state::{Key, Keyspace, Revision, keys};

use super::super::{Change, Evidence, Write};

/// A key's write in a history: the places of the revision and of the change.
pub(super) type Place = (usize, usize);

/// Writes to keys of a keyspace, in order, that belong to a job.
pub(super) fn places(evidence: &Evidence, keyspace: Keyspace, job: JobId) -> Vec<Place> {
    let mut places = Vec::new();
    for (write, of) in evidence.writes.iter().enumerate() {
        for (place, change) in of.changes.iter().enumerate() {
            if change.keyspace == keyspace && keys::job_of(&change.name) == Some(job) {
                places.push((write, place));
            }
        }
    }
    places
}

/// The same, puts only.
pub(super) fn puts(evidence: &Evidence, keyspace: Keyspace, job: JobId) -> Vec<Place> {
    let mut places = places(evidence, keyspace, job);
    places.retain(|place| change(evidence, *place).value.is_some());
    places
}

/// Puts of one key, in order.
pub(super) fn puts_of(evidence: &Evidence, key: &Key) -> Vec<Place> {
    let is_put = |change: &Change| change.keyspace == key.keyspace && change.name == key.name && change.value.is_some();
    let of = |(write, of): (usize, &Write)| {
        let places = of.changes.iter().enumerate().filter(|(_, change)| is_put(change));
        places.map(|(place, _)| (write, place)).collect::<Vec<_>>()
    };
    evidence.writes.iter().enumerate().flat_map(of).collect()
}

pub(super) fn change(evidence: &Evidence, (write, place): Place) -> &Change {
    &evidence.writes[write].changes[place]
}

/// A record of a history.
pub(super) fn read<R: Record>(evidence: &Evidence, place: Place) -> R {
    let change = change(evidence, place);
    let key = Key::new(change.keyspace, change.name.clone());
    codec::decode(&key, change.value.as_ref().expect("a put")).unwrap()
}

/// Changes a record of a history.
pub(super) fn edit<R: Record>(evidence: &mut Evidence, place: Place, change: impl FnOnce(&mut R)) {
    let mut record: R = read(evidence, place);
    change(&mut record);
    evidence.writes[place.0].changes[place.1].value = Some(codec::encode(&record).unwrap());
}

/// Changes the states inside a small job's head.
pub(super) fn edit_states(evidence: &mut Evidence, place: Place, change: impl FnOnce(&mut Delta)) {
    edit::<JobHead>(evidence, place, |head| {
        let mut states: Delta = codec::decode_bytes(&head.states).unwrap();
        change(&mut states);
        head.states = codec::encode(&states).unwrap().to_vec();
    });
}

/// Changes one task wherever a delta tells of it, splitting runs. True if it is there.
pub(super) fn edit_task(delta: &mut Delta, task: TaskId, change: impl Fn(&mut Task)) -> bool {
    let mut found = false;
    let mut runs = Vec::new();
    for run in std::mem::take(&mut delta.tasks) {
        if run.stage != task.stage {
            runs.push(run);
            continue;
        }
        for index in run.first..run.first + run.count {
            let mut alone = run.clone();
            (alone.first, alone.count) = (index, 1);
            if index == task.index.0 {
                change(&mut alone.task);
                found = true;
            }
            runs.push(alone);
        }
    }
    delta.tasks = runs;
    found
}

/// Changes one task in all of a large job's records.
pub(super) fn edit_everywhere(evidence: &mut Evidence, job: JobId, task: TaskId, change: impl Fn(&mut Task) + Copy) {
    for place in puts(evidence, Keyspace::JobDeltas, job) {
        edit::<Commit>(evidence, place, |commit| {
            edit_task(&mut commit.delta, task, change);
        });
    }
    for place in puts(evidence, Keyspace::JobStages, job) {
        edit::<Bucket>(evidence, place, |bucket| {
            edit_task(&mut bucket.delta, task, change);
        });
    }
}

/// Another revision at the end.
pub(super) fn append(evidence: &mut Evidence, changes: Vec<Change>) -> Revision {
    let last = evidence.writes.last().expect("no history is empty");
    let (revision, at_us) = (last.revision + 1, last.at_us + 1);
    evidence.writes.push(Write { revision, at_us, changes });
    revision
}
