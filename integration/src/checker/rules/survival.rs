//! C5, running work survives: an attempt that was started is given up as lost, or as never launched, only if its executor
//! said so, restarted, or was declared lost; and it is declared lost only after it was away for as long as it may be.
//!
//! An executor's word is the end in its record, other than success, no later than the revision that gave the attempt up:
//! a revision is recorded after it was made, which was after the word arrived.

use std::collections::HashMap;

use muster_graph::execution::FailureClass;
use muster_graph::plan::LossPolicy;

use super::Findings;
use super::attempts::{AttemptName, Attempts, Given, GivenUp};
use super::starts::{name_of, starts};
use crate::checker::evidence::{Evidence, Outage, Outages};
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
        let limit = match store.jobs.get(&name.0).and_then(|job| Some(job.states.as_ref()?.plan.lost_after)) {
            Some(LossPolicy::Time(limit)) => Some(limit),
            _ => None,
        };
        // A job with a limit of its own does not wait for the executor's record; unless it is known when executors were
        // away, nothing can be said of it.
        let own_limit = limit.is_some_and(|limit| {
            let over = |outage: &Outage| outage.executor == given.on.id && outage.from_us + limit * 1000 <= at_us;
            evidence.scenario.outages.as_ref().is_none_or(|outages| outages.times.iter().any(over))
        });
        let lines = evidence.executors.get(&given.on.id).map_or(&[][..], Vec::as_slice);
        let began_anew = lines
            .iter()
            .any(|line| line.event == "begin" && line.incarnation > given.on.incarnation && line.boot_us <= at_us);
        if !said && !began_anew && !own_limit && !gone(writes, given, up) {
            let what = format!(
                "attempt {} was given up ({:?}), and {}@{} had started it, was not lost, and said nothing of its end",
                name.2, up.classes, given.on.id, given.on.incarnation
            );
            findings.of_task(Rule::RunningKept, (name.0, name.1), vec![given.revision, up.revision], what);
        }
    }
}

/// Whether an executor's life was over, by a record that stood at some time while it had the attempt.
fn gone(writes: &[ExecutorWrite], given: &Given, up: &GivenUp) -> bool {
    let first = writes.partition_point(|write| write.revision <= given.revision).saturating_sub(1);
    let stood = writes[first..].iter().take_while(|write| write.revision <= up.revision);
    let ended = |write: &ExecutorWrite| match &write.record {
        None => true,
        Some(record) => {
            let ended = matches!(record.state.as_str(), "lost" | "stopped");
            record.incarnation > given.on.incarnation || (ended && record.incarnation == given.on.incarnation)
        }
    };
    // Of one that has no record the store knows nothing.
    let known = stood.clone().next().is_some();
    !known || stood.into_iter().any(ended)
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
