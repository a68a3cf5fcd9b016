//! What this scheduler thinks of its store: whether it takes writes, whether it can be trusted, and how far it had come.
//!
//! Everything that decides to go on or to wait asks here; nothing here talks to the store. Two things can be wrong, and
//! they are different:
//! - **Read-mostly:** the store is full. Nothing new is accepted; what runs goes on, its commits wait and are sent
//!   again, and its executors keep their results. It ends by itself when there is room ([`crate::store_watch`]).
//! - **Safe mode:** the store is older than what somebody has seen of it: it was restored from a backup. Nothing is
//!   launched, claimed, committed or accepted by anybody, until an operator begins a new epoch ([`crate::safety`]).

use std::sync::{Mutex, MutexGuard};

use muster_state::Revision;
use tokio::sync::{Notify, watch};
use tonic::Status;

use crate::accept::retry_later;

/// How far a store had come, in which of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) epoch: u64,
    pub(crate) revision: Revision,
}

/// Why somebody thinks that the store is older than it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The store's epoch and revision now.
    pub(crate) epoch: u64,
    pub(crate) revision: Revision,
    /// What was seen of it before.
    pub(crate) seen_epoch: u64,
    pub(crate) seen_revision: Revision,
    /// Who saw that, in words.
    pub(crate) seen_by: String,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the store is older than what {} has seen (", self.seen_by)?;
        if self.seen_epoch > self.epoch {
            write!(f, "epoch {} < {}", self.epoch, self.seen_epoch)?;
        } else {
            write!(f, "revision {} < {}", self.revision, self.seen_revision)?;
        }
        write!(f, "): was it restored from a backup? see `muster admin recover`")
    }
}

/// Whether the store can be trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It can.
    #[default]
    Trusted,
    /// It cannot, and the store may not say so yet.
    Doubted(Evidence),
    /// It cannot, and its record says so, in these words.
    Recorded(String),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StoreHealth {
    /// This scheduler, in words.
    me: String,
    /// The life of the store, and the highest revision of it that was heard of: locked together, for an instant, so that
    /// none of an earlier life is taken for one of this.
    seen: Mutex<Seen>,
    /// Told when a new epoch begins.
    epoch: watch::Sender<u64>,
    /// Why the store takes no writes.
    full: watch::Sender<Option<String>>,
    /// Bytes in use and the quota, where there is one: as they were at the last look.
    filled: Mutex<Option<(u64, u64)>>,
    trust: watch::Sender<Trust>,
    /// Somebody has reason to look at the store's epoch at once.
    pub(crate) look: Notify,
}

impl StoreHealth {
    pub(crate) fn new(scheduler_id: &str, epoch: u64) -> Self {
        Self {
            me: format!("scheduler {scheduler_id}"),
            seen: Mutex::new(Seen { epoch, revision: 0 }),
            epoch: watch::Sender::new(epoch),
            full: watch::Sender::new(None),
            filled: Mutex::new(None),
            trust: watch::Sender::default(),
            look: Notify::new(),
        }
    }

    /// How far the store had come: what is asked of it from now on cannot be answered with less.
    pub(crate) fn seen(&self) -> Seen {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no code panics while holding it")
    }

    /// Something that was asked when `before` was known has been answered as of `revision`.
    pub(crate) fn answered(&self, before: Seen, revision: Revision) {
        {
            let mut seen = self.lock();
            if seen.epoch != before.epoch {
                return;
            }
            seen.revision = seen.revision.max(revision);
        }
        if revision < before.revision {
            self.doubt(Evidence {
                epoch: before.epoch,
                revision,
                seen_epoch: before.epoch,
                seen_revision: before.revision,
                seen_by: self.me.clone(),
            });
        }
    }

    /// In a new epoch revisions may be lower.
    pub(crate) fn begin_epoch(&self, epoch: u64, revision: Revision) {
        *self.lock() = Seen { epoch, revision };
        self.trust.send_replace(Trust::Trusted);
        self.epoch.send_if_modified(|known| std::mem::replace(known, epoch) != epoch);
    }

