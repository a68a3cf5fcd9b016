//! Defining: all definitions of a call become revisions, or none does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_graph::spec::limits::PROBLEMS_MAX;
use muster_graph::spec::{
    Format, JobSpec, Library as _, NoFiles, Outline, Problem, Problems, Source, Template, Work, measure,
};
use muster_proto::{blob, storage, v1};
use muster_state::{Guard, Keyspace, Op, Revision, Scan, TXN_BYTES_MAX, Txn, TxnOutcome, codec, keys};
use prost::Message as _;
use tonic::Status;

use super::{
    ATTEMPTS, DEFINED_AT_ONCE_MAX, DEFINITION_BYTES_MAX, DEFINITIONS_MAX, Root, Shelf, load, names_unchanged, read_at,
    refused_name, too_many_edits,
};
use crate::accept::{store, unavailable};
use crate::load::{send_until_known, write_blobs};
use crate::shared::Shared;

/// A definition that is good by itself.
struct Draft {
    name: String,
    /// What its revisions are kept under, if its name stands for nothing yet. The same for all attempts: what one of them
    /// left is written over by the next.
    fresh_id: String,
    text: v1::DefinitionText,
    digest: String,
    text_digest: String,
    template: Template,
    spec: JobSpec,
    outline: Arc<Outline>,
}

/// Defines them. Answers when it is committed.
pub(crate) async fn define(shared: &Shared, texts: Vec<v1::DefinitionText>) -> Result<Vec<v1::Defined>, Status> {
    let (namespace, drafts) = crate::blocking::run(move || read(texts))
        .await
        .map_err(|error| Status::internal(format!("reading the definitions ended early: {error}")))??;
    for _ in 0..ATTEMPTS {
        if let Some(defined) = attempt(shared, &namespace, &drafts).await? {
            return Ok(defined);
        }
    }
    Err(too_many_edits())
}

/// What they say, if each is good by itself.
fn read(texts: Vec<v1::DefinitionText>) -> Result<(String, Vec<Draft>), Status> {
    if texts.is_empty() || texts.len() > DEFINED_AT_ONCE_MAX {
        return Err(Status::invalid_argument(format!(
            "definitions: give 1 to DEFINED_AT_ONCE_MAX = {DEFINED_AT_ONCE_MAX} at a time, not {}",
            texts.len()
        )));
    }
    let mut drafts = Vec::with_capacity(texts.len());
    let mut namespaces = BTreeSet::new();
    let mut names = BTreeSet::new();
    for text in texts {
        let (namespace, draft) = read_one(text)?;
        if !names.insert(draft.name.clone()) {
            return Err(Status::invalid_argument(format!("definitions: {} is there twice", draft.name)));
        }
        namespaces.insert(namespace);
        drafts.push(draft);
    }
    let mut namespaces = namespaces.into_iter();
    match (namespaces.next(), namespaces.next()) {
        (Some(namespace), None) => Ok((namespace, drafts)),
        (one, other) => Err(Status::invalid_argument(format!(
            "definitions: they are of several namespaces ({}, {}, …): define those of one at a time",
            one.unwrap_or_default(),
            other.unwrap_or_default()
        ))),
    }
}

fn read_one(text: v1::DefinitionText) -> Result<(String, Draft), Status> {
    for (what, size) in [("spec, as JSON,", text.spec.len()), ("text", text.text.len())] {
        if size > DEFINITION_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "definitions: the {what} has {size} bytes, more than DEFINITION_BYTES_MAX = {DEFINITION_BYTES_MAX}: take parts out into \
                 definitions of their own, or give long lists as parameters"
            )));
        }
    }
    let wrong = |problems: Problems| Status::invalid_argument(problems.to_string());
    let template = Template::read(&text.spec, Format::Json).map_err(wrong)?;
    let spec = template.sketch().and_then(|draft| draft.resolve(&NoFiles)).map_err(wrong)?;
    let name = spec.name.clone();
    if let Some(why) = refused_name(&name) {
        return Err(Status::invalid_argument(format!("name: `{name}` cannot name a definition: {why}")));
    }
    let outline = Arc::new(Outline::of(&spec));
    let (digest, text_digest) = (blob::digest(text.spec.as_bytes()), blob::digest(text.text.as_bytes()));
    let fresh_id = format!("{:016x}", rand::random::<u64>());
    Ok((spec.namespace.clone(), Draft { name, fresh_id, text, digest, text_digest, template, spec, outline }))
}

