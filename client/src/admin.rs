//! What those who run a cluster ask of it.

use muster_proto::v1;
use muster_proto::v1::admin_client::AdminClient;

use crate::call::Repeat;
use crate::{Client, Error};

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
}
