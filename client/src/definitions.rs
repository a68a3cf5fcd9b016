//! Definitions: specs that the cluster keeps.

use muster_proto::v1;
use muster_proto::v1::definitions_client::DefinitionsClient;
use tonic::transport::Channel;

use crate::call::Repeat;
use crate::client::Client;
use crate::error::Error;
use crate::submission::{Submitted, idempotency_key, submitted};

fn definitions(channel: Channel) -> DefinitionsClient<Channel> {
    DefinitionsClient::new(channel).max_decoding_message_size(muster_proto::MESSAGE_BYTES_MAX)
}

impl Client {
    /// Defines all of them, of one namespace, or none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when one is wrong, refers to what there is not, or would contain itself; and what any call can
    /// meet.
    pub async fn define(&self, texts: Vec<v1::DefinitionText>) -> Result<Vec<v1::Defined>, Error> {
        let request = v1::DefineRequest { definitions: texts };
        // What is defined already is not defined again.
        self.call("define", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            Ok(definitions(channel).define(request.clone()).await?.into_inner().definitions)
        })
        .await
    }

    /// The definitions of a namespace, or of all.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn list_definitions(&self, namespace: Option<&str>) -> Result<Vec<v1::DefinitionView>, Error> {
        let request = v1::ListDefinitionsRequest { namespace: namespace.unwrap_or_default().to_owned() };
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(definitions(channel).list_definitions(request.clone()).await?.into_inner().definitions)
        })
        .await
    }

    /// One definition with its text.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn definition(&self, wanted: v1::GetDefinitionRequest) -> Result<v1::DefinitionView, Error> {
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(definitions(channel).get_definition(wanted.clone()).await?.into_inner())
        })
        .await
    }

    /// One definition and all that it refers to.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn export_definition(&self, wanted: v1::GetDefinitionRequest) -> Result<Vec<v1::DefinitionText>, Error> {
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(definitions(channel).export_definition(wanted.clone()).await?.into_inner().definitions)
        })
        .await
    }

    /// Removes a definition. Answers who referred to it.
    ///
    /// # Errors
    /// [`Error::Precondition`] when others refer to it and it is not forced; [`Error::NotFound`]; and what any call can meet.
    pub async fn undefine(&self, request: v1::UndefineRequest) -> Result<Vec<String>, Error> {
        self.call("undefine", Repeat::Never, self.options().call_timeout, async |channel| {
            Ok(definitions(channel).undefine(request.clone()).await?.into_inner().used_by)
        })
        .await
    }

    /// Calls a definition differently. Answers who still refers to the old name.
    ///
    /// # Errors
    /// [`Error::Precondition`] when others refer to it and it is not forced; [`Error::AlreadyExists`];
    /// [`Error::NotFound`]; and what any call can meet.
    pub async fn rename_definition(&self, request: v1::RenameDefinitionRequest) -> Result<Vec<String>, Error> {
        self.call("rename", Repeat::Never, self.options().call_timeout, async |channel| {
            Ok(definitions(channel).rename_definition(request.clone()).await?.into_inner().used_by)
        })
        .await
    }

    /// Makes a job of a definition. Its `idempotency_key` is as for [`Client::submit`]; empty: a fresh one.
    ///
    /// # Errors
    /// As [`Client::submit`]; [`Error::NotFound`] when there is no such definition.
    pub async fn run_definition(&self, mut request: v1::RunDefinitionRequest) -> Result<Submitted, Error> {
        let made_here = request.idempotency_key.is_empty();
        if made_here {
            request.idempotency_key = idempotency_key();
        }
        let sent = self
            .call("run", Repeat::Idempotent, self.options().call_timeout, async |channel| {
                Ok(definitions(channel).run_definition(request.clone()).await?.into_inner())
            })
            .await;
        submitted(sent, request.idempotency_key, made_here)
    }
}
