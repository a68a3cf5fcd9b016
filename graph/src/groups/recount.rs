//! What a recount says of a group's numbers.
//!
//! **Invariant:** a correction is a difference. Whoever counts goes by one moment, and what changes after it is added as it would have been:
//! so a correction is as true later, and meets no change halfway.

use std::collections::BTreeMap;

use super::tally::Tally;

/// A recount's numbers, less those that were counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correction {
    /// Those that differ, by their names ([`Tally::numbers`]).
    pub by: BTreeMap<String, i64>,
}

/// Before the names of resources.
const NAMED: &str = "spent.named_ms.";

impl Tally {
    /// All its numbers, by what they are called where one of them is spoken of.
    #[must_use]
    pub fn numbers(&self) -> BTreeMap<String, u64> {
        let (tasks, spent) = (&self.tasks, &self.spent);
        let numbers = [
            ("submitted", self.submitted),
            ("successful", self.successful),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("tasks.pending", tasks.pending),
            ("tasks.successful", tasks.successful),
            ("tasks.failed", tasks.failed),
            ("tasks.cancelled", tasks.cancelled),
            ("spent.run_ms", spent.run_ms),
            ("spent.cpu_ms", spent.cpu_ms),
            ("spent.memory_mib_ms", spent.memory_mib_ms),
        ];
        let named = spent.named_ms.iter().map(|(name, ms)| (format!("{NAMED}{name}"), *ms));
        numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).chain(named).collect()
    }

    fn number_mut(&mut self, name: &str) -> Option<&mut u64> {
        Some(match name {
            "submitted" => &mut self.submitted,
            "successful" => &mut self.successful,
            "failed" => &mut self.failed,
            "cancelled" => &mut self.cancelled,
            "tasks.pending" => &mut self.tasks.pending,
            "tasks.successful" => &mut self.tasks.successful,
            "tasks.failed" => &mut self.tasks.failed,
            "tasks.cancelled" => &mut self.tasks.cancelled,
            "spent.run_ms" => &mut self.spent.run_ms,
            "spent.cpu_ms" => &mut self.spent.cpu_ms,
            "spent.memory_mib_ms" => &mut self.spent.memory_mib_ms,
            named => self.spent.named_ms.entry(named.strip_prefix(NAMED)?.to_owned()).or_default(),
        })
    }

    /// What is to be added to these numbers to make them those of a recount. `None`: nothing.
    #[must_use]
    pub fn correction(&self, recounted: &Self) -> Option<Correction> {
        let (counted, truth) = (self.numbers(), recounted.numbers());
        let number = |of: &BTreeMap<String, u64>, name: &str| i128::from(of.get(name).copied().unwrap_or(0));
        let mut by = BTreeMap::new();
        for name in counted.keys().chain(truth.keys()) {
            let difference = number(&truth, name) - number(&counted, name);
            if difference != 0 {
                // No number that was counted comes near the bounds; the next recount would find the rest.
                let most = i128::from(i64::MAX);
                by.insert(name.clone(), i64::try_from(difference.clamp(-most, most)).unwrap_or_default());
            }
        }
        (!by.is_empty()).then_some(Correction { by })
    }

    pub(super) fn correct(&mut self, correction: &Correction) {
        for (name, by) in &correction.by {
            if let Some(number) = self.number_mut(name) {
                *number = number.saturating_add_signed(*by);
            }
        }
        self.spent.named_ms.retain(|_, ms| *ms > 0);
    }
}
