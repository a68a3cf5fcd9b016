//! `placement`: on which executors tasks may run.

use super::Decoder;
use crate::spec::finding::Segment;
use crate::spec::keys::{LABEL_RULE, PLACEMENT, POLICIES, PREFERENCE};
use crate::spec::limits::PREFERENCE_WEIGHT_MAX;
use crate::spec::node::{Node, Value};
use crate::spec::placement::{LabelRule, Placement, Policy, Preference};

/// Of a preference that does not say.
const DEFAULT_WEIGHT: u32 = 1;

const HELP: &str = "write for example {require: {zone: eu-1}, policy: pack}";
const REQUIRE_HELP: &str = "write for example {zone: eu-1, disk: [ssd, nvme], arch: {not: arm64}}";
const PREFER_HELP: &str = "write for example [{label: zone, is: eu-1, weight: 10}]";
const RULE_HELP: &str = "write a value, a list of values, {not: VALUE}, or {exists: true}";

impl Decoder {
    pub(super) fn placement(&mut self, node: &Node) -> Option<Placement> {
        let mut fields = self.fields(node, &[PLACEMENT], "a map", HELP)?;
        let require = |decoder: &mut Self, node: &Node| {
            let entries = decoder.entries(node, "a map of labels", REQUIRE_HELP)?;
            let rule = |(_, entry): (_, &crate::spec::node::Entry)| {
                let label = entry.key.to_string();
                let read = |decoder: &mut Self| decoder.label_rule(&entry.value);
                let rule = decoder.within(Segment::Key(label.clone().into()), read)?;
                Some((label, rule))
            };
            Some(entries.into_iter().filter_map(rule).collect())
        };
        let prefer = |decoder: &mut Self, node: &Node| {
            decoder.list(node, "a list of preferences", PREFER_HELP, stand_in, Self::preference)
        };
        let policy = |decoder: &mut Self, node: &Node| decoder.word(node, POLICIES, &[Policy::Spread, Policy::Pack]);
        Some(Placement {
            require: self.field(fields.get("require"), "require", require).unwrap_or_default(),
            prefer: self.field(fields.get("prefer"), "prefer", prefer),
            policy: self.field(fields.get("policy"), "policy", policy),
        })
    }

    fn preference(&mut self, node: &Node) -> Option<Preference> {
        let mut fields = self.fields(node, &[PREFERENCE], "a preference, which is a map", PREFER_HELP)?;
        let mut preference = stand_in();
        for (key, help) in [("label", "add `label`, for example label: zone"), ("is", "add `is`, for example is: eu-1")]
        {
            if fields.is_plainly_missing(key) {
                self.missing(key, format!("the preference has no `{key}`"), help);
            }
        }
        preference.label = self.field(fields.get("label"), "label", Self::text).unwrap_or_default();
        preference.is = self.field(fields.get("is"), "is", Self::label_rule).unwrap_or(preference.is);
        let weight = |decoder: &mut Self, node: &Node| decoder.whole(node, "a weight", 1, PREFERENCE_WEIGHT_MAX.into());
        preference.weight = self.field(fields.get("weight"), "weight", weight).unwrap_or(preference.weight);
        Some(preference)
    }

    fn label_rule(&mut self, node: &Node) -> Option<LabelRule> {
        if !matches!(node.value, Value::Map(_)) {
            return self.label_values(node).map(LabelRule::OneOf);
        }
        let mut fields = self.fields(node, &[LABEL_RULE], "what the label has to be", RULE_HELP)?;
        let (not, exists) = (fields.get("not"), fields.get("exists"));
        match (not, exists) {
            (Some(_), None) => self.field(not, "not", Self::label_values).map(LabelRule::NoneOf),
            (None, Some(_)) => self.field(exists, "exists", Self::truth).map(LabelRule::Exists),
            (Some(_), Some(second)) => {
                self.wrong(second.key_span, "a label has one rule", "keep one of `not` and `exists`");
                None
            }
            (None, None) => {
                if LABEL_RULE.iter().all(|key| fields.is_plainly_missing(key.name)) {
                    self.wrong(node.span, "nothing says what the label has to be", RULE_HELP);
                }
                None
            }
        }
    }

    /// One value, or several.
    fn label_values(&mut self, node: &Node) -> Option<Vec<String>> {
        match &node.value {
            Value::List(_) => self.words(node, RULE_HELP),
            Value::Scalar(..) => self.text(node).map(|value| vec![value]),
            Value::Map(_) => {
                self.mismatch(node, "a value or a list of values", RULE_HELP);
                None
            }
        }
    }
}

/// For a preference of which something cannot be read.
fn stand_in() -> Preference {
    Preference { label: String::new(), is: LabelRule::Exists(true), weight: DEFAULT_WEIGHT }
}
