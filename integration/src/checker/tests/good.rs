//! A good history, made by real schedulers over the memory store: a small job in one record, a large one that is folded
//! and taken over half-way, one with a task that fails once. The executors run nothing; what they would have recorded is
//! made from the history, so that tests can damage one against the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_state::faults::{Fault, Faulty, Operation};
use muster_state::{Keyspace, SessionId, StateBackend as _, keys};

use super::super::rules::attempts::Attempts;
use super::super::store::Store;
use super::super::{Clients, Evidence, Submitted, Write, decode};
use crate::jobs::{client, finished, job, submit};
use crate::journal::Line;
use crate::simulated::{Decide, Simulated};
use crate::{cluster, eventually, recorder};

/// More than fit into a head, and enough commits for parts to be folded.
pub(super) const TASKS: u32 = 300;
/// From this one on they end when the gate is opened: a scheduler stops meanwhile.
const HELD: u32 = 220;
/// Its first attempt fails.
pub(super) const FAILS_ONCE: u32 = 5;

/// A good history, and its jobs.
pub(super) struct Good {
    pub(super) evidence: Evidence,
    /// In one record: stage 0 with 3 tasks, then stage 1 with 2.
    pub(super) small: JobId,
    /// Another like it.
    pub(super) other: JobId,
    /// In buckets and deltas; taken over once.
    pub(super) large: JobId,
}

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

fn decide(gate: &Arc<Gate>) -> Decide {
    let gate = Arc::clone(gate);
    Arc::new(move |attempt: &v1::AttemptRef| {
        if attempt.stage == 0 && attempt.index >= HELD {
            gate.pass();
        }
        let fails = attempt.stage == 0 && attempt.index == FAILS_ONCE && attempt.attempt == 1;
        let outcome = if fails { v1::Outcome::Failed } else { v1::Outcome::Succeeded };
        Some(v1::AttemptFinished { outcome: outcome.into(), finished_at_ms: 1, ..Default::default() })
    })
}

