//! Who reads whom, and in which order to look at the stages.
//!
//! A plan names a stage's upstreams with the kind of each edge; walking downwards needs the same edges the other way
//! round, and lost outputs are judged consumers first. Both are computed once. An edge that names no stage of the plan
//! is left out here and still counted by its lower end, which therefore never resolves; a cycle never resolves either.

use crate::plan::{Edge, Plan};

/// The edges of a plan, seen from above, and an order of its stages.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    /// `edges[starts[s]..starts[s + 1]]` leave stage `s`.
    starts: Vec<u32>,
    /// Lower end and kind.
    edges: Vec<(u32, Edge)>,
    /// Every stage after all of its upstreams.
    order: Vec<u32>,
}

impl Topology {
    /// Of this plan.
    pub(super) fn new(plan: &Plan) -> Self {
        let total = plan.stages.len();
        let mut starts = vec![0u32; total + 1];
        let mut waits = vec![0u32; total];
        let known = |stage: u32| (stage as usize) < total;
        for (lower, stage) in plan.stages.iter().enumerate() {
            for upstream in stage.upstreams.iter().filter(|upstream| known(upstream.stage.0)) {
                starts[upstream.stage.0 as usize + 1] += 1;
                waits[lower] += 1;
            }
        }
        for stage in 0..total {
            starts[stage + 1] += starts[stage];
        }
        let mut free = starts.clone();
        let mut edges = vec![(0, Edge::After); starts[total] as usize];
        for (lower, stage) in (0u32..).zip(&plan.stages) {
            for upstream in stage.upstreams.iter().filter(|upstream| known(upstream.stage.0)) {
                let place = &mut free[upstream.stage.0 as usize];
                edges[*place as usize] = (lower, upstream.edge);
                *place += 1;
            }
        }
        let mut topology = Self { starts, edges, order: Vec::new() };
        topology.order = topology.sort(waits);
        topology
    }

    /// Kahn's algorithm; stages on a cycle come last.
    fn sort(&self, mut waits: Vec<u32>) -> Vec<u32> {
        let mut order: Vec<u32> =
            (0u32..).zip(&waits).filter(|(_, waits)| **waits == 0).map(|(stage, _)| stage).collect();
        let mut next = 0;
        while let Some(&stage) = order.get(next) {
            next += 1;
            for &(lower, _) in self.below(stage) {
                waits[lower as usize] -= 1;
                if waits[lower as usize] == 0 {
                    order.push(lower);
                }
            }
        }
        order.extend((0u32..).zip(&waits).filter(|(_, waits)| **waits > 0).map(|(stage, _)| stage));
        order
    }

    /// The edges that leave a stage, by lower end.
    pub(super) fn below(&self, stage: u32) -> &[(u32, Edge)] {
        let stage = stage as usize;
        &self.edges[self.starts[stage] as usize..self.starts[stage + 1] as usize]
    }

    /// How many edges leave a stage.
    pub(super) fn edges_below(&self, stage: u32) -> usize {
        self.below(stage).len()
    }

    /// One of the edges that leave a stage: an index instead of a borrow, for walks that change the graph.
    pub(super) fn edge_below(&self, stage: u32, edge: usize) -> (u32, Edge) {
        self.below(stage)[edge]
    }

    /// Every stage after all of its upstreams.
    pub(super) fn order(&self) -> &[u32] {
        &self.order
    }
}

/// Whether outputs are read along the edge, as opposed to a mere wait.
pub(super) fn reads(edge: Edge) -> bool {
    match edge {
        Edge::All | Edge::Each | Edge::Shuffle => true,
        Edge::After | Edge::Begin => false,
    }
}
