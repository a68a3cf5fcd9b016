//! On which executors tasks may run: the same on the wire and in the store.

use muster_graph::spec::{LabelRule, Placement, Policy, Preference};

use super::Invalid;
use crate::v1;

/// Nothing for a placement that says nothing.
#[must_use]
pub fn to_placement(placement: &Placement) -> Option<v1::Placement> {
    (!placement.is_empty()).then(|| v1::Placement {
        require: placement.require.iter().map(|(label, rule)| (label.clone(), to_rule(rule))).collect(),
        prefer: placement
            .prefer
            .as_ref()
            .map(|list| v1::Preferences { list: list.iter().map(to_preference).collect() }),
        policy: match placement.policy {
            None => v1::PlacementPolicy::Unspecified,
            Some(Policy::Spread) => v1::PlacementPolicy::Spread,
            Some(Policy::Pack) => v1::PlacementPolicy::Pack,
        }
        .into(),
    })
}

fn to_preference(preference: &Preference) -> v1::Preference {
    v1::Preference { label: preference.label.clone(), is: Some(to_rule(&preference.is)), weight: preference.weight }
}

fn to_rule(rule: &LabelRule) -> v1::LabelRule {
    use v1::label_rule::Rule;
    let values = |values: &Vec<String>| v1::LabelValues { values: values.clone() };
    let rule = match rule {
        LabelRule::OneOf(wanted) => Rule::OneOf(values(wanted)),
        LabelRule::NoneOf(unwanted) => Rule::NoneOf(values(unwanted)),
        LabelRule::Exists(wanted) => Rule::Exists(*wanted),
    };
    v1::LabelRule { rule: Some(rule) }
}

/// What is said at a place of a message.
///
/// # Errors
/// A rule or policy of a kind that this version does not know: leaving it out would let tasks run where they must not.
pub fn placement(wire: Option<v1::Placement>, at: &str) -> Result<Placement, Invalid> {
    let Some(wire) = wire else { return Ok(Placement::default()) };
    let policy = match v1::PlacementPolicy::try_from(wire.policy) {
        Ok(v1::PlacementPolicy::Unspecified) => None,
        Ok(v1::PlacementPolicy::Spread) => Some(Policy::Spread),
        Ok(v1::PlacementPolicy::Pack) => Some(Policy::Pack),
        Err(_) => return Err(Invalid::new(format!("{at}.policy"), "unknown to this version: give spread or pack")),
    };
    let require = wire.require.into_iter().map(|(label, given)| {
        let rule = rule(Some(given), &format!("{at}.require[{label}]"))?;
        Ok((label, rule))
    });
    let preference = |(place, liked): (usize, v1::Preference)| {
        let is = rule(liked.is, &format!("{at}.prefer[{place}].is"))?;
        Ok(Preference { label: liked.label, is, weight: liked.weight })
    };
    let prefer = |prefer: v1::Preferences| prefer.list.into_iter().enumerate().map(preference).collect();
    Ok(Placement { require: require.collect::<Result<_, _>>()?, prefer: wire.prefer.map(prefer).transpose()?, policy })
}

fn rule(wire: Option<v1::LabelRule>, at: &str) -> Result<LabelRule, Invalid> {
    use v1::label_rule::Rule;
    match wire.and_then(|wire| wire.rule) {
        Some(Rule::OneOf(values)) => Ok(LabelRule::OneOf(values.values)),
        Some(Rule::NoneOf(values)) => Ok(LabelRule::NoneOf(values.values)),
        Some(Rule::Exists(wanted)) => Ok(LabelRule::Exists(wanted)),
        None => Err(Invalid::new(at, "missing, or unknown to this version: give one_of, none_of or exists")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_about_placement_survives_the_wire() {
        let values = || vec!["a".to_owned(), "b".to_owned()];
        let rules = [LabelRule::OneOf(values()), LabelRule::NoneOf(values()), LabelRule::Exists(true)];
        let liked = |is| Preference { label: "disk".to_owned(), is, weight: 7 };
        let placements = [
            Placement::default(),
            Placement { prefer: Some(Vec::new()), ..Placement::default() },
            Placement { policy: Some(Policy::Spread), ..Placement::default() },
            Placement {
                require: rules.iter().enumerate().map(|(at, rule)| (format!("label {at}"), rule.clone())).collect(),
                prefer: Some(rules.iter().cloned().chain([LabelRule::Exists(false)]).map(liked).collect()),
                policy: Some(Policy::Pack),
            },
        ];
        for placement in placements {
            assert_eq!(super::placement(to_placement(&placement), "placement").expect("valid"), placement);
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_refused_by_name() {
        let unknown =
            v1::Placement { require: [("zone".to_owned(), v1::LabelRule { rule: None })].into(), ..Default::default() };
        let refused = placement(Some(unknown), "stages[0].placement").expect_err("refused");
        assert!(refused.to_string().contains("stages[0].placement.require[zone]"), "{refused}");
        assert!(placement(Some(v1::Placement { policy: 9, ..Default::default() }), "placement").is_err());
    }
}
