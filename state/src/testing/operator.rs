//! What is done to etcd from outside, on purpose: compacting, revoking a lease, looking for the leader and for alarms.

use std::io;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Client, ConnectOptions};

use super::etcd::{Etcd, EtcdCluster};

/// One call to one member.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a member says of itself.
#[derive(Debug, Clone, Copy)]
pub struct MemberStatus {
    /// Its id.
    pub member: u64,
    /// The id of its leader; 0: it knows none.
    pub leader: u64,
    /// Rises with each election.
    pub term: u64,
    /// Of its database, in bytes.
    pub database_bytes: i64,
}

impl Etcd {
    async fn client(&self) -> Result<Client, etcd_client::Error> {
        let options = ConnectOptions::new().with_connect_timeout(CALL_TIMEOUT).with_timeout(CALL_TIMEOUT);
        Client::connect([self.endpoint()], Some(options)).await
    }

    /// What it says of itself; nothing if it does not answer.
    pub async fn status(&self) -> Option<MemberStatus> {
        let status = self.client().await.ok()?.status().await.ok()?;
        Some(MemberStatus {
            member: status.header()?.member_id(),
            leader: status.leader(),
            term: status.raft_term(),
            database_bytes: status.db_size(),
        })
    }

    async fn compact(&self) -> Result<i64, etcd_client::Error> {
        let mut client = self.client().await?;
        let now = client.get("now", None).await?.header().map_or(0, etcd_client::ResponseHeader::revision);
        client.compact(now, None).await?;
        Ok(now)
    }

    async fn revoke_lease_of(&self, key: &str) -> Result<bool, etcd_client::Error> {
        let mut client = self.client().await?;
        let lease = client.get(key, None).await?.kvs().first().map_or(0, etcd_client::KeyValue::lease);
        if lease != 0 {
            client.lease_revoke(lease).await?;
        }
        Ok(lease != 0)
    }

    async fn alarms(&self) -> Result<Vec<u64>, etcd_client::Error> {
        let answer = self.client().await?.alarm(AlarmAction::Get, AlarmType::None, None).await?;
        Ok(answer.alarms().iter().filter(|a| a.alarm() == AlarmType::Nospace).map(|a| a.member_id()).collect())
    }
}

impl EtcdCluster {
    /// Which member leads, as it says itself.
    pub async fn leader(&self) -> Option<usize> {
        for (number, member) in self.members.iter().enumerate() {
            if member.is_paused() {
                continue;
            }
            if let Some(status) = member.status().await
                && status.leader == status.member
            {
                return Some(number);
            }
        }
        None
    }

    /// Compacts everything up to now, and answers up to where.
    pub async fn compact(&self) -> io::Result<i64> {
        self.any(async |member| member.compact().await).await
    }

    /// Revokes the lease of a stored key. Answers whether it had one.
    pub async fn revoke_lease_of(&self, key: &str) -> io::Result<bool> {
        self.any(async |member| member.revoke_lease_of(key).await).await
    }

    /// The members that have raised NOSPACE.
    pub async fn without_space(&self) -> io::Result<Vec<u64>> {
        self.any(async |member| member.alarms().await).await
    }

    /// The answer of the first member that gives one.
    async fn any<T>(&self, ask: impl AsyncFn(&Etcd) -> Result<T, etcd_client::Error>) -> io::Result<T> {
        let mut last = io::Error::other("no member runs");
        for member in self.members.iter().filter(|member| !member.is_paused()) {
            match ask(member).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = io::Error::other(error),
            }
        }
        Err(last)
    }
}
