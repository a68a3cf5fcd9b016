//! Definitions, for users; and making jobs of them.

use std::collections::BTreeMap;

use muster_graph::spec::{self, NoFiles};
use muster_proto::storage::{DefinitionRecord, DefinitionRevision};
use muster_proto::v1::definitions_server::Definitions;
use muster_proto::{blob, convert, v1};
use muster_state::{StateBackend, codec, keys};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::Api;
use crate::accept::{self, Submission, store};
use crate::definitions::{self, Root, Shelf};

/// A namespace that can be one; nothing means the one that specs are in that name none.
fn namespace(name: String) -> Result<String, Status> {
    match name.as_str() {
        "" => Ok("default".to_owned()),
        given if spec::is_namespace(given) => Ok(name),
        other => Err(Status::invalid_argument(format!(
            "namespace: '{}' cannot name one: a-z, 0-9 and -, a letter or digit first and last",
            other.escape_debug()
        ))),
    }
}

/// A definition's name that the store can look up.
fn checked(name: &str) -> Result<(), Status> {
    let fits = (1..=definitions::DEFINITION_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
    if fits { Ok(()) } else { Err(Status::invalid_argument("name: give the name of a definition, on one line")) }
}

/// In lists.
fn listed(namespace: String, name: String, record: DefinitionRecord) -> v1::DefinitionView {
    v1::DefinitionView {
        namespace,
        name,
        revision: record.latest,
        latest: record.latest,
        defined_at_ms: record.defined_at_ms,
        uses: record.uses,
        ..v1::DefinitionView::default()
    }
}

/// One definition and all that it refers to. NOT_FOUND: there is none, or not that revision.
async fn shelf_of(
    state: &dyn StateBackend,
    namespace: &str,
    name: &str,
    revision: u32,
) -> Result<(Shelf, u32, DefinitionRecord), Status> {
    checked(name)?;
    let revision = (revision > 0).then_some(revision);
    let shelf = definitions::load(state, namespace, Shelf::default(), Root::Named(name.to_owned(), revision)).await?;
    let record = shelf.names.get(name).cloned().unwrap_or_default();
    match definitions::number(Some(&record), revision) {
        Some(number) => Ok((shelf, number, record)),
        None if record.id.is_empty() => Err(definitions::unknown(namespace, name, &record.renamed_to)),
        None => Err(Status::not_found(format!(
            "{name} has no revision {}: the newest one is {}",
            revision.unwrap_or_default(),
            record.latest
        ))),
    }
}

/// A revision as it was written.
async fn text(
    state: &dyn StateBackend,
    namespace: &str,
    id: &str,
    record: &DefinitionRevision,
    at: muster_state::Revision,
) -> Result<v1::DefinitionText, Status> {
    Ok(v1::DefinitionText {
        spec: definitions::content(state, namespace, id, &record.digest, at).await?,
        text: definitions::content(state, namespace, id, &record.text_digest, at).await?,
        format: record.format.clone(),
    })
}

#[tonic::async_trait]
impl Definitions for Api {
    async fn define(&self, request: Request<v1::DefineRequest>) -> Result<Response<v1::DefineResponse>, Status> {
        self.shared.health.check_writable()?;
        let definitions = definitions::define(&self.shared, request.into_inner().definitions).await?;
        Ok(Response::new(v1::DefineResponse { definitions }))
    }

    async fn list_definitions(
        &self,
        request: Request<v1::ListDefinitionsRequest>,
    ) -> Result<Response<v1::ListDefinitionsResponse>, Status> {
        let message = request.into_inner();
        let wanted = if message.namespace.is_empty() { String::new() } else { namespace(message.namespace)? };
        let (names, _) = definitions::names(&*self.shared.options.state, &wanted).await?;
        let definitions = names.into_iter().map(|(namespace, name, record)| listed(namespace, name, record)).collect();
        Ok(Response::new(v1::ListDefinitionsResponse { definitions }))
    }

    async fn get_definition(
        &self,
        request: Request<v1::GetDefinitionRequest>,
    ) -> Result<Response<v1::DefinitionView>, Status> {
        let message = request.into_inner();
        let namespace = namespace(message.namespace)?;
        let state = &*self.shared.options.state;
        checked(&message.name)?;
        let (names, at) = definitions::names(state, &namespace).await?;
        let used_by = definitions::users(&names, &message.name);
        let record = names.into_iter().find(|(_, name, _)| *name == message.name).map(|(.., record)| record);
        let Some(record) = record else {
            // Says what it is called now, if it is.
            return Err(match shelf_of(state, &namespace, &message.name, 0).await {
                Err(status) => status,
                Ok(_) => definitions::unknown(&namespace, &message.name, ""),
            });
        };
        let number = if message.revision == 0 { record.latest } else { message.revision };
        let key = keys::definition_revision(&namespace, &record.id, number);
        let entry = state.get(&key).await.map_err(store)?.ok_or_else(|| {
            Status::not_found(format!("{} has no revision {number}: the newest one is {}", message.name, record.latest))
        })?;
        let revision: DefinitionRevision = codec::decode(&key, &entry.value).map_err(store)?;
        let text = text(state, &namespace, &record.id, &revision, at).await?;
        Ok(Response::new(v1::DefinitionView {
            namespace,
            name: message.name,
            revision: number,
            latest: record.latest,
            defined_at_ms: revision.defined_at_ms,
            text: Some(text),
            uses: revision.uses,
            used_by,
        }))
    }

    async fn undefine(&self, request: Request<v1::UndefineRequest>) -> Result<Response<v1::UndefineResponse>, Status> {
        self.shared.health.check_writable()?;
        let message = request.into_inner();
        checked(&message.name)?;
        let namespace = namespace(message.namespace)?;
        let used_by = definitions::undefine(&self.shared, &namespace, &message.name, message.force).await?;
        Ok(Response::new(v1::UndefineResponse { used_by }))
    }

    async fn rename_definition(
        &self,
        request: Request<v1::RenameDefinitionRequest>,
    ) -> Result<Response<v1::RenameDefinitionResponse>, Status> {
        self.shared.health.check_writable()?;
        let message = request.into_inner();
        checked(&message.name)?;
        let namespace = namespace(message.namespace)?;
        let used_by = definitions::rename(&self.shared, &namespace, &message.name, &message.to, message.force).await?;
        Ok(Response::new(v1::RenameDefinitionResponse { used_by }))
    }

    async fn export_definition(
        &self,
        request: Request<v1::GetDefinitionRequest>,
    ) -> Result<Response<v1::ExportDefinitionResponse>, Status> {
        let message = request.into_inner();
        let namespace = namespace(message.namespace)?;
        let state = &*self.shared.options.state;
        let (shelf, ..) = shelf_of(state, &namespace, &message.name, message.revision).await?;
        let mut definitions = Vec::new();
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        let mut bytes = 0;
        for (name, revision, book) in shelf.in_order() {
            if let Some(other) = seen.insert(name, revision) {
                return Err(Status::failed_precondition(format!(
                    "{} is made of two revisions of {name} ({other} and {revision}), and a bundle holds one of each: refer to one of them",
                    message.name
                )));
            }
            let id = shelf.names.get(name).map_or("", |record| record.id.as_str());
            let mut text = text(state, &namespace, id, &book.record, shelf.at).await?;
            let wrong = |problems: spec::Problems| Status::internal(problems.to_string());
            if book.spec_name != name {
                // It was renamed: what refers to it does so by the new name, which its text does not know.
                text.spec = book.template.clone().named(name).canonical(&NoFiles).map_err(wrong)?;
                (text.text, text.format) = (text.spec.clone(), "json".to_owned());
            }
            bytes += text.encoded_len();
            if bytes > muster_proto::MESSAGE_BYTES_MAX - 1024 {
                return Err(Status::failed_precondition(format!(
                    "the bundle has more than MESSAGE_BYTES_MAX = {} bytes: export what {} is made of one by one",
                    muster_proto::MESSAGE_BYTES_MAX,
                    message.name
                )));
            }
            definitions.push(text);
        }
        Ok(Response::new(v1::ExportDefinitionResponse { definitions }))
    }

    async fn run_definition(
        &self,
        request: Request<v1::RunDefinitionRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        self.shared.health.check_writable()?;
        let mut message = request.into_inner();
        let key = std::mem::take(&mut message.idempotency_key);
        let namespace = namespace(std::mem::take(&mut message.namespace))?;
        message.namespace.clone_from(&namespace);
        // Under one key the same must be asked for. What came of it then is the job's, whatever became of the definition.
        let request_digest = blob::digest(&message.encode_to_vec());
        if let Some(accepted) = accept::known(&self.shared, &namespace, &key, &request_digest).await? {
            return Ok(Response::new(v1::SubmitResponse {
                job_id: accepted.id.to_string(),
                existed: accepted.existed,
            }));
        }
        let state = &*self.shared.options.state;
        let (shelf, revision, _) = shelf_of(state, &namespace, &message.name, message.revision).await?;
        let arguments = message.arguments.into_iter().map(|(name, value)| (name, convert::argument(value))).collect();
        let wrong = |problems: spec::Problems| Status::invalid_argument(problems.to_string());
        let book = match shelf.book(&message.name, revision) {
            Some(Ok(book)) => book,
            Some(Err(why)) => {
                let why = format!("revision {revision} of {} cannot be read: {why}", message.name);
                return Err(Status::failed_precondition(why));
            }
            None => return Err(definitions::unknown(&namespace, &message.name, "")),
        };
        let mut job =
            book.template.draft(&arguments).and_then(|draft| draft.resolve(&NoFiles)).map_err(|problems| {
                // Their places are those of its JSON, which nobody has seen.
                wrong(spec::Problems(
                    problems.into_iter().map(|problem| spec::Problem { place: None, ..problem }).collect(),
                ))
            })?;
        // As it is called now, wherever its text was written for.
        job.name.clone_from(&message.name);
        job.namespace = namespace;
        job.env.extend(message.env);
        let itself = v1::DefinitionUse { name: message.name, revision };
        let submission =
            Submission { job, key, request_digest: Some(request_digest), shelf: Some(shelf), itself: Some(itself) };
        let accepted = accept::accept(&self.shared, submission).await?;
        Ok(Response::new(v1::SubmitResponse { job_id: accepted.id.to_string(), existed: accepted.existed }))
    }
}
