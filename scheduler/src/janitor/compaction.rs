//! How much of the store's past is forgotten, and when.
//!
//! What is forgotten was overwritten or deleted some time ago: long enough for every read at a revision and for a watch
//! that lost its connection. A watch that is still further behind is told so, and lists again.

use std::collections::VecDeque;
use std::time::Duration;

use muster_state::Revision;
use tokio::time::Instant;

/// How long the past can still be read.
const HISTORY_KEPT: Duration = Duration::from_secs(120);
/// How long when the store grows fast: the longest takeover of a large job, which reads at one revision, takes less.
const HISTORY_KEPT_WHEN_GROWING: Duration = Duration::from_secs(30);
/// The store grows fast when so much of its quota is in use.
const GROWING_PERCENT: u64 = 50;
/// So much history is not worth a compaction, nor the record that goes before it.
const WORTH_REVISIONS: u64 = 100;

/// When which revision was the newest, as this janitor has itself seen it.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    seen: VecDeque<(Instant, Revision)>,
    /// Before this, everything is forgotten already.
    compacted: Revision,
}

impl Compaction {
    /// The revision before which the past may be forgotten now, if that is worth it.
    pub(super) fn due(
        &mut self,
        now: Instant,
        revision: Revision,
        in_use_bytes: u64,
        quota: Option<u64>,
    ) -> Option<Revision> {
        self.seen.push_back((now, revision));
        let grows =
            quota.is_some_and(|quota| in_use_bytes.saturating_mul(100) >= quota.saturating_mul(GROWING_PERCENT));
        let kept = if grows { HISTORY_KEPT_WHEN_GROWING } else { HISTORY_KEPT };
        let old = self.seen.iter().take_while(|(at, _)| now.duration_since(*at) >= kept).count();
        let (_, revision) = *self.seen.get(old.checked_sub(1)?)?;
        // The last of the old ones stays: what is not worth a compaction now may be so soon.
        self.seen.drain(..old - 1);
        (revision >= self.compacted + WORTH_REVISIONS).then_some(revision)
    }

    /// It is forgotten.
    pub(super) fn done(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overwritten_less_than_two_minutes_ago_can_be_read() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut compaction = Compaction::default();
        assert_eq!(compaction.due(at(0), 1_000, 0, None), None);
        assert_eq!(compaction.due(at(60), 2_000, 0, None), None);
        assert_eq!(compaction.due(at(121), 3_000, 0, None), Some(1_000));
        compaction.done(1_000);
        assert_eq!(compaction.due(at(121), 3_000, 0, None), None, "once is enough");
        assert_eq!(compaction.due(at(181), 3_000, 0, None), Some(2_000));
    }

    #[test]
    fn less_is_kept_when_half_of_the_quota_is_in_use_and_a_little_history_is_left_alone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut compaction = Compaction::default();
        assert_eq!(compaction.due(at(0), 1_000, 50, Some(100)), None);
        assert_eq!(compaction.due(at(31), 1_050, 49, Some(100)), None);
        assert_eq!(compaction.due(at(31), 1_050, 50, Some(100)), Some(1_000));
        compaction.done(1_000);
        assert_eq!(compaction.due(at(62), 1_050, 50, Some(100)), None, "fifty revisions are not worth it");
    }
}
