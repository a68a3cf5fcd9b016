//! From a URL to a store.

use std::sync::Arc;

use crate::{Embedded, Error, Etcd, EtcdOptions, Memory, StateBackend, limits};

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
        "redb" => {
            let directory = rest.strip_prefix("//").unwrap_or(rest);
            if directory.is_empty() {
                return Err(Error::Fatal(format!("'{url}' names no directory: give redb://DIRECTORY")));
            }
            Ok(Arc::new(Embedded::open(directory, cluster).await?))
        }
        "etcd" => Ok(Arc::new(Etcd::new(EtcdOptions::parse(rest)?, cluster)?)),
        _ => Err(Error::Fatal(format!("'{url}' has an unknown scheme '{scheme}': give {WAYS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_open_what_they_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        for url in [
            "memory:".to_owned(),
            format!("redb://{path}/a"),
            format!("redb:{path}/b"),
            "etcd://127.0.0.1:1".to_owned(),
        ] {
            open(&url, "test").await.unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }

    #[tokio::test]
    async fn bad_urls_are_refused_with_the_remedy() {
        for (url, part) in [
            ("nothing", "redb://DIRECTORY"),
            ("zookeeper://a:1", "'zookeeper'"),
            ("memory:x", "nothing after the colon"),
            ("redb://", "redb://DIRECTORY"),
            ("etcd:a:1", "etcd://"),
        ] {
            let error = open(url, "test").await.expect_err(url).to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
        assert!(open("memory:", "A/b").await.is_err(), "the cluster's name is part of keys");
    }
}
