//! How full the store is, and what its members complain of: looked at by every scheduler, since each has to know whether
//! it may accept anything. What is done about it is the janitor's ([`crate::janitor`]).

use std::sync::Arc;
use std::time::Duration;

use muster_state::{Alarm, StoreStatus};
use tokio::time::Instant;

use crate::shared::Shared;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two looks while it is full: so much later than the room is there, the cluster accepts again.
const LOOK_WHEN_FULL_EVERY: Duration = Duration::from_millis(500);
/// From this share of the quota on, an operator is told.
const WARN_FROM_PERCENT: u64 = 70;
/// But not more often than this.
const WARN_EVERY: Duration = Duration::from_secs(600);
/// Older ones work, with bugs that were mended since: of watches after a compaction, and of a crash during
/// defragmentation.
const RECOMMENDED: (u32, u32) = (3, 5);

/// Looks for ever.
pub(crate) async fn keep_looking(shared: Arc<Shared>) {
    let mut full = shared.health.full_changes();
    let mut warned: Option<Instant> = None;
    let mut versions_told = false;
    loop {
        match shared.options.state.status().await {
            Ok(status) => {
                if !versions_told {
                    tell_versions(&status);
                    versions_told = true;
                }
                shared.health.set_full(why_full(&status));
                let in_use = status.in_use_bytes();
                shared.health.set_filled(quota(&status, shared.options.store_quota).map(|quota| (in_use, quota)));
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) && warn(&status, shared.options.store_quota) {
                    warned = Some(Instant::now());
                }
            }
            Err(error) => tracing::debug!(%error, "the store does not say how it is"),
        }
        let pause = if full.borrow_and_update().is_some() { LOOK_WHEN_FULL_EVERY } else { LOOK_EVERY };
        // Sooner when a write was refused meanwhile.
        let _ = tokio::time::timeout(pause, full.changed()).await;
    }
}

/// Beyond how many bytes the store takes no writes.
pub(crate) fn quota(status: &StoreStatus, told: u64) -> Option<u64> {
    let from_members = status.members.iter().filter_map(|member| member.quota_bytes).min();
    status.has_quota.then(|| from_members.unwrap_or(told))
}

/// Which members have used up their quota.
pub(crate) fn why_full(status: &StoreStatus) -> Option<String> {
    let names: Vec<&str> = status.with_alarm(Alarm::NoSpace).map(|member| member.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("the store's quota is used up (alarm NOSPACE of {})", names.join(", ")))
}

fn warn(status: &StoreStatus, told: u64) -> bool {
    let corrupt: Vec<&str> = status.with_alarm(Alarm::Corrupt).map(|member| member.name.as_str()).collect();
    if !corrupt.is_empty() {
        tracing::error!(members = corrupt.join(", "), "the store says that its members' data differ (alarm CORRUPT)");
    }
    let size = status.size_bytes();
    let quota = quota(status, told).filter(|quota| size.saturating_mul(100) >= quota.saturating_mul(WARN_FROM_PERCENT));
    if let Some(quota) = quota {
        let in_use = status.in_use_bytes();
        tracing::warn!(size, in_use, quota, "the store fills up; when the quota is used up, nothing new is accepted");
    }
    quota.is_some() || !corrupt.is_empty()
}

fn tell_versions(status: &StoreStatus) {
    let (major, minor) = RECOMMENDED;
    for member in status.members.iter().filter(|member| !member.is_at_least(major, minor)) {
        tracing::warn!(
            member = member.name,
            version = member.version,
            "this etcd is older than {major}.{minor}, which is recommended: upgrade it"
        );
    }
}

#[cfg(test)]
mod tests {
    use muster_state::Member;

    use super::*;

    fn full_to(size_bytes: u64, quota_bytes: Option<u64>) -> StoreStatus {
        StoreStatus { has_quota: true, members: vec![Member { size_bytes, quota_bytes, ..Member::default() }] }
    }

    #[test]
    fn an_operator_is_warned_from_seven_tenths_of_the_quota_on() {
        for (size, told, members_quota, expected) in
            [(69, 100, None, false), (70, 100, None, true), (70, 1000, Some(100), true), (70, 10, Some(1000), false)]
        {
            assert_eq!(warn(&full_to(size, members_quota), told), expected, "{size} of {told} or {members_quota:?}");
        }
        let unbounded = StoreStatus { has_quota: false, ..full_to(u64::MAX, None) };
        assert!(!warn(&unbounded, 100) && quota(&unbounded, 100).is_none());
    }
}
