//! For tests, here and in other crates (feature `testing`): real etcd processes on free loopback ports, and waiting for
//! a condition with a deadline.

mod backup;
mod etcd;
mod operator;

use std::time::Duration;

use crate::codec::Kind;

pub use etcd::{Etcd, EtcdCluster, Place};
pub use operator::MemberStatus;

/// The same record as a version of this program would have written it that is one version ahead.
///
/// # Panics
/// When it is no record.
#[must_use]
pub fn of_a_newer_version(record: &[u8]) -> Vec<u8> {
    /// Magic stands before them, a checksum of all of it at the end.
    const KIND: usize = 1;
    const VERSION: usize = 2;
    const CHECKSUM: usize = 4;
    let mut newer = record[..record.len() - CHECKSUM].to_vec();
    let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == newer[KIND]).expect("every record is of a kind");
    newer[VERSION] = kind.version() + 1;
    newer.extend(crc32fast::hash(&newer).to_le_bytes());
    newer
}

/// How long a test waits for what should happen soon. Generous: test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until the answer is there; panics after [`PATIENCE`], saying what was waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Awaits a future; panics after [`PATIENCE`], saying what was waited for.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
