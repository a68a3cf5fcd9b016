//! Callbacks of groups: a URL is told of each completion, at least once.
//!
//! Invariants:
//! - The keeper of groups puts a completion into the outbox in the very transaction that sees it ([`record`]): there is a record for each,
//!   and no second one, and nothing waits for its delivery.
//! - A record leaves the outbox when it was answered with success, when the receiver says that it is gone, or when it is too old. Until then any
//!   scheduler delivers it; one at a time does ([`deliverer`]).
//! - A receiver that does not answer holds up its own callbacks, and no others' ([`queue`]).
//! - All tries tell the same of the same event, by which a receiver knows what it has heard already.

mod deliverer;
mod post;
mod queue;
mod signature;

use std::time::Duration;

use muster_graph::groups::Sums;
use muster_graph::ids::Millis;
use muster_proto::storage::{CallbackRecord, GroupRecord};
use muster_proto::v1;

pub(crate) use deliverer::keep;
pub(crate) use post::check;
pub use signature::CallbackSecret;

/// A URL that is to be called, at most.
const CALLBACK_BYTES_MAX: usize = 2_048;
/// A try that is not answered within this has failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// After the first failed try; each further one doubles it.
const BACKOFF_FIRST: Millis = 1_000;
/// It is doubled up to this.
const BACKOFF_MAX: Millis = 10 * 60 * 1_000;
/// A completion that could not be told for so long is given up.
const TRIED_FOR: Millis = 7 * 24 * 60 * 60 * 1_000;

/// What a group's callback is to be told of the completion that the sums show.
pub(super) fn record(
    namespace: &str,
    path: &str,
    group: &GroupRecord,
    sums: &Sums,
    state: v1::GroupState,
) -> CallbackRecord {
    let of = format!("{namespace}/{path}/{}/{}", group.id, sums.completions);
    let tally = &sums.tally;
    CallbackRecord {
        event_id: blake3::hash(of.as_bytes()).to_hex()[..32].to_owned(),
        namespace: namespace.to_owned(),
        path: path.to_owned(),
        group_id: group.id.clone(),
        url: group.spec.as_ref().map(|spec| spec.callback.clone()).unwrap_or_default(),
        completion: sums.completions,
        completed_at_ms: sums.completed_at,
        state: state.into(),
        jobs: Some(v1::JobCounts {
            live: tally.live(),
            successful: tally.successful,
            failed: tally.failed,
            cancelled: tally.cancelled,
        }),
        tries: 0,
        next_try_at_ms: 0,
    }
}

/// How long to wait after so many failed tries: up to a fifth less, so that what failed together is not tried together.
fn backoff(tries: u32, jitter: f64) -> Millis {
    let full = BACKOFF_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(BACKOFF_MAX);
    let fifth = Duration::from_millis(full / 5).mul_f64(jitter.clamp(0.0, 1.0)).as_millis();
    full.saturating_sub(u64::try_from(fifth).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_up_to_a_limit_and_is_never_the_same() {
        let full: Vec<Millis> = [1, 2, 3, 10, 11, u32::MAX].into_iter().map(|tries| backoff(tries, 0.0)).collect();
        assert_eq!(full, [1_000, 2_000, 4_000, 512_000, BACKOFF_MAX, BACKOFF_MAX]);
        assert_eq!((backoff(2, 1.0), backoff(2, 0.5)), (1_600, 1_800));
    }

    #[test]
    fn the_same_completion_has_the_same_id_and_another_one_another() {
        let group = GroupRecord { id: "1".to_owned(), ..GroupRecord::default() };
        let other = GroupRecord { id: "2".to_owned(), ..GroupRecord::default() };
        let sums = |completions| Sums { completions, ..Sums::default() };
        let id = |path, group, completions| {
            record("default", path, group, &sums(completions), v1::GroupState::Successful).event_id
        };
        assert_eq!(id("a", &group, 1), id("a", &group, 1));
        let ids = [id("a", &group, 1), id("a", &group, 2), id("b", &group, 1), id("a", &other, 1)];
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }
}
