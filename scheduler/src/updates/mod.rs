//! Updates: groups and jobs that are handed in bunch by bunch, and come into being all at once.
//!
//! Invariants:
//! - **What names an update exists once the update's record says that it is committed.** Staged groups and what their jobs change for groups lie where they will
//!   be, staged jobs in a keyspace of their own; who reads them asks [`Committed`], and passes over the others.
//! - A part of a bunch is one transaction, under a name that only it has ([`stage`]): what is sent again changes nothing, and what is sent with
//!   other content is refused.
//! - A commit is one transaction on one record ([`commit`]), which compares that nothing was staged since it counted.
//! - Schedulers take up the jobs of a committed update part by part, as they have room ([`take_up`]): until then they are in the store alone.

pub(crate) mod clean_up;
pub(crate) mod commit;
pub(crate) mod stage;
pub(crate) mod take_up;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use muster_graph::ids::Millis;
use muster_proto::storage::{JobHead, UpdatePart, UpdateRecord};
use muster_proto::v1;
use muster_state::{
    Entry, Error, Guard, Key, Keyspace, Op, Revision, Scan, StateBackend, Txn, TxnOutcome, codec, keys,
};
use tonic::Status;

use crate::accept::{store, unavailable};
use crate::load::send_until_known;
use crate::shared::Shared;

/// An update's token, at most.
const TOKEN_CHARS_MAX: usize = 128;
/// An update that is not committed after so long is abandoned; of one that is over this is known so long.
pub(crate) const UPDATE_LIVES: Millis = 24 * 60 * 60 * 1_000;
/// A change that meets others again and again gives up.
const TRIES: u32 = 20;

/// An update as its record says it is.
pub(crate) struct Update {
    pub(crate) namespace: String,
    pub(crate) token: String,
    pub(crate) record: UpdateRecord,
    pub(crate) revision: Revision,
}

impl Update {
    pub(crate) fn key(&self) -> Key {
        keys::update(&self.namespace, &self.token)
    }

    /// Nothing may be staged or committed otherwise.
    fn check_open(&self, now: Millis) -> Result<(), Status> {
        let why = match self.record.state() {
            v1::UpdateState::Open if now < self.record.expires_at_ms => return Ok(()),
            v1::UpdateState::Open => "has expired",
            v1::UpdateState::Committed => "is committed",
            _ => "is abandoned",
        };
        let (token, namespace) = (&self.token, &self.namespace);
        Err(Status::failed_precondition(format!(
            "token: update {token} of namespace {namespace} {why}: open another one under another token"
        )))
    }
}

/// A token in a request.
pub(crate) fn check_token(token: &str) -> Result<(), Status> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if (1..=TOKEN_CHARS_MAX).contains(&token.len()) && token.chars().all(allowed) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "token: 1 to {TOKEN_CHARS_MAX} letters, digits and . _ - are a token; '{}' is none",
        token.chars().take(40).collect::<String>().escape_debug()
    )))
}

/// The update of this token.
pub(crate) async fn find(state: &dyn StateBackend, namespace: &str, token: &str) -> Result<Update, Status> {
    check_token(token)?;
    let key = keys::update(namespace, token);
    let entry = state.get(&key).await.map_err(store)?.ok_or_else(|| {
        Status::not_found(format!("token: there is no update {token} in namespace {namespace}; it is opened first"))
    })?;
    let record = codec::decode(&key, &entry.value).map_err(store)?;
    Ok(Update { namespace: namespace.to_owned(), token: token.to_owned(), record, revision: entry.mod_revision })
}

/// Opens an update, or finds that it was opened before.
pub(crate) async fn open(shared: &Shared, namespace: &str, token: &str) -> Result<Update, Status> {
    check_token(token)?;
    let now = shared.now();
    let record = UpdateRecord {
        state: v1::UpdateState::Open.into(),
        opened_at_ms: now,
        expires_at_ms: now.saturating_add(UPDATE_LIVES),
        ..UpdateRecord::default()
    };
    let key = keys::update(namespace, token);
    let epoch = Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision);
    let put = Op::Put { key: key.clone(), value: codec::encode(&record).map_err(store)?, session: None };
    let txn = Txn { guards: vec![epoch, Guard::Absent(key)], ops: vec![put], ..Txn::default() };
    // Refused: it is there, perhaps by an earlier sending of this; or the epoch has moved.
    send_until_known(&*shared.options.state, txn).await.map_err(store)?;
    match find(&*shared.options.state, namespace, token).await {
        Err(status) if status.code() == tonic::Code::NotFound => {
            Err(unavailable("the store began a new epoch; try again"))
        }
        found => found,
    }
}

/// Nothing of it will ever be.
pub(crate) async fn abandon(shared: &Shared, namespace: &str, token: &str) -> Result<Update, Status> {
    let state = &*shared.options.state;
    for _ in 0..TRIES {
        let update = find(state, namespace, token).await?;
        match update.record.state() {
            v1::UpdateState::Abandoned => return Ok(update),
            v1::UpdateState::Committed => {
                return Err(Status::failed_precondition(format!(
                    "token: update {token} of namespace {namespace} is committed: cancel what it has made"
                )));
            }
            _ => {}
        }
        let epoch = Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision);
        let txn = abandoning(&update, vec![epoch]).map_err(store)?;
        send_until_known(state, txn).await.map_err(store)?;
    }
    Err(unavailable("the update was changed by others again and again; try again"))
}

