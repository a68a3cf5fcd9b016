//! The nearest known name, for "did you mean". Bounded work, whatever the input.

/// Candidates looked at; among more than these nobody misses a suggestion.
const CANDIDATES_MAX: usize = 2_000;
/// Longer words are not compared.
const WORD_CHARS_MAX: usize = 64;

/// The candidate with the fewest edits away from `word`, if that is few for its length.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(WORD_CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
    if word.is_empty() || word.len() > WORD_CHARS_MAX {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().take(CANDIDATES_MAX) {
        let other: Vec<char> = candidate.chars().take(WORD_CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
        // A third of the letters may be wrong, but always one, and never all of them.
        let longer = word.len().max(other.len());
        let allowed = (longer / 3).max(1).min(longer - 1);
        if other.len() > WORD_CHARS_MAX || word.len().abs_diff(other.len()) > allowed {
            continue;
        }
        let edits = distance(&word, &other);
        if edits <= allowed && best.is_none_or(|(least, _)| edits < least) {
            best = Some((edits, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Edits between two words: insert, delete, replace, or swap two neighbours (the "optimal string alignment" distance).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["inputs", "after", "timeout", "tasks"];
        assert_eq!(nearest("inptus", known), Some("inputs"));
        assert_eq!(nearest("time_out", known), Some("timeout"));
        assert_eq!(nearest("Task", known), Some("tasks"));
        assert_eq!(nearest("replicas", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("b", ["a"]), None, "nothing of it is alike");
    }

    #[test]
    fn neighbours_that_changed_places_are_one_edit() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("ab"), &chars("ba")), 1);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
