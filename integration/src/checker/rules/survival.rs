//! C5, running work survives: an attempt that was started is given up as lost, or as never launched, only if its executor
//! said so, restarted, or was declared lost; and it is declared lost only after it was away for as long as it may be.
//!
//! An executor's word is the end in its record, other than success, no later than the revision that gave the attempt up:
//! a revision is recorded after it was made, which was after the word arrived.

use std::collections::HashMap;

use muster_graph::execution::FailureClass;

use super::Findings;
use super::attempts::{AttemptName, Attempts, Given, GivenUp};
use super::starts::{name_of, starts};
use crate::checker::evidence::{Evidence, Outages};
use crate::checker::store::{ExecutorWrite, Store};
use crate::checker::verdict::Rule;
use crate::journal::Line;

/// Compares the history with the executors' records and with what the scenario did to them.
pub(in crate::checker) fn end(evidence: &Evidence, store: &Store, attempts: &Attempts, findings: &mut Findings) {
    if let Some(outages) = &evidence.scenario.outages {
        let mut executors: Vec<_> = store.executors.iter().collect();
        executors.sort_unstable_by_key(|(executor, _)| *executor);
        for (executor, writes) in executors {
            declared(executor, writes, outages, findings);
        }
    }
    let starts = starts(evidence);
    let mut ends: HashMap<AttemptName, Vec<&Line>> = HashMap::new();
    for line in evidence.executors.values().flatten().filter(|line| line.event == "end") {
        if let Some(name) = name_of(line) {
            ends.entry(name).or_default().push(line);
        }
    }
    let mut given_up: Vec<_> = attempts
        .of
        .iter()
        .filter_map(|(name, past)| Some((name, past.given.last()?, past.given_up.as_ref()?)))
        .collect();
    given_up.sort_unstable_by_key(|(name, ..)| **name);
    for (name, given, up) in given_up {
        let lost = |class: &FailureClass| matches!(class, FailureClass::ExecutorLost | FailureClass::LaunchRefused);
        if up.classes.is_empty() || !up.classes.iter().all(lost) || !starts.contains_key(name) {
            continue;
        }
        let at_us = evidence.writes.binary_search_by_key(&up.revision, |write| write.revision);
        let at_us = at_us.map_or(u64::MAX, |place| evidence.writes[place].at_us);
        let said = ends
            .get(name)
            .into_iter()
            .flatten()
            .any(|line| line.boot_us <= at_us && line.outcome.as_deref() != Some("OUTCOME_SUCCEEDED"));
        let writes = store.executors.get(&given.on.id).map_or(&[][..], Vec::as_slice);
        let limit = store.jobs.get(&name.0).and_then(|job| job.states.as_ref()?.plan.lost_after_ms);
        let own_limit = evidence.scenario.outages.as_ref().zip(limit).is_some_and(|(outages, limit)| {
            outages.times.iter().any(|outage| outage.executor == given.on.id && outage.from_us + limit * 1000 <= at_us)
        });
        if !said && !gone(writes, given, up) && !own_limit {
            let what = format!(
                "attempt {} was given up ({:?}), and {}@{} had started it, was not lost, and said nothing of its end",
                name.2, up.classes, given.on.id, given.on.incarnation
            );
            findings.of_task(Rule::RunningKept, (name.0, name.1), vec![given.revision, up.revision], what);
        }
    }
}

/// Whether an executor's life was over, by its record, at some time while it had the attempt.
fn gone(writes: &[ExecutorWrite], given: &Given, up: &GivenUp) -> bool {
    let mut known = writes.iter().filter(|write| write.revision <= up.revision).peekable();
    if known.peek().is_none() {
        // The store knows nothing of it.
        return true;
    }
    known.any(|write| match &write.record {
        None => write.revision > given.revision,
        Some(record) => {
            let ended =
                matches!(record.state.as_str(), "lost" | "stopped") && record.incarnation >= given.on.incarnation;
            (ended && write.revision > given.revision) || record.incarnation > given.on.incarnation
        }
    })
}

fn declared(executor: &str, writes: &[ExecutorWrite], outages: &Outages, findings: &mut Findings) {
    let lost_after_us = u64::try_from(outages.lost_after.as_micros()).unwrap_or(u64::MAX);
    let mut was_lost = false;
    for write in writes {
        let is_lost = write.record.as_ref().is_some_and(|record| record.state == "lost");
        let newly = is_lost && !std::mem::replace(&mut was_lost, is_lost);
        was_lost = is_lost;
        let away = outages.times.iter().filter(|outage| outage.executor == executor).any(|outage| {
            let until_us = outage.until_us.unwrap_or(u64::MAX);
            outage.from_us + lost_after_us <= write.at_us.min(until_us)
        });
        if newly && !away {
            let what = format!("{executor} was declared lost, and was not away for {:?}", outages.lost_after);
            findings.add(Rule::LossDeclared, None, None, vec![write.revision], what);
        }
    }
}
