//! etcd's members one by one: how full each is, what it complains of, and what is done about that.
//!
//! Invariants: a member that does not answer is said to be unreachable and keeps nobody from asking the others; each
//! alarm is disarmed by its member's number, so that one that another member raises meanwhile stays.

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use futures::future::join_all;

use super::Etcd;
use super::calls::{Nature, classify};
use crate::{Alarm, Error, Member, StoreStatus};

/// One member's answer about itself.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// A member rewrites its whole file: a few seconds for each GiB on a slow disk, and its quota is 8 GiB at most as etcd
/// advises.
const DEFRAGMENT_TIMEOUT: Duration = Duration::from_secs(60);

impl Etcd {
    pub(super) async fn members_status(&self) -> Result<StoreStatus, Error> {
        let members = &self.inner.members;
        let mut told: Vec<Member> = Vec::new();
        for member in join_all((0..members.len()).map(|number| self.one_status(number))).await {
            // Behind a load balancer several addresses lead to one member.
            if member.id == 0 || told.iter().all(|known| known.id != member.id) {
                told.push(member);
            }
        }
        let alarms = members
            .call(Nature::Repeatable, |client| async move {
                client.maintenance_client().alarm(AlarmAction::Get, AlarmType::None, None).await
            })
            .await?;
        for raised in alarms.alarms() {
            let alarm = match raised.alarm() {
                AlarmType::Nospace => Alarm::NoSpace,
                AlarmType::Corrupt => Alarm::Corrupt,
                AlarmType::None => continue,
            };
            match told.iter_mut().find(|member| member.id == raised.member_id()) {
                Some(member) => member.alarms.push(alarm),
                None => told.push(Member {
                    name: format!("member {:x}", raised.member_id()),
                    id: raised.member_id(),
                    alarms: vec![alarm],
                    unreachable: Some("no address of it is known, or it does not answer".to_owned()),
                    ..Member::default()
                }),
            }
        }
        Ok(StoreStatus { has_quota: true, members: told })
    }

    async fn one_status(&self, number: usize) -> Member {
        let name = self.inner.members.endpoint(number).to_owned();
        let asking = async {
            let client = self.inner.members.client(number).await?;
            client.maintenance_client().status().await
        };
        let unreachable = |why: String| Member { name: name.clone(), unreachable: Some(why), ..Member::default() };
        match tokio::time::timeout(STATUS_TIMEOUT, asking).await {
            Err(_) => unreachable(format!("no answer within {STATUS_TIMEOUT:?}")),
            Ok(Err(error)) => unreachable(error.to_string()),
            Ok(Ok(status)) => {
                let id = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
                Member {
                    id,
                    version: status.version().to_owned(),
                    size_bytes: status.db_size().unsigned_abs(),
                    in_use_bytes: status.raft_used_db_size().unsigned_abs(),
                    // Told from 3.6 on.
                    quota_bytes: Some(status.db_size_quota().unsigned_abs()).filter(|quota| *quota > 0),
                    is_leader: id != 0 && status.leader() == id,
                    name,
                    ..Member::default()
                }
            }
        }
    }

    /// The number of the address that leads to a member.
    async fn number_of(&self, member: u64) -> Result<usize, Error> {
        for number in 0..self.inner.members.len() {
            if self.one_status(number).await.id == member {
                return Ok(number);
            }
        }
        Err(Error::Unavailable(format!("member {member:x} is not reachable at any of the addresses given")))
    }

    pub(super) async fn defragment_member(&self, member: u64) -> Result<(), Error> {
        let number = self.number_of(member).await?;
        let asking = async {
            let client = self.inner.members.client(number).await?;
            client.maintenance_client().defragment().await
        };
        match tokio::time::timeout(DEFRAGMENT_TIMEOUT, asking).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(classify(&error, Nature::Repeatable)),
            Err(_) => Err(Error::Unavailable(format!("it was not defragmented within {DEFRAGMENT_TIMEOUT:?}"))),
        }
    }

    pub(super) async fn disarm_member(&self, member: u64) -> Result<(), Error> {
        self.inner
            .members
            .call(Nature::Repeatable, |client| async move {
                let mut options = AlarmOptions::new();
                options.with_member(member);
                client.maintenance_client().alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options)).await
            })
            .await
            .map(drop)
    }
}
