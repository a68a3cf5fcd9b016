//! The keeper of schedules: one scheduler at a time, the one that holds the lock, looks at each schedule when it is due.
//!
//! The lock only saves work, and its guard is compared all the same: what makes a time fire once is the record's revision. Nothing is
//! known here but when to look next; every look reads the record anew. A watch brings changes sooner, a list now and then would
//! bring them alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::ids::{JobId, Millis};
use muster_graph::schedule::Due;
use muster_proto::storage::ScheduleRecord;
use muster_proto::v1;
use muster_state::{Change, Error, Guard, Key, Keyspace, Op, Revision, Scan, Session, Txn, TxnOutcome, codec, keys};
use tonic::{Code, Request, Status};

use super::{advance, idempotency_key, progress, rules, timetable};
use crate::accept::{store, unavailable};
use crate::definitions::{self, Tick};
use crate::load::send_until_known;
use crate::services::Api;
use crate::shared::Shared;
use crate::singleton;

/// The lock's name.
const LOCK: &str = "schedules";
/// After an error of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// A watch only makes sooner what a list alone would bring about.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// The clock may jump, and jobs end without a word to the keeper: so often the times are compared with it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Before a schedule that waits for the end of a job, or whose job was not accepted for now, is looked at again.
const AGAIN_MS: Millis = 1_000;
/// Schedules that are looked at at the same time: most of it is waiting for the store.
const AT_ONCE: usize = 16;

