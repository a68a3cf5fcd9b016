//! Definitions: specs that are kept by name, with revisions.
//!
//! A name's record says what it stands for and what its newest revision refers to; a revision is immutable and names its spec
//! and its text by digest. Whoever makes a job of one reads all that it refers to *as of one revision of the store* ([`shelf`]), so
//! that an edit meanwhile is seen wholly or not at all; and the job keeps what came of it, so later edits change nothing.
//!
//! **Invariants.** No transaction that changes what a name stands for lands unless all names of the namespace are as they were
//! when it was judged ([`names_unchanged`]): a circle through several definitions cannot come about by two edits at the same
//! time. Names' records are therefore never deleted, only marked, since that guard does not see deletions.

mod define;
mod remove;
mod run;
mod shelf;

use std::path::Path;

use muster_graph::spec::Format;
use muster_proto::storage::DefinitionRecord;
use muster_state::{Entry, Error, Guard, Key, Keyspace, Revision, Scan, StateBackend, codec, keys};
use tonic::Status;

pub(crate) use define::define;
pub(crate) use remove::{rename, undefine};
pub(crate) use run::{Tick, check_run, checked, namespace, run, shelf_of};
pub(crate) use shelf::{Root, Shelf, content, load, number};

use crate::accept::{retry_later, store};

/// A spec as JSON, and a text as it was written: each is one value in the store, which takes 256 KiB.
pub(crate) const DEFINITION_BYTES_MAX: usize = 240 << 10;
/// A definition's name, in bytes: with a namespace it makes the name of a key, which has at most 512.
pub(crate) const DEFINITION_NAME_BYTES_MAX: usize = 256;
/// Definitions in one call: two records of each in one transaction, which has at most 128 operations.
pub(crate) const DEFINED_AT_ONCE_MAX: usize = 60;
/// Definitions of a namespace: all names are read when one is removed, and people are to find theirs.
pub(crate) const DEFINITIONS_MAX: usize = 10_000;
/// Definitions that one job can be made of: they are read one by one, and its head names them.
pub(crate) const MADE_OF_MAX: usize = 1_000;
/// How often an edit is judged anew because another one of the namespace came first.
const ATTEMPTS: u32 = 16;

/// Nothing about any name of the namespace has changed since.
fn names_unchanged(namespace: &str, since: Revision) -> Guard {
    Guard::NothingNewer { keyspace: Keyspace::Definitions, prefix: keys::definitions_of(namespace), than: since }
}

/// Other edits always came first.
fn too_many_edits() -> Status {
    retry_later("definitions of this namespace are being edited all the time: try again".to_owned())
}

/// An entry as of a revision of the store, and that revision; `None`: the newest.
async fn read_at(
    state: &dyn StateBackend,
    key: &Key,
    at: Option<Revision>,
) -> Result<(Option<Entry>, Revision), Error> {
    // A name comes before all that begin with it.
    let scan = Scan { prefix: key.name.clone(), limit: 1, at, ..Scan::default() };
    let page = state.scan(key.keyspace, scan).await?;
    let found = page.entries.into_iter().next().filter(|entry| entry.name == key.name);
    Ok((found, at.unwrap_or(page.revision)))
}

/// What the names of a namespace stand for (of all of them: an empty name), with those names, as of one revision.
pub(crate) async fn names(
    state: &dyn StateBackend,
    namespace: &str,
) -> Result<(Vec<(String, String, DefinitionRecord)>, Revision), Status> {
    let prefix = if namespace.is_empty() { keys::DEFINITIONS.to_owned() } else { keys::definitions_of(namespace) };
    let mut scan = Scan { prefix, ..Scan::default() };
    let mut names = Vec::new();
    loop {
        let page = state.scan(Keyspace::Definitions, scan.clone()).await.map_err(store)?;
        for entry in &page.entries {
            let Some((namespace, name)) = keys::definition_of(&entry.name) else { continue };
            let key = Key::new(Keyspace::Definitions, entry.name.clone());
            let record: DefinitionRecord = codec::decode(&key, &entry.value).map_err(store)?;
            if !record.id.is_empty() {
                names.push((namespace.to_owned(), name.to_owned(), record));
            }
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
            None => return Ok((names, page.revision)),
        }
    }
}

/// Who refers to a definition by its newest revision.
pub(crate) fn users(names: &[(String, String, DefinitionRecord)], name: &str) -> Vec<String> {
    let uses = |record: &DefinitionRecord| record.uses.iter().any(|used| used.name == name);
    names.iter().filter(|(_, other, record)| other != name && uses(record)).map(|(_, other, _)| other.clone()).collect()
}

/// Why a text cannot name a definition, though it can name a job.
fn refused_name(name: &str) -> Option<String> {
    let is_revision = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if name.is_empty() || name.len() > DEFINITION_NAME_BYTES_MAX {
        Some(format!("give 1 to DEFINITION_NAME_BYTES_MAX = {DEFINITION_NAME_BYTES_MAX} bytes"))
    } else if name.contains(char::is_control) || name.trim() != name {
        Some("give one line, and no space first or last".to_owned())
    } else if name.rsplit_once('@').is_some_and(|(_, digits)| is_revision(digits)) {
        Some("it ends as a revision does".to_owned())
    } else if name == "-" || Format::of_path(Path::new(name)).is_some() {
        Some("it looks like a file's".to_owned())
    } else {
        None
    }
}

/// Nobody knows that name.
pub(crate) fn unknown(namespace: &str, name: &str, renamed_to: &str) -> Status {
    let help = if renamed_to.is_empty() { String::new() } else { format!("; it is called {renamed_to} now") };
    Status::not_found(format!("namespace {namespace} has no definition {}{help}", name.escape_debug()))
}
