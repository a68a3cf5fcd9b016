//! A process that dies loses nothing that it acknowledged: the test runs itself as a child, kills it in the middle of writing, and
//! looks at what is on the disk.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use muster_state::{Embedded, Error, Guard, Key, Keyspace, Op, SessionId, StateBackend as _, Txn, TxnOutcome};

/// Says to the child that it is one, and where.
const DIRECTORY: &str = "MUSTER_TEST_CRASH_DIRECTORY";
const WRITERS: u64 = 8;
const ROUNDS: usize = 5;
/// Acknowledgements after which the child is killed; a different number in each round.
const KILL_AFTER: usize = 60;

fn key(keyspace: Keyspace, writer: u64, number: u64) -> Key {
    Key::new(keyspace, format!("{writer}/{number:08x}"))
}

/// Each transaction writes the same to two keyspaces, and follows the one before it.
fn transaction(writer: u64, number: u64) -> Txn {
    let value = Bytes::from(format!("{writer} {number}").repeat(50));
    let put = |keyspace| Op::Put { key: key(keyspace, writer, number), value: value.clone(), session: None };
    let mut guards = vec![Guard::Absent(key(Keyspace::JobDeltas, writer, number))];
    guards.extend((number > 0).then(|| Guard::Present(key(Keyspace::JobDeltas, writer, number - 1))));
    Txn { guards, ops: vec![put(Keyspace::JobDeltas), put(Keyspace::JobEvents)], ..Txn::default() }
}

/// Not a test of its own: the child's main function.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = Embedded::open(&directory, "test").await.unwrap();
    let page = store.get_from_prefix(Keyspace::JobDeltas, "").await.unwrap();
    let session = store
        .open_session(SessionId(format!("child-{}", page.revision)), Duration::from_secs(3600), Bytes::new())
        .await
        .unwrap();
    let leased = Op::Put {
        key: Key::new(Keyspace::Demand, session.id().0.clone()),
        value: Bytes::new(),
        session: Some(session.id().clone()),
    };
    store.put_txn(Txn { ops: vec![leased], ..Txn::default() }).await.unwrap();
    println!("\nready");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        let first = page.entries.iter().filter(|entry| entry.name.starts_with(&format!("{writer}/"))).count() as u64;
        writers.spawn(async move {
            for number in first.. {
                let outcome = store.put_txn(transaction(writer, number)).await.unwrap();
                assert!(matches!(outcome, TxnOutcome::Committed(_)));
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {writer} {number}").unwrap();
                out.flush().unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the child, kills it after so many acknowledgements, and says what it acknowledged.
async fn write_and_die(directory: &Path, acknowledgements: usize) -> Vec<(u64, u64)> {
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "ready"), "the child ended before it was ready");
    // While it lives, nobody else opens its directory.
    let second = Embedded::open(directory, "test").await.unwrap_err();
    let Error::Fatal(why) = &second else { panic!("{second:?}") };
    assert!(why.contains(&directory.display().to_string()) && why.contains("another process"), "{why}");
    let mut acknowledged = Vec::new();
    let take = |line: String, acknowledged: &mut Vec<(u64, u64)>| {
        // The last line may be cut off by the kill.
        let fields: Vec<&str> = line.split(' ').collect();
        if let ["ack", writer, number] = fields[..]
            && let (Ok(writer), Ok(number)) = (writer.parse(), number.parse())
        {
            acknowledged.push((writer, number));
        }
    };
    while acknowledged.len() < acknowledgements {
        take(lines.next().expect("the child goes on writing"), &mut acknowledged);
    }
    child.0.kill().unwrap();
    // What it said before it died counts.
    let last = lines.by_ref().collect::<Vec<_>>();
    let whole = last.len().saturating_sub(1);
    last.into_iter().take(whole).for_each(|line| take(line, &mut acknowledged));
    let status = child.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it was killed, not finished");
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    if std::env::var(DIRECTORY).is_ok() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut revision = 0;
    for round in 0..ROUNDS {
        acknowledged.extend(write_and_die(directory.path(), KILL_AFTER + 17 * round).await);
        let store = Embedded::open(directory.path(), "test").await.unwrap();
        let deltas = store.get_from_prefix(Keyspace::JobDeltas, "").await.unwrap();
        let events = store.get_from_prefix(Keyspace::JobEvents, "").await.unwrap();
        assert_eq!(deltas.entries, events.entries, "transactions are there whole or not at all");
        assert!(deltas.revision > revision, "revisions only rise");
        revision = deltas.revision;
        let there: BTreeMap<&str, &Bytes> =
            deltas.entries.iter().map(|entry| (entry.name.as_str(), &entry.value)).collect();
        for &(writer, number) in &acknowledged {
            let name = key(Keyspace::JobDeltas, writer, number).name;
            assert!(there.contains_key(name.as_str()), "{name} was acknowledged in round {round} and is lost");
        }
        for writer in 0..WRITERS {
            let numbers = there.keys().filter(|name| name.starts_with(&format!("{writer}/"))).count() as u64;
            for number in 0..numbers {
                let Op::Put { key, value, .. } = &transaction(writer, number).ops[0] else { panic!("a put") };
                assert_eq!(there.get(key.name.as_str()), Some(&value), "no gap and no damage");
            }
        }
        for keyspace in [Keyspace::Schedulers, Keyspace::Demand] {
            let left = store.get_from_prefix(keyspace, "").await.unwrap();
            assert!(left.entries.is_empty(), "the dead process's session is over: {:?}", left.entries);
        }
        // History is there too: compact it, so that the next round begins from a trimmed one.
        store.compact(revision).await.unwrap();
    }
    println!("{} acknowledged transactions, {ROUNDS} kills, nothing lost", acknowledged.len());
    assert!(acknowledged.len() >= ROUNDS * KILL_AFTER);
}

#[tokio::test]
async fn what_is_reopened_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let name = Key::new(Keyspace::Meta, "k");
    let (first, last) = {
        let store = Embedded::open(directory.path(), "test").await.unwrap();
        let first = store.put(name.clone(), Bytes::from_static(b"1")).await.unwrap();
        store.put(name.clone(), Bytes::from_static(b"2")).await.unwrap();
        (first, store.put(name.clone(), Bytes::from_static(b"3")).await.unwrap())
    };
    let store = Embedded::open(directory.path(), "test").await.unwrap();
    assert_eq!(store.revision().await.unwrap(), last);
    let entry = store.get(&name).await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.value.as_ref()), (first, last, b"3".as_ref()));
    let mut watch = store.watch(Keyspace::Meta, "", first).await.unwrap();
    for revision in first..=last {
        assert_eq!(futures::StreamExt::next(&mut watch).await.unwrap().unwrap().revision, revision);
    }
    store.compact(last).await.unwrap();
    drop(store);
    assert!(matches!(futures::StreamExt::next(&mut watch).await, Some(Err(Error::Unavailable(_)))), "closed under it");
    let store = Embedded::open(directory.path(), "test").await.unwrap();
    let mut watch = store.watch(Keyspace::Meta, "", first).await.unwrap();
    let compacted = futures::StreamExt::next(&mut watch).await;
    assert!(matches!(compacted, Some(Err(Error::Compacted { oldest, .. })) if oldest == last), "trimmed on disk too");
    assert_eq!(store.get(&name).await.unwrap().unwrap().value, "3");
    drop((store, watch));
    let other = Embedded::open(directory.path(), "another").await.unwrap_err().to_string();
    assert!(other.contains("'test'") && other.contains("'another'"), "{other}");
}