/// Makes it.
pub(super) async fn good() -> Good {
    let store = muster_state::Memory::new();
    let recorder = Arc::new(Mutex::new(recorder::Memory::new(&store)));
    let recording = Arc::clone(&recorder);
    let record = tokio::spawn(async move {
        let mut often = tokio::time::interval(Duration::from_millis(1));
        loop {
            often.tick().await;
            recording.lock().unwrap().record(recorder::boot_us()).unwrap();
        }
    });
    let way = Faulty::new(Arc::new(store.clone()));
    let one = cluster::scheduler("one", Arc::new(way.clone())).await.unwrap();
    let two = cluster::scheduler("two", Arc::new(store.clone())).await.unwrap();
    let gate = Arc::new(Gate::default());
    let executors = [
        Simulated::start("e1", two.address(), 1, decide(&gate)).await.unwrap(),
        Simulated::start("e2", two.address(), 1, decide(&gate)).await.unwrap(),
    ];
    let (mut first, mut second) = (client(one.address()).await.unwrap(), client(two.address()).await.unwrap());
    let mut clients = Clients::default();
    let mut submitted = |job: &str, key: &str| {
        let job = job.parse().unwrap();
        let submit = Submitted {
            job,
            namespace: "default".to_owned(),
            key: key.to_owned(),
            spec: key.to_owned(),
            at_us: recorder::boot_us() + 1_000_000,
        };
        clients.submitted.push(submit);
        job
    };
    let stages: [crate::jobs::Stage<'_>; 2] = [("a", 3, &[]), ("b", 2, &[("a", v1::InputKind::All)])];
    let mut ids = Vec::new();
    for key in ["small", "other"] {
        let id = submit(&mut second, job(key, &stages), key).await.unwrap();
        let view = finished(&mut second, &id, 30).await.unwrap();
        assert_eq!(view.state(), v1::JobState::Successful, "{view:?}");
        ids.push(submitted(&id, key));
    }
    let mut spec = job("large", &[("a", TASKS, &[])]);
    spec.stages[0].retries = Some(v1::Retries { failed: Some(2), backoff_ms: 1, ..Default::default() });
    let id = submit(&mut first, spec, "large").await.unwrap();
    let large = submitted(&id, "large");
    // Each has one slot: what it had before has been reported and taken in.
    eventually("both executors are held up", 60, || async {
        let held =
            |executor: &Simulated| executor.seen(|seen| seen.launches.keys().any(|(.., index, _)| *index >= HELD));
        executors.iter().all(held).then_some(())
    })
    .await;
    // It dies: told to stop, it would hand its job over.
    for operation in [Operation::Read, Operation::Write, Operation::Watch, Operation::Session] {
        way.inject(None, operation, Fault::Unavailable, usize::MAX);
    }
    let sessions = store.get_from_prefix(Keyspace::Schedulers, "one.").await.unwrap().entries;
    sessions.into_iter().for_each(|session| store.revoke(&SessionId(session.name)));
    eventually("the other scheduler owns the job", 60, || {
        let (mut second, job_id, address) = (second.clone(), id.clone(), two.address().to_string());
        async move {
            let view = second.get_job(v1::GetJobRequest { job_id }).await.ok()?.into_inner();
            (view.owner == address).then_some(())
        }
    })
    .await;
    gate.open();
    let view = finished(&mut second, &id, 60).await.unwrap();
    assert_eq!(view.state(), v1::JobState::Successful, "{view:?}");
    // Groups are counted a moment later, by whoever keeps them then.
    eventually("all changes of groups are added up", 60, || async {
        let waiting = store.get_from_prefix(Keyspace::GroupCounts, keys::GROUP_CHANGES).await.ok()?;
        waiting.entries.is_empty().then_some(())
    })
    .await;
    two.stop().await;
    drop(one);
    record.abort();
    let _ = record.await;
    let recorder = Arc::into_inner(recorder).expect("the recording task has ended").into_inner().unwrap();
    let mut writes = recorder.finish(recorder::boot_us()).unwrap();
    // What executors would have noted comes some microseconds after each, and before the next one.
    let mut at_us = 0;
    for write in &mut writes {
        at_us = write.at_us.max(at_us + 10);
        write.at_us = at_us;
    }
    let executors = journals(&writes);
    Good {
        evidence: Evidence { writes, executors, clients, ..Evidence::default() },
        small: ids[0],
        other: ids[1],
        large,
    }
}

/// What executors would have recorded of a history.
fn journals(writes: &[Write]) -> BTreeMap<String, Vec<Line>> {
    let (mut store, mut attempts) = (Store::default(), Attempts::default());
    let mut journals: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    let mut heard = BTreeSet::new();
    for write in writes {
        let step = decode::step(write);
        for (id, applied) in store.apply(&step) {
            attempts.after(id, &applied.moves, write.revision, write.at_us);
            let token = store.jobs[&id].owner.as_ref().map_or(0, |owner| owner.token);
            for moved in &applied.moves {
                use muster_graph::execution::TaskPhase as P;
                let (was, is) = (moved.from.state.phase(), moved.to.state.phase());
                let line = |event: &str, after_us: u64, incarnation: u64, outcome: Option<&str>| Line {
                    event: event.to_owned(),
                    boot_us: write.at_us + after_us,
                    incarnation,
                    job: id.to_string(),
                    stage: moved.task.stage.0,
                    index: moved.task.index.0,
                    attempt: moved.to.attempt,
                    epoch: 1,
                    token,
                    admitted_us: write.at_us + 2,
                    outcome: outcome.map(str::to_owned),
                };
                let held = matches!(was, P::Assigned | P::Running);
                let goes_on = moved.from.attempt == moved.to.attempt && matches!(is, P::Assigned | P::Running);
                if let (Some(on), true, false) = (&moved.from_on, held, goes_on) {
                    let outcome = if is == P::Successful { "OUTCOME_SUCCEEDED" } else { "OUTCOME_FAILED" };
                    let mut end = line("end", 0, on.incarnation, Some(outcome));
                    (end.attempt, end.boot_us) = (moved.from.attempt, write.at_us - 1);
                    journals.entry(on.id.clone()).or_default().push(end);
                }
                if let (Some(on), P::Assigned) = (&moved.to_on, is) {
                    let lines = journals.entry(on.id.clone()).or_default();
                    if heard.insert((on.id.clone(), id, token)) {
                        lines.push(line("fence", 1, on.incarnation, None));
                    }
                    lines.push(line("start", 3, on.incarnation, None));
                }
            }
        }
    }
    journals
}
