//! How large a page of a scan is, the same in every store.

/// A page of the store's own choosing.
pub(crate) const ENTRIES: usize = 256;
/// The most entries of one page, whatever was asked for: the rest is in the next one.
pub(crate) const ENTRIES_MAX: usize = 1024;

/// How many entries a page has at most, when so many were asked for; 0: as the store likes.
pub(crate) fn limit(asked: usize) -> usize {
    if asked == 0 { ENTRIES } else { asked.min(ENTRIES_MAX) }
}
