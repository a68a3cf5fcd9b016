//! What an audit finds, and that what it puts right is right whatever happens at the same time.

use muster_graph::ids::JobId;
use muster_state::Memory;

use super::*;

/// A store with three jobs of a group, of which one has failed, and nothing counted of them.
async fn uncounted() -> (Arc<dyn StateBackend>, Arc<Shared>) {
    let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let (shared, _inputs) = Shared::without_engine(&state).await;
    for number in 1..=3 {
        let over = number == 3;
        let key = if over { keys::failed_job(JobId(number)) } else { keys::active_job(JobId(number)) };
        state.put(key, codec::encode(&head(over)).unwrap()).await.unwrap();
    }
    (state, shared)
}

fn head(over: bool) -> JobHead {
    let state = if over { v1::JobState::Failed } else { v1::JobState::Running };
    JobHead {
        namespace: "default".to_owned(),
        group: "a/b".to_owned(),
        state: state.into(),
        tasks: Some(v1::Counts { successful: 4, failed: 1, ..v1::Counts::default() }),
        counted: true,
        ..JobHead::default()
    }
}

/// What waits to be added up is added up.
async fn keep(state: &dyn StateBackend) {
    let page = state.get_from_prefix(Keyspace::GroupCounts, keys::GROUP_CHANGES).await.unwrap();
    let mut waiting = page.entries;
    waiting.sort_by_key(|entry| entry.mod_revision);
    for entry in waiting {
        let (path, change) = changes::decode(&entry.name, &entry.value).unwrap().0.unwrap();
        let path: GroupPath = path.parse().unwrap();
        for around in change.concerns(&path) {
            let key = keys::group_sums("default", around);
            let known = state.get(&key).await.unwrap();
            let stored = known.map(|entry| codec::decode::<GroupSums>(&key, &entry.value).unwrap());
            let mut sums = views::to_sums(stored.unwrap_or_default());
            sums.add(&change, 1);
            state.put(key, codec::encode(&views::from_sums(&sums)).unwrap()).await.unwrap();
        }
        state.delete(&Key::new(Keyspace::GroupCounts, entry.name)).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_never_counted_is_found_told_and_put_right_once() {
    let (state, shared) = uncounted().await;
    let looked = run(&shared, false, Duration::ZERO).await.unwrap();
    assert_eq!((looked.jobs, looked.groups, looked.repaired), (3, 3, 0));
    let of = |group: &str, what: &str| {
        let mut found = looked.findings.iter().filter(|found| found.group == group && found.what == what);
        found.next().map(|found| (found.shown, found.counted))
    };
    for group in ["", "a", "a/b"] {
        assert_eq!(of(group, "submitted"), Some((0, 3)), "{group}");
        assert_eq!(of(group, "failed"), Some((0, 1)));
        assert_eq!(of(group, "tasks.successful"), Some((0, 4)));
        assert_eq!(of(group, "cancelled"), None);
    }
    assert_eq!(run(&shared, true, Duration::ZERO).await.unwrap().repaired, 3);
    // What waits for the keeper counts already.
    assert_eq!(run(&shared, true, Duration::ZERO).await.unwrap().findings_total, 0);
    keep(&*state).await;
    let after = run(&shared, true, Duration::ZERO).await.unwrap();
    assert_eq!((after.findings_total, after.repaired), (0, 0));
}

#[tokio::test]
async fn what_happens_between_a_recount_and_its_correction_is_counted_once() {
    let (state, shared) = uncounted().await;
    let mut audit = Audit {
        shared: &shared,
        state: &*state,
        repair: true,
        pace: Duration::ZERO,
        report: v1::AuditResponse::default(),
    };
    let corrections = audit.groups().await.unwrap();
    // A job is accepted, and one ends: each with its change.
    let accepted = changes::submitted(JobId(4), &head(false)).unwrap();
    let put = |key, head: &JobHead| Op::Put { key, value: codec::encode(head).unwrap(), session: None };
    let ops = vec![
        put(keys::active_job(JobId(4)), &head(false)),
        accepted,
        put(keys::failed_job(JobId(1)), &head(true)),
        Op::Delete(keys::active_job(JobId(1))),
        changes::ended(JobId(1), &head(true)).unwrap(),
    ];
    state.put_txn(Txn { ops, ..Txn::default() }).await.unwrap();
    keep(&*state).await;
    audit.correct(corrections).await.unwrap();
    keep(&*state).await;
    let after = run(&shared, false, Duration::ZERO).await.unwrap();
    assert_eq!((after.jobs, after.findings), (4, Vec::new()));
}

#[tokio::test]
async fn of_two_audits_that_found_the_same_one_corrects_it() {
    let (state, shared) = uncounted().await;
    let audit = || Audit {
        shared: &shared,
        state: &*state,
        repair: true,
        pace: Duration::ZERO,
        report: v1::AuditResponse::default(),
    };
    let (mut one, mut other) = (audit(), audit());
    let (first, second) = (one.groups().await.unwrap(), other.groups().await.unwrap());
    one.correct(first).await.unwrap();
    assert_eq!(other.correct(second).await.unwrap_err().code(), tonic::Code::Unavailable);
    keep(&*state).await;
    assert_eq!(run(&shared, false, Duration::ZERO).await.unwrap().findings, Vec::new());
}

#[tokio::test]
async fn jobs_that_groups_do_not_count_are_not_missed_and_what_cannot_be_read_ends_the_audit() {
    let (state, shared) = uncounted().await;
    run(&shared, true, Duration::ZERO).await.unwrap();
    let by_an_earlier_version = JobHead { counted: false, ..head(true) };
    state.put(keys::failed_job(JobId(9)), codec::encode(&by_an_earlier_version).unwrap()).await.unwrap();
    assert_eq!(run(&shared, false, Duration::ZERO).await.unwrap().findings_total, 0);
    state.put(keys::active_job(JobId(10)), bytes::Bytes::from_static(b"rubbish")).await.unwrap();
    assert!(run(&shared, true, Duration::ZERO).await.is_err());
}
