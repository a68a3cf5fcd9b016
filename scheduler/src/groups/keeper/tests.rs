//! What a keeper adds up, and what it does not though it has read it.

use muster_graph::ids::JobId;
use muster_proto::storage::{CallbackRecord, GroupChange, JobHead, StagedJob, UpdatePart, UpdateRecord};
use muster_state::Memory;

use super::*;

/// A store in which a job was accepted, and the change as a keeper lists it.
async fn accepted(number: u64) -> (Arc<dyn StateBackend>, Arc<Shared>, Entry) {
    let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let (shared, _inputs) = Shared::without_engine(&state).await;
    let head = JobHead { namespace: "default".to_owned(), group: "a/b".to_owned(), ..JobHead::default() };
    let op = changes::submitted(JobId(number), &head).unwrap();
    assert!(matches!(state.put_txn(Txn { ops: vec![op], ..Txn::default() }).await.unwrap(), TxnOutcome::Committed(_)));
    let page = state.get_from_prefix(Keyspace::GroupCounts, keys::GROUP_CHANGES).await.unwrap();
    let entry = page.entries.into_iter().next().expect("it was written a line above");
    (state, shared, entry)
}

async fn submitted(state: &dyn StateBackend, path: &str) -> u64 {
    let key = keys::group_sums("default", path);
    let entry = state.get(&key).await.unwrap();
    entry.map_or(0, |entry| codec::decode::<GroupSums>(&key, &entry.value).unwrap().submitted)
}

#[tokio::test]
async fn what_a_late_write_has_added_up_is_not_added_again() {
    let (state, shared, entry) = accepted(1).await;
    let (held, unreadable) = (Guard::Present(keys::epoch()), BTreeSet::new());
    // Both have listed it; what the first one wrote lands before the second one reads the sums.
    let mut first = Keeper::new(&shared, held.clone(), &unreadable);
    let mut second = Keeper::new(&shared, held, &unreadable);
    assert!(first.take(vec![entry.clone()]).await.is_ok());
    assert!(matches!(second.take(vec![entry]).await, Err(End::Store(_))), "it is the keeper, and has to read anew");
    for path in ["a/b", "a", ""] {
        assert_eq!(submitted(&*state, path).await, 1, "{path}");
    }
}

#[tokio::test]
async fn who_is_the_keeper_no_more_adds_nothing_up() {
    let (state, shared, entry) = accepted(2).await;
    let unreadable = BTreeSet::new();
    let mut former = Keeper::new(&shared, Guard::Absent(keys::epoch()), &unreadable);
    assert!(matches!(former.take(vec![entry]).await, Err(End::Superseded)));
    assert_eq!(submitted(&*state, "").await, 0);
}

#[tokio::test]
async fn one_namespaces_damaged_record_holds_up_no_other() {
    let (state, shared, entry) = accepted(3).await;
    let (held, mut unreadable) = (Guard::Present(keys::epoch()), BTreeSet::new());
    let key = keys::group_sums("default", "a");
    state.put(key, bytes::Bytes::from_static(b"rubbish")).await.unwrap();
    let head = JobHead { namespace: "other".to_owned(), ..JobHead::default() };
    let op = changes::submitted(JobId(4), &head).unwrap();
    state.put_txn(Txn { ops: vec![op], ..Txn::default() }).await.unwrap();
    let end = Keeper::new(&shared, held.clone(), &unreadable).take(vec![entry.clone()]).await;
    let Err(End::Unreadable(namespace, _)) = end else { panic!("it cannot be read") };
    unreadable.insert(namespace);
    let waiting = state.get_from_prefix(Keyspace::GroupCounts, keys::GROUP_CHANGES).await.unwrap().entries;
    assert!(Keeper::new(&shared, held, &unreadable).take(waiting).await.is_ok());
    assert!(state.get(&keys::group_sums("other", "")).await.unwrap().is_some());
    let left = state.get(&Key::new(Keyspace::GroupCounts, entry.name)).await.unwrap();
    assert!(left.is_some(), "what cannot be added up keeps its place");
}

/// What waits in the outbox.
async fn outbox(state: &dyn StateBackend) -> Vec<(String, u64)> {
    let page = state.get_from_prefix(Keyspace::Outbox, "").await.unwrap();
    let read = |entry: Entry| {
        let key = Key::new(Keyspace::Outbox, entry.name);
        let record: CallbackRecord = codec::decode(&key, &entry.value).unwrap();
        assert_eq!(key, keys::callback("default", &record.path, record.completion));
        (record.path, record.completion)
    };
    page.entries.into_iter().map(read).collect()
}

