//! Namespaces across schedulers: each tells what its jobs have and want, and hears that of its peers, and the rules that operators have
//! set. The engine decides by it whose turn it is and how far limits are used up.
//!
//! What peers say is of a moment ago, and it is leased, so it goes with its scheduler. Nothing is told while a scheduler is alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_proto::{storage, v1};
use muster_state::{Change, Entry, Error, Key, Keyspace, Op, SessionId, StateBackend, Txn, codec, keys};

use crate::engine::Input;
use crate::fairness::{Rules, Use};
use crate::shared::Shared;

/// Between two writes: what is told is of a moment ago in any case.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// After an error.
const PAUSE: Duration = Duration::from_millis(500);
/// A watch only makes sooner what a list alone would bring about: so often everything is listed anew.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// Namespaces of which is told: those that have and want most tasks. So the record stays as small as other values that change.
const NAMESPACES_TOLD_MAX: usize = 128;

/// Tells what this scheduler's jobs have and want, for ever.
pub(crate) async fn keep_telling(shared: Arc<Shared>) {
    let mut told: Option<(SessionId, BTreeMap<String, Use>)> = None;
    let mut ticks = tokio::time::interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let session = shared.presence().identity.session;
        let Ok(mut ours) = shared.engine.read(|engine| engine.usage()).await else { return };
        if shared.peers.live().len() < 2 {
            ours.clear();
        }
        if ours.len() > NAMESPACES_TOLD_MAX {
            let mut sizes: Vec<_> =
                ours.iter().map(|(name, told)| (told.running.max(told.ready), name.clone())).collect();
            sizes.sort_unstable();
            sizes.truncate(ours.len() - NAMESPACES_TOLD_MAX);
            sizes.iter().for_each(|(_, name)| drop(ours.remove(name)));
        }
        let now = Some((session.clone(), ours.clone()));
        if now == told || told.is_none() && ours.is_empty() {
            continue;
        }
        let key = keys::usage(&session);
        let op = if ours.is_empty() {
            Op::Delete(key)
        } else {
            let namespaces = ours.iter().map(|(name, told)| (name.clone(), v1::NamespaceUse::from(told))).collect();
            match codec::encode(&storage::UsageRecord { namespaces }) {
                Ok(value) => Op::Put { key, value, session: Some(session) },
                Err(error) => {
                    tracing::warn!(%error, "what namespaces use cannot be told");
                    continue;
                }
            }
        };
        told = match shared.options.state.put_txn(Txn { ops: vec![op], ..Txn::default() }).await {
            Ok(_) => now,
            Err(error) => {
                tracing::debug!(%error, "what namespaces use could not be told");
                // Told again, whether it was written or not.
                Some((SessionId(String::new()), BTreeMap::new()))
            }
        };
    }
}

/// Follows what the peers' jobs have and want, for ever.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let read = |entry: &Entry| -> Result<BTreeMap<String, Use>, Error> {
        let record: storage::UsageRecord = codec::decode(&Key::new(Keyspace::Usage, entry.name.clone()), &entry.value)?;
        Ok(record.namespaces.into_iter().map(|(name, told)| (name, Use::from(told))).collect())
    };
    follow_records(&shared, Keyspace::Usage, read, |shared, all| {
        let mine = &shared.presence().identity.session.0;
        Input::Usage(
            all.iter().filter(|(session, _)| *session != mine).map(|(s, told)| (s.clone(), told.clone())).collect(),
        )
    })
    .await;
}

/// Follows what is set for namespaces, for ever.
pub(crate) async fn follow_rules(shared: Arc<Shared>) {
    let read = |entry: &Entry| rules_in(entry).map(|record| Rules::of(&record.rules.unwrap_or_default()));
    follow_records(&shared, Keyspace::Namespaces, read, |_, all| Input::Rules(all.clone())).await;
}

/// What is set for namespaces, as the store says.
pub(crate) async fn rules(state: &dyn StateBackend) -> Result<BTreeMap<String, v1::NamespaceRules>, Error> {
    let page = state.get_from_prefix(Keyspace::Namespaces, "").await?;
    page.entries.iter().map(|entry| Ok((entry.name.clone(), rules_in(entry)?.rules.unwrap_or_default()))).collect()
}

fn rules_in(entry: &Entry) -> Result<storage::NamespaceRecord, Error> {
    codec::decode(&keys::namespace(&entry.name), &entry.value)
}

/// Follows a keyspace, and brings all of it to the engine whenever something of it has changed.
async fn follow_records<T>(
    shared: &Shared,
    keyspace: Keyspace,
    read: impl Fn(&Entry) -> Result<T, Error>,
    input: impl Fn(&Shared, &BTreeMap<String, T>) -> Input,
) {
    // A record that cannot be read says nothing; the others do.
    let read = |entry: &Entry| match read(entry) {
        Ok(told) => Some((entry.name.clone(), told)),
        Err(error) => {
            tracing::warn!(%error, "passed over");
            None
        }
    };
    loop {
        let followed = async {
            let state = &*shared.options.state;
            let page = state.get_from_prefix(keyspace, "").await?;
            let mut all: BTreeMap<String, T> = page.entries.iter().filter_map(read).collect();
            let mut watch = state.watch(keyspace, "", page.revision + 1).await?;
            loop {
                if shared.engine.send(input(shared, &all)).await.is_err() {
                    return Ok(());
                }
                let Some(batch) = watch.next().await else { return Ok::<_, Error>(()) };
                for change in batch?.changes {
                    match change {
                        Change::Put(entry) => match read(&entry) {
                            Some((name, told)) => drop(all.insert(name, told)),
                            None => drop(all.remove(&entry.name)),
                        },
                        Change::Deleted { name, .. } => drop(all.remove(&name)),
                    }
                }
            }
        };
        match tokio::time::timeout(LIST_EVERY, followed).await {
            Ok(Err(error)) => tracing::info!(%error, keyspace = keyspace.name(), "following again"),
            Ok(Ok(())) => {}
            Err(_) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
