//! All definitions that a job is made of, as of one revision of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_graph::spec::limits::EXPANDED_BYTES_MAX;
use muster_graph::spec::{
    Arguments, Format, Found, JobSpec, Library, NoFiles, Outline, Problems, Reference, Template, Unknown,
};
use muster_proto::storage::{DefinitionContent, DefinitionRecord, DefinitionRevision};
use muster_state::{Revision, StateBackend, codec, keys};
use tonic::Status;

use super::{MADE_OF_MAX, read_at};
use crate::accept::store;

/// Definitions read at the same time.
const READ_AT_ONCE: usize = 16;

/// What to begin with.
pub(crate) enum Root {
    /// A definition; `None`: its newest revision.
    Named(String, Option<u32>),
    /// What a spec refers to.
    References(Vec<Reference>),
}

/// A definition, read.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) record: DefinitionRevision,
    pub(crate) template: Template,
    pub(crate) outline: Arc<Outline>,
    /// What its text calls it.
    pub(crate) spec_name: String,
}

/// Definitions by name and revision.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// The revision of the store.
    pub(crate) at: Revision,
    /// What names stand for; of those that were asked for.
    pub(crate) names: BTreeMap<String, DefinitionRecord>,
    books: BTreeMap<(String, u32), Result<Book, String>>,
}

/// Which revision is meant.
pub(crate) fn number(record: Option<&DefinitionRecord>, revision: Option<u32>) -> Option<u32> {
    let record = record.filter(|record| !record.id.is_empty())?;
    Some(revision.unwrap_or(record.latest)).filter(|number| (1..=record.latest).contains(number))
}

impl Shelf {
    /// An empty one, to be filled with what there was then.
    pub(crate) fn as_of(at: Revision) -> Self {
        Self { at, ..Self::default() }
    }

    /// Puts a definition there that is not stored yet, as the newest of its name.
    pub(crate) fn put(&mut self, name: &str, record: DefinitionRecord, template: Template, outline: Arc<Outline>) {
        let book = Book { record: DefinitionRevision::default(), template, outline, spec_name: name.to_owned() };
        self.books.insert((name.to_owned(), record.latest), Ok(book));
        self.names.insert(name.to_owned(), record);
    }

    /// A definition that is there.
    pub(crate) fn book(&self, name: &str, revision: u32) -> Option<&Result<Book, String>> {
        self.books.get(&(name.to_owned(), revision))
    }

    /// All of them, those that are referred to before those that refer to them.
    pub(crate) fn in_order(&self) -> Vec<(&str, u32, &Book)> {
        let mut placed: BTreeSet<(&str, u32)> = BTreeSet::new();
        let mut order = Vec::with_capacity(self.books.len());
        // Each round places what has nothing left to wait for. Definitions are at most as deep as jobs may be nested; of
        // what is in a circle, or broken, nothing is promised.
        loop {
            let before = order.len();
            for ((name, revision), book) in &self.books {
                let Ok(book) = book else { continue };
                let is_ready = book.outline.references.iter().all(|used| {
                    number(self.names.get(&used.name), used.revision)
                        .is_none_or(|number| placed.contains(&(used.name.as_str(), number)))
                });
                if is_ready && placed.insert((name, *revision)) {
                    order.push((name.as_str(), *revision, book));
                }
            }
            if order.len() == before {
                return order;
            }
        }
    }
}

impl Library for Shelf {
    fn find(&self, name: &str, revision: Option<u32>) -> Result<Found, Unknown> {
        let record = self.names.get(name);
        let Some(number) = number(record, revision) else {
            return Err(match (record.filter(|record| !record.id.is_empty()), revision) {
                (Some(record), Some(revision)) => Unknown {
                    message: format!("there is no revision {revision} of the definition `{name}`"),
                    help: format!("the newest one is {}; `muster definition {name}` lists them", record.latest),
                },
                _ => Unknown {
                    message: format!("there is no definition `{name}`"),
                    help: match record.map(|record| record.renamed_to.as_str()).filter(|to| !to.is_empty()) {
                        Some(to) => format!("it is called `{to}` now: write that"),
                        None => "`muster definitions` lists those that there are; define it first, or with this one"
                            .to_owned(),
                    },
                },
            });
        };
        match self.book(name, number) {
            Some(Ok(book)) => Ok(Found { revision: number, outline: Arc::clone(&book.outline) }),
            Some(Err(why)) => Err(Unknown {
                message: format!("revision {number} of the definition `{name}` cannot be read: {why}"),
                help: "define it again, or use another revision".to_owned(),
            }),
            None => Err(Unknown {
                message: format!("the definition `{name}` was not read"),
                help: "this is a fault of the scheduler's: please report it".to_owned(),
            }),
        }
    }

    fn instantiate(&self, name: &str, revision: u32, with: &Arguments) -> Result<JobSpec, Problems> {
        match self.book(name, revision) {
            Some(Ok(book)) => book.template.draft(with)?.resolve(&NoFiles),
            _ => Err(Problems(Vec::new())),
        }
    }
}

