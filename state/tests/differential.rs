//! The store in memory against a real etcd: the same random operations on both, the same answers from both, and the same
//! watch streams. Revisions are compared relative to where each sequence began.
//!
//! `PROPTEST_CASES` says how many sequences are tried, `MUSTER_SEED` which ones; a failure prints the command to repeat it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use muster_state::testing::soon;
use muster_state::{
    Change, Entry, Error, Guard, Key, Keyspace, Memory, Op, Page, Revision, Scan, Session, SessionId, StateBackend,
    Txn, TxnOutcome, WatchStream,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

const CASES: u32 = 200;
/// Long enough never to end by itself in here.
const TTL: Duration = Duration::from_secs(600);
const KEYSPACES: [Keyspace; 2] = [Keyspace::JobPlans, Keyspace::JobStages];
/// Prefixes of each other, neighbours, and what lies between them.
const NAMES: [&str; 8] = ["a", "a/", "a/b", "a/bc", "a0", "ab", "b", "b/a"];
const PREFIXES: [&str; 6] = ["", "a", "a/", "a/b", "b/", "z"];
const SENTINEL: &str = "a/sentinel";

/// What a revision is called while nobody knows its number: the one that the nth write before now made.
type Ago = u64;

#[derive(Debug, Clone)]
enum RandomGuard {
    Absent(usize),
    Present(usize),
    AtPresent(usize),
    AtAgo(usize, Ago),
    Alive(usize),
    Gone(usize),
    NothingNewer(usize, Ago),
}

#[derive(Debug, Clone)]
enum RandomOp {
    Put(usize, u8),
    PutLeased(usize, usize),
    Delete(usize),
    DeleteRange(usize, usize),
}

#[derive(Debug, Clone)]
enum Step {
    Txn { guards: Vec<RandomGuard>, ops: Vec<RandomOp>, reads: Vec<usize> },
    Get(usize),
    GetMany(Vec<usize>),
    Prefix(usize),
    Scan { prefix: usize, after: Option<usize>, limit: usize, ago: Option<Ago>, keys_only: bool },
    Mv { from: usize, to: usize, stale: bool },
    Delete(usize),
    OpenSession(usize),
    CloseSession(usize),
    Compact(Ago),
}

/// A key is a number: which of the names, in which of the keyspaces.
fn key(number: usize) -> Key {
    Key::new(KEYSPACES[number % 2], NAMES[number / 2 % NAMES.len()])
}

fn guards() -> impl Strategy<Value = RandomGuard> {
    let (key, ago, session) = (0..16usize, 0..6u64, 0..3usize);
    prop_oneof![
        1 => key.clone().prop_map(RandomGuard::Absent),
        1 => key.clone().prop_map(RandomGuard::Present),
        4 => key.clone().prop_map(RandomGuard::AtPresent),
        1 => (key, ago.clone()).prop_map(|(key, ago)| RandomGuard::AtAgo(key, ago)),
        1 => session.clone().prop_map(RandomGuard::Alive),
        1 => session.prop_map(RandomGuard::Gone),
        1 => (0..PREFIXES.len(), ago).prop_map(|(prefix, ago)| RandomGuard::NothingNewer(prefix, ago)),
    ]
}

fn ops() -> impl Strategy<Value = RandomOp> {
    let key = 0..16usize;
    prop_oneof![
        5 => (key.clone(), any::<u8>()).prop_map(|(key, value)| RandomOp::Put(key, value)),
        2 => (key.clone(), 0..3usize).prop_map(|(key, session)| RandomOp::PutLeased(key, session)),
        2 => key.clone().prop_map(RandomOp::Delete),
        1 => (key.clone(), key).prop_map(|(from, to)| RandomOp::DeleteRange(from, to)),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let key = 0..16usize;
    let many = |max| proptest::collection::vec(0..16usize, 0..max);
    prop_oneof![
        12 => (proptest::collection::vec(guards(), 0..2), proptest::collection::vec(ops(), 0..5), many(3))
            .prop_map(|(guards, ops, reads)| Step::Txn { guards, ops, reads }),
        1 => key.clone().prop_map(Step::Get),
        1 => many(5).prop_map(Step::GetMany),
        1 => (0..PREFIXES.len()).prop_map(Step::Prefix),
        3 => (
            0..PREFIXES.len(), proptest::option::of(key.clone()), 0..4usize, proptest::option::of(0..6u64), any::<bool>()
        ).prop_map(|(prefix, after, limit, ago, keys_only)| Step::Scan { prefix, after, limit, ago, keys_only }),
        1 => (key.clone(), key.clone(), any::<bool>()).prop_map(|(from, to, stale)| Step::Mv { from, to, stale }),
        1 => key.prop_map(Step::Delete),
        1 => (0..3usize).prop_map(Step::OpenSession),
        1 => (0..3usize).prop_map(Step::CloseSession),
        1 => (0..6u64).prop_map(Step::Compact),
    ]
}

/// One store, and where the sequence began in it.
struct Side {
    state: Arc<dyn StateBackend>,
    base: Revision,
    sessions: BTreeMap<usize, Arc<dyn Session>>,
}

impl Side {
    async fn new(state: Arc<dyn StateBackend>) -> Self {
        let base = state.revision().await.unwrap();
        Self { state, base, sessions: BTreeMap::new() }
    }

    fn relative(&self, revision: Revision) -> i64 {
        i64::try_from(revision).unwrap() - i64::try_from(self.base).unwrap()
    }

    /// Never before the beginning: there it is another sequence's.
    async fn ago(&self, ago: Ago) -> Revision {
        (self.state.revision().await.unwrap() + 1).saturating_sub(ago).max(self.base + 1)
    }

    fn session(&self, number: usize) -> SessionId {
        self.sessions
            .get(&number)
            .map_or_else(|| SessionId(format!("unopened-{number}")), |session| session.id().clone())
    }

    fn entry(&self, entry: &Entry) -> String {
        let Entry { name, value, create_revision, mod_revision } = entry;
        format!("{name}={value:?}@{}..{}", self.relative(*create_revision), self.relative(*mod_revision))
    }

    fn entries(&self, entries: &[Option<Entry>]) -> String {
        format!("{:?}", entries.iter().map(|entry| entry.as_ref().map(|entry| self.entry(entry))).collect::<Vec<_>>())
    }

    fn page(&self, page: &Page) -> String {
        let entries: Vec<String> = page.entries.iter().map(|entry| self.entry(entry)).collect();
        format!("{entries:?} at {} next {:?}", self.relative(page.revision), page.next)
    }

    /// Messages differ, kinds do not.
    fn error(&self, error: &Error) -> String {
        match error {
            Error::Compacted { asked, oldest } => {
                format!("compacted: {} before {}", self.relative(*asked), self.relative(*oldest))
            }
            Error::TooLarge { limit_name, .. } => format!("too large: {limit_name}"),
            Error::SessionLost => "session lost".to_owned(),
            Error::Fatal(_) => "fatal".to_owned(),
            other => panic!("no fault was injected: {other}"),
        }
    }

    fn outcome(&self, outcome: Result<TxnOutcome, Error>) -> String {
        match outcome {
            Ok(TxnOutcome::Committed(revision)) => format!("committed at {}", self.relative(revision)),
            Ok(TxnOutcome::Refused { revision, read }) => {
                format!("refused at {}: {}", self.relative(revision), self.entries(&read))
            }
            Err(error) => self.error(&error),
        }
    }

    async fn guard(&self, guard: &RandomGuard) -> Guard {
        match *guard {
            RandomGuard::Absent(number) => Guard::Absent(key(number)),
            RandomGuard::Present(number) => Guard::Present(key(number)),
            RandomGuard::AtPresent(number) => {
                let entry = self.state.get(&key(number)).await.unwrap();
                Guard::AtRevision(key(number), entry.map_or(0, |entry| entry.mod_revision))
            }
            RandomGuard::AtAgo(number, ago) => Guard::AtRevision(key(number), self.ago(ago).await),
            RandomGuard::Alive(number) => Guard::SessionAlive(self.session(number)),
            RandomGuard::Gone(number) => Guard::SessionGone(self.session(number)),
            RandomGuard::NothingNewer(prefix, ago) => Guard::NothingNewer {
                keyspace: KEYSPACES[0],
                prefix: PREFIXES[prefix].to_owned(),
                than: self.ago(ago).await,
            },
        }
    }

    fn op(&self, op: &RandomOp) -> Op {
        match *op {
            RandomOp::Put(number, value) => {
                Op::Put { key: key(number), value: Bytes::from(vec![value; usize::from(value % 4)]), session: None }
            }
            RandomOp::PutLeased(number, session) => {
                Op::Put { key: key(number), value: Bytes::new(), session: Some(self.session(session)) }
            }
            RandomOp::Delete(number) => Op::Delete(key(number)),
            RandomOp::DeleteRange(from, to) => {
                Op::DeleteRange { keyspace: key(from).keyspace, from: key(from).name, to: key(to).name }
            }
        }
    }

    /// Does a step, and says what came of it in words that are the same on both sides.
    async fn perform(&mut self, step: &Step) -> String {
        match step {
            Step::Txn { guards, ops, reads } => {
                let mut txn = Txn::default();
                for guard in guards {
                    txn.guards.push(self.guard(guard).await);
                }
                txn.ops = ops.iter().map(|op| self.op(op)).collect();
                txn.read_on_failure = reads.iter().map(|&number| key(number)).collect();
                self.outcome(self.state.put_txn(txn).await)
            }
            Step::Get(number) => self.entries(&[self.state.get(&key(*number)).await.unwrap()]),
            Step::GetMany(numbers) => {
                let keys: Vec<Key> = numbers.iter().map(|&number| key(number)).collect();
                let (revision, found) = self.state.get_many(&keys).await.unwrap();
                format!("{} at {}", self.entries(&found), self.relative(revision))
            }
            Step::Prefix(prefix) => {
                self.page(&self.state.get_from_prefix(KEYSPACES[0], PREFIXES[*prefix]).await.unwrap())
            }
            Step::Scan { prefix, after, limit, ago, keys_only } => {
                let at = match ago {
                    Some(ago) => Some(self.ago(*ago).await),
                    None => None,
                };
                let after = after.map(|number| key(number).name);
                let scan = Scan { prefix: PREFIXES[*prefix].to_owned(), after, limit: *limit, at };
                let page = match keys_only {
                    true => self.state.scan_keys(KEYSPACES[0], scan).await,
                    false => self.state.scan(KEYSPACES[0], scan).await,
                };
                page.map_or_else(|error| self.error(&error), |page| self.page(&page))
            }
            Step::Mv { from, to, stale } => {
                let entry = self.state.get(&key(*from)).await.unwrap();
                let revision = entry.map_or(0, |entry| entry.mod_revision) + u64::from(*stale);
                let moved = self.state.mv(key(*from), revision, key(*to), Bytes::from_static(b"moved"), vec![]).await;
                self.outcome(moved)
            }
            Step::Delete(number) => format!("deleted: {}", self.state.delete(&key(*number)).await.unwrap()),
            Step::OpenSession(number) => {
                if self.sessions.contains_key(number) {
                    return "open".to_owned();
                }
                let id = SessionId(format!("s{number}"));
                let opened = self.state.open_session(id, TTL, Bytes::new()).await.unwrap();
                self.sessions.insert(*number, opened);
                format!("opened at {}", self.relative(self.state.revision().await.unwrap()))
            }
            Step::CloseSession(number) => {
                if let Some(session) = self.sessions.get(number) {
                    session.close().await;
                }
                format!("closed at {}", self.relative(self.state.revision().await.unwrap()))
            }
            Step::Compact(ago) => {
                let compacted = self.state.compact(self.ago(*ago).await).await;
                compacted.map_or_else(|error| self.error(&error), |()| "compacted".to_owned())
            }
        }
    }

    /// Everything that a watch says until it has seen the sentinel.
    async fn watched(&self, mut watch: WatchStream) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let batch = match soon("what a watch says", watch.next()).await.expect("it goes on") {
                Ok(batch) => batch,
                Err(error) => {
                    said.push(self.error(&error));
                    return said;
                }
            };
            let changes: Vec<String> = batch
                .changes
                .iter()
                .map(|change| match change {
                    Change::Put(entry) => self.entry(entry),
                    Change::Deleted { name, revision } => format!("-{name}@{}", self.relative(*revision)),
                })
                .collect();
            said.push(format!("{}: {changes:?}", self.relative(batch.revision)));
            if batch.changes.iter().any(|change| matches!(change, Change::Put(entry) if entry.name == SENTINEL)) {
                return said;
            }
        }
    }
}