    /// Waits until a new epoch has begun: what was listed before, and watches from there on, mean nothing in it.
    pub(crate) fn epochs(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// The store has refused a write for lack of room, or says that it would.
    pub(crate) fn set_full(&self, why: Option<String>) {
        self.full.send_if_modified(|known| {
            let changed = known.is_some() != why.is_some();
            if changed {
                match &why {
                    Some(why) => {
                        tracing::error!(why, "the store is full: the cluster is read-mostly until there is room")
                    }
                    None => tracing::info!("the store takes writes again"),
                }
            }
            *known = why;
            changed
        });
    }

    /// Bytes in use and the quota, as they were at the last look; `None`: there is none, or nobody has looked yet.
    pub(crate) fn filled(&self) -> Option<(u64, u64)> {
        *self.filled.lock().expect("no code panics while holding it")
    }

    pub(crate) fn set_filled(&self, filled: Option<(u64, u64)>) {
        *self.filled.lock().expect("no code panics while holding it") = filled;
    }

    /// Why nothing new is accepted.
    pub(crate) fn full(&self) -> Option<String> {
        self.full.borrow().clone()
    }

    /// Waits until it becomes full, or is so no more.
    pub(crate) fn full_changes(&self) -> watch::Receiver<Option<String>> {
        self.full.subscribe()
    }

    /// Somebody has seen more of the store than there is. What was seen in an earlier epoch is no evidence.
    pub(crate) fn doubt(&self, evidence: Evidence) {
        if evidence.seen_epoch < self.lock().epoch {
            return;
        }
        let news = self.trust.send_if_modified(|trust| {
            let news = *trust == Trust::Trusted;
            if news {
                tracing::error!(why = %evidence, "safe mode");
                *trust = Trust::Doubted(evidence);
            }
            news
        });
        if news {
            self.look.notify_one();
        }
    }

    /// The store itself says that it is not to be trusted.
    pub(crate) fn doubt_is_recorded(&self, why: String) {
        self.trust.send_if_modified(|trust| {
            let news = *trust != Trust::Recorded(why.clone());
            if *trust == Trust::Trusted {
                tracing::error!(why, "safe mode");
            }
            *trust = Trust::Recorded(why);
            news
        });
    }

    pub(crate) fn trust(&self) -> Trust {
        self.trust.borrow().clone()
    }

    pub(crate) fn is_trusted(&self) -> bool {
        *self.trust.borrow() == Trust::Trusted
    }

    /// Why it cannot be trusted.
    pub(crate) fn why_doubted(&self) -> Option<String> {
        match self.trust() {
            Trust::Trusted => None,
            Trust::Doubted(evidence) => Some(evidence.to_string()),
            Trust::Recorded(why) => Some(why),
        }
    }

    /// In safe mode nothing is done. The same again later does not help, so this is no reason to try.
    pub(crate) fn check_trusted(&self) -> Result<(), Status> {
        self.why_doubted().map_or(Ok(()), |why| Err(Status::failed_precondition(format!("safe mode: {why}"))))
    }

    /// Whether something that needs a write may begin.
    pub(crate) fn check_writable(&self) -> Result<(), Status> {
        self.check_trusted()?;
        match self.full() {
            None => Ok(()),
            Some(why) => Err(retry_later(format!("the cluster is read-mostly: {why}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubted_store_is_told_with_both_revisions_and_the_remedy_until_a_new_epoch_begins() {
        let health = StoreHealth::new("s1", 1);
        let nothing = health.seen();
        health.answered(nothing, 9);
        let nine = health.seen();
        assert!(health.check_writable().is_ok());
        health.answered(nine, 5);
        let said = health.check_trusted().expect_err("it is doubted").message().to_owned();
        assert!(said.contains("revision 5 < 9") && said.contains("muster admin recover"), "{said}");
        health.begin_epoch(2, 6);
        assert_eq!((health.seen(), health.is_trusted()), (Seen { epoch: 2, revision: 6 }, true));
        health.answered(nine, 7);
        assert!(health.is_trusted(), "what was seen in the old epoch does not count any more");
    }

    #[test]
    fn a_full_store_asks_for_the_same_again_later_and_says_why() {
        let health = StoreHealth::new("s1", 1);
        health.set_full(Some("member a has used up its quota".to_owned()));
        let refused = health.check_writable().expect_err("it is full");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("member a") && refused.metadata().contains_key("retry-after-ms"));
        assert!(health.check_trusted().is_ok(), "reads go on");
        health.set_full(None);
        assert!(health.check_writable().is_ok());
    }
}
