//! Definitions, for users.

use std::collections::BTreeMap;

use muster_graph::spec::{self, NoFiles};
use muster_proto::storage::{DefinitionRecord, DefinitionRevision};
use muster_proto::v1;
use muster_proto::v1::definitions_server::Definitions;
use muster_state::{StateBackend, codec, keys};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::Api;
use crate::accept::store;
use crate::definitions::{self, checked, namespace, shelf_of};

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
        let accepted = definitions::run(&self.shared, request.into_inner(), None).await?;
        Ok(Response::new(accepted.into()))
    }
}
