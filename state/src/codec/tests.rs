//! What is stored comes back, damage is refused, and no bytes make a decoder panic.

use bytes::Bytes;
use muster_graph::execution::{Delta, ExecutorRef, Task, TaskRun, TaskState};
use muster_graph::ids::{ExecutorKey, JobId, StageIndex};
use muster_proto::storage::{JobHead, OwnerRecord};
use proptest::prelude::*;

use super::blob::{self, BLOB_BYTES_MAX, Blob, Chunk};
use super::{Bucket, Commit, Epoch, Events, Kind, RECORD_BYTES_MAX, Record, decode, decode_bytes, encode, envelope};
use crate::{Error, Key, Keyspace, StateBackend as _, VALUE_BYTES_MAX};

fn key() -> Key {
    Key::new(Keyspace::JobDeltas, "job/1")
}

fn why(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::Record { key, why }) => {
            assert_eq!(key, "deltas/job/1", "the record is named");
            why
        }
        other => panic!("not refused as a record: {other:?}"),
    }
}

fn delta(tasks: u32) -> Delta {
    let run = |first| TaskRun {
        stage: StageIndex(1),
        first,
        count: 1,
        task: Task {
            attempt: first + 1,
            spent: [0, 1, 2, 3, 4, 5],
            generation: 3,
            state: TaskState::Running { on: ExecutorRef(2), started_at: 1_800_000_000_000 },
        },
    };
    Delta {
        executors: vec![(ExecutorRef(2), ExecutorKey { id: "a".to_owned(), incarnation: 9 })],
        tasks: (0..tasks).map(run).collect(),
        ..Delta::default()
    }
}

#[test]
fn records_come_back_as_they_went_in_compressed_or_not() {
    for tasks in [0, 1, 5000] {
        let commit = Commit { id: "c".to_owned(), token: u64::MAX, at: 7, delta: delta(tasks) };
        let stored = encode(&commit).unwrap();
        assert_eq!(decode::<Commit>(&key(), &stored).unwrap(), commit);
        assert_eq!(stored[3] == 1, tasks == 5000, "only the large one is compressed");
    }
    let head = JobHead { name: "n".repeat(4000), sequence: 3, ..JobHead::default() };
    assert_eq!(decode::<JobHead>(&key(), &encode(&head).unwrap()).unwrap(), head);
    assert_eq!(decode::<Epoch>(&key(), &encode(&Epoch(5)).unwrap()).unwrap(), Epoch(5));
}

#[test]
fn a_newer_version_another_kind_and_damage_are_refused_by_name() {
    let stored = encode(&Epoch(5)).unwrap();
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = stored[..stored.len() - 4].to_vec();
        change(&mut bytes);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    };
    let newer = why(decode::<Epoch>(&key(), &sealed(&|bytes| bytes[2] = 2)));
    assert_eq!(
        newer,
        "it has version 2 of kind 'epoch record', and this program reads versions up to 1: upgrade this program"
    );
    assert!(why(decode::<Epoch>(&key(), &sealed(&|bytes| bytes[3] = 4))).contains("upgrade this program"));
    assert!(why(decode::<OwnerRecord>(&key(), &stored)).contains("expected 'owner record'"));
    assert!(why(decode::<Epoch>(&key(), &sealed(&|bytes| bytes[1] = 200))).contains("unknown"));
    assert!(why(decode::<Epoch>(&key(), &sealed(&|bytes| bytes[0] = b'x'))).contains("something else wrote it"));
    for place in 0..stored.len() {
        let mut damaged = stored.to_vec();
        damaged[place] ^= 0x10;
        why(decode::<Epoch>(&key(), &damaged));
        why(decode::<Epoch>(&key(), &stored[..place]));
    }
}

#[test]
fn a_length_that_lies_does_not_allocate() {
    let body = zstd::bulk::compress(&vec![0; RECORD_BYTES_MAX + 1], 1).unwrap();
    let forge = |length: u32| {
        let mut bytes = vec![b'M', Kind::Delta as u8, 1, 1];
        bytes.extend(length.to_le_bytes());
        bytes.extend(&body);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    };
    assert!(why(decode::<Delta>(&key(), &forge(u32::MAX))).contains("RECORD_BYTES_MAX"));
    assert!(why(decode::<Delta>(&key(), &forge(16))).contains("does not expand"));
    let mut many = vec![0u8, 0];
    many.extend([253, 255, 255, 255, 255, 255, 255, 255, 255]);
    let stored = envelope::seal(Kind::Delta, 1, &many).unwrap();
    why(decode::<Delta>(&key(), &stored));
}

