//! Which executors this scheduler reaches itself, whatever their homes say of them.

use muster_graph::ids::{ExecutorKey, Millis};

use super::{Engine, Link};

/// A way to an executor that has been broken for so long is no hiccup: longer than the executor takes to start again, or
/// its home to notice that it is gone.
const CUT_OFF_AFTER_MS: Millis = 10_000;

impl Engine {
    pub(super) fn reached(&mut self, key: &ExecutorKey, reached: bool, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id).filter(|known| known.key == *key) else { return };
        match reached {
            true => executor.unreached_since = None,
            false => drop(executor.unreached_since.get_or_insert(now)),
        }
    }

    /// Whether every executor that could be sent work is at home with a live peer and has been out of reach from here for
    /// long. One that has its session here reaches us, and so is not cut off; one that fetches its work is not sent any.
    pub(crate) fn is_cut_off(&self, now: Millis) -> bool {
        let mut beyond_reach = false;
        for executor in self.executors.values() {
            match executor.link {
                Link::Home => return false,
                Link::Peer if !executor.pull => {
                    let long_ago = |since: Millis| since.saturating_add(CUT_OFF_AFTER_MS) <= now;
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
