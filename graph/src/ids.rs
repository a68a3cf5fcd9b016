//! Names of things. Newtypes, so that a task's index is never taken for a stage's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch. It always comes from a shell's clock, never from here.
pub type Millis = u64;

/// A job's id: 64 bits, the upper 42 of them its submit time in milliseconds, so that ids sort by age and are never
/// used again. Shown as 13 characters of Crockford's base 32 in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// Crockford's alphabet: no i, l, o or u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 13 × 5 bits hold 64.
pub(crate) const JOB_ID_LEN: usize = 13;
/// Random bits below the time.
const RANDOM_BITS: u32 = 22;

impl JobId {
    /// An id for a job submitted at `at`; of `random` the lower 22 bits are used.
    #[must_use]
    pub fn new(at: Millis, random: u64) -> Self {
        Self((at << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1)))
    }

    /// The id of a job that is submitted by itself at `at`: an even number, so that it is none of [`JobId::staged`].
    #[must_use]
    pub fn single(at: Millis, random: u64) -> Self {
        Self::new(at, random & !1)
    }

    /// Ids of jobs that are staged together at `at`: odd numbers in a row, so that as many as anybody stages at once all differ.
    pub fn staged(at: Millis, random: u64) -> impl Iterator<Item = Self> {
        (0_u64..).map(move |place| Self::new(at, random.wrapping_add(2 * place) | 1))
    }

    /// When the id was made, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn made_at(self) -> Millis {
        self.0 >> RANDOM_BITS
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; JOB_ID_LEN];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a job id: 13 characters of 0-9 and a-z without i, l, o, u")]
pub struct NotAJobId(pub String);

impl FromStr for JobId {
    type Err = NotAJobId;

    fn from_str(text: &str) -> Result<Self, NotAJobId> {
        let wrong = || NotAJobId(text.chars().take(64).collect());
        if text.len() != JOB_ID_LEN {
            return Err(wrong());
        }
        let mut value: u64 = 0;
        for (place, c) in text.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|&a| a == c.to_ascii_lowercase()).ok_or_else(wrong)? as u64;
            // The first character holds the four bits that 12 × 5 leave over.
            if place == 0 && digit > 15 {
                return Err(wrong());
            }
            value = (value << 5) | digit;
        }
        Ok(Self(value))
    }
}

/// Position of a stage in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageIndex(pub u32);

/// Position of a task in its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskIndex(pub u32);

/// A task of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// Its stage.
    pub stage: StageIndex,
    /// Its place in the stage.
    pub index: TaskIndex,
}

impl TaskId {
    /// Task `index` of stage `stage`.
    #[must_use]
    pub fn new(stage: u32, index: u32) -> Self {
        Self { stage: StageIndex(stage), index: TaskIndex(index) }
    }
}

/// The number of an attempt of a task, from 1. Numbers only rise, over all generations of the task's output.
pub type Attempt = u32;

/// One life of one executor: its name, and a number that rises each time it starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecutorKey {
    /// The executor's name; its outputs belong to it over all incarnations.
    pub id: String,
    /// Its incarnation.
    pub incarnation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_survive_the_way_through_text_and_sort_by_age() {
        for value in [0, 1, u64::MAX, 1 << 63, JobId::new(1_800_000_000_000, 77).0] {
            let id = JobId(value);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!(JobId::new(5, u64::MAX) < JobId::new(6, 0));
        assert_eq!(JobId::new(1_800_000_000_000, 9).made_at(), 1_800_000_000_000);
        assert!("zzzzzzzzzzzzz".parse::<JobId>().is_err(), "more than 64 bits");
        assert!("hello".parse::<JobId>().is_err());
    }

    #[test]
    fn ids_of_jobs_that_are_staged_together_differ_and_are_nobody_elses() {
        // The last random bits, so that they begin again at zero.
        for random in [0, 76, (1 << RANDOM_BITS) - 5, u64::MAX] {
            let ids: std::collections::BTreeSet<JobId> = JobId::staged(1_800_000_000_000, random).take(1_000).collect();
            assert_eq!(ids.len(), 1_000);
            assert!(ids.iter().all(|id| id.made_at() == 1_800_000_000_000 && id.0 % 2 == 1));
            assert_eq!(JobId::single(1_800_000_000_000, random).0 % 2, 0);
        }
    }
}