async fn compare(
    memory: Memory,
    etcd: Arc<dyn StateBackend>,
    steps: Vec<Step>,
    watch_from: u64,
) -> Result<(), TestCaseError> {
    let mut sides = [Side::new(Arc::new(memory)).await, Side::new(etcd).await];
    // An open watch lives through everything but a compaction that overtakes it.
    let compacts = steps.iter().any(|step| matches!(step, Step::Compact(_)));
    let mut open = Vec::new();
    if !compacts {
        for side in &sides {
            open.push(side.state.watch(KEYSPACES[0], "a", side.base + 1).await.unwrap());
        }
    }
    for (place, step) in steps.iter().enumerate() {
        let memory = sides[0].perform(step).await;
        let etcd = sides[1].perform(step).await;
        prop_assert_eq!(memory, etcd, "step {} of {:#?}", place, &steps);
    }
    let mut ends = Vec::new();
    for side in &sides {
        ends.push(side.state.put(Key::new(KEYSPACES[0], SENTINEL), Bytes::new()).await.unwrap());
    }
    let mut said = Vec::new();
    for (side, watch) in sides.iter().zip(open) {
        said.push(side.watched(watch).await);
    }
    // etcd brings up a watch from the past every 100 ms only, so not every sequence waits for one.
    if compacts || watch_from == 0 {
        for (side, end) in sides.iter().zip(ends) {
            // Not from behind the sentinel: that would never be seen.
            let from = (side.base + 1 + watch_from).min(end);
            let watch = side.state.watch(KEYSPACES[0], "a", from).await.unwrap();
            said.push(side.watched(watch).await);
        }
    }
    for pair in said.chunks(2) {
        prop_assert_eq!(&pair[0], &pair[1], "watches after {:#?}", &steps);
    }
    for side in &sides {
        for session in side.sessions.values() {
            session.close().await;
        }
    }
    Ok(())
}

#[test]
fn memory_answers_as_etcd_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let etcd = runtime.block_on(muster_state::testing::Etcd::start()).unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().map_or(CASES, |cases| cases.parse().unwrap());
    let seed: u64 = std::env::var("MUSTER_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let bytes: Vec<u8> = seed.to_le_bytes().repeat(4);
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let number = std::cell::Cell::new(0);
    let sequences = (proptest::collection::vec(steps(), 1..25), 0..12u64);
    let outcome = runner.run(&sequences, |(steps, watch_from)| {
        number.set(number.get() + 1);
        let store: Arc<dyn StateBackend> = Arc::new(etcd.store(&format!("case-{}", number.get())));
        runtime.block_on(async { compare(Memory::new(), store, steps, watch_from).await })
    });
    println!("{} sequences of seed {seed}", number.get());
    if let Err(TestError::Fail(why, (steps, watch_from))) = outcome {
        panic!(
            "{why}\nsteps: {steps:#?}\nwatched from {watch_from}\nrepeat with: MUSTER_SEED={seed} PROPTEST_CASES={cases} \
             cargo test -p muster-state --test differential"
        );
    }
    outcome.unwrap();
}