fn abandoning(update: &Update, mut guards: Vec<Guard>) -> Result<Txn, Error> {
    let record = UpdateRecord { state: v1::UpdateState::Abandoned.into(), ..update.record };
    guards.push(Guard::AtRevision(update.key(), update.revision));
    let put = Op::Put { key: update.key(), value: codec::encode(&record)?, session: None };
    Ok(Txn { guards, ops: vec![put], ..Txn::default() })
}

/// What users see of it.
pub(crate) async fn view(state: &dyn StateBackend, update: &Update) -> Result<v1::UpdateView, Status> {
    let record = &update.record;
    let (mut groups, mut jobs, mut jobs_owned) = (record.groups, record.jobs, record.jobs);
    if !record.taken_up {
        (groups, jobs, jobs_owned) = (0, 0, 0);
        each_part(state, &update.namespace, &update.token, None, |_, part| {
            groups += part.groups_named;
            jobs += part.jobs.len() as u64;
            jobs_owned += if part.taken_up { part.jobs.len() as u64 } else { 0 };
            Ok(())
        })
        .await
        .map_err(store)?;
    }
    Ok(v1::UpdateView {
        namespace: update.namespace.clone(),
        token: update.token.clone(),
        state: record.state,
        opened_at_ms: record.opened_at_ms,
        expires_at_ms: record.expires_at_ms,
        committed_at_ms: record.committed_at_ms,
        groups,
        jobs,
        jobs_owned,
    })
}

/// Reads what is staged of an update, page by page; answers as of which revision. `at`: as of this one.
pub(crate) async fn each_part(
    state: &dyn StateBackend,
    namespace: &str,
    token: &str,
    at: Option<Revision>,
    mut take: impl FnMut(Entry, UpdatePart) -> Result<(), Error>,
) -> Result<Revision, Error> {
    let mut scan = Scan { prefix: keys::update_parts(namespace, token), at, ..Scan::default() };
    loop {
        let page = state.scan(Keyspace::Updates, scan.clone()).await?;
        for entry in page.entries {
            let key = Key::new(Keyspace::Updates, entry.name.clone());
            let part = codec::decode(&key, &entry.value)?;
            take(entry, part)?;
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
            None => return Ok(page.revision),
        }
    }
}

/// All updates, as of one revision, and that. `at`: as of this one.
pub(crate) async fn all(state: &dyn StateBackend, at: Option<Revision>) -> Result<(Vec<Update>, Revision), Error> {
    let mut updates = Vec::new();
    let mut scan = Scan { prefix: keys::UPDATES.to_owned(), at, ..Scan::default() };
    loop {
        let page = state.scan(Keyspace::Updates, scan.clone()).await?;
        for entry in page.entries {
            let key = Key::new(Keyspace::Updates, entry.name);
            let Some((namespace, token)) = keys::update_of(&key.name) else { continue };
            let record = codec::decode(&key, &entry.value)?;
            let (namespace, token) = (namespace.to_owned(), token.to_owned());
            updates.push(Update { namespace, token, record, revision: entry.mod_revision });
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
            None => return Ok((updates, page.revision)),
        }
    }
}

/// Parts of committed updates that no scheduler has taken up: their jobs are to be shown, and are no scheduler's.
pub(crate) async fn waiting_parts(
    state: &dyn StateBackend,
    at: Option<Revision>,
) -> Result<Vec<(String, UpdatePart)>, Error> {
    let (updates, revision) = all(state, at).await?;
    let mut parts = Vec::new();
    for update in updates {
        if update.record.state() == v1::UpdateState::Committed && !update.record.taken_up {
            let namespace = &update.namespace;
            let take = |_, part: UpdatePart| {
                if !part.taken_up {
                    parts.push((namespace.clone(), part));
                }
                Ok(())
            };
            each_part(state, namespace, &update.token, Some(revision), take).await?;
        }
    }
    Ok(parts)
}

/// Which updates are committed, as far as somebody asked.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// As of this revision; none: now.
    at: Option<Revision>,
    known: BTreeMap<(String, String), bool>,
}

impl Committed {
    /// As of a revision.
    pub(crate) fn at(revision: Revision) -> Self {
        Self { at: Some(revision), ..Self::default() }
    }

    /// Whether what names this update exists. What names none does.
    pub(crate) async fn has(&mut self, state: &dyn StateBackend, namespace: &str, token: &str) -> Result<bool, Error> {
        if token.is_empty() {
            return Ok(true);
        }
        let name = (namespace.to_owned(), token.to_owned());
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let key = keys::update(namespace, token);
        let scan = Scan { prefix: key.name.clone(), limit: 1, at: self.at, ..Scan::default() };
        // The first of all that begin like it is the name itself, if that is there.
        let entry = state.scan(Keyspace::Updates, scan).await?.entries.into_iter().find(|entry| entry.name == key.name);
        let is_committed = match entry {
            Some(entry) => codec::decode::<UpdateRecord>(&key, &entry.value)?.state() == v1::UpdateState::Committed,
            None => false,
        };
        self.known.insert(name, is_committed);
        Ok(is_committed)
    }
}

/// Whether a job exists: one that is staged does once its update is committed.
pub(crate) async fn exists(state: &dyn StateBackend, head: &JobHead) -> Result<bool, Error> {
    if head.update_part.is_empty() {
        return Ok(true);
    }
    let Some((namespace, token)) = keys::update_part_of(&head.update_part) else { return Ok(false) };
    Committed::default().has(state, namespace, token).await
}

/// Tells a refused transaction from one that landed.
fn landed(outcome: &TxnOutcome) -> bool {
    matches!(outcome, TxnOutcome::Committed(_))
}