/// The next revision of a definition.
struct Next<'d> {
    draft: &'d Draft,
    record: storage::DefinitionRecord,
}

/// Judges them as things are, and commits. `None`: things changed meanwhile.
async fn attempt(shared: &Shared, namespace: &str, drafts: &[Draft]) -> Result<Option<Vec<v1::Defined>>, Status> {
    let state = &*shared.options.state;
    let at = state.revision().await.map_err(store)?;
    let now = shared.now();
    let mut shelf = Shelf::as_of(at);
    let (mut next, mut defined, mut fresh) = (Vec::new(), Vec::new(), 0);
    for draft in drafts {
        let key = keys::definition(namespace, &draft.name);
        let (entry, _) = read_at(state, &key, Some(at)).await.map_err(store)?;
        let known: Option<storage::DefinitionRecord> =
            entry.map(|entry| codec::decode(&key, &entry.value)).transpose().map_err(store)?;
        let known = known.unwrap_or_default();
        let mut answer = v1::Defined {
            namespace: namespace.to_owned(),
            name: draft.name.clone(),
            revision: known.latest,
            unchanged: true,
        };
        if known.id.is_empty() || known.digest != draft.digest {
            fresh += usize::from(known.id.is_empty());
            let id = if known.id.is_empty() { draft.fresh_id.clone() } else { known.id };
            let record = storage::DefinitionRecord {
                id,
                latest: known.latest + 1,
                digest: draft.digest.clone(),
                uses: uses(&draft.outline),
                defined_at_ms: now,
                renamed_to: String::new(),
            };
            (answer.revision, answer.unchanged) = (record.latest, false);
            shelf.put(&draft.name, record.clone(), draft.template.clone(), Arc::clone(&draft.outline));
            next.push(Next { draft, record });
        }
        defined.push(answer);
    }
    if next.is_empty() {
        return Ok(Some(defined));
    }
    if fresh > 0 {
        check_room(state, namespace, at, fresh).await?;
    }
    let shelf = load(state, namespace, shelf, Root::References(Vec::new())).await?;
    for Next { draft, .. } in &next {
        // From itself, so that a circle is told from where it was closed.
        measure(&draft.spec, &shelf).map_err(|problem| {
            let problem = Problem { field: format!("{}: {}", draft.name, problem.field), ..problem };
            Status::invalid_argument(problem.to_string())
        })?;
        let wrong = arguments(&draft.spec, &shelf);
        if !wrong.is_empty() {
            return Err(Status::invalid_argument(Problems(wrong).to_string()));
        }
    }
    let landed = commit(shared, namespace, at, &next).await?;
    Ok(landed.then_some(defined))
}

/// What is wrong with the values that a spec gives to what it refers to, as far as they are known.
fn arguments(spec: &JobSpec, shelf: &Shelf) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut left = vec![spec];
    while let Some(spec) = left.pop() {
        for stage in &spec.stages {
            let Work::Job(nested) = &stage.work else { continue };
            let (name, revision) = match &nested.source {
                Source::Inline(inner) => {
                    left.push(inner);
                    continue;
                }
                Source::Named { name, revision } => (name, *revision),
            };
            // What is not there was told before.
            let Ok(found) = shelf.find(name, revision) else { continue };
            if problems.len() < PROBLEMS_MAX
                && let Err(wrong) = shelf.instantiate(name, found.revision, &nested.with)
            {
                problems.extend(wrong.into_iter().map(|problem| Problem {
                    place: None,
                    field: format!("stages.{}.with", stage.name),
                    message: format!("revision {} of `{name}`: {}: {}", found.revision, problem.field, problem.message),
                    help: problem.help,
                }));
            }
        }
    }
    problems
}

