//! Rules about how stages hang together: names, edges, circles, sizes.

use std::collections::{HashMap, VecDeque};

use super::{Rules, Sizes, field, inside};
use crate::spec::finding::{FieldPath, Point, Segment, shown};
use crate::spec::limits::EDGES_MAX;
use crate::spec::model::{InputKind, JobSpec, Work};
use crate::spec::suggest::nearest;

/// Names listed in a message; more are no help.
const NAMES_SHOWN_MAX: usize = 10;

/// Stages by name; of several with one name, the first.
pub(crate) struct Names<'a>(HashMap<&'a str, usize>);

impl<'a> Names<'a> {
    pub(crate) fn of(spec: &'a JobSpec) -> Self {
        let mut names = HashMap::with_capacity(spec.stages.len());
        for (index, stage) in spec.stages.iter().enumerate() {
            names.entry(stage.name.as_str()).or_insert(index);
        }
        Self(names)
    }

    pub(crate) fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }
}

/// What a stage waits for, in the order of the spec: `inputs` first, then `after`.
#[derive(Clone, Copy)]
pub(crate) struct Edge<'a> {
    /// The name as written.
    pub(crate) name: &'a str,
    /// What is read; nothing with `after`.
    pub(crate) kind: Option<InputKind>,
    /// The way below the directory of inputs, if it is not the stage's own name.
    pub(crate) seen_as: &'a [String],
    /// Position in its own list.
    position: usize,
}

