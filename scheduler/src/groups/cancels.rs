//! Which groups are cancelled, and as of when that is known.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::groups::{Cancel, Cancels, GroupPath};
use muster_proto::storage::{GroupCancelRecord, GroupCancelsHead};
use muster_proto::v1;
use muster_state::{
    Change, Entry, Error, Guard, Key, Keyspace, Op, Revision, Scan, StateBackend, Txn, TxnOutcome, codec, keys,
};
use tonic::Status;

use super::TRIES;
use crate::accept::{store, unavailable};
use crate::engine::Input;
use crate::load::send_until_known;
use crate::shared::Shared;

/// A watch only makes sooner what a list alone would bring about: so often everything is listed anew.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// After an error of the store, before the next look.
const PAUSE: Duration = Duration::from_millis(500);

/// The cancelled groups of a namespace.
#[derive(Debug, Clone, Default)]
pub struct GroupCancels {
    /// The revision of the head that each cancel writes; 0: there was none. All cancels up to then are known, perhaps later ones too.
    as_of: Revision,
    cancels: Cancels,
}

impl GroupCancels {
    /// Holds as long as no cancel came that is not known.
    #[must_use]
    pub fn guard(&self, namespace: &str) -> Guard {
        guard_as_of(namespace, self.as_of)
    }

    /// See the field.
    #[must_use]
    pub fn as_of(&self) -> Revision {
        self.as_of
    }

    /// The outermost cancelled group of a group itself and those around it.
    #[must_use]
    pub fn strikes(&self, path: &GroupPath) -> Option<(&str, &Cancel)> {
        self.cancels.strikes(path)
    }

    /// The cancel of this very group.
    #[must_use]
    pub fn of(&self, path: &GroupPath) -> Option<&Cancel> {
        self.cancels.of(path)
    }
}

/// Holds while the newest cancel in a namespace is that of this revision.
#[must_use]
pub(crate) fn guard_as_of(namespace: &str, as_of: Revision) -> Guard {
    let head = keys::group_cancels_head(namespace);
    if as_of == 0 { Guard::Absent(head) } else { Guard::AtRevision(head, as_of) }
}

/// What the store knows of a namespace.
pub(crate) async fn read(state: &dyn StateBackend, namespace: &str) -> Result<GroupCancels, Error> {
    // The head first: what is cancelled between the two reads is known too early, and not too late.
    let head = state.get(&keys::group_cancels_head(namespace)).await?;
    let mut known = GroupCancels { as_of: head.map_or(0, |head| head.mod_revision), ..GroupCancels::default() };
    let mut scan = Scan { prefix: keys::group_cancels_of(namespace), ..Scan::default() };
    loop {
        let page = state.scan(Keyspace::Groups, scan.clone()).await?;
        for entry in page.entries {
            let key = Key::new(Keyspace::Groups, entry.name);
            let Some((_, path)) = keys::group_cancel_of(&key.name) else { continue };
            let Ok(path) = path.parse::<GroupPath>() else {
                // No job that this version knows can be in it.
                tracing::error!(name = key.name, "the cancel of what cannot be a group is passed over");
                continue;
            };
            // Its key alone says what is cancelled; why, a newer version may say in another way.
            let record: GroupCancelRecord = codec::decode(&key, &entry.value).unwrap_or_default();
            known.cancels.insert(&path, cancel(record.cancel.unwrap_or_default()));
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
            None => return Ok(known),
        }
    }
}

fn cancel(stored: v1::GroupCancel) -> Cancel {
    Cancel { reason: stored.reason, at: stored.at_ms, by_failures: stored.by_failures }
}

/// What the engine knows of a namespace: enough for who compares it in a transaction.
pub(crate) async fn current(shared: &Shared, namespace: &str) -> Result<Arc<GroupCancels>, Status> {
    let namespace = namespace.to_owned();
    shared.engine.read(move |engine| engine.group_cancels(&namespace)).await.map_err(unavailable)
}

