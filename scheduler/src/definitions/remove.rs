//! Removing and renaming: a name stops standing for something.

use std::sync::Arc;

use muster_graph::spec::{NoFiles, measure};
use muster_proto::storage::{DefinitionRecord, ScheduleRecord};
use muster_state::{Guard, Key, Keyspace, Op, Revision, Scan, Txn, TxnOutcome, codec, keys};
use tonic::Status;

use super::{
    ATTEMPTS, Root, Shelf, load, names, names_unchanged, read_at, refused_name, too_many_edits, unknown, users,
};
use crate::accept::{store, unavailable};
use crate::load::send_until_known;
use crate::shared::Shared;

/// Removes a definition with all of its revisions. Answers who referred to it.
pub(crate) async fn undefine(shared: &Shared, namespace: &str, name: &str, force: bool) -> Result<Vec<String>, Status> {
    for _ in 0..ATTEMPTS {
        let (record, used_by, at) = look(shared, namespace, name).await?;
        let in_use = "undefine it with --force, and they can no longer be run; or change them first";
        refuse_if_used(name, &used_by, force, in_use)?;
        let gone = DefinitionRecord { latest: record.latest, ..DefinitionRecord::default() };
        let mut ops = vec![Op::Put {
            key: keys::definition(namespace, name),
            value: codec::encode(&gone).map_err(store)?,
            session: None,
        }];
        ops.extend(keys::delete_revisions(namespace, &record.id));
        if commit(shared, namespace, at, ops).await? {
            tracing::info!(namespace, name, "a definition was removed");
            return Ok(used_by);
        }
    }
    Err(too_many_edits())
}

/// Calls a definition differently; its revisions go with it. Answers who still refers to the old name.
pub(crate) async fn rename(
    shared: &Shared,
    namespace: &str,
    name: &str,
    to: &str,
    force: bool,
) -> Result<Vec<String>, Status> {
    if let Some(why) = refused_name(to) {
        return Err(Status::invalid_argument(format!("to: `{}` cannot name a definition: {why}", to.escape_debug())));
    }
    let state = &*shared.options.state;
    for _ in 0..ATTEMPTS {
        let (record, used_by, at) = look(shared, namespace, name).await?;
        let in_use = "rename it with --force, and change them afterwards";
        refuse_if_used(name, &used_by, force, in_use)?;
        let shelf = Shelf::as_of(at);
        let mut shelf = load(state, namespace, shelf, Root::Named(name.to_owned(), None)).await?;
        let (target, _) = read_at(state, &keys::definition(namespace, to), Some(at)).await.map_err(store)?;
        let target: Option<DefinitionRecord> = target
            .map(|entry| codec::decode(&keys::definition(namespace, to), &entry.value))
            .transpose()
            .map_err(store)?;
        if target.is_some_and(|target| !target.id.is_empty()) {
            return Err(Status::already_exists(format!("namespace {namespace} has a definition {to} already")));
        }
        // Who refers to a name that stood for nothing refers to this now: that may close a circle.
        if let Some(Ok(book)) = shelf.book(name, record.latest) {
            let (template, outline) = (book.template.clone(), Arc::clone(&book.outline));
            let spec = template.sketch().and_then(|draft| draft.resolve(&NoFiles));
            shelf = Shelf::as_of(at);
            shelf.put(to, record.clone(), template, outline);
            shelf.names.insert(name.to_owned(), DefinitionRecord::default());
            let shelf = load(state, namespace, shelf, Root::References(Vec::new())).await?;
            if let Ok(spec) = spec {
                measure(&spec, &shelf).map_err(|problem| Status::invalid_argument(problem.to_string()))?;
            }
        }
        let gone = DefinitionRecord { latest: record.latest, renamed_to: to.to_owned(), ..DefinitionRecord::default() };
        let put = |name: &str, record: &DefinitionRecord| {
            let value = codec::encode(record).map_err(store)?;
            Ok::<_, Status>(Op::Put { key: keys::definition(namespace, name), value, session: None })
        };
        if commit(shared, namespace, at, vec![put(name, &gone)?, put(to, &record)?]).await? {
            tracing::info!(namespace, name, to, "a definition was renamed");
            return Ok(used_by);
        }
    }
    Err(too_many_edits())
}

/// What a name stands for, and who refers to it.
async fn look(
    shared: &Shared,
    namespace: &str,
    name: &str,
) -> Result<(DefinitionRecord, Vec<String>, Revision), Status> {
    let (names, at) = names(&*shared.options.state, namespace).await?;
    let mut used_by = users(&names, name);
    used_by.extend(
        schedules_of(shared, namespace, name).await?.into_iter().map(|schedule| format!("schedule {schedule}")),
    );
    let record = names.into_iter().find(|(_, other, _)| other == name).map(|(.., record)| record);
    Ok((record.ok_or_else(|| unknown(namespace, name, ""))?, used_by, at))
}

/// The schedules that run it.
async fn schedules_of(shared: &Shared, namespace: &str, name: &str) -> Result<Vec<String>, Status> {
    let mut found = Vec::new();
    let mut scan = Scan { prefix: format!("{namespace}/"), ..Scan::default() };
    loop {
        let page = shared.options.state.scan(Keyspace::Schedules, scan.clone()).await.map_err(store)?;
        for entry in &page.entries {
            let key = Key::new(Keyspace::Schedules, entry.name.clone());
            // One that a newer version wrote does not keep anybody from anything.
            let Ok(record) = codec::decode::<ScheduleRecord>(&key, &entry.value) else { continue };
            let runs = record.schedule.and_then(|schedule| schedule.run).is_some_and(|run| run.name == name);
            found.extend(keys::schedule_of(&entry.name).filter(|_| runs).map(|(_, schedule)| schedule.to_owned()));
        }
        match page.next {
            Some(after) => (scan.after, scan.at) = (Some(after), Some(page.revision)),
            None => return Ok(found),
        }
    }
}

fn refuse_if_used(name: &str, used_by: &[String], force: bool, help: &str) -> Result<(), Status> {
    const NAMED_MAX: usize = 10;
    if force || used_by.is_empty() {
        return Ok(());
    }
    let mut named = used_by.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if used_by.len() > NAMED_MAX {
        named = format!("{named} and {} more", used_by.len() - NAMED_MAX);
    }
    Err(Status::failed_precondition(format!("{name} is used by {named}: {help}")))
}

/// Whether it landed; if not, something was edited meanwhile.
async fn commit(shared: &Shared, namespace: &str, at: Revision, ops: Vec<Op>) -> Result<bool, Status> {
    let identity = shared.presence().identity;
    let guards = vec![Guard::AtRevision(keys::epoch(), identity.epoch_revision), names_unchanged(namespace, at)];
    let txn = Txn { guards, ops, read_on_failure: vec![keys::epoch()] };
    match send_until_known(&*shared.options.state, txn).await.map_err(store)? {
        TxnOutcome::Committed(_) => Ok(true),
        TxnOutcome::Refused { read, .. } => match read.into_iter().next().flatten() {
            Some(entry) if entry.mod_revision == identity.epoch_revision => Ok(false),
            _ => Err(unavailable("the store's epoch has changed just now")),
        },
    }
}
