//! Rules about `placement`, the job's and the stages'.

use super::Rules;
use crate::spec::finding::{FieldPath, Point, Segment, shown};
use crate::spec::limits::{EXECUTOR_LABEL_BYTES_MAX, PLACEMENT_BYTES_MAX, PREFERENCE_WEIGHT_MAX, WORD_COST_BYTES};
use crate::spec::placement::{LabelRule, Placement};

impl Rules {
    /// The job's word, or that of a stage, which counts together with the `jobs` bytes of its job's.
    pub(super) fn placement(&mut self, stage: Option<usize>, placement: &Placement, jobs: usize) {
        let at = |tail: &[Segment]| {
            let mut path = FieldPath { stage, tail: vec![Segment::key("placement")] };
            path.tail.extend_from_slice(tail);
            path
        };
        for (label, rule) in &placement.require {
            let path = [Segment::key("require"), Segment::Key(label.clone().into())];
            self.label_key(label, Point::Key, || at(&path));
            self.label_rule(rule, || at(&path));
        }
        for (index, preference) in placement.prefer.iter().flatten().enumerate() {
            let inside = |key| at(&[Segment::key("prefer"), Segment::Index(index), Segment::key(key)]);
            self.label_key(&preference.label, Point::Value, || inside("label"));
            self.label_rule(&preference.is, || inside("is"));
            if !(1..=PREFERENCE_WEIGHT_MAX).contains(&preference.weight) {
                self.wrong(
                    inside("weight"),
                    format!("{} is out of range", preference.weight),
                    format!("write a whole number from 1 to {PREFERENCE_WEIGHT_MAX}"),
                );
            }
        }
        let own = bytes(placement);
        if own > 0 && own + jobs > PLACEMENT_BYTES_MAX && jobs <= PLACEMENT_BYTES_MAX {
            let whose = if jobs > 0 { ", with the job's," } else { "" };
            self.at(
                Point::Key,
                at(&[]),
                format!("what is said about labels{whose} takes more than {} KiB", PLACEMENT_BYTES_MAX >> 10),
                "give the executors meant a label of their own, and require that",
            );
        }
    }

    fn label_key(&mut self, label: &str, point: Point, path: impl FnOnce() -> FieldPath) {
        if label.is_empty() || !is_label_text(label) {
            self.at(
                point,
                path(),
                format!("`{}` cannot be a label of an executor", shown(label)),
                format!("use 1 to {EXECUTOR_LABEL_BYTES_MAX} bytes of text on one line, as in --label of the executor"),
            );
        }
    }

    fn label_rule(&mut self, rule: &LabelRule, path: impl Fn() -> FieldPath) {
        let (LabelRule::OneOf(values) | LabelRule::NoneOf(values)) = rule else { return };
        if values.is_empty() {
            self.wrong(path(), "the list has no value", "give it at least one value, or delete the rule");
        }
        if let Some(value) = values.iter().find(|value| !is_label_text(value)) {
            self.wrong(
                path(),
                format!("no label of an executor has the value `{}`", shown(value)),
                format!("use at most {EXECUTOR_LABEL_BYTES_MAX} bytes of text on one line"),
            );
        }
    }
}

fn is_label_text(text: &str) -> bool {
    text.len() <= EXECUTOR_LABEL_BYTES_MAX && !text.chars().any(char::is_control)
}

/// What it counts against its limit.
pub(super) fn bytes(placement: &Placement) -> usize {
    let rule = |label: &str, rule: &LabelRule| {
        let values = match rule {
            LabelRule::OneOf(values) | LabelRule::NoneOf(values) => values.as_slice(),
            LabelRule::Exists(_) => &[],
        };
        let values: usize = values.iter().map(|value| value.len() + WORD_COST_BYTES).sum();
        label.len() + WORD_COST_BYTES + values
    };
    let required: usize = placement.require.iter().map(|(label, is)| rule(label, is)).sum();
    let preferred: usize = placement.prefer.iter().flatten().map(|liked| rule(&liked.label, &liked.is)).sum();
    required + preferred
}
