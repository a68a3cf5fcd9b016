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

#[cfg(test)]
mod tests {
    use muster_client::v1::{self, Gate, StageState};

    use super::*;

    /// As a scheduler tells it: a job's end after what is in it. A name that ends in `/` is a job's.
    fn stages(told: &[(&str, StageState)]) -> Vec<Stage> {
        let view = |(name, state): &(&str, StageState)| v1::StageView {
            name: name.trim_end_matches('/').to_owned(),
            state: (*state).into(),
            gate: if name.ends_with('/') { Gate::End.into() } else { 0 },
            ..Default::default()
        };
        told.iter().map(|told| Stage::new("job", view(told))).collect()
    }

    fn shown(folding: &Folding, stages: &[Stage]) -> Vec<String> {
        folding.rows(stages).into_iter().map(|stage| stage.name.clone()).collect()
    }

    #[test]
    fn nested_jobs_are_folded_and_the_failing_path_is_not() {
        use StageState::{Failed, Skipped, Successful};
        let told = [
            ("a", Successful),
            ("good/x", Successful),
            ("good/", Successful),
            ("bad/first/y", Successful),
            ("bad/first/", Successful),
            ("bad/deep/z", Failed),
            ("bad/deep/w", Skipped),
            ("bad/deep/", Failed),
            ("bad/", Failed),
            ("bader", Skipped),
        ];
        let stages = stages(&told);
        let failing = ["a", "good", "bad", "bad/first", "bad/deep", "bad/deep/z", "bad/deep/w", "bader"];
        assert_eq!(shown(&Folding::default(), &stages), failing);
        let one = Folding { depth: 1, path: None };
        assert_eq!(shown(&one, &stages)[1..4], ["good", "good/x", "bad"]);
        let all = Folding { depth: 16, path: None };
        assert_eq!(shown(&all, &stages).len(), told.len());
        let good = Folding { depth: 0, path: Some("good".to_owned()) };
        assert_eq!(shown(&good, &stages), ["good", "good/x"]);
        let first = Folding { depth: 0, path: Some("bad/first".to_owned()) };
        assert_eq!(shown(&first, &stages), ["bad/first", "bad/first/y"]);
    }

    #[test]
    fn the_first_stage_of_a_job_may_be_a_job() {
        let stages =
            stages(&[("a/b/c", StageState::Running), ("a/b/", StageState::Running), ("a/", StageState::Running)]);
        assert_eq!(shown(&Folding { depth: 2, path: None }, &stages), ["a", "a/b", "a/b/c"]);
    }
}
