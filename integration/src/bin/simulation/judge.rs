//! What is kept as evidence while a cluster runs, and what the checker makes of it at the end.
//!
//! Every write is recorded when it is made, so "before" can be decided; see [`Scenario::exact_times`].

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_integration::checker::{
    self, Cancelled, Clients, Evidence, Outage, Outages, Scenario, Statistics, Submitted, Write,
};
use muster_integration::{journal, recorder};
use muster_state::Memory;

use crate::TICK;
use crate::hosts::{self, LOST_AFTER, Size};
use crate::world::World;

/// After a fault between an executor and a scheduler, both may take so long to notice that their connection is gone, and
/// to make another one.
const RECONNECTED_WITHIN: Duration = Duration::from_secs(15);
/// The jobs of a dead scheduler move on within this. Generous: faults go on meanwhile, and the survivors may be cut off
/// from the store.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(30);

/// The evidence so far.
#[derive(Debug)]
pub(crate) struct Record {
    store: Mutex<recorder::Memory>,
    clients: Mutex<Clients>,
    /// When executors may have been away; none: all of them.
    away: Mutex<Vec<(Option<usize>, Duration, Duration)>>,
}

impl Record {
    pub(crate) fn new(store: &Memory) -> Self {
        Self { store: Mutex::new(recorder::Memory::new(store)), clients: Mutex::default(), away: Mutex::default() }
    }

    /// Takes in what was written just now.
    pub(crate) fn writes(&self, now: Duration) {
        let mut store = self.store.lock().expect("nothing panics while holding it");
        store.record(micros(now)).expect("nothing is compacted before it is recorded");
    }

    pub(crate) fn submitted(&self, submitted: Submitted) {
        self.clients.lock().expect("nothing panics while holding it").submitted.push(submitted);
    }

    /// The jobs of a namespace that were accepted so far.
    pub(crate) fn accepted_in(&self, namespace: &str) -> Vec<JobId> {
        let clients = self.clients.lock().expect("nothing panics while holding it");
        clients.submitted.iter().filter(|known| known.namespace == namespace).map(|known| known.job).collect()
    }

    pub(crate) fn cancelled(&self, cancelled: Cancelled) {
        self.clients.lock().expect("nothing panics while holding it").cancelled.push(cancelled);
    }

    pub(crate) fn group_cancelled(&self, namespace: &str, path: &str) {
        let mut clients = self.clients.lock().expect("nothing panics while holding it");
        clients.groups_cancelled.push((namespace.to_owned(), path.to_owned()));
    }

    /// A fault is about to keep an executor from having a home, or any executor: that of a scheduler without a session is
    /// none.
    pub(crate) fn away(&self, executor: Option<usize>, from: Duration, until: Duration) {
        self.away.lock().expect("nothing panics while holding it").push((executor, from, until));
    }

    fn outages(&self, executors: usize) -> Vec<Outage> {
        let away = self.away.lock().expect("nothing panics while holding it").clone();
        let each = |(executor, from, until): (Option<usize>, Duration, Duration)| {
            let some = executor.map_or(0..executors, |index| index..index + 1);
            some.map(move |index| (index, from, until))
        };
        let mut away: Vec<(usize, Duration, Duration)> = away.into_iter().flat_map(each).collect();
        away.sort_unstable();
        let mut outages: Vec<Outage> = Vec::new();
        for (index, from, until) in away {
            let executor = hosts::executor(index);
            // Within a tick one host's clock may be behind another's, who notices by its own.
            let from = from.saturating_sub(TICK);
            let until_us = micros(until + RECONNECTED_WITHIN);
            match outages.last_mut() {
                Some(last) if last.executor == executor && last.until_us >= Some(micros(from)) => {
                    last.until_us = last.until_us.max(Some(until_us));
                }
                _ => outages.push(Outage { executor, from_us: micros(from), until_us: Some(until_us) }),
            }
        }
        outages
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a simulation is short")
}

/// Decides, and complains of every rule that was broken.
pub(crate) fn judge(world: &World, size: Size, ended: Duration) -> Statistics {
    world.record.writes(ended);
    let record = &world.record;
    let writes: Vec<Write> = record.store.lock().expect("nothing panics while holding it").writes().to_vec();
    let executors: BTreeMap<String, Vec<journal::Line>> = (0..size.executors)
        .map(|index| (hosts::executor(index), journal::read(&hosts::data_dir(world, index))))
        .collect();
    for (executor, lines) in &executors {
        for line in lines {
            world.note(format_args!("journal {executor} {line:?}"));
            if line.event == "keep" {
                world.fault("output-handed-over", executor);
            }
        }
    }
    let evidence = Evidence {
        writes,
        executors,
        clients: std::mem::take(&mut record.clients.lock().expect("nothing panics while holding it")),
        scenario: Scenario {
            exact_times: true,
            ended_at_us: micros(ended),
            takeover_within: Some(TAKEOVER_WITHIN),
            outages: Some(Outages { times: record.outages(size.executors), lost_after: LOST_AFTER }),
            ..Scenario::default()
        },
    };
    let verdict = checker::check(&evidence);
    for violation in &verdict.violations {
        world.complain(violation);
    }
    if !verdict.violations.is_empty() {
        eprintln!("{verdict}");
    }
    verdict.statistics
}
