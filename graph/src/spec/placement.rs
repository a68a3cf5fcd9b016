//! On which executors tasks may run, besides those that have the resources: by labels that executors bear.
//!
//! A job's word holds for all of its stages, and what a stage says itself wins: label by label in `require`, as a whole for
//! `prefer` and `policy`. The two stay apart, in the spec and in the plan, and [`Placing`] reads them as one: so a plan is no
//! larger than its spec, however many stages share the job's word.

use std::collections::BTreeMap;
use std::fmt;

/// What a job or a stage says about the executors of its tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Placement {
    /// By label: an executor that does not meet all of these gets no task.
    pub require: BTreeMap<String, LabelRule>,
    /// Executors that meet more of these, by weight, come first. `None`: nothing said.
    pub prefer: Option<Vec<Preference>>,
    /// How tasks spread over equally good executors. `None`: nothing said.
    pub policy: Option<Policy>,
}

/// What a label has to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum LabelRule {
    /// One of these.
    OneOf(Vec<String>),
    /// None of these; an executor without the label is fine.
    NoneOf(Vec<String>),
    /// There, or (false) not there, whatever its value.
    Exists(bool),
}

/// A label that counts in favour of an executor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Preference {
    /// Which label.
    pub label: String,
    /// What it should be.
    pub is: LabelRule,
    /// How much that counts; the weights of all that are met are added up.
    pub weight: u32,
}

/// How tasks spread over executors that are equally good for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Policy {
    /// Over all that have room, the one with the most room first.
    #[default]
    Spread,
    /// One is filled after the other, those in use before idle ones and the one with the least room first, so that the
    /// others stay free for what is large.
    Pack,
}

impl LabelRule {
    /// Whether a label of that value, or an executor without it, is as it has to be.
    #[must_use]
    pub fn is_met_by(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::OneOf(values), Some(value)) => values.iter().any(|wanted| wanted == value),
            (Self::NoneOf(values), Some(value)) => values.iter().all(|unwanted| unwanted != value),
            (Self::OneOf(_), None) => false,
            (Self::NoneOf(_), None) => true,
            (Self::Exists(wanted), value) => *wanted == value.is_some(),
        }
    }
}

/// What the label has to be, in words that go after its name.
impl fmt::Display for LabelRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(values) => write!(f, "= {}", values.join(" or ")),
            Self::NoneOf(values) => write!(f, "≠ {}", values.join(" and ")),
            Self::Exists(true) => f.write_str("there"),
            Self::Exists(false) => f.write_str("not there"),
        }
    }
}

impl Placement {
    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.require.is_empty() && self.prefer.is_none() && self.policy.is_none()
    }
}

/// What holds for a stage: its own word on top of its job's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Placing<'a> {
    job: &'a Placement,
    stage: &'a Placement,
}

impl<'a> Placing<'a> {
    /// Of a stage in a job.
    #[must_use]
    pub fn of(job: &'a Placement, stage: &'a Placement) -> Self {
        Self { job, stage }
    }

    /// What executors must meet, by label.
    pub fn require(self) -> impl Iterator<Item = (&'a str, &'a LabelRule)> {
        let from_job = self.job.require.iter().filter(move |(label, _)| !self.stage.require.contains_key(*label));
        from_job.chain(&self.stage.require).map(|(label, rule)| (label.as_str(), rule))
    }

    /// What counts in an executor's favour.
    #[must_use]
    pub fn prefer(self) -> &'a [Preference] {
        self.stage.prefer.as_ref().or(self.job.prefer.as_ref()).map_or(&[], Vec::as_slice)
    }

    /// How tasks spread.
    #[must_use]
    pub fn policy(self) -> Policy {
        self.stage.policy.or(self.job.policy).unwrap_or_default()
    }

    /// Whether all executors are the same to it, whatever their labels.
    #[must_use]
    pub fn is_indifferent(self) -> bool {
        self.job.require.is_empty() && self.stage.require.is_empty() && self.prefer().is_empty()
    }

    /// Whether an executor with these labels may run the stage's tasks.
    #[must_use]
    pub fn admits(self, labels: &BTreeMap<String, String>) -> bool {
        self.require().all(|(label, rule)| rule.is_met_by(labels.get(label).map(String::as_str)))
    }

    /// How well an executor with these labels suits the stage's tasks; more is better. `None`: it may not run them.
    #[must_use]
    pub fn rank(self, labels: &BTreeMap<String, String>) -> Option<u32> {
        let met = |liked: &&Preference| liked.is.is_met_by(labels.get(&liked.label).map(String::as_str));
        let weights = self.prefer().iter().filter(met).map(|liked| liked.weight);
        self.admits(labels).then(|| weights.fold(0, u32::saturating_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn is(values: &[&str]) -> LabelRule {
        LabelRule::OneOf(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn each_rule_says_what_meets_it() {
        let not = LabelRule::NoneOf(vec!["a".to_owned(), "b".to_owned()]);
        let cases = [
            (is(&["a", "b"]), [true, false, false]),
            (not, [false, true, true]),
            (LabelRule::Exists(true), [true, true, false]),
            (LabelRule::Exists(false), [false, false, true]),
        ];
        for (rule, expected) in cases {
            assert_eq!([Some("b"), Some("c"), None].map(|value| rule.is_met_by(value)), expected, "{rule:?}");
        }
    }

    #[test]
    fn a_stage_wins_label_by_label_and_replaces_what_its_job_prefers() {
        let liked = |label: &str, weight| Preference { label: label.to_owned(), is: is(&["yes"]), weight };
        let job = Placement {
            require: [("zone".to_owned(), is(&["a"])), ("disk".to_owned(), is(&["ssd"]))].into(),
            prefer: Some(vec![liked("new", 3), liked("idle", 4)]),
            policy: Some(Policy::Pack),
        };
        let own = Placement { require: [("zone".to_owned(), is(&["b"]))].into(), ..Placement::default() };
        let placing = Placing::of(&job, &own);
        assert!(placing.admits(&labels(&[("zone", "b"), ("disk", "ssd")])));
        assert_eq!(placing.rank(&labels(&[("zone", "a"), ("disk", "ssd")])), None, "the stage says b");
        assert_eq!(placing.rank(&labels(&[("zone", "b"), ("disk", "hdd")])), None, "the job's word on disks holds");
        let both = labels(&[("zone", "b"), ("disk", "ssd"), ("new", "yes"), ("idle", "yes")]);
        assert_eq!((placing.rank(&both), placing.policy()), (Some(7), Policy::Pack));
        let own = Placement { prefer: Some(Vec::new()), policy: Some(Policy::Spread), ..own };
        let placing = Placing::of(&job, &own);
        assert_eq!((placing.rank(&both), placing.policy()), (Some(0), Policy::Spread));
        assert!(
            !placing.is_indifferent() && Placing::of(&Placement::default(), &Placement::default()).is_indifferent()
        );
    }
}
