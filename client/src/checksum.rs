//! The checksum of an output, as executors compute it: over each entry's path, mode, size and content, in the order of
//! the paths.

/// Bits of a mode that say what kind of thing it is.
pub(crate) const TYPE_BITS: u32 = 0o170_000;
/// Those bits of a symbolic link.
pub(crate) const LINK_BITS: u32 = 0o120_000;
/// Bits of a mode that say who may execute a file.
pub(crate) const EXECUTE_BITS: u32 = 0o111;

/// Adds up entries as they arrive.
#[derive(Debug, Default)]
pub(crate) struct Checksum {
    whole: blake3::Hasher,
    present: Option<blake3::Hasher>,
    any: bool,
}

impl Checksum {
    /// An entry begins.
    pub(crate) fn entry(&mut self, path: &str, mode: u32, bytes: u64) {
        self.close();
        self.any = true;
        let mode = if mode & TYPE_BITS == LINK_BITS { LINK_BITS } else { mode & EXECUTE_BITS };
        self.whole.update(&(path.len() as u64).to_le_bytes());
        self.whole.update(path.as_bytes());
        self.whole.update(&mode.to_le_bytes());
        self.whole.update(&bytes.to_le_bytes());
        self.present = Some(blake3::Hasher::new());
    }

    /// Some of its content.
    pub(crate) fn data(&mut self, data: &[u8]) {
        if let Some(present) = &mut self.present {
            present.update(data);
        }
    }

    fn close(&mut self) {
        if let Some(present) = self.present.take() {
            self.whole.update(present.finalize().as_bytes());
        }
    }

    /// The sum: the first eight bytes of BLAKE3, or 0 for nothing and only for nothing.
    pub(crate) fn sum(mut self) -> u64 {
        self.close();
        if !self.any {
            return 0;
        }
        let first = self.whole.finalize().as_bytes()[..8].try_into().expect("eight of 32 bytes");
        u64::from_le_bytes(first).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(entries: &[(&str, u32, &[u8])]) -> u64 {
        let mut checksum = Checksum::default();
        for (path, mode, content) in entries {
            checksum.entry(path, *mode, content.len() as u64);
            // In two pieces: how the content is cut must not matter.
            let (head, tail) = content.split_at(content.len() / 2);
            checksum.data(head);
            checksum.data(tail);
        }
        checksum.sum()
    }

    #[test]
    fn every_field_counts_and_nothing_else() {
        assert_eq!(sum(&[]), 0);
        let base = sum(&[("a", 0, b"one"), ("b", 0, b"two")]);
        assert_eq!(base, sum(&[("a", 0o644, b"one"), ("b", 0o600, b"two")]), "only execute bits count");
        for other in [
            sum(&[("a", 0, b"one")]),
            sum(&[("a", 0, b"onf"), ("b", 0, b"two")]),
            sum(&[("a", 0, b"one"), ("c", 0, b"two")]),
            sum(&[("a", 0o111, b"one"), ("b", 0, b"two")]),
            sum(&[("a", LINK_BITS, b"one"), ("b", 0, b"two")]),
            sum(&[("a", 0, b"onet"), ("b", 0, b"wo")]),
        ] {
            assert_ne!(base, other);
        }
    }
}
