//! Which executors this scheduler reaches itself, whatever their homes say of them.

use muster_graph::ids::{ExecutorKey, Millis};

use super::{Engine, Executor, Link};
use crate::ways::Way;

impl Executor {
    /// The session of its home.
    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    /// Whether it would hear now of what it is told.
    pub(super) fn hears(&self) -> bool {
        if self.pull {
            // A poll whose caller has gone away is not worth an assignment.
            self.poll.as_ref().is_some_and(|poll| !poll.reply.is_closed())
        } else {
            // To have a home is not to be reached from here.
            self.is_reachable() && (self.unreached_since.is_none() || self.through_home)
        }
    }

    pub(crate) fn is_reachable(&self) -> bool {
        !self.address.is_empty() && matches!(self.link, Link::Home | Link::Peer)
    }
}

impl Engine {
    pub(super) fn reached(&mut self, key: &ExecutorKey, way: Way, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id).filter(|known| known.key == *key) else { return };
        executor.through_home = way == Way::ThroughHome;
        match way {
            Way::Straight => executor.unreached_since = None,
            Way::ThroughHome | Way::None => drop(executor.unreached_since.get_or_insert(now)),
        }
    }

    /// Executors that are out of reach or gone, as far as is known here.
    pub(crate) fn executors_away(&self) -> Vec<String> {
        let away = self.executors.values().filter(|executor| executor.away_since.is_some());
        away.map(|executor| executor.key.id.clone()).collect()
    }

    /// A way to an executor that has been broken for so long is no hiccup: its home would have noticed by now that the
    /// executor is gone, and an executor that starts again would be back.
    fn cut_off_after(&self) -> Millis {
        self.silent_after.saturating_mul(2)
    }

    /// Whether every executor that could be sent work is at home with a live peer and has been out of reach from here for
    /// long. One that has its session here reaches us, and so is not cut off; one that fetches its work is not sent any.
    pub(crate) fn is_cut_off(&self, now: Millis) -> bool {
        let mut beyond_reach = false;
        for executor in self.executors.values() {
            match executor.link {
                Link::Home => return false,
                Link::Peer if !executor.pull => {
                    let long_ago = |since: Millis| since.saturating_add(self.cut_off_after()) <= now;
                    if !executor.unreached_since.is_some_and(long_ago) {
                        return false;
                    }
                    beyond_reach = true;
                }
                Link::Peer | Link::None | Link::Gone => {}
            }
        }
        beyond_reach
    }
}
