//! Shares, weights and limits, as sums.

use proptest::prelude::*;

use super::*;

fn need(cpu_milli: u32, memory_bytes: u64, gpu: u32) -> Resources {
    let named = if gpu > 0 { [("gpu".to_owned(), gpu)].into() } else { BTreeMap::new() };
    Resources { cpu_milli, memory_bytes, named }
}

fn amount(of: &Resources, times: u32) -> Amount {
    let mut amount = Amount::default();
    amount.add(of, times);
    amount
}

#[test]
fn a_share_is_of_the_resource_of_which_it_is_most() {
    let total = amount(&need(10_000, 100, 4), 1);
    assert_eq!(amount(&need(1000, 50, 1), 1).dominant_share(&total), WHOLE / 2);
    assert_eq!(amount(&need(1000, 5, 3), 1).dominant_share(&total), WHOLE / 4 * 3);
    // What the cluster has none of is nobody's share.
    assert_eq!(amount(&need(1000, 0, 4), 1).dominant_share(&amount(&need(2000, 0, 0), 1)), WHOLE / 2);
    assert_eq!(Amount::default().dominant_share(&Amount::default()), 0);
}

#[test]
fn with_twice_the_weight_the_same_is_half_as_much() {
    let weighing = |weight| Rules::of(&v1::NamespaceRules { weight: Some(weight), ..Default::default() });
    assert_eq!(weighing(200).weighted(WHOLE), WHOLE / 2);
    assert_eq!(Rules::default().weighted(WHOLE), WHOLE);
    assert_eq!(weighing(0).weight(), 1, "a record that nobody could have set divides by nothing");
}

fn limits() -> Rules {
    let max_in_use = v1::Amount { cpu_milli: Some(10_000), memory_bytes: None, named: [("gpu".to_owned(), 2)].into() };
    Rules::of(&v1::NamespaceRules { max_running: Some(7), max_in_use: Some(max_in_use), ..Default::default() })
}

#[test]
fn limits_leave_what_is_not_used_up() {
    let one = need(2000, 1 << 40, 0);
    assert_eq!(limits().leaves(&Use::default(), &one), 5, "cores");
    assert_eq!(limits().leaves(&Use::default(), &need(100, 0, 0)), 7, "tasks");
    assert_eq!(limits().leaves(&Use::default(), &need(100, 0, 1)), 2, "devices");
    let used = Use { running: 3, in_use: amount(&one, 3), ..Use::default() };
    assert_eq!(limits().leaves(&used, &one), 2);
    assert_eq!(Rules::default().leaves(&used, &one), u32::MAX);
    assert!(limits().limits() && !Rules::default().limits());
}

proptest! {
    #[test]
    fn the_parts_of_a_limit_are_all_of_it(of in 1u32..20, most in 1u32..1000, cpu in 1u64..1_000_000) {
        let max_in_use = v1::Amount { cpu_milli: Some(cpu), ..Default::default() };
        let rules = Rules::of(&v1::NamespaceRules { max_running: Some(most), max_in_use: Some(max_in_use), ..Default::default() });
        let parts: Vec<Rules> = (0..of).map(|place| rules.part(place, of)).collect();
        prop_assert_eq!(parts.iter().map(|part| part.max_running.unwrap()).sum::<u32>(), most);
        prop_assert_eq!(parts.iter().map(|part| part.max_in_use.cpu_milli.unwrap()).sum::<u64>(), cpu);
        // The one whose turn it is has no less than any other.
        prop_assert!(parts.iter().all(|part| part.max_running <= parts[0].max_running));
    }

    #[test]
    fn what_was_added_can_be_taken_away(a in 0u32..5000, b in 0u64..5000, gpu in 0u32..3, times in 0u32..100, more in 0u32..100) {
        let (one, other) = (amount(&need(a, b, gpu), times), amount(&need(b as u32, 7, 1), more));
        let mut sum = other.clone();
        sum.join(&one);
        sum.leave(&one);
        prop_assert_eq!(sum, other);
    }

    #[test]
    fn what_is_told_is_what_is_heard(jobs: u32, running: u32, ready: u32, cpu: u32, gpu in 0u32..3) {
        let told = Use { jobs, running, ready, in_use: amount(&need(cpu, 5, gpu), 3) };
        prop_assert_eq!(Use::from(v1::NamespaceUse::from(&told)), told);
    }
}
