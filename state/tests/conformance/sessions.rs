//! Sessions: alive while renewed, lost for good once lost.

use std::time::Duration;

use bytes::Bytes;
use muster_state::testing::{eventually, soon};
use muster_state::{Error, Guard, Keyspace, SessionId, Txn, TxnOutcome};

use crate::{Store, TTL, TTL_SHORT, key, leased, names, put};

pub(crate) async fn keys_go_with_their_session(store: Store) {
    let session = store.session("s-1").await;
    let entry = store.other.get(&muster_state::keys::session(session.id())).await.unwrap().unwrap();
    assert_eq!(entry.value, "here", "the session's own key");
    store.commit(vec![leased("mine", session.id()), leased("handed-over", session.id()), put("other", "")]).await;
    // Written again without the session, it is the session's no more.
    store.commit(vec![put("handed-over", "")]).await;
    assert!(store.holds(Guard::SessionAlive(session.id().clone())).await);
    assert!(!session.slack().is_zero() && session.slack() <= TTL);
    session.close().await;
    assert!(store.holds(Guard::SessionGone(session.id().clone())).await, "at once, not after the TTL");
    assert_eq!((store.get("mine").await, session.slack()), (None, Duration::ZERO));
    assert!(store.get("handed-over").await.is_some() && store.get("other").await.is_some());
    soon("the session to be lost", session.lost()).await;
}

pub(crate) async fn an_id_is_used_once(store: Store) {
    let id = SessionId("s-2".to_owned());
    let session = store.session("s-2").await;
    for client in [&store.state, &store.other] {
        assert!(matches!(client.open_session(id.clone(), TTL, Bytes::new()).await, Err(Error::Fatal(_))));
    }
    assert!(store.holds(Guard::SessionAlive(id.clone())).await, "the attempts did it no harm");
    session.close().await;
    let again = store.state.open_session(id, TTL, Bytes::new()).await;
    assert!(matches!(again, Err(Error::Fatal(_))), "nor after its end: who saw it lost must not meet it again");
    let bad = store.state.open_session(SessionId("a/b".to_owned()), TTL, Bytes::new()).await;
    assert!(matches!(bad, Err(Error::Fatal(_))));
}

pub(crate) async fn a_dead_session_takes_no_keys(store: Store) {
    let session = store.session("s-3").await;
    session.close().await;
    for id in [session.id().clone(), SessionId("never-opened".to_owned())] {
        let write = Txn { ops: vec![leased("a", &id)], ..Txn::default() };
        assert!(matches!(store.state.put_txn(write.clone()).await, Err(Error::SessionLost)));
        // Guards are judged first.
        let guarded = Txn { guards: vec![Guard::SessionAlive(id)], ..write };
        assert!(matches!(store.state.put_txn(guarded).await, Ok(TxnOutcome::Refused { .. })));
    }
    assert_eq!(store.get("a").await, None);
    let session = store.session("s-3b").await;
    let lock = store.state.lock("l", &session).await.unwrap();
    session.close().await;
    assert!(matches!(store.state.lock("l", &session).await, Err(Error::SessionLost)));
    assert!(!store.holds(lock.guard()).await);
}

pub(crate) async fn a_session_that_is_not_renewed_is_lost(store: Store) {
    let session = store.session_for("s-4", TTL_SHORT).await;
    store.commit(vec![leased("mine", session.id())]).await;
    session.renew(false);
    soon("the session to be lost", session.lost()).await;
    assert_eq!(session.slack(), Duration::ZERO);
    eventually("its keys to go", async || store.get("mine").await.is_none().then_some(())).await;
    assert!(store.holds(Guard::SessionGone(session.id().clone())).await);
    session.renew(true);
    assert_eq!(session.slack(), Duration::ZERO, "what is lost stays lost");
}

pub(crate) async fn a_session_lives_as_long_as_it_is_renewed(store: Store) {
    /// As short as a busy machine can keep alive.
    const TTL: Duration = Duration::from_secs(3);
    let session = store.session_for("s-5", TTL).await;
    let mut least = Duration::MAX;
    let begun = tokio::time::Instant::now();
    // Several TTLs long.
    while begun.elapsed() < 3 * TTL {
        least = least.min(session.slack());
        assert!(!least.is_zero(), "lost after {:?}", begun.elapsed());
        tokio::time::sleep(TTL / 20).await;
    }
    assert!(store.holds(Guard::SessionAlive(session.id().clone())).await);
    assert!(least < TTL, "the slack goes down between renewals: {least:?}");
}

pub(crate) async fn a_dropped_session_ends_after_its_ttl(store: Store) {
    let session = store.session_for("s-6", TTL_SHORT).await;
    let id = session.id().clone();
    drop(session);
    assert!(store.holds(Guard::SessionAlive(id.clone())).await, "a process that died is not seen at once");
    let gone = async || store.holds(Guard::SessionGone(id.clone())).await.then_some(());
    eventually("the session to end", gone).await;
    let page = store.state.get_from_prefix(Keyspace::Schedulers, "").await.unwrap();
    assert_eq!(names(&page.entries), Vec::<&str>::new());
}

pub(crate) async fn another_client_may_lease_to_a_session(store: Store) {
    let session = store.session("s-7").await;
    let write = Txn { ops: vec![leased("a", session.id())], ..Txn::default() };
    assert!(matches!(store.other.put_txn(write).await.unwrap(), TxnOutcome::Committed(_)));
    assert!(store.state.get(&key("a")).await.unwrap().is_some());
    session.close().await;
    assert_eq!(store.get("a").await, None);
}
