//! Stored keys: `/muster/<cluster>/<keyspace>/<name>`.
//!
//! Neither a cluster's name nor a keyspace's has a '/', so no prefix of one is a prefix of another.

use crate::{Error, Key, Keyspace, SessionId};

/// The keys of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: String,
}

impl Layout {
    pub(super) fn new(cluster: &str) -> Self {
        Self { root: format!("/muster/{cluster}/") }
    }

    /// A name, or the beginning of one, as it is stored.
    pub(super) fn stored(&self, keyspace: Keyspace, name: &str) -> Vec<u8> {
        let keyspace = keyspace.name();
        let mut stored = Vec::with_capacity(self.root.len() + keyspace.len() + 1 + name.len());
        stored.extend_from_slice(self.root.as_bytes());
        stored.extend_from_slice(keyspace.as_bytes());
        stored.push(b'/');
        stored.extend_from_slice(name.as_bytes());
        stored
    }

    pub(super) fn key(&self, key: &Key) -> Vec<u8> {
        self.stored(key.keyspace, &key.name)
    }

    pub(super) fn session(&self, id: &SessionId) -> Vec<u8> {
        self.stored(Keyspace::Schedulers, &id.0)
    }

    /// The name in a stored key.
    pub(super) fn name(&self, keyspace: Keyspace, stored: &[u8]) -> Result<String, Error> {
        stored
            .strip_prefix(self.stored(keyspace, "").as_slice())
            .and_then(|name| String::from_utf8(name.to_vec()).ok())
            .ok_or_else(|| Error::Record {
                key: String::from_utf8_lossy(stored).into_owned(),
                why: format!("it is not a key of {}{}/", self.root, keyspace.name()),
            })
    }
}

/// The first key after all that begin with `prefix`. Stored prefixes are not empty and begin with '/', so there is one.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_other_places_keys_do_not() {
        let layout = Layout::new("c");
        let stored = layout.key(&Key::new(Keyspace::JobOwners, "a/b"));
        assert_eq!(stored, b"/muster/c/owners/a/b");
        assert_eq!(layout.name(Keyspace::JobOwners, &stored).unwrap(), "a/b");
        assert!(layout.name(Keyspace::Meta, &stored).is_err());
        assert!(Layout::new("c1").name(Keyspace::JobOwners, &stored).is_err());
    }

    #[test]
    fn a_prefix_ends_before_its_neighbour() {
        assert_eq!(end_of(b"/a/"), b"/a0");
        assert_eq!(end_of(b"/a\xff\xff"), b"/b");
        assert!(b"/a/zzz".as_slice() < end_of(b"/a/").as_slice() && b"/a0".as_slice() >= end_of(b"/a/").as_slice());
    }
}