/// Reads a namespace anew, and tells the engine.
pub(crate) async fn refresh(shared: &Shared, namespace: &str) -> Result<(), Status> {
    let known = Arc::new(read(&*shared.options.state, namespace).await.map_err(store)?);
    let namespace = namespace.into();
    shared.engine.send(Input::GroupsCancelled { namespace, known }).await.map_err(unavailable)
}

/// What is written when a group is cancelled. It is to be guarded by the absence of the first key.
pub(crate) fn writes(namespace: &str, path: &GroupPath, cancel: v1::GroupCancel) -> Result<(Key, Vec<Op>), Error> {
    let key = keys::group_cancel(namespace, path.as_str());
    let head = GroupCancelsHead { newest: path.as_str().to_owned() };
    let ops = vec![
        Op::Put { key: key.clone(), value: codec::encode(&GroupCancelRecord { cancel: Some(cancel) })?, session: None },
        Op::Put { key: keys::group_cancels_head(namespace), value: codec::encode(&head)?, session: None },
    ];
    Ok((key, ops))
}

/// Cancels a group: after this nothing in it is assigned, but tasks of `always` stages.
pub(crate) async fn mark(shared: &Shared, namespace: &str, path: &GroupPath, reason: String) -> Result<(), Status> {
    let cancel = v1::GroupCancel { reason, at_ms: shared.now(), by_failures: false };
    super::find(&*shared.options.state, namespace, path.as_str()).await?;
    for _ in 0..TRIES {
        let known = current(shared, namespace).await?;
        if known.of(path).is_some() {
            return Ok(());
        }
        let (key, ops) = writes(namespace, path, cancel.clone()).map_err(store)?;
        let mut guards =
            vec![Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision), Guard::Absent(key)];
        if !path.is_root() {
            guards.push(Guard::Present(keys::group(namespace, path.as_str())));
        }
        let outcome = send_until_known(&*shared.options.state, Txn { guards, ops, ..Txn::default() }).await;
        if let TxnOutcome::Committed(_) = outcome.map_err(store)? {
            tracing::info!(namespace, group = %path, "group cancelled");
            return Ok(());
        }
        // It is cancelled, perhaps by an earlier sending of this, or there is no such group; or the store's epoch has moved.
        refresh(shared, namespace).await?;
        super::find(&*shared.options.state, namespace, path.as_str()).await?;
    }
    Err(unavailable("the group could not be cancelled just now; try again"))
}

/// Tells the engine of cancels, for ever. A commit that meets one that is not known asks the store itself.
pub(crate) async fn follow(shared: Arc<Shared>) {
    loop {
        match tokio::time::timeout(LIST_EVERY, follow_once(&shared)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "following the cancels of groups again"),
            Err(_) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once(shared: &Shared) -> Result<(), Error> {
    let state = &*shared.options.state;
    let heads = state.get_from_prefix(Keyspace::Groups, HEADS).await?;
    for entry in heads.entries {
        tell(shared, &entry).await?;
    }
    let mut watch = state.watch(Keyspace::Groups, HEADS, heads.revision + 1).await?;
    while let Some(batch) = watch.next().await {
        for change in batch?.changes {
            if let Change::Put(entry) = change {
                tell(shared, &entry).await?;
            }
        }
    }
    Ok(())
}

/// The names of all heads begin with this.
const HEADS: &str = "h/";

async fn tell(shared: &Shared, head: &Entry) -> Result<(), Error> {
    let Some(namespace) = head.name.strip_prefix(HEADS) else { return Ok(()) };
    // A burst of cancels is read once; and after a commit that met one, it is known.
    if current(shared, namespace).await.is_ok_and(|known| known.as_of() >= head.mod_revision) {
        return Ok(());
    }
    let known = Arc::new(read(&*shared.options.state, namespace).await?);
    // Stopping: who comes next reads it.
    let _ = shared.engine.send(Input::GroupsCancelled { namespace: namespace.into(), known }).await;
    Ok(())
}
