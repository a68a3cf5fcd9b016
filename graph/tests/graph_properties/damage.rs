//! Damaged stored states: refused with a reason, or restored into something that still never panics.

use std::sync::Arc;

use muster_graph::execution::{Delta, Event, ExecutionGraph, StageState, Task};
use muster_graph::ids::{JobId, StageIndex};

use crate::chance::{self, Dice, Fleet};

/// Does one thing to stored deltas that must not happen; false if a decoder would already have noticed.
fn damage(dice: &mut Dice, stored: &mut Vec<Delta>) -> bool {
    if stored.is_empty() {
        return true;
    }
    let place = dice.below(stored.len() as u32) as usize;
    let other = dice.below(stored.len() as u32) as usize;
    let number = dice.below(7);
    match dice.below(8) {
        0 => drop(stored.remove(place)),
        1 => stored.swap(place, other),
        2 => stored.truncate(place),
        3 => stored[place].tasks.iter_mut().for_each(|run| run.first = number),
        4 => stored[place].tasks.iter_mut().for_each(|run| (run.stage, run.count) = (StageIndex(number), u32::MAX - 1)),
        5 => {
            let states = [StageState::Unresolved, StageState::Resolved, StageState::Running, StageState::Successful];
            let state = states[number as usize % states.len()];
            stored[place].stages.iter_mut().for_each(|(_, record)| record.state = state);
        }
        6 => {
            let task = stored[other].tasks.first().map(|run| run.task);
            let runs = stored[place].tasks.iter_mut().zip(task);
            runs.for_each(|(run, task)| run.task = Task { attempt: number.wrapping_sub(1), ..task });
        }
        _ => {
            let mut bytes = bincode::serialize(&stored[place]).expect("it is plain data");
            let at = dice.below(bytes.len() as u32) as usize;
            bytes[at] ^= 1 << dice.below(8);
            match bincode::deserialize(&bytes) {
                Ok(delta) => stored[place] = delta,
                Err(_) => return false,
            }
        }
    }
    true
}

#[test]
fn damaged_deltas_are_refused_or_make_a_graph_that_never_panics_and_counts_true() {
    let cases = std::env::var("PROPTEST_CASES").ok().map_or(4_000, |text| text.parse::<u64>().expect("a number"));
    let (mut undecoded, mut refused, mut restored) = (0, 0, 0);
    for seed in 0..cases {
        let mut dice = Dice::new(seed ^ 0xdead_beef);
        let plan = Arc::new(chance::plan(&mut dice));
        let mut graph = ExecutionGraph::new(plan.clone(), JobId(3));
        let (mut fleet, mut at, mut stored) = (Fleet::new(), 1_000, Vec::new());
        for step in 0..40 {
            let event = match step {
                0 => Event::Submitted,
                _ => chance::event(&mut dice, &graph, &mut fleet, &[], at),
            };
            at += 10;
            graph.apply(event, at, &mut Vec::new());
            stored.push(graph.take_delta());
        }
        for _ in 0..=dice.below(3) {
            if !damage(&mut dice, &mut stored) {
                undecoded += 1;
            }
        }
        let Ok(mut graph) = ExecutionGraph::restore(plan, JobId(3), stored) else {
            refused += 1;
            continue;
        };
        restored += 1;
        for _ in 0..40 {
            at += 50;
            let event = chance::event(&mut dice, &graph, &mut fleet, &[], at);
            graph.apply(event, at, &mut Vec::new());
            let _ = graph.take_delta();
            let counted: u32 = graph.stages().map(|(stage, _)| graph.tasks(stage, 0..u32::MAX).count() as u32).sum();
            assert_eq!(graph.counts().total(), counted, "seed {seed}");
        }
    }
    println!(
        "{cases} damaged stores: {refused} refused, {restored} restored; {undecoded} flipped bits were not decoded"
    );
    assert!(cases < 1_000 || (refused > cases / 10 && restored > cases / 10), "both outcomes are met");
}