/// What a revision refers to, each once.
fn uses(outline: &Outline) -> Vec<v1::DefinitionUse> {
    let all: BTreeSet<(&str, u32)> =
        outline.references.iter().map(|used| (used.name.as_str(), used.revision.unwrap_or(0))).collect();
    all.into_iter().map(|(name, revision)| v1::DefinitionUse { name: name.to_owned(), revision }).collect()
}

async fn check_room(
    state: &dyn muster_state::StateBackend,
    namespace: &str,
    at: Revision,
    fresh: usize,
) -> Result<(), Status> {
    let mut scan = Scan { prefix: keys::definitions_of(namespace), at: Some(at), ..Scan::default() };
    let mut count = fresh;
    loop {
        let page = state.scan_keys(Keyspace::Definitions, scan.clone()).await.map_err(store)?;
        count += page.entries.len();
        if count > DEFINITIONS_MAX {
            return Err(Status::failed_precondition(format!(
                "namespace {namespace} would have more than DEFINITIONS_MAX = {DEFINITIONS_MAX} names of definitions, those no longer used \
                 counted: use another namespace, or parameters instead of copies"
            )));
        }
        match page.next {
            Some(after) => scan.after = Some(after),
            None => return Ok(()),
        }
    }
}

/// Whether it landed; if not, something was edited meanwhile.
async fn commit(shared: &Shared, namespace: &str, at: Revision, next: &[Next<'_>]) -> Result<bool, Status> {
    let put =
        |key, value: Result<bytes::Bytes, _>| value.map(|value| Op::Put { key, value, session: None }).map_err(store);
    let mut contents: BTreeMap<muster_state::Key, Op> = BTreeMap::new();
    let mut ops = Vec::new();
    for Next { draft, record } in next {
        let content = [(&draft.digest, &draft.text.spec), (&draft.text_digest, &draft.text.text)];
        for (digest, text) in content {
            let key = keys::definition_content(namespace, &record.id, digest);
            let value = storage::DefinitionContent { content: text.clone().into_bytes() };
            contents.insert(key.clone(), put(key, codec::encode(&value))?);
        }
        let revision = storage::DefinitionRevision {
            digest: draft.digest.clone(),
            text_digest: draft.text_digest.clone(),
            format: draft.text.format.clone(),
            uses: record.uses.clone(),
            defined_at_ms: record.defined_at_ms,
        };
        let key = keys::definition_revision(namespace, &record.id, record.latest);
        ops.push(put(key, codec::encode(&revision))?);
        ops.push(put(keys::definition(namespace, &draft.name), codec::encode(record))?);
    }
    let state = &*shared.options.state;
    let identity = shared.presence().identity;
    let epoch = Guard::AtRevision(keys::epoch(), identity.epoch_revision);
    let bytes: usize = next.iter().map(|next| next.draft.text.encoded_len()).sum();
    if bytes <= TXN_BYTES_MAX / 2 && next.len() <= DEFINED_AT_ONCE_MAX / 2 {
        ops.extend(contents.into_values());
    } else if !write_blobs(state, std::slice::from_ref(&epoch), contents.into_values().collect())
        .await
        .map_err(store)?
    {
        // Of no effect without the names; the same digest is the same content, whoever writes it.
        return Err(unavailable("the store's epoch has changed just now"));
    }
    let txn = Txn { guards: vec![epoch, names_unchanged(namespace, at)], ops, read_on_failure: vec![keys::epoch()] };
    match send_until_known(state, txn).await.map_err(store)? {
        TxnOutcome::Committed(revision) => {
            for Next { draft, record } in next {
                tracing::info!(namespace, name = draft.name, revision = record.latest, store = revision, "defined");
            }
            Ok(true)
        }
        TxnOutcome::Refused { read, .. } => {
            let epoch = read.into_iter().next().flatten().map(|entry| entry.mod_revision);
            if epoch != Some(identity.epoch_revision) {
                return Err(unavailable("the store's epoch has changed just now"));
            }
            Ok(false)
        }
    }
}
