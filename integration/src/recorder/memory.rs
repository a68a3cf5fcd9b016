//! Recording a store in memory. It is asked, and does not follow by itself: a simulation says when, and by which clock.

use muster_state::{Error, Revision};

use crate::checker::{Change, Write};

/// A recorder of a store in memory.
#[derive(Debug)]
pub struct Memory {
    store: muster_state::Memory,
    next: Revision,
    writes: Vec<Write>,
}

impl Memory {
    /// Records from the store's first revision on.
    #[must_use]
    pub fn new(store: &muster_state::Memory) -> Self {
        Self { store: store.clone(), next: 0, writes: Vec::new() }
    }

    /// Takes in what is new. `now_us` is the time of each of these revisions, by the clock of the executors' records.
    ///
    /// # Errors
    /// If the store has forgotten what was not taken in yet: ask more often than it compacts.
    pub fn record(&mut self, now_us: u64) -> Result<(), Error> {
        for (revision, changes) in self.store.changes_since(self.next)? {
            let changes =
                changes.into_iter().map(|(key, value)| Change { keyspace: key.keyspace, name: key.name, value });
            self.writes.push(Write { revision, at_us: now_us, changes: changes.collect() });
            self.next = revision + 1;
        }
        Ok(())
    }

    /// What was recorded so far.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Takes in the rest, and gives all of it.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn finish(mut self, now_us: u64) -> Result<Vec<Write>, Error> {
        self.record(now_us)?;
        Ok(self.writes)
    }
}
