//! Nested jobs in a list of stages: each is one line, and those that failed are followed by what is in them.

use std::collections::HashSet;

use super::views::Stage;

/// What is shown of nested jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folding {
    /// Nested jobs up to this depth are unfolded; 0: only those that failed.
    pub(crate) depth: usize,
    /// Only this one, or this stage; it is unfolded.
    pub(crate) path: Option<String>,
}

impl Folding {
    /// The lines for people: a nested job before what is in it.
    pub(crate) fn rows<'s>(&self, stages: &'s [Stage]) -> Vec<&'s Stage> {
        let failed: HashSet<&str> =
            stages.iter().filter(|stage| stage.state == "failed").map(|stage| stage.name.as_str()).collect();
        let mut placed: Vec<(usize, &Stage)> = Vec::new();
        for (place, stage) in stages.iter().enumerate() {
            let inside = stages[..place].iter().rev().take_while(|other| is_inside(&other.name, &stage.name));
            let first = if stage.is_job { place - inside.count() } else { place };
            if self.shows(&stage.name, &failed) {
                placed.push((first, stage));
            }
        }
        placed.sort_by_key(|(first, stage)| (*first, depth(&stage.name)));
        placed.into_iter().map(|(_, stage)| stage).collect()
    }

    /// Whether all jobs around it are unfolded.
    fn shows(&self, name: &str, failed: &HashSet<&str>) -> bool {
        let root = self.path.as_deref().unwrap_or_default();
        if !root.is_empty() && name != root && !is_inside(name, root) {
            return false;
        }
        let start = if root.is_empty() { 0 } else { root.len() + 1 };
        let from_root = name.get(start..).unwrap_or_default();
        let borders = from_root.match_indices('/').enumerate();
        borders.into_iter().all(|(depth, (at, _))| depth < self.depth || failed.contains(&name[..start + at]))
    }
}

fn is_inside(name: &str, job: &str) -> bool {
    name.strip_prefix(job).is_some_and(|rest| rest.starts_with('/'))
}

fn depth(name: &str) -> usize {
    name.matches('/').count()
}
