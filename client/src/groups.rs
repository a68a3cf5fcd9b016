//! Groups of jobs: a tree in each namespace.
//!
//! A group is named by its path or by `id:` and its id, the root by nothing or `/`; an empty namespace is the default one.

use muster_proto::v1;
use muster_proto::v1::groups_client::GroupsClient;
use tonic::transport::Channel;

use crate::call::Repeat;
use crate::client::{ANSWER_BYTES_MAX, Client};
use crate::error::Error;
use crate::resumed::Resumed;

fn groups(channel: Channel) -> GroupsClient<Channel> {
    // A page of groups with many attributes is larger than gRPC's default limit.
    GroupsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Whether all jobs of the group, and of those in it, are over. New jobs, and retries, change that again.
#[must_use]
pub fn is_complete(view: &v1::GroupView) -> bool {
    view.jobs.as_ref().is_none_or(|jobs| jobs.live == 0)
}

impl Client {
    /// Makes a group. What is said of it when it is made stays; the same again is the same group.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no group that it could be in; [`Error::AlreadyExists`] when there is one of that path that
    /// was made otherwise; [`Error::Precondition`] when it, or a group around it, is cancelled; [`Error::InvalidArgument`] for a
    /// path that is none; and what any call can meet.
    pub async fn create_group(&self, request: v1::CreateGroupRequest) -> Result<v1::GroupView, Error> {
        self.call("create", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            Ok(groups(channel).create_group(request.clone()).await?.into_inner())
        })
        .await
    }

    /// The group now.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn group(&self, namespace: &str, group: &str) -> Result<v1::GroupView, Error> {
        let request = v1::GetGroupRequest { namespace: namespace.to_owned(), group: group.to_owned() };
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(groups(channel).get_group(request.clone()).await?.into_inner())
        })
        .await
    }

    /// One page of a group and those in it, each behind the one that it is in.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn list_groups_page(&self, request: v1::ListGroupsRequest) -> Result<v1::ListGroupsResponse, Error> {
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(groups(channel).list_groups(request.clone()).await?.into_inner())
        })
        .await
    }

    /// The same, page by page: all of them down to `depth` levels below the group; 0: however deep.
    ///
    /// # Errors
    /// As [`Client::list_groups_page`].
    pub async fn list_groups(&self, namespace: &str, group: &str, depth: u32) -> Result<Vec<v1::GroupView>, Error> {
        let mut request = v1::ListGroupsRequest {
            namespace: namespace.to_owned(),
            group: group.to_owned(),
            depth,
            ..Default::default()
        };
        let mut found = Vec::new();
        loop {
            let page = self.list_groups_page(request.clone()).await?;
            found.extend(page.groups);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Cancels the group with all that is in it. After the answer no task of any of its jobs is assigned but those of `always` stages,
    /// and nothing new gets into it.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn cancel_group(&self, namespace: &str, group: &str, reason: &str) -> Result<(), Error> {
        let request = v1::CancelGroupRequest {
            namespace: namespace.to_owned(),
            group: group.to_owned(),
            reason: reason.to_owned(),
        };
        self.call("cancel", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            groups(channel).cancel_group(request.clone()).await?;
            Ok(())
        })
        .await
    }

    /// The group now, then again whenever it is seen to have changed, at most once a second, until it is complete.
    #[must_use]
    pub fn watch_group(&self, namespace: &str, group: &str) -> GroupWatch {
        let request = v1::WatchGroupRequest { namespace: namespace.to_owned(), group: group.to_owned() };
        GroupWatch { request, views: Resumed::new(self.clone()) }
    }

    /// Waits until the group is complete. One without any job is.
    ///
    /// # Errors
    /// As [`GroupWatch::next`].
    pub async fn wait_group(&self, namespace: &str, group: &str) -> Result<v1::GroupView, Error> {
        let mut watch = self.watch_group(namespace, group);
        while let Some(view) = watch.next().await? {
            if is_complete(&view) {
                return Ok(view);
            }
        }
        Err(Error::Internal(format!("the watch of group '{group}' ended before the group was complete")))
    }
}

/// Views of a group as it changes. Made by [`Client::watch_group`].
#[derive(Debug)]
pub struct GroupWatch {
    request: v1::WatchGroupRequest,
    views: Resumed<v1::GroupView>,
}

impl GroupWatch {
    /// The next view that differs from the last one, `None` after that of a complete group.
    ///
    /// Cancel-safe: dropping the future loses no view.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] after [`Options::stream_timeout`](crate::Options::stream_timeout)
    /// without a word from any scheduler; and what any call can meet.
    pub async fn next(&mut self) -> Result<Option<v1::GroupView>, Error> {
        if self.views.last().is_some_and(is_complete) {
            return Ok(None);
        }
        loop {
            if let Some(view) = self.views.next().await? {
                return Ok(Some(view));
            }
            let patience = self.views.patience();
            let request = self.request.clone();
            let client = self.views.client().clone();
            let opened = client
                .call("read", Repeat::Read, patience, async |channel| {
                    Ok(groups(channel).watch_group(request.clone()).await?.into_inner())
                })
                .await?;
            self.views.opened(opened);
        }
    }
}
