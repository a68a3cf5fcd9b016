//! How large a job becomes, and whether it contains itself: before anything is allocated for it.
//!
//! Each definition is looked at once, however often it is named, so a chain of forty definitions that each name the next one twice
//! costs forty steps, though it stands for a million million stages. Sums saturate. A walk with a list instead of recursion:
//! a chain of definitions may be of any length.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spec::draft::stage_field;
use crate::spec::finding::shown;
use crate::spec::library::{Library, Outline, Reference};
use crate::spec::limits::{NESTING_DEPTH_MAX, STAGES_MAX};
use crate::spec::model::{JobSpec, Source, Work};
use crate::spec::problem::Problem;

/// Definitions of a circle that are named in a message.
const NAMES_SHOWN_MAX: usize = 20;

/// A definition's name and revision.
type Node = (String, u32);

/// What a job becomes with all that it refers to.
#[derive(Clone, Copy)]
struct Size {
    stages: u64,
    /// How deep jobs stand in it; 0: none does.
    depth: u32,
}

enum Colour {
    /// On the way from the root to where the walk is.
    Open,
    Done(Size),
}

/// A definition on the way, and how many of its references were followed.
struct Call {
    node: Option<Node>,
    outline: Arc<Outline>,
    followed: usize,
    size: Size,
}

impl Call {
    fn of(node: Option<Node>, outline: Arc<Outline>) -> Self {
        let size = Size { stages: outline.stages, depth: outline.depth };
        Self { node, outline, followed: 0, size }
    }

    /// Counts what the reference that was followed last stands for.
    fn add(&mut self, inner: Size) {
        let reference = &self.outline.references[self.followed - 1];
        self.size.stages = self.size.stages.saturating_add(inner.stages);
        self.size.depth = self.size.depth.max(reference.depth.saturating_add(inner.depth));
    }
}

/// Checks that a job can be expanded at all: whatever values its parameters get, what it refers to is there, does not contain
/// itself, and is not too deep or too large.
///
/// # Errors
/// What is wrong.
pub fn measure(root: &JobSpec, library: &dyn Library) -> Result<(), Problem> {
    let size = walk(root, library)?;
    let (limit, message) = if size.depth > NESTING_DEPTH_MAX {
        (
            "NESTING_DEPTH_MAX",
            format!("jobs stand in jobs {} deep, and at most {NESTING_DEPTH_MAX} are allowed", size.depth),
        )
    } else if size.stages > STAGES_MAX as u64 {
        let stages =
            if size.stages == u64::MAX { "more than can be counted".to_owned() } else { size.stages.to_string() };
        (
            "STAGES_MAX",
            format!("with the jobs in it, the job has {stages} stages, and at most {STAGES_MAX} are allowed"),
        )
    } else {
        return Ok(());
    };
    Err(Problem {
        place: None,
        field: "stages".to_owned(),
        message: format!("{message} ({limit})"),
        help: "turn stages that do the same into one stage with `tasks` or `for_each`, or split the job".to_owned(),
    })
}

fn walk(root: &JobSpec, library: &dyn Library) -> Result<Size, Problem> {
    let mut colours: BTreeMap<Node, Colour> = BTreeMap::new();
    let mut calls = vec![Call::of(None, Arc::new(Outline::of(root)))];
    loop {
        let call = calls.last_mut().expect("the loop ends with the root's own call");
        if let Some(reference) = call.outline.references.get(call.followed).cloned() {
            call.followed += 1;
            let found = match library.find(&reference.name, reference.revision) {
                Ok(found) => found,
                Err(unknown) => return Err(at(root, &calls, unknown.message, unknown.help)),
            };
            let node = (reference.name.clone(), found.revision);
            match colours.get(&node) {
                Some(Colour::Done(size)) => call.add(*size),
                Some(Colour::Open) => return Err(circle(root, &calls, &node)),
                None => {
                    colours.insert(node.clone(), Colour::Open);
                    calls.push(Call::of(Some(node), found.outline));
                }
            }
            continue;
        }
        let Some(Call { node, size, .. }) = calls.pop() else { continue };
        match (node, calls.last_mut()) {
            (Some(node), Some(caller)) => {
                caller.add(size);
                colours.insert(node, Colour::Done(size));
            }
            _ => return Ok(size),
        }
    }
}

/// A problem of the root's stage over which the walk got where it is.
fn at(root: &JobSpec, calls: &[Call], message: String, help: String) -> Problem {
    let reference = calls.first().and_then(|call| call.outline.references.get(call.followed.checked_sub(1)?));
    let field = reference.and_then(|reference| field(root, reference)).unwrap_or_else(|| "stages".to_owned());
    let way: Vec<String> = calls.iter().filter_map(|call| Some(shown(&call.node.as_ref()?.0))).collect();
    let message = if way.is_empty() { message } else { format!("in {}: {message}", way.join(" → ")) };
    Problem { place: None, field, message, help }
}

/// The first stage that names the definition.
fn field(root: &JobSpec, reference: &Reference) -> Option<String> {
    let stage = root.stages.iter().find(|stage| match &stage.work {
        Work::Job(nested) => match &nested.source {
            Source::Named { name, revision } => *name == reference.name && *revision == reference.revision,
            Source::Inline(inner) => Outline::of(inner)
                .references
                .iter()
                .any(|other| other.name == reference.name && other.revision == reference.revision),
        },
        Work::Process(_) | Work::Gate(_) => false,
    })?;
    Some(format!("{}.job", stage_field(&stage.name)))
}

fn circle(root: &JobSpec, calls: &[Call], again: &Node) -> Problem {
    let nodes: Vec<&Node> = calls.iter().filter_map(|call| call.node.as_ref()).collect();
    let start = nodes.iter().position(|node| *node == again).unwrap_or(0);
    let mut way: Vec<String> = nodes[start..].iter().take(NAMES_SHOWN_MAX).map(|node| shown(&node.0)).collect();
    if nodes.len() - start > NAMES_SHOWN_MAX {
        way.push(format!("… {} more …", nodes.len() - start - NAMES_SHOWN_MAX));
    }
    way.push(shown(&again.0));
    let problem = at(root, &calls[..1], String::new(), String::new());
    Problem {
        message: format!("jobs contain each other in a circle: {}", way.join(" → ")),
        help: "each one names the next as a stage: take one of those stages out".to_owned(),
        ..problem
    }
}
