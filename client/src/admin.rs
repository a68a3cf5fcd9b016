//! What those who run a cluster ask of it.

use std::time::Duration;

use muster_proto::v1;
use muster_proto::v1::admin_client::AdminClient;

use crate::call::Repeat;
use crate::{Client, Error};

/// Of an audit: millions of heads are read.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

impl Client {
    /// How the cluster's store is.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn store(&self) -> Result<v1::StoreView, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            Ok(AdminClient::new(channel).get_store(v1::GetStoreRequest {}).await?.into_inner())
        })
        .await
    }

    /// Begins a new epoch of the store: takes one that was restored from a backup on as it is.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn recover(&self) -> Result<v1::RecoverResponse, Error> {
        let patience = self.options().call_timeout;
        self.call("recover", Repeat::Never, patience, async |channel| {
            Ok(AdminClient::new(channel).recover(v1::RecoverRequest {}).await?.into_inner())
        })
        .await
    }

    /// Counts everything anew that groups and finished jobs say of themselves, and says what differs; with `repair`, puts it right. Takes as
    /// long as reading the heads of all jobs does.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn audit(&self, repair: bool) -> Result<v1::AuditResponse, Error> {
        self.call("audit", Repeat::Read, AUDIT_TIMEOUT, async |channel| {
            Ok(AdminClient::new(channel).audit(v1::AuditRequest { repair }).await?.into_inner())
        })
        .await
    }
}
