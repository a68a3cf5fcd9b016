//! Room in a store whose quota is used up, or soon will be.
//!
//! A full store refuses every write but deletions. What frees room is: to forget all history, to have each member give back
//! what that leaves free, and then to disarm the alarm, by the name of each member that raised it. None of that is a
//! write, nothing is lost by it, and doing it twice is as good as once; so it can be done without a lock, where nobody
//! can take the lock since the store is full.

use std::time::Duration;

use muster_state::{Alarm, Error, Member, Revision, StateBackend, StoreStatus};
use tokio::time::Instant;

use crate::store_watch;

/// Between two messages that a store stays full.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// An alarm is disarmed when no more of the quota than this is taken up: with less room it would be back at once.
const ENOUGH_PERCENT: u64 = 80;
/// History is forgotten in the background, and other members may be behind: then the first time does not give everything back.
const DEFRAGMENT_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// From this share of the quota on, a member is told to give back what is free in it ...
const GIVE_BACK_FROM_PERCENT: u64 = 70;
/// ... if no more of its size than this is in use: giving back stops the member while it lasts.
const GIVE_BACK_IN_USE_PERCENT: u64 = 50;

fn percent_of(bytes: u64, whole: u64, percent: u64) -> bool {
    bytes.saturating_mul(100) <= whole.saturating_mul(percent)
}

/// What is known of a store that is full.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// The least size at which it was full: its quota is no larger, whatever was told.
    full_at: Option<u64>,
    /// As of which revision its members were defragmented last, and when.
    defragmented: Option<(Revision, Instant)>,
    /// When an operator was last told that it stays full.
    told_at: Option<Instant>,
}

impl Relief {
    /// Makes room, and disarms the alarms if there is enough. What is deleted only now is for the next call.
    pub(crate) async fn free(&mut self, state: &dyn StateBackend, quota_told: u64) -> Result<(), Error> {
        let before = state.status().await?;
        let Some(quota) = store_watch::quota(&before, quota_told) else { return Ok(()) };
        if before.with_alarm(Alarm::NoSpace).next().is_none() {
            return Ok(());
        }
        let quota = quota.min(*self.full_at.get_or_insert(before.size_bytes()));
        let revision = state.revision().await?;
        // What the newest revision deleted is forgotten too: nothing is written, so there may never be a newer one.
        state.compact(revision + 1).await?;
        // How much is in use a member knows only after further writes, and there are none now: so it is tried. A member
        // is away meanwhile, so it is tried again only when something was deleted, or after a while.
        if self.defragmented.is_none_or(|(at, when)| at != revision || when.elapsed() >= DEFRAGMENT_AGAIN_AFTER) {
            let mut members: Vec<&Member> = before.members.iter().filter(|m| m.unreachable.is_none()).collect();
            // One after the other, the leader last: a new one must be elected only once.
            members.sort_by_key(|member| member.is_leader);
            for member in members.into_iter().filter(|m| !percent_of(m.size_bytes, quota, ENOUGH_PERCENT)) {
                tracing::warn!(
                    member = member.name,
                    size = member.size_bytes,
                    "defragmenting a member of the full store"
                );
                state.defragment(member.id).await?;
            }
            self.defragmented = Some((revision, Instant::now()));
        }
        let after = state.status().await?;
        for member in after.with_alarm(Alarm::NoSpace) {
            if member.unreachable.is_none() && percent_of(member.size_bytes, quota, ENOUGH_PERCENT) {
                state.disarm_no_space(member.id).await?;
                tracing::info!(member = member.name, size = member.size_bytes, "alarm NOSPACE disarmed");
            } else if self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                self.told_at = Some(Instant::now());
                tracing::warn!(
                    member = member.name,
                    size = member.size_bytes,
                    in_use = member.in_use_bytes,
                    quota,
                    "this member of the store stays full; raise its quota, or delete what is not needed"
                );
            }
        }
        Ok(())
    }
}

/// Has one member give back what is free in it, if it comes near its quota for nothing. One in a round: the others answer.
pub(super) async fn give_back(state: &dyn StateBackend, status: &StoreStatus, quota: u64) -> Result<(), Error> {
    let wasteful = status.members.iter().find(|member| {
        member.unreachable.is_none()
            && !percent_of(member.size_bytes, quota, GIVE_BACK_FROM_PERCENT)
            && percent_of(member.in_use_bytes, member.size_bytes, GIVE_BACK_IN_USE_PERCENT)
    });
    if let Some(member) = wasteful {
        tracing::info!(
            member = member.name,
            size = member.size_bytes,
            in_use = member.in_use_bytes,
            "defragmenting a member of the store, which is mostly free"
        );
        state.defragment(member.id).await?;
    }
    Ok(())
}
