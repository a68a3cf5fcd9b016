//! C3 and C2, what was started: each start was assigned, to that executor in that life, by an owner of the job; an attempt
//! is started once, ever; who heard of an owner admits nothing of an earlier one; and what was accepted was started there.
//!
//! An executor notes a fence after it took effect, and a start says when its admission began, before the fence was
//! compared. So a launch of an earlier owner whose admission began after the note was admitted against the fence, whatever
//! order the lines are in. One that was admitted before and starts after it is legal: whoever asked was told of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_graph::ids::{JobId, TaskId};

use super::Findings;
use super::attempts::{AttemptName, Attempts};
use crate::checker::evidence::Evidence;
use crate::checker::store::Store;
use crate::checker::verdict::{Rule, Statistics};
use crate::journal::Line;

/// Each attempt's starts, with the executors that noted them.
pub(in crate::checker) type Starts<'a> = HashMap<AttemptName, Vec<(&'a str, &'a Line)>>;

/// The attempt that a line is about.
pub(in crate::checker) fn name_of(line: &Line) -> Option<AttemptName> {
    Some((line.job.parse().ok()?, TaskId::new(line.stage, line.index), line.attempt))
}

/// Finds them in the executors' records.
pub(in crate::checker) fn starts(evidence: &Evidence) -> Starts<'_> {
    let mut starts = Starts::new();
    for (executor, lines) in &evidence.executors {
        for line in lines.iter().filter(|line| line.event == "start") {
            if let Some(name) = name_of(line) {
                starts.entry(name).or_default().push((executor, line));
            }
        }
    }
    starts
}

/// Compares the executors' records with the history. `tokens`: every owner's record that each job ever had.
pub(in crate::checker) fn end(
    evidence: &Evidence,
    store: &Store,
    attempts: &Attempts,
    tokens: &BTreeMap<JobId, BTreeSet<u64>>,
    findings: &mut Findings,
    statistics: &mut Statistics,
) {
    if evidence.executors.is_empty() {
        return;
    }
    let starts = starts(evidence);
    let mut names: Vec<&AttemptName> = starts.keys().collect();
    names.sort_unstable();
    let mut by_task: BTreeMap<(JobId, TaskId), usize> = BTreeMap::new();
    for name in names {
        let (job, task, attempt) = *name;
        let lines = &starts[name];
        // What it was given cannot be known any more.
        let torn = store.jobs.get(&job).is_some_and(|job| job.torn);
        statistics.starts += lines.len();
        *by_task.entry((job, task)).or_default() += lines.len();
        if lines.len() > 1 {
            let lives: Vec<String> =
                lines.iter().map(|(on, line)| format!("{on}@{} at {} us", line.incarnation, line.boot_us)).collect();
            let what = format!("attempt {attempt} was started {} times: {lives:?}", lines.len());
            findings.of_task(Rule::StartedOnce, (job, task), Vec::new(), what);
        }
        for (executor, line) in lines {
            let past = attempts.of.get(name);
            let given = past.map_or(&[][..], |past| past.given.as_slice());
            let life = given.iter().find(|given| given.on.id == *executor && given.on.incarnation == line.incarnation);
            let start =
                format!("attempt {attempt} was started on {executor}@{} (token {})", line.incarnation, line.token);
            match life {
                _ if torn => {}
                None => {
                    let given: Vec<_> = given.iter().map(|given| (&given.on, given.revision)).collect();
                    let what = format!("{start}, and was given to {given:?}");
                    let revisions = past.and_then(|past| past.given.first()).map(|given| given.revision);
                    findings.of_task(Rule::StartAssigned, (job, task), revisions.into_iter().collect(), what);
                }
                Some(given) if evidence.scenario.exact_times && line.boot_us < given.at_us => {
                    let what = format!("{start} at {} us, and assigned at {} us", line.boot_us, given.at_us);
                    findings.of_task(Rule::StartAssigned, (job, task), vec![given.revision], what);
                }
                Some(_) if tokens.get(&job).is_none_or(|tokens| !tokens.contains(&line.token)) => {
                    let what = format!("{start}, and no owner ever had that token");
                    findings.of_task(Rule::StartAssigned, (job, task), Vec::new(), what);
                }
                Some(_) => {}
            }
        }
    }
    statistics.run_more_than_once = by_task.values().filter(|starts| **starts > 1).count();
    for (executor, lines) in &evidence.executors {
        fences(executor, lines, findings);
    }
    accepted(evidence, attempts, &starts, findings);
}

fn fences(executor: &str, lines: &[Line], findings: &mut Findings) {
    /// When, and the epoch with the token.
    type Heard = (u64, (u64, u64));
    let mut heard: HashMap<&str, Vec<Heard>> = HashMap::new();
    for line in lines.iter().filter(|line| line.event == "fence") {
        heard.entry(&line.job).or_default().push((line.boot_us, (line.epoch, line.token)));
    }
    for line in lines.iter().filter(|line| line.event == "start") {
        let newer = heard
            .get(line.job.as_str())
            .into_iter()
            .flatten()
            .find(|(at_us, fence)| *at_us < line.admitted_us && *fence > (line.epoch, line.token));
        if let (Some((at_us, fence)), Some((job, task, attempt))) = (newer, name_of(line)) {
            let what = format!(
                "{executor} heard of {fence:?} at {at_us} us, and at {} us admitted attempt {attempt} of token {}",
                line.admitted_us, line.token
            );
            findings.of_task(Rule::Fence, (job, task), Vec::new(), what);
        }
    }
}

fn accepted(evidence: &Evidence, attempts: &Attempts, starts: &Starts<'_>, findings: &mut Findings) {
    let mut accepted: Vec<_> =
        attempts.of.iter().filter_map(|(name, past)| Some((name, past.accepted.as_ref()?))).collect();
    accepted.sort_unstable_by_key(|(name, _)| **name);
    for (name, accepted) in accepted {
        let on = &accepted.on;
        let there = starts.get(name).into_iter().flatten();
        let started = there.clone().any(|(executor, line)| *executor == on.id && line.incarnation <= on.incarnation);
        // The last lines of one that was killed may never have reached its disk.
        if !started && !evidence.scenario.killed.contains(&on.id) {
            let lives: Vec<_> = there.map(|(executor, line)| (executor, line.incarnation)).collect();
            let what = format!("attempt {} was accepted from {on:?}, and was started on {lives:?}", name.2);
            findings.of_task(Rule::AcceptedStarted, (name.0, name.1), vec![accepted.revision], what);
        }
    }
}
