//! Schedules: definitions that are run by themselves.

use muster_proto::v1;
use muster_proto::v1::schedules_client::SchedulesClient;
use tonic::transport::Channel;

use crate::call::Repeat;
use crate::submission::submitted;
use crate::{Client, Error, Submitted, idempotency_key};

fn schedules(channel: Channel) -> SchedulesClient<Channel> {
    SchedulesClient::new(channel)
}

impl Client {
    /// Makes a schedule, or replaces what it says.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for one that cannot be meant, or whose definition cannot be run like that, and what any call can
    /// meet.
    pub async fn set_schedule(&self, request: v1::SetScheduleRequest) -> Result<v1::ScheduleView, Error> {
        self.call("set", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            Ok(schedules(channel).set_schedule(request.clone()).await?.into_inner())
        })
        .await
    }

    /// The schedules of a namespace, or of all for an empty one, by name.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn list_schedules(&self, namespace: &str) -> Result<Vec<v1::ScheduleView>, Error> {
        let request = v1::ListSchedulesRequest { namespace: namespace.to_owned() };
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(schedules(channel).list_schedules(request.clone()).await?.into_inner().schedules)
        })
        .await
    }

    /// A schedule with so many of its coming times.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn schedule(&self, namespace: &str, name: &str, times: u32) -> Result<v1::ScheduleView, Error> {
        let request = v1::GetScheduleRequest { namespace: namespace.to_owned(), name: name.to_owned(), times };
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(schedules(channel).get_schedule(request.clone()).await?.into_inner())
        })
        .await
    }

    /// Deletes a schedule; its jobs go on.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn delete_schedule(&self, namespace: &str, name: &str) -> Result<(), Error> {
        let request = v1::DeleteScheduleRequest { namespace: namespace.to_owned(), name: name.to_owned() };
        // A second one that finds nothing would be reported as a mistake.
        self.call("delete", Repeat::Never, self.options().call_timeout, async |channel| {
            schedules(channel).delete_schedule(request.clone()).await?;
            Ok(())
        })
        .await
    }

    /// Pauses a schedule; or, with `undo`, lets it go on from now.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn pause_schedule(&self, namespace: &str, name: &str, undo: bool) -> Result<(), Error> {
        let request = v1::PauseScheduleRequest { namespace: namespace.to_owned(), name: name.to_owned(), undo };
        self.call("pause", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            schedules(channel).pause_schedule(request.clone()).await?;
            Ok(())
        })
        .await
    }

    /// Runs a schedule's definition once, now.
    ///
    /// # Errors
    /// [`Error::NotFound`], what running a definition can meet, and what any call can.
    pub async fn run_schedule(&self, namespace: &str, name: &str) -> Result<Submitted, Error> {
        let key = idempotency_key();
        let request = v1::RunScheduleRequest {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            idempotency_key: key.clone(),
        };
        let sent = self
            .call("run", Repeat::Idempotent, self.options().call_timeout, async |channel| {
                Ok(schedules(channel).run_schedule(request.clone()).await?.into_inner())
            })
            .await;
        submitted(sent, key, true)
    }
}
