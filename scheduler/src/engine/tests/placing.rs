//! Labels and policies, from the spec to the launch, and what users are told of what cannot run.

use std::collections::BTreeMap;

use muster_graph::spec::{LabelRule, Policy, Preference};

use super::*;

fn is(values: &[&str]) -> LabelRule {
    LabelRule::OneOf(values.iter().map(|value| (*value).to_owned()).collect())
}

fn zone(rule: LabelRule) -> BTreeMap<String, LabelRule> {
    [("zone".to_owned(), rule)].into()
}

impl Bench {
    fn register_labelled(&mut self, id: &str, cores: u32, labels: &[(&str, &str)]) {
        let record = self.engine.executor(id).map_or(1, |known| known.record + 1);
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let registration = registration(key(id, 1), cores, self.identity.session.0.clone(), record);
        self.input(Input::Registered(Registration { labels, home_here: true, held: Some(Vec::new()), ..registration }));
    }

    /// How many attempts were launched on each executor since this was last asked.
    fn launched_on(&mut self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.outputs.retain(|output| {
            let Output::Launch { executor, groups } = output else { return true };
            *counts.entry(executor.id.clone()).or_default() += groups.iter().flat_map(launched).count();
            false
        });
        counts
    }

    fn reason(&self, job: JobId, stage: usize) -> String {
        self.engine.job_view(&self.engine.jobs[&job]).stages[stage].reason.clone()
    }
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect()
}

#[tokio::test]
async fn what_is_required_is_waited_for_and_said_by_label() {
    let mut bench = Bench::new().await;
    bench.register_labelled("a", 8, &[("zone", "eu-1"), ("disk", "ssd")]);
    bench.register_labelled("b", 2, &[("zone", "eu-2")]);
    let mut wanted = spec(&[("picky", 2, &[]), ("any", 1, &[])]);
    wanted.placement.require = zone(is(&["eu-2", "eu-3"]));
    wanted.stages[0].placement.require = [("disk".to_owned(), is(&["ssd"]))].into();
    let job = bench.submit(1, wanted).await;
    bench.commit_all().await;
    assert_eq!(bench.launched_on(), counts(&[("b", 1)]), "only the stage that may run there");
    assert_eq!(
        bench.reason(job, 0),
        "no executor has the labels required: zone = eu-2 or eu-3 (1 of 2), disk = ssd (1 of 2)"
    );
    assert_eq!(bench.reason(job, 1), "");
    // Its labels are those of its newest registration.
    bench.register_labelled("a", 8, &[("zone", "eu-3"), ("disk", "ssd")]);
    bench.commit_all().await;
    assert_eq!(bench.launched_on(), counts(&[("a", 2)]));
    assert_eq!(bench.reason(job, 0), "");
}

#[tokio::test]
async fn an_executor_with_the_labels_that_is_too_small_is_said_to_be() {
    let mut bench = Bench::new().await;
    bench.register_labelled("a", 8, &[("zone", "eu-1")]);
    bench.register_labelled("b", 2, &[("zone", "eu-2")]);
    let mut wanted = spec(&[("large", 1, &[])]);
    wanted.stages[0].resources = cpu(4000);
    wanted.stages[0].placement.require = zone(LabelRule::NoneOf(vec!["eu-1".to_owned()]));
    let job = bench.submit(1, wanted).await;
    bench.commit_all().await;
    assert_eq!(bench.launched_on(), counts(&[]));
    assert_eq!(bench.reason(job, 0), "no executor with the labels required is large enough: a task wants 4 cores");
}

#[tokio::test]
async fn what_is_preferred_is_filled_first_and_not_waited_for() {
    let mut bench = Bench::new().await;
    bench.register_labelled("a", 4, &[]);
    bench.register_labelled("b", 2, &[("zone", "eu-1")]);
    bench.register_labelled("c", 2, &[("zone", "eu-1"), ("disk", "nvme")]);
    let mut wanted = spec(&[("liking", 5, &[])]);
    let liked = |label: &str, value, weight| Preference { label: label.to_owned(), is: is(&[value]), weight };
    wanted.placement.prefer = Some(vec![liked("zone", "eu-1", 2), liked("disk", "nvme", 1)]);
    bench.submit(1, wanted).await;
    bench.commit_all().await;
    assert_eq!(bench.launched_on(), counts(&[("a", 1), ("b", 2), ("c", 2)]));
}

#[tokio::test]
async fn a_job_packs_if_it_says_so_and_its_stage_does_not_say_otherwise() {
    for (own, expected) in [(None, [("a", 2)].as_slice()), (Some(Policy::Spread), &[("a", 1), ("b", 1)])] {
        let mut bench = Bench::new().await;
        bench.register_labelled("a", 4, &[]);
        bench.register_labelled("b", 4, &[]);
        let mut wanted = spec(&[("few", 2, &[])]);
        wanted.placement.policy = Some(Policy::Pack);
        wanted.stages[0].placement.policy = own;
        bench.submit(1, wanted).await;
        bench.commit_all().await;
        assert_eq!(bench.launched_on(), counts(expected));
    }
}

#[tokio::test]
async fn demands_that_no_executor_admits_hold_nobody_up() {
    let mut bench = Bench::new().await;
    // More than one round of demands, of more kinds than are remembered.
    for number in 1..=600 {
        let mut nowhere = spec(&[("nowhere", 9, &[])]);
        nowhere.placement.require = zone(is(&[["mars", "moon"][number as usize % 2]]));
        nowhere.stages[0].resources = cpu(1000 + number as u32 % 80);
        bench.submit(number, nowhere).await;
    }
    bench.submit(601, spec(&[("here", 2, &[])])).await;
    bench.register_labelled("a", 3, &[]);
    bench.commit_all().await;
    assert_eq!(bench.launched_on(), counts(&[("a", 2)]));
    // What was short is looked at again when there is room.
    bench.register_labelled("b", 18, &[("zone", "mars")]);
    bench.commit_all().await;
    assert_eq!(bench.launched_on(), counts(&[("b", 17)]), "a task wants a little more than a core");
}
