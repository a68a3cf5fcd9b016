//! What executors have of a job, by what its tasks need: for whoever adds up resources after each event. A job has few different
//! needs, however many stages it has.

use std::collections::HashMap;

use crate::ids::StageIndex;
use crate::plan::Plan;
use crate::spec::Resources;

#[derive(Debug, Clone)]
pub(super) struct HeldByNeed {
    /// For each stage, the place of its need below.
    of_stage: Vec<u32>,
    /// The first stage with each need, and how many tasks with that need are assigned or running.
    needs: Vec<(StageIndex, u32)>,
}

impl HeldByNeed {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut places: HashMap<&Resources, u32> = HashMap::new();
        let mut needs = Vec::new();
        let stages = (0u32..).zip(&plan.stages);
        let place = |(stage, value)| {
            *places.entry(value).or_insert_with(|| {
                needs.push((StageIndex(stage), 0));
                needs.len() as u32 - 1
            })
        };
        let of_stage = stages.map(|(stage, value)| (stage, &value.resources)).map(place).collect();
        Self { of_stage, needs }
    }

    pub(super) fn one_more(&mut self, stage: u32) {
        self.needs[self.of_stage[stage as usize] as usize].1 += 1;
    }

    pub(super) fn one_less(&mut self, stage: u32) {
        self.needs[self.of_stage[stage as usize] as usize].1 -= 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StageIndex, u32)> + '_ {
        self.needs.iter().copied().filter(|(_, tasks)| *tasks > 0)
    }
}