/// Reads what is asked for and all that it refers to, as of one revision of the store. What is on the shelf already, such as
/// what is about to be defined, stays as it is.
pub(crate) async fn load(
    state: &dyn StateBackend,
    namespace: &str,
    mut shelf: Shelf,
    root: Root,
) -> Result<Shelf, Status> {
    let mut at = (shelf.at > 0).then_some(shelf.at);
    let mut seen: BTreeSet<(String, Option<u32>)> = BTreeSet::new();
    let mut left: Vec<(String, Option<u32>)> = match root {
        Root::Named(name, revision) => vec![(name, revision)],
        Root::References(references) => references.into_iter().map(|used| (used.name, used.revision)).collect(),
    };
    let known: Vec<Reference> =
        shelf.books.values().flatten().flat_map(|book| book.outline.references.clone()).collect();
    left.extend(known.into_iter().map(|used| (used.name, used.revision)));
    if at.is_none() && left.is_empty() {
        shelf.at = state.revision().await.map_err(store)?;
    }
    let mut bytes = 0;
    loop {
        left.retain(|wanted| seen.insert(wanted.clone()));
        if seen.len() > MADE_OF_MAX {
            return Err(Status::invalid_argument(format!(
                "stages: the job is made of more than MADE_OF_MAX = {MADE_OF_MAX} definitions: put some of them together"
            )));
        }
        let more = left.split_off(left.len().min(if at.is_some() { READ_AT_ONCE } else { 1 }));
        let some = std::mem::replace(&mut left, more);
        if some.is_empty() {
            return Ok(shelf);
        }
        let names = &shelf.names;
        let books = &shelf.books;
        let read = some.into_iter().map(|(name, revision)| read(state, namespace, names, books, name, revision, at));
        for found in futures::future::try_join_all(read).await? {
            at = Some(found.at);
            shelf.at = found.at;
            if let Some((number, book, size)) = found.book {
                bytes += size;
                left.extend(
                    book.iter()
                        .flat_map(|book| book.outline.references.iter().map(|used| (used.name.clone(), used.revision))),
                );
                shelf.books.insert((found.name.clone(), number), book);
            }
            if let Some(record) = found.record {
                shelf.names.entry(found.name).or_insert(record);
            }
        }
        if bytes > EXPANDED_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "stages: the definitions that the job is made of take more than EXPANDED_BYTES_MAX = {EXPANDED_BYTES_MAX} bytes"
            )));
        }
    }
}

struct Read {
    at: Revision,
    name: String,
    record: Option<DefinitionRecord>,
    /// What was not on the shelf yet, with its size.
    book: Option<(u32, Result<Book, String>, usize)>,
}

async fn read(
    state: &dyn StateBackend,
    namespace: &str,
    names: &BTreeMap<String, DefinitionRecord>,
    books: &BTreeMap<(String, u32), Result<Book, String>>,
    name: String,
    revision: Option<u32>,
    at: Option<Revision>,
) -> Result<Read, Status> {
    let (record, at) = match (names.get(&name), at) {
        (Some(record), Some(at)) => (Some(record.clone()), at),
        (known, at) => {
            let key = keys::definition(namespace, &name);
            let (entry, at) = read_at(state, &key, at).await.map_err(store)?;
            let stored = entry.map(|entry| codec::decode(&key, &entry.value)).transpose().map_err(store)?;
            (known.cloned().or(stored), at)
        }
    };
    let mut found = Read { at, name, record, book: None };
    let Some(number) = number(found.record.as_ref(), revision) else { return Ok(found) };
    if books.contains_key(&(found.name.clone(), number)) {
        return Ok(found);
    }
    let id = found.record.as_ref().map_or("", |record| record.id.as_str());
    let key = keys::definition_revision(namespace, id, number);
    let (entry, _) = read_at(state, &key, Some(at)).await.map_err(store)?;
    let entry = entry.ok_or_else(|| Status::data_loss(format!("revision {number} of {} is missing", found.name)))?;
    let record: DefinitionRevision = codec::decode(&key, &entry.value).map_err(store)?;
    let json = content(state, namespace, id, &record.digest, at).await?;
    let size = json.len();
    let book = Template::read(&json, Format::Json)
        .and_then(|template| {
            let spec = template.sketch()?.resolve(&NoFiles)?;
            Ok(Book { record, template, outline: Arc::new(Outline::of(&spec)), spec_name: spec.name })
        })
        // It was good once: another version of this program wrote it.
        .map_err(|problems| problems.to_string());
    found.book = Some((number, book, size));
    Ok(found)
}

/// A spec or a text, as of a revision of the store.
pub(crate) async fn content(
    state: &dyn StateBackend,
    namespace: &str,
    id: &str,
    digest: &str,
    at: Revision,
) -> Result<String, Status> {
    let key = keys::definition_content(namespace, id, digest);
    let (entry, _) = read_at(state, &key, Some(at)).await.map_err(store)?;
    let entry = entry.ok_or_else(|| Status::data_loss(format!("{} is missing", key.name)))?;
    let record: DefinitionContent = codec::decode(&key, &entry.value).map_err(store)?;
    String::from_utf8(record.content).map_err(|_| Status::data_loss(format!("{} is no text", key.name)))
}
