//! Updates: groups and jobs that are handed in bunch by bunch, and come into being all at once.
//!
//! Every call may be repeated, also by another process that knows the token and cuts the same bunches: what was staged stays staged once.

use muster_proto::v1;
use muster_proto::v1::updates_client::UpdatesClient;

use crate::call::Repeat;
use crate::client::Client;
use crate::error::Error;

impl Client {
    /// Opens an update, or finds that it was opened before.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a token that is none, and what any call can meet.
    pub async fn open_update(&self, namespace: &str, token: &str) -> Result<v1::UpdateView, Error> {
        let request = v1::OpenUpdateRequest { namespace: namespace.to_owned(), token: token.to_owned() };
        self.call("open", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            Ok(UpdatesClient::new(channel).open_update(request.clone()).await?.into_inner())
        })
        .await
    }

    /// Stages a bunch of groups and jobs. Several may be under way at once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when something in it is wrong: then nothing of it is staged; [`Error::AlreadyExists`] when a bunch of this number
    /// was staged with other content; [`Error::Precondition`] when the update is not open, or something would get into a cancelled
    /// group; and what any call can meet.
    pub async fn stage_update(&self, request: v1::StageUpdateRequest) -> Result<v1::StageUpdateResponse, Error> {
        self.call("stage", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            Ok(UpdatesClient::new(channel).stage_update(request.clone()).await?.into_inner())
        })
        .await
    }

    /// Has all that is staged exist: after the answer all of it does, before it nothing. The numbers are those of the groups and jobs in all its bunches.
    ///
    /// # Errors
    /// [`Error::Precondition`] when other numbers are staged, a group is missing, the root is cancelled, or the namespace may not have so
    /// many jobs; and what any call can meet.
    pub async fn commit_update(
        &self,
        namespace: &str,
        token: &str,
        (groups, jobs): (u64, u64),
    ) -> Result<v1::UpdateView, Error> {
        let request =
            v1::CommitUpdateRequest { namespace: namespace.to_owned(), token: token.to_owned(), groups, jobs };
        self.call("commit", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            Ok(UpdatesClient::new(channel).commit_update(request.clone()).await?.into_inner())
        })
        .await
    }

    /// The update now.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn update(&self, namespace: &str, token: &str) -> Result<v1::UpdateView, Error> {
        let request = v1::GetUpdateRequest { namespace: namespace.to_owned(), token: token.to_owned() };
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(UpdatesClient::new(channel).get_update(request.clone()).await?.into_inner())
        })
        .await
    }

    /// Gives an update up: nothing of it will ever exist.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when it is committed; and what any call can meet.
    pub async fn abandon_update(&self, namespace: &str, token: &str) -> Result<v1::UpdateView, Error> {
        let request = v1::AbandonUpdateRequest { namespace: namespace.to_owned(), token: token.to_owned() };
        self.call("abandon", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            Ok(UpdatesClient::new(channel).abandon_update(request.clone()).await?.into_inner())
        })
        .await
    }
}