impl<'a> Edge<'a> {
    pub(crate) fn all(spec: &'a JobSpec, stage: usize) -> impl Iterator<Item = Edge<'a>> {
        let stage = &spec.stages[stage];
        let inputs = stage.inputs.iter().enumerate().map(|(position, input)| Edge {
            name: &input.stage,
            kind: Some(input.kind),
            seen_as: &input.seen_as,
            position,
        });
        let only_waited_for = |(position, name): (usize, &'a String)| Edge { name, kind: None, seen_as: &[], position };
        let after = stage.after.iter().enumerate().map(only_waited_for);
        inputs.chain(after)
    }

    fn path(&self, stage: usize) -> FieldPath {
        match self.kind {
            Some(_) => {
                let name = self.seen_as.first().map_or(self.name, String::as_str).to_owned();
                let segment = Segment::Entry { index: self.position, name };
                inside(stage, "inputs", segment)
            }
            None => inside(stage, "after", Segment::Index(self.position)),
        }
    }
}

impl Rules {
    pub(super) fn graph(&mut self, spec: &JobSpec, sizes: &Sizes<'_>) {
        let names = Names::of(spec);
        self.duplicates(spec, &names);
        let edges: usize = spec.stages.iter().map(|stage| stage.inputs.len() + stage.after.len()).sum();
        if edges > EDGES_MAX {
            self.at(
                Point::Key,
                FieldPath::job([Segment::key("stages")]),
                format!("{edges} inputs and afters are more than the {EDGES_MAX} that a job may have"),
                "put a stage of one task between them, which waits for all and is waited for by all",
            );
            return;
        }
        let upstreams = self.edges(spec, &names);
        self.circles(spec, &names, &upstreams);
        self.sizes(spec, &names, sizes);
    }

    fn duplicates(&mut self, spec: &JobSpec, names: &Names<'_>) {
        for (index, stage) in spec.stages.iter().enumerate() {
            if names.get(&stage.name).is_some_and(|first| first != index) && !stage.name.is_empty() {
                self.at(
                    Point::StageName,
                    field(index, "name"),
                    format!("two stages are called `{}`", shown(&stage.name)),
                    "rename one of them: other stages refer to them by name",
                );
            }
        }
    }

    /// Looks names up; answers the positions of what each stage waits for.
    fn edges(&mut self, spec: &JobSpec, names: &Names<'_>) -> Vec<Vec<usize>> {
        let takes: HashMap<&str, usize> = spec.takes.iter().map(String::as_str).zip(0..).collect();
        let mut upstreams = Vec::with_capacity(spec.stages.len());
        for index in 0..spec.stages.len() {
            let mut found: Vec<usize> = Vec::new();
            // Of each upstream stage: whether `inputs` named it first.
            let mut seen: HashMap<usize, bool> = HashMap::new();
            for edge in Edge::all(spec, index) {
                let is_input = edge.kind.is_some();
                // What the job takes stands behind its own stages.
                let taken = takes.get(edge.name).filter(|_| is_input).map(|position| spec.stages.len() + position);
                let Some(upstream) = names.get(edge.name).or(taken) else {
                    self.unknown_stage(spec, index, &edge);
                    continue;
                };
                match seen.get(&upstream) {
                    None => {
                        seen.insert(upstream, is_input);
                        if upstream < spec.stages.len() {
                            found.push(upstream);
                        }
                    }
                    Some(was_input) => {
                        let help = if *was_input && !is_input {
                            "`inputs` waits for it too: delete it from `after`"
                        } else {
                            "delete one of the two"
                        };
                        self.at(Point::Key, edge.path(index), format!("`{}` is named twice", shown(edge.name)), help);
                    }
                }
            }
            upstreams.push(found);
        }
        upstreams
    }

    fn unknown_stage(&mut self, spec: &JobSpec, index: usize, edge: &Edge<'_>) {
        // Beyond the limit the message would not be shown, and looking for near names costs time.
        let near = if self.findings.is_full() {
            None
        } else {
            let others = spec.stages.iter().enumerate().filter(|(other, _)| *other != index);
            nearest(edge.name, others.map(|(_, stage)| stage.name.as_str()))
        };
        let is_kind = ["all", "each", "shuffle"].contains(&edge.name);
        let help = match near {
            _ if is_kind && matches!(spec.stages[index].work, Work::Job(_)) => {
                "say which stage it is, for example {raw: fetch}: how it is read is for the stages of that job to say"
                    .to_owned()
            }
            Some(near) => format!("did you mean `{}`?", shown(near)),
            None => {
                let others = spec.stages.iter().enumerate().filter(|(other, _)| *other != index);
                let known: Vec<String> = others.take(NAMES_SHOWN_MAX).map(|(_, stage)| shown(&stage.name)).collect();
                let more = if spec.stages.len() > NAMES_SHOWN_MAX + 1 { ", …" } else { "" };
                match known.as_slice() {
                    [] => "the job has no other stage: delete it, or add the stage under `stages`".to_owned(),
                    [other] => format!("the only other stage is {other}"),
                    _ => format!("name one of the other stages: {}{more}", known.join(", ")),
                }
            }
        };
        self.at(Point::Key, edge.path(index), format!("there is no stage `{}`", shown(edge.name)), help);
    }

    /// Stages that wait for each other: one message for each knot, with the shortest way round through its first stage.
    fn circles(&mut self, spec: &JobSpec, names: &Names<'_>, upstreams: &[Vec<usize>]) {
        for knot in knots(upstreams) {
            let Some(circle) = shortest_circle(upstreams, &knot) else { continue };
            let (first, next) = (circle[0], circle[1 % circle.len()]);
            let edge = Edge::all(spec, first).find(|edge| names.get(edge.name) == Some(next));
            let path = edge.map_or_else(|| field(first, "inputs"), |edge| edge.path(first));
            if circle.len() == 1 {
                let message = format!("`{}` waits for itself", shown(&spec.stages[first].name));
                self.at(Point::Key, path, message, "delete it here");
                continue;
            }
            let mut way: Vec<String> =
                circle.iter().take(NAMES_SHOWN_MAX).map(|&stage| shown(&spec.stages[stage].name)).collect();
            if circle.len() > NAMES_SHOWN_MAX {
                way.push(format!("… {} more …", circle.len() - NAMES_SHOWN_MAX));
            }
            way.push(shown(&spec.stages[first].name));
            self.at(
                Point::Key,
                path,
                format!("stages wait for each other in a circle: {}", way.join(" → ")),
                "each one waits for the next: take one out of `inputs` or `after` to break the circle",
            );
        }
    }

    /// `each` pairs tasks, and a stage's output is cut into one number of parts only.
    fn sizes(&mut self, spec: &JobSpec, names: &Names<'_>, sizes: &Sizes<'_>) {
        // Of each stage that is shuffled: the first consumer, and its size.
        let mut parts: HashMap<usize, (usize, u32)> = HashMap::new();
        for (index, stage) in spec.stages.iter().enumerate() {
            let Some(size) = sizes.of(spec, index) else { continue };
            for edge in Edge::all(spec, index) {
                let Some(upstream) = names.get(edge.name) else { continue };
                match edge.kind {
                    Some(InputKind::Each) => {
                        let Some(above) = sizes.of(spec, upstream).filter(|&above| above != size) else { continue };
                        let (this, that) = (shown(&stage.name), shown(edge.name));
                        let message =
                            format!("`each` pairs tasks, but `{this}` has {} and `{that}` has {above}", tasks(size));
                        let help = "give both the same number of tasks, or read it with `all` or `shuffle`";
                        self.wrong(edge.path(index), message, help);
                    }
                    Some(InputKind::Shuffle) => {
                        let &mut (first, parts) = parts.entry(upstream).or_insert((index, size));
                        if parts == size {
                            continue;
                        }
                        let (that, this, other) =
                            (shown(edge.name), shown(&stage.name), shown(&spec.stages[first].name));
                        let message = format!(
                            "the output of `{that}` cannot be cut into {parts} parts for `{other}` and {size} for `{this}`"
                        );
                        let help = "give all stages that shuffle the same output the same number of tasks";
                        self.wrong(edge.path(index), message, help);
                    }
                    Some(InputKind::All) | None => {}
                }
            }
        }
    }
}

fn tasks(count: u32) -> String {
    if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") }
}

/// The strongly connected components that hold a circle, each sorted, in the order of their first stages. Tarjan's
/// algorithm ("Depth-first search and linear graph algorithms", 1972) with its recursion turned into a stack.
fn knots(upstreams: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let count = upstreams.len();
    let (mut order, mut low, mut is_open) = (vec![UNSEEN; count], vec![0; count], vec![false; count]);
    let (mut open, mut next_order, mut found) = (Vec::new(), 0, Vec::new());
    // A stage, and how many of its edges were followed.
    let mut calls: Vec<(usize, usize)> = Vec::new();
    for root in 0..count {
        if order[root] != UNSEEN {
            continue;
        }
        calls.push((root, 0));
        while let Some((stage, followed)) = calls.last_mut() {
            let stage = *stage;
            if *followed == 0 {
                (order[stage], low[stage]) = (next_order, next_order);
                next_order += 1;
                open.push(stage);
                is_open[stage] = true;
            }
            if let Some(&upstream) = upstreams[stage].get(*followed) {
                *followed += 1;
                if order[upstream] == UNSEEN {
                    calls.push((upstream, 0));
                } else if is_open[upstream] {
                    low[stage] = low[stage].min(order[upstream]);
                }
                continue;
            }
            calls.pop();
            if let Some(&(caller, _)) = calls.last() {
                low[caller] = low[caller].min(low[stage]);
            }
            if low[stage] == order[stage] {
                let start =
                    open.iter().rposition(|&other| other == stage).expect("a stage is open until its knot is cut off");
                let mut knot = open.split_off(start);
                for &member in &knot {
                    is_open[member] = false;
                }
                if knot.len() > 1 || upstreams[stage].contains(&stage) {
                    knot.sort_unstable();
                    found.push(knot);
                }
            }
        }
    }
    found.sort_unstable();
    found
}

/// The shortest way from a knot's first stage back to it, by breadth-first search inside the knot.
fn shortest_circle(upstreams: &[Vec<usize>], knot: &[usize]) -> Option<Vec<usize>> {
    let &start = knot.first()?;
    let mut came_from: HashMap<usize, usize> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(stage) = queue.pop_front() {
        for &upstream in &upstreams[stage] {
            if upstream == start {
                let mut way = vec![stage];
                let mut at = stage;
                while at != start {
                    at = *came_from.get(&at)?;
                    way.push(at);
                }
                way.reverse();
                return Some(way);
            }
            if knot.binary_search(&upstream).is_ok() && !came_from.contains_key(&upstream) {
                came_from.insert(upstream, stage);
                queue.push_back(upstream);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
        (1usize..8).prop_flat_map(|count| proptest::collection::vec(proptest::collection::vec(0..count, 0..3), count))
    }

    /// Whether `to` can be reached from `from` in at least one step, the obvious way.
    fn reaches(graph: &[Vec<usize>], from: usize, to: usize) -> bool {
        let (mut seen, mut todo) = (vec![false; graph.len()], graph[from].clone());
        while let Some(stage) = todo.pop() {
            if stage == to {
                return true;
            }
            if !std::mem::replace(&mut seen[stage], true) {
                todo.extend(&graph[stage]);
            }
        }
        false
    }

    proptest! {
        #[test]
        fn knots_are_what_can_reach_each_other(graph in graphs()) {
            let found = knots(&graph);
            for a in 0..graph.len() {
                for b in 0..graph.len() {
                    let together = found.iter().any(|knot| knot.contains(&a) && knot.contains(&b));
                    prop_assert_eq!(together, reaches(&graph, a, b) && reaches(&graph, b, a), "{} {}", a, b);
                }
            }
            for knot in found {
                let circle = shortest_circle(&graph, &knot).unwrap();
                for (place, stage) in circle.iter().enumerate() {
                    prop_assert!(graph[*stage].contains(&circle[(place + 1) % circle.len()]));
                }
            }
        }
    }
}
