//! A set of small numbers as bits, with summaries above them.
//!
//! Ready tasks and changed tasks are sets over a stage's indices. A tree would cost tens of bytes an element; here it is
//! a bit, and each 64 words have one word above them that says which of them are not zero, and so on up to a single
//! word. The lowest element, and the next one above any, is therefore found in at most six steps, however sparse the set.
//!
//! Invariant: a bit of a summary is set if and only if the word below it is not zero.

/// Elements of a word.
const WORD: usize = u64::BITS as usize;
/// 64^6 is more than any `u32`.
const LEVELS_MAX: usize = 6;

/// A set of numbers below a bound that is fixed when it is made.
#[derive(Debug, Clone)]
pub(super) struct BitSet {
    /// All levels one after the other, the elements' own first.
    words: Box<[u64]>,
    /// Elements are below this.
    bound: u32,
    /// How many elements there are.
    len: u32,
}

impl BitSet {
    /// No element; all below `bound` may come.
    pub(super) fn new(bound: u32) -> Self {
        let (mut total, mut size) = (0, (bound as usize).div_ceil(WORD));
        loop {
            total += size;
            if size <= 1 {
                break;
            }
            size = size.div_ceil(WORD);
        }
        Self { words: vec![0; total].into_boxed_slice(), bound, len: 0 }
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `element` is one.
    pub(super) fn contains(&self, element: u32) -> bool {
        element < self.bound && self.words[element as usize / WORD] & (1 << (element as usize % WORD)) != 0
    }

    /// Adds `element`; numbers at or above the bound are left out.
    pub(super) fn insert(&mut self, element: u32) {
        if element >= self.bound || self.contains(element) {
            return;
        }
        self.len += 1;
        let (mut place, mut base, mut size) = (element as usize, 0, (self.bound as usize).div_ceil(WORD));
        loop {
            let word = &mut self.words[base + place / WORD];
            let was = *word;
            *word |= 1 << (place % WORD);
            if was != 0 || size <= 1 {
                return;
            }
            place /= WORD;
            base += size;
            size = size.div_ceil(WORD);
        }
    }

    /// Takes `element` out.
    pub(super) fn remove(&mut self, element: u32) {
        if !self.contains(element) {
            return;
        }
        self.len -= 1;
        let (mut place, mut base, mut size) = (element as usize, 0, (self.bound as usize).div_ceil(WORD));
        loop {
            let word = &mut self.words[base + place / WORD];
            *word &= !(1 << (place % WORD));
            if *word != 0 || size <= 1 {
                return;
            }
            place /= WORD;
            base += size;
            size = size.div_ceil(WORD);
        }
    }

    /// Takes every element out.
    pub(super) fn clear(&mut self) {
        if self.len > 0 {
            self.words.fill(0);
            self.len = 0;
        }
    }

    /// The lowest element.
    pub(super) fn first(&self) -> Option<u32> {
        self.at_or_after(0)
    }

    /// The lowest element that is not below `from`.
    pub(super) fn at_or_after(&self, from: u32) -> Option<u32> {
        if from >= self.bound || self.len == 0 {
            return None;
        }
        let mut bases = [0; LEVELS_MAX];
        let (mut level, mut place, mut size) = (0, from as usize, (self.bound as usize).div_ceil(WORD));
        // Up, until a word has something at or after the place …
        loop {
            let index = place / WORD;
            if index >= size {
                return None;
            }
            let rest = self.words[bases[level] + index] & (u64::MAX << (place % WORD));
            if rest != 0 {
                place = index * WORD + rest.trailing_zeros() as usize;
                break;
            }
            if size <= 1 {
                return None;
            }
            place = index + 1;
            bases[level + 1] = bases[level] + size;
            level += 1;
            size = size.div_ceil(WORD);
        }
        // … and down again along the lowest bits.
        while level > 0 {
            level -= 1;
            place = place * WORD + self.words[bases[level] + place].trailing_zeros() as usize;
        }
        u32::try_from(place).ok()
    }

    /// How many elements are below `element`. Costs a look at each word before it.
    pub(super) fn below(&self, element: u32) -> u32 {
        let (whole, bits) = (element.min(self.bound) as usize / WORD, element.min(self.bound) as usize % WORD);
        let before: u32 = self.words[..whole].iter().map(|word| word.count_ones()).sum();
        let rest = if bits > 0 { self.words[whole] & ((1 << bits) - 1) } else { 0 };
        before + rest.count_ones()
    }

    /// The elements in rising order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.first();
        std::iter::from_fn(move || {
            let element = next?;
            next = element.checked_add(1).and_then(|from| self.at_or_after(from));
            Some(element)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_element_of_a_sparse_million_is_found_through_the_summaries() {
        let mut set = BitSet::new(1_000_000);
        set.insert(999_999);
        set.insert(4_096);
        assert_eq!(set.first(), Some(4_096));
        assert_eq!(set.at_or_after(4_097), Some(999_999));
        set.remove(999_999);
        assert_eq!(set.at_or_after(4_097), None);
        assert_eq!(set.len(), 1);
        set.insert(1_000_000);
        assert_eq!(set.len(), 1, "at the bound");
        assert_eq!(BitSet::new(0).first(), None);
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_set(bound in 0u32..9_000, steps in prop::collection::vec((any::<bool>(), 0u32..9_000), 0..200)) {
            let (mut set, mut model) = (BitSet::new(bound), BTreeSet::new());
            for (insert, element) in steps {
                if insert {
                    set.insert(element);
                    if element < bound {
                        model.insert(element);
                    }
                } else {
                    set.remove(element);
                    model.remove(&element);
                }
                prop_assert_eq!(set.contains(element), model.contains(&element));
                prop_assert_eq!(set.at_or_after(element), model.range(element..).next().copied());
                prop_assert_eq!(set.below(element) as usize, model.range(..element).count());
            }
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert!(set.iter().eq(model.iter().copied()));
            set.clear();
            prop_assert_eq!(set.first(), None);
        }
    }
}