#[tokio::test]
async fn a_callback_once_per_completion_for_every_newly_complete_ancestor() {
    let (state, shared, submission) = accepted(5).await;
    // The group and the root are to be told; what is between them has no callback.
    for path in ["a/b", "a", ""] {
        let callback = if path == "a" { "" } else { "http://127.0.0.1:9/" };
        let spec = v1::GroupSpec { callback: callback.to_owned(), ..v1::GroupSpec::default() };
        let record = GroupRecord { id: path.to_owned(), spec: Some(spec), ..GroupRecord::default() };
        state.put(keys::group("default", path), codec::encode(&record).unwrap()).await.unwrap();
    }
    let (held, unreadable) = (Guard::Present(keys::epoch()), BTreeSet::new());
    let mut keeper = Keeper::new(&shared, held.clone(), &unreadable);
    assert!(keeper.take(vec![submission]).await.is_ok());
    assert_eq!(outbox(&*state).await, [], "it is live");

    let mut complete = Vec::new();
    for (number, of) in [(5, "end"), (6, "submitted"), (6, "end")] {
        let change = match of {
            "end" => GroupChange { group: "a/b".to_owned(), successful: 1, ..GroupChange::default() },
            _ => GroupChange { group: "a/b".to_owned(), submitted: 1, ..GroupChange::default() },
        };
        let key = keys::group_change("default", JobId(number), of);
        state.put(key.clone(), codec::encode(&change).unwrap()).await.unwrap();
        let waiting = state.get_from_prefix(Keyspace::GroupCounts, keys::GROUP_CHANGES).await.unwrap().entries;
        let seen = waiting.clone();
        assert!(keeper.take(waiting).await.is_ok());
        // Another keeper that has read the same writes nothing.
        let mut late = Keeper::new(&shared, held.clone(), &unreadable);
        assert!(matches!(late.take(seen).await, Err(End::Store(_))));
        complete.push(outbox(&*state).await);
    }
    let told = |completions: &[u64]| {
        let of = |path: &str| completions.iter().map(|one| (path.to_owned(), *one)).collect::<Vec<_>>();
        [of(""), of("a/b")].concat()
    };
    assert_eq!(complete, [told(&[1]), told(&[1]), told(&[1, 2])]);
}

#[tokio::test]
async fn what_an_update_stages_counts_once_it_is_committed_and_before_what_its_jobs_do() {
    let (state, shared, plain) = accepted(8).await;
    let update = async |state_of: v1::UpdateState| {
        let record = UpdateRecord { state: state_of.into(), ..UpdateRecord::default() };
        state.put(keys::update("default", "t"), codec::encode(&record).unwrap()).await.unwrap();
    };
    let jobs = vec![StagedJob { job_id: JobId(9).to_string(), ..StagedJob::default() }];
    let part = codec::encode(&UpdatePart { jobs, ..UpdatePart::default() }).unwrap();
    state.put(keys::update_part("default", "t", 0, 0), part).await.unwrap();
    let put = async |of: &str, change: GroupChange| {
        let key = keys::group_change("default", JobId(9), of);
        state.put(key.clone(), codec::encode(&change).unwrap()).await.unwrap();
        state.get(&key).await.unwrap().expect("it was written a line above")
    };
    let staged = GroupChange { group: "a".to_owned(), submitted: 1, update: "t".to_owned(), ..GroupChange::default() };
    update(v1::UpdateState::Open).await;
    let staged = put("staged", staged).await;
    let (held, unreadable) = (Guard::Present(keys::epoch()), BTreeSet::new());
    let mut keeper = Keeper::new(&shared, held, &unreadable);
    assert!(matches!((keeper.hold_back(&plain), keeper.hold_back(&staged)), (Ok(false), Ok(true))));
    assert!(keeper.take(vec![plain]).await.is_ok());
    assert_eq!((submitted(&*state, "a").await, submitted(&*state, "a/b").await), (1, 1), "only the other one");

    update(v1::UpdateState::Committed).await;
    let ended = put("1", GroupChange { group: "a".to_owned(), successful: 1, ..GroupChange::default() }).await;
    assert!(keeper.take(vec![ended]).await.is_ok());
    assert_eq!(submitted(&*state, "a").await, 2);
    let left = state.get_from_prefix(Keyspace::GroupCounts, keys::GROUP_CHANGES).await.unwrap().entries;
    assert!(left.is_empty(), "{left:?}");
}
