//! Which callback is tried next: those that are due, the oldest first, and only a few at once of what leads to one place. Knows no store and no clock.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::ids::Millis;

/// Tries under way at once.
const AT_ONCE_MAX: usize = 64;
/// Of these to one place.
const AT_ONE_PLACE_MAX: usize = 4;
/// Callbacks of one place that are kept in mind: those that are due next. A list finds the others when there is room.
const KNOWN_OF_ONE_PLACE_MAX: usize = 1_000;

/// See the module. Callbacks are known by the names of their records.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By host and port.
    places: BTreeMap<String, Place>,
    /// Of which a try is under way, and where it leads.
    under_way: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Place {
    /// When to look at which.
    waiting: BTreeSet<(Millis, String)>,
    under_way: usize,
}

impl Place {
    /// The first that may be tried.
    fn due(&self, now: Millis) -> Option<&(Millis, String)> {
        self.waiting.first().filter(|(at, _)| *at <= now && self.under_way < AT_ONE_PLACE_MAX)
    }
}

impl Queue {
    /// Forgets what waits; what is under way is so still.
    pub(super) fn forget_waiting(&mut self) {
        self.places.retain(|_, place| {
            place.waiting.clear();
            place.under_way > 0
        });
    }

    /// A callback is to be looked at from `at` on.
    pub(super) fn learn(&mut self, name: &str, place: &str, at: Millis) {
        let waiting = &mut self.places.entry(place.to_owned()).or_default().waiting;
        waiting.insert((at, name.to_owned()));
        if waiting.len() > KNOWN_OF_ONE_PLACE_MAX {
            waiting.pop_last();
        }
    }

    /// Begins the try of the callback that has waited longest, of those that may be tried now.
    pub(super) fn begin(&mut self, now: Millis) -> Option<String> {
        while self.under_way.len() < AT_ONCE_MAX {
            let due = self.places.iter().filter_map(|(name, place)| Some((place.due(now)?, name)));
            let (next, place) = due.min().map(|(next, place)| (next.clone(), place.clone()))?;
            let at = self.places.get_mut(&place)?;
            at.waiting.remove(&next);
            // Listed while it is tried: what comes of that is told by a change of its record.
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.under_way.entry(next.1.clone()) {
                vacant.insert(place);
                at.under_way += 1;
                return Some(next.1);
            }
        }
        None
    }

    /// The try of a callback has ended.
    pub(super) fn ended(&mut self, name: &str) {
        let Some(place) = self.under_way.remove(name) else { return };
        if let Some(at) = self.places.get_mut(&place) {
            at.under_way -= 1;
            if at.under_way == 0 && at.waiting.is_empty() {
                self.places.remove(&place);
            }
        }
    }

    /// When the next one is due, of those that could be tried then. What is due already waits for a try to end.
    pub(super) fn next_after(&self, now: Millis) -> Option<Millis> {
        let later =
            |place: &Place| place.waiting.range((now.saturating_add(1), String::new())..).next().map(|(at, _)| *at);
        self.places.values().filter_map(later).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What begins now.
    fn begun(queue: &mut Queue, now: Millis) -> Vec<String> {
        std::iter::from_fn(|| queue.begin(now)).collect()
    }

    #[test]
    fn a_place_that_does_not_answer_holds_up_no_other() {
        let mut queue = Queue::default();
        for number in 0..2_000 {
            queue.learn(&format!("hangs/{number:04}"), "hangs:80", 0);
        }
        // It has failed once, and is due later than everything of the other place.
        queue.learn("well", "well:80", 1_000);
        assert_eq!(begun(&mut queue, 10).len(), AT_ONE_PLACE_MAX);
        assert_eq!(queue.next_after(10), Some(1_000), "that is when to look again");
        assert_eq!(begun(&mut queue, 1_000), ["well"]);
        queue.ended("well");
        // New ones have their place, however many of others wait.
        queue.learn("zzz", "well:80", 0);
        assert_eq!(begun(&mut queue, 1_000), ["zzz"]);
        assert_eq!(queue.places["hangs:80"].waiting.len(), KNOWN_OF_ONE_PLACE_MAX - AT_ONE_PLACE_MAX);
    }

    #[test]
    fn the_oldest_is_first_and_there_is_an_end_to_what_is_tried_at_once() {
        let mut queue = Queue::default();
        for number in 0..100 {
            queue.learn(&format!("{number}"), &format!("place-{number}:80"), 100 - number);
        }
        let first = begun(&mut queue, 100);
        assert_eq!((first.len(), first[0].as_str()), (AT_ONCE_MAX, "99"));
        queue.ended("99");
        assert_eq!(begun(&mut queue, 100), ["35"]);
    }

    #[test]
    fn what_is_under_way_is_not_begun_again() {
        let mut queue = Queue::default();
        queue.learn("a", "place:80", 0);
        assert_eq!(begun(&mut queue, 1), ["a"]);
        // A list has found it, as it was when the try began.
        queue.forget_waiting();
        queue.learn("a", "place:80", 0);
        assert_eq!(begun(&mut queue, 1), [""; 0]);
        queue.learn("a", "place:80", 5);
        queue.ended("a");
        assert_eq!((begun(&mut queue, 4), begun(&mut queue, 5)), (vec![], vec!["a".to_owned()]));
        queue.ended("a");
        assert!(queue.places.is_empty() && queue.under_way.is_empty(), "nothing is kept of a place without any");
    }
}
