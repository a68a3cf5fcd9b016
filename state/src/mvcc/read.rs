//! Reading the core at a revision, and following its log.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::{Core, Version, future};
use crate::{Change, Entry, Error, Key, Keyspace, Page, Revision, Scan, WatchBatch, page as paging};

/// The most revisions that a watch takes out of the log under one lock.
const WATCH_REVISIONS: usize = 256;

impl Core {
    /// The version that shows at a revision.
    fn at<'a>(&self, versions: &'a [Version], at: Revision) -> Option<&'a Version> {
        let before = versions.partition_point(|version| version.revision <= at);
        before.checked_sub(1).map(|place| &versions[place]).filter(|version| version.value.is_some())
    }

    /// Keys with this prefix, after a name.
    pub(super) fn below<'a>(
        &'a self,
        keyspace: Keyspace,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Vec<Version>)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.histories(keyspace)
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
    }

    /// Bytes of all versions, and of those that are the present: names and values, without what holds them together.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let (mut all, mut present) = (0, 0);
        for (name, versions) in self.keyspaces.iter().flatten() {
            for (place, version) in versions.iter().enumerate() {
                let bytes = (name.len() + version.value.as_ref().map_or(0, Bytes::len)) as u64;
                all += bytes;
                if place + 1 == versions.len() && version.value.is_some() {
                    present += bytes;
                }
            }
        }
        (all, present)
    }

    /// The newest visible entry.
    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        let versions = self.histories(key.keyspace).get(key.name.as_str())?;
        self.at(versions, self.visible)?.to_entry(&key.name)
    }

    /// One page. `values`: otherwise they come empty.
    pub(crate) fn scan(&self, keyspace: Keyspace, scan: &Scan, values: bool) -> Result<Page, Error> {
        let at = scan.at.unwrap_or(self.visible);
        if at > self.visible {
            return Err(future(at, self.visible));
        }
        // What the revision just before the oldest showed is still whole, and etcd answers it too.
        if at + 1 < self.log_first {
            return Err(Error::Compacted { asked: at, oldest: self.log_first });
        }
        let limit = paging::limit(scan.limit);
        let mut page = Page { entries: Vec::new(), revision: at, next: None };
        for (name, versions) in self.below(keyspace, &scan.prefix, scan.after.as_deref()) {
            let Some(mut entry) = self.at(versions, at).and_then(|version| version.to_entry(name)) else { continue };
            if page.entries.len() == limit {
                page.next = page.entries.last().map(|entry| entry.name.clone());
                break;
            }
            if !values {
                entry.value = Bytes::new();
            }
            page.entries.push(entry);
        }
        Ok(page)
    }

    /// All entries below a prefix.
    pub(crate) fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Page {
        let entries = self
            .below(keyspace, prefix, None)
            .filter_map(|(name, versions)| self.at(versions, self.visible)?.to_entry(name))
            .collect();
        Page { entries, revision: self.visible, next: None }
    }

    /// What a watch that has seen everything before `from` gets next, and where it goes on.
    pub(crate) fn changes(
        &self,
        keyspace: Keyspace,
        prefix: &str,
        from: Revision,
    ) -> Result<(Vec<WatchBatch>, Revision), Error> {
        if from < self.log_first {
            return Err(Error::Compacted { asked: from, oldest: self.log_first });
        }
        let mut batches = Vec::new();
        let mut next = from;
        while next <= self.visible && batches.len() < WATCH_REVISIONS {
            let changes: Vec<Change> = self
                .written(next)
                .filter(|(written, _)| written.keyspace == keyspace && written.name.starts_with(prefix))
                .map(|(written, version)| match version.to_entry(&written.name) {
                    Some(entry) => Change::Put(entry),
                    None => Change::Deleted { name: written.name.to_string(), revision: next },
                })
                .collect();
            if !changes.is_empty() {
                batches.push(WatchBatch { revision: next, changes });
            }
            next += 1;
        }
        Ok((batches, next))
    }

    /// Every visible change from a revision on, of all keyspaces, in order.
    #[cfg(feature = "testing")]
    pub(crate) fn changes_of_all(&self, from: Revision) -> Result<Vec<crate::memory::RevisionOfAll>, Error> {
        let from = from.max(super::FIRST_REVISION + 1);
        if from < self.log_first {
            return Err(Error::Compacted { asked: from, oldest: self.log_first });
        }
        let of_revision = |revision| {
            let change = |(written, version): (&super::Written, &Version)| {
                (Key::new(written.keyspace, &*written.name), version.value.clone())
            };
            (revision, self.written(revision).map(change).collect())
        };
        Ok((from..=self.visible).map(of_revision).collect())
    }
}