#[test]
fn too_large_a_record_is_not_written() {
    let head = JobHead { name: "n".repeat(RECORD_BYTES_MAX + 1), ..JobHead::default() };
    assert!(matches!(encode(&head), Err(Error::Fatal(_))));
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut out = vec![0; bytes];
    reader.fill(&mut out);
    out
}

#[test]
fn blobs_are_cut_below_the_limit_and_joined_whole_or_not_at_all() {
    for size in [0, 1, 10_000, 1_000_000] {
        let content = noise(size);
        let blob = Blob::new(&content).unwrap();
        assert!(blob.chunks.iter().all(|chunk| chunk.len() < VALUE_BYTES_MAX));
        assert_eq!(blob::join(&key(), &blob.digest, &blob.chunks).unwrap(), content);
    }
    let blob = Blob::new(&noise(1_000_000)).unwrap();
    assert!(blob.chunks.len() > 3);
    let mut shuffled = blob.chunks.clone();
    shuffled.swap(0, 1);
    assert!(why(blob::join(&key(), &blob.digest, &shuffled)).contains("missing"));
    assert!(why(blob::join(&key(), &blob.digest, &blob.chunks[1..])).contains("missing"));
    assert!(why(blob::join(&key(), "0000", &blob.chunks)).contains("digest"));
    assert!(why(blob::join(&key(), &blob.digest, &[])).contains("no piece"));
    assert!(matches!(
        Blob::new(&vec![0; BLOB_BYTES_MAX + 1]),
        Err(Error::TooLarge { limit_name: "BLOB_BYTES_MAX", .. })
    ));
}

#[tokio::test]
async fn a_stored_blob_is_found_by_job_and_digest() {
    let store = crate::Memory::new();
    let (job, content) = (JobId(5), noise(700_000));
    let blob = Blob::new(&content).unwrap();
    for op in blob.puts(job) {
        store.put_txn(crate::Txn { ops: vec![op], ..crate::Txn::default() }).await.unwrap();
    }
    assert_eq!(blob::load(&store, job, &blob.digest).await.unwrap(), Some(content));
    assert_eq!(blob::load(&store, JobId(6), &blob.digest).await.unwrap(), None, "absent is not damaged");
    store.delete(&crate::keys::blob_chunk(job, &blob.digest, 1)).await.unwrap();
    assert!(matches!(blob::load(&store, job, &blob.digest).await, Err(Error::Record { .. })));
}

fn decode_everything(bytes: &[u8]) {
    let _ = decode_bytes::<Delta>(bytes);
    let _ = decode_bytes::<Commit>(bytes);
    let _ = decode_bytes::<Bucket>(bytes);
    let _ = decode_bytes::<Events>(bytes);
    let _ = decode_bytes::<Epoch>(bytes);
    let _ = decode_bytes::<Chunk>(bytes);
    let _ = decode_bytes::<JobHead>(bytes);
    let _ = decode_bytes::<OwnerRecord>(bytes);
    let _ = blob::join(&key(), "", &[Bytes::copy_from_slice(bytes)]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        decode_everything(&bytes);
    }

    /// Past the checksum: an envelope that is right around a payload that is not.
    #[test]
    fn arbitrary_payloads_never_panic(kind in 0..Kind::ALL.len(), flags in 0u8..2, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let kind = Kind::ALL[kind];
        let mut bytes = vec![b'M', kind as u8, 1, flags];
        bytes.extend(&payload);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        decode_everything(&bytes);
        let _ = Delta::from_payload(1, &payload);
    }

    /// One damaged byte of a real record's payload, with a right checksum.
    #[test]
    fn damaged_payloads_never_panic(place in any::<prop::sample::Index>(), value in any::<u8>(), tasks in 0u32..60) {
        let mut payload = Commit { id: "c".to_owned(), token: 1, at: 2, delta: delta(tasks) }.to_payload().unwrap();
        let place = place.index(payload.len());
        payload[place] = value;
        decode_everything(&envelope::seal(Kind::Commit, 1, &payload).unwrap());
    }
}