/// Is the keeper whenever it holds the lock, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut draining = shared.draining.subscribe();
    loop {
        // Who hands its jobs over accepts none. The sender lives as long as `shared`.
        let _ = draining.wait_for(|draining| !draining).await;
        let session = shared.presence().session;
        let lock = tokio::select! {
            lock = singleton::lock(&shared, LOCK, &session) => lock,
            _ = draining.wait_for(|draining| *draining) => continue,
        };
        match lock {
            Ok(lock) => {
                tracing::info!("this scheduler keeps the schedules");
                let keeper = Keeper { api: Api::of(&shared), held: lock.guard() };
                tokio::select! {
                    () = keeper.work(&*session) => {}
                    _ = draining.wait_for(|draining| *draining) => {}
                }
                tracing::info!("another scheduler keeps the schedules now");
            }
            Err(error) => tracing::debug!(%error, "no place in the queue of the schedules' keepers"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Keeper {
    api: Api,
    /// Holds as long as the lock is held.
    held: Guard,
}

/// When to look at each schedule, by the name of its key; `Millis::MAX`: not before something changes.
type Looks = BTreeMap<String, Millis>;

impl Keeper {
    /// Looks at schedules for as long as the session lives.
    async fn work(&self, session: &dyn Session) {
        loop {
            tokio::select! {
                () = session.lost() => return,
                followed = tokio::time::timeout(LIST_EVERY, self.follow()) => {
                    if let Ok(Err(error)) = followed {
                        tracing::info!(%error, "the schedules are listed anew");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Lists all schedules, follows what changes, and looks at each when it is due.
    async fn follow(&self) -> Result<(), Error> {
        let state = &*self.api.shared().options.state;
        let mut looks = Looks::new();
        let mut scan = Scan::default();
        let listed = loop {
            let page = state.scan_keys(Keyspace::Schedules, scan.clone()).await?;
            looks.extend(page.entries.into_iter().map(|entry| (entry.name, 0)));
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
                None => break page.revision,
            }
        };
        let mut watch = state.watch(Keyspace::Schedules, "", listed + 1).await?;
        loop {
            self.look_at_those_due(&mut looks).await;
            let pause = looks.values().min().map_or(LOOK_EVERY, |at| {
                Duration::from_millis(at.saturating_sub(self.api.shared().now())).min(LOOK_EVERY)
            });
            let Ok(batch) = tokio::time::timeout(pause, watch.next()).await else { continue };
            let Some(batch) = batch else { return Ok(()) };
            for change in batch?.changes {
                match change {
                    Change::Put(entry) => drop(looks.insert(entry.name, 0)),
                    Change::Deleted { name, .. } => drop(looks.remove(&name)),
                }
            }
        }
    }

    async fn look_at_those_due(&self, looks: &mut Looks) {
        let now = self.api.shared().now();
        let due: Vec<String> = looks.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        let mut looked = futures::stream::iter(due)
            .map(|name| async move {
                let next = self.look(&name).await.unwrap_or_else(|status| {
                    tracing::info!(schedule = name, %status, "a schedule is looked at again soon");
                    self.api.shared().now() + AGAIN_MS
                });
                (name, next)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((name, next)) = looked.next().await {
            looks.insert(name, next);
        }
    }

    /// Decides what is due of one schedule; answers when to look at it again.
    async fn look(&self, name: &str) -> Result<Millis, Status> {
        let shared = self.api.shared();
        let key = Key::new(Keyspace::Schedules, name);
        loop {
            shared.health.check_writable()?;
            let Some(entry) = shared.options.state.get(&key).await.map_err(store)? else { return Ok(Millis::MAX) };
            let mut record: ScheduleRecord = match codec::decode(&key, &entry.value) {
                Ok(record) => record,
                Err(error) => {
                    tracing::warn!(schedule = name, %error, "a schedule that cannot be read is left alone");
                    return Ok(Millis::MAX);
                }
            };
            let Some(schedule) = record.schedule.clone().filter(|_| !record.paused) else { return Ok(Millis::MAX) };
            let timetable = match timetable(&schedule) {
                Ok(timetable) => timetable,
                // It was looked at when it was set: another version's.
                Err(error) => {
                    tracing::warn!(schedule = name, %error, "a schedule without times is left alone");
                    return Ok(Millis::MAX);
                }
            };
            let now = shared.now();
            let busy = self.is_active(&record.last_job).await?;
            let before = progress(&record);
            let step = before.step(&timetable, rules(&schedule), now, busy);
            let changed = step.progress != before || !step.passed_over.is_empty();
            let next = step.progress.next_look(&timetable).unwrap_or(Millis::MAX);
            let waits = !step.progress.waiting.is_empty();
            advance(&mut record, step.progress, &step.passed_over);
            let Some(due) = step.run else {
                if changed {
                    self.write(&key, entry.mod_revision, &record).await?;
                }
                return Ok(if waits { next.min(now + AGAIN_MS) } else { next });
            };
            self.fire(&key, entry.mod_revision, record, schedule, due).await?;
        }
    }

    /// Runs the schedule's definition for one time. What is wrong with it for good is written into the record.
    async fn fire(
        &self,
        key: &Key,
        revision: Revision,
        mut record: ScheduleRecord,
        schedule: v1::Schedule,
        due: Due,
    ) -> Result<(), Status> {
        let Some((namespace, name)) = keys::schedule_of(&key.name) else {
            return Err(Status::data_loss(format!("{}: not the name of a schedule", key.name)));
        };
        if due.replaces {
            let reason = format!("schedule {name} runs again, and replaces what is unfinished");
            let job_id = record.last_job.clone();
            self.api.cancel(Request::new(v1::CancelJobRequest { job_id, reason })).await?;
        }
        let run = v1::RunDefinitionRequest {
            namespace: namespace.to_owned(),
            idempotency_key: idempotency_key(&record, due.tick),
            ..schedule.run.unwrap_or_default()
        };
        record.last_tick_ms = due.tick;
        record.problem = String::new();
        record.problem_at_ms = 0;
        let along = {
            let (held, key, record) = (self.held.clone(), key.clone(), record.clone());
            move |job: JobId| {
                let value = codec::encode(&ScheduleRecord { last_job: job.to_string(), ..record.clone() })?;
                let guards = vec![held.clone(), Guard::AtRevision(key.clone(), revision)];
                Ok((guards, vec![Op::Put { key: key.clone(), value, session: None }]))
            }
        };
        let tick = Tick { name, at: due.tick, along: Box::new(along) };
        match definitions::run(self.api.shared(), run, Some(tick)).await {
            // The job is there and the record knows nothing of it: an older record was put back. Now it knows.
            Ok(accepted) if accepted.existed => {
                record.last_job = accepted.id.to_string();
                self.write(key, revision, &record).await
            }
            Ok(accepted) => {
                tracing::info!(schedule = key.name, tick = due.tick, job = %accepted.id, "a schedule's job was accepted");
                Ok(())
            }
            Err(status) if is_passing(status.code()) => Err(status),
            Err(status) => {
                tracing::warn!(schedule = key.name, tick = due.tick, %status, "a schedule's job was refused");
                record.problem = status.message().to_owned();
                record.problem_at_ms = self.api.shared().now();
                self.write(key, revision, &record).await
            }
        }
    }

    /// Whether a job is there and not over.
    async fn is_active(&self, job: &str) -> Result<bool, Status> {
        let Ok(job) = job.parse::<JobId>() else { return Ok(false) };
        let active = self.api.shared().options.state.get(&keys::active_job(job)).await.map_err(store)?;
        Ok(active.is_some())
    }

    async fn write(&self, key: &Key, revision: Revision, record: &ScheduleRecord) -> Result<(), Status> {
        let value = codec::encode(record).map_err(store)?;
        let txn = Txn {
            guards: vec![self.held.clone(), Guard::AtRevision(key.clone(), revision)],
            ops: vec![Op::Put { key: key.clone(), value, session: None }],
            ..Txn::default()
        };
        match send_until_known(&*self.api.shared().options.state, txn).await.map_err(store)? {
            TxnOutcome::Committed(_) => Ok(()),
            // By an earlier sending of the same, perhaps: the next look reads what is.
            TxnOutcome::Refused { .. } => {
                Err(unavailable("the schedule was changed just now, or is another one's to keep"))
            }
        }
    }
}

/// Whether the same may be accepted a moment later.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}
