//! Which groups of a namespace were cancelled.
//!
//! A cancel is kept with the group that it names, and nowhere else: whether it strikes another one follows from the paths. So it costs
//! the same whatever is in the group, and groups that are made later are struck as well.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::GroupPath;
use crate::ids::Millis;

/// That a group was cancelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancel {
    /// As whoever cancelled it said; may be empty.
    pub reason: String,
    /// When.
    pub at: Millis,
    /// It did that itself, after so many failures.
    pub by_failures: bool,
}

/// All cancels of a namespace's groups. They are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancels {
    by_path: BTreeMap<String, Cancel>,
}

impl Cancels {
    /// Adds a cancel of a group. False: the group was cancelled before, and what was said then stands.
    pub fn insert(&mut self, path: &GroupPath, cancel: Cancel) -> bool {
        match self.by_path.entry(path.as_str().to_owned()) {
            Entry::Vacant(place) => {
                place.insert(cancel);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// The cancel of this very group.
    #[must_use]
    pub fn of(&self, path: &GroupPath) -> Option<&Cancel> {
        self.by_path.get(path.as_str())
    }

    /// What makes a group a cancelled one: of itself and those around it, the outermost that is cancelled.
    #[must_use]
    pub fn strikes(&self, path: &GroupPath) -> Option<(&str, &Cancel)> {
        let (by, cancel) = path.outwards().filter_map(|around| self.by_path.get_key_value(around)).last()?;
        Some((by.as_str(), cancel))
    }

    /// How many groups were cancelled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Each with its path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Cancel)> {
        self.by_path.iter().map(|(path, cancel)| (path.as_str(), cancel))
    }
}
