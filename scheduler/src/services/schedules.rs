//! Schedules, as users set and see them. What they do by themselves is [`crate::schedules`]'.

use muster_graph::ids::Millis;
use muster_graph::schedule::Progress;
use muster_proto::storage::ScheduleRecord;
use muster_proto::v1;
use muster_proto::v1::schedules_server::Schedules;
use muster_state::{Entry, Guard, Key, Keyspace, Op, Scan, Txn, TxnOutcome, codec, keys};
use tonic::{Request, Response, Status};

use super::Api;
use crate::accept::{store, unavailable};
use crate::definitions;
use crate::load::send_until_known;
use crate::schedules::{progress, timetable};

/// Coming times in one answer.
const TIMES_MAX: u32 = 1_000;
/// A schedule's name.
const NAME_CHARS_MAX: usize = 128;
/// Of what a user set it to.
const WINDOW_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// A change that meets others again and again gives up.
const TRIES: u32 = 10;

/// What becomes of a schedule's record.
enum Changed {
    To(Box<ScheduleRecord>),
    Deleted,
    /// It is so already.
    Same,
}

fn key_of(namespace: &str, name: &str) -> Result<Key, Status> {
    let namespace = definitions::namespace(namespace.to_owned())?;
    let plain = |c: char| c.is_alphanumeric() || "._- ".contains(c);
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !name.chars().all(plain) || name.trim() != name {
        return Err(Status::invalid_argument(format!(
            "name: '{}' cannot name a schedule: 1 to {NAME_CHARS_MAX} letters, digits, '.', '_', '-' and spaces inside",
            name.escape_debug()
        )));
    }
    Ok(keys::schedule(&namespace, name))
}

/// Times are looked for second by second where they are rare.
async fn off_the_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let done = crate::blocking::run(work).await;
    done.map_err(|error| Status::internal(format!("reading the times ended early: {error}")))
}

fn decode(key: &Key, entry: &Entry) -> Result<ScheduleRecord, Status> {
    codec::decode(key, &entry.value).map_err(store)
}

fn not_found(key: &Key) -> Status {
    let (namespace, name) = keys::schedule_of(&key.name).unwrap_or_default();
    Status::not_found(format!("there is no schedule '{name}' in namespace {namespace}; `muster schedules` lists them"))
}

fn view(key: &str, record: ScheduleRecord, now: Millis, times: u32) -> v1::ScheduleView {
    let (namespace, name) = keys::schedule_of(key).unwrap_or_default();
    let schedule = record.schedule.clone().unwrap_or_default();
    let next_at_ms = match timetable(&schedule) {
        Ok(timetable) if !record.paused => {
            let from = record.decided_until_ms.max(now);
            timetable.between(from, Millis::MAX).take(times.clamp(1, TIMES_MAX) as usize).collect()
        }
        _ => Vec::new(),
    };
    v1::ScheduleView {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        schedule: Some(schedule),
        paused: record.paused,
        next_at_ms,
        waiting_at_ms: record.waiting_ms,
        last_job: record.last_job,
        last_tick_ms: record.last_tick_ms,
        problem: record.problem,
        problem_at_ms: record.problem_at_ms,
        passed_over: record.passed_over,
        set_at_ms: record.set_at_ms,
    }
}

impl Api {
    /// Reads a schedule, has it changed, and writes it if nobody else did meanwhile; otherwise once more.
    async fn change(
        &self,
        key: &Key,
        change: impl Fn(Option<ScheduleRecord>, Millis) -> Result<Changed, Status>,
    ) -> Result<Option<ScheduleRecord>, Status> {
        self.shared.health.check_writable()?;
        let state = &*self.shared.options.state;
        for _ in 0..TRIES {
            let entry = state.get(key).await.map_err(store)?;
            let known = entry.as_ref().map(|entry| decode(key, entry)).transpose()?;
            let unchanged = known.clone();
            let (op, record) = match change(known, self.shared.now())? {
                Changed::Same => return Ok(unchanged),
                Changed::Deleted => (Op::Delete(key.clone()), None),
                Changed::To(record) => {
                    let value = codec::encode(&*record).map_err(store)?;
                    (Op::Put { key: key.clone(), value, session: None }, Some(*record))
                }
            };
            let as_read = match &entry {
                Some(entry) => Guard::AtRevision(key.clone(), entry.mod_revision),
                None => Guard::Absent(key.clone()),
            };
            let epoch = self.shared.presence().identity.epoch_revision;
            let txn =
                Txn { guards: vec![Guard::AtRevision(keys::epoch(), epoch), as_read], ops: vec![op], ..Txn::default() };
            // Refused: changed meanwhile, or by an earlier sending of this. All changes may be made again.
            if let TxnOutcome::Committed(_) = send_until_known(state, txn).await.map_err(store)? {
                return Ok(record);
            }
        }
        Err(unavailable("the schedule was changed by others again and again; try again"))
    }

    async fn schedule_record(&self, key: &Key) -> Result<ScheduleRecord, Status> {
        let entry = self.shared.options.state.get(key).await.map_err(store)?.ok_or_else(|| not_found(key))?;
        decode(key, &entry)
    }
}

#[tonic::async_trait]
impl Schedules for Api {
    async fn set_schedule(
        &self,
        request: Request<v1::SetScheduleRequest>,
    ) -> Result<Response<v1::ScheduleView>, Status> {
        let v1::SetScheduleRequest { namespace, name, schedule } = request.into_inner();
        let key = key_of(&namespace, &name)?;
        let mut schedule = schedule.ok_or_else(|| Status::invalid_argument("schedule: missing"))?;
        if schedule.window_ms.is_some_and(|window| window > WINDOW_MS_MAX) {
            return Err(Status::invalid_argument("schedule.window_ms: at most a year; leave it out for no limit"));
        }
        let checked = schedule.clone();
        // A pattern that no day meets takes a while to be found out.
        off_the_thread(move || timetable(&checked).map(drop))
            .await?
            .map_err(|error| Status::invalid_argument(format!("schedule.{error}")))?;
        let Some(run) = &mut schedule.run else { return Err(Status::invalid_argument("schedule.run: missing")) };
        let (namespace, _) = keys::schedule_of(&key.name).unwrap_or_default();
        run.namespace = namespace.to_owned();
        run.idempotency_key.clear();
        definitions::check_run(&self.shared, run.clone()).await?;
        let id = format!("{:016x}", rand::random::<u64>());
        let record = self
            .change(&key, |known, now| {
                let from_now = Progress::from_now(now);
                Ok(Changed::To(Box::new(ScheduleRecord {
                    id: known.as_ref().map_or_else(|| id.clone(), |known| known.id.clone()),
                    schedule: Some(schedule.clone()),
                    set_at_ms: now,
                    paused: known.as_ref().is_some_and(|known| known.paused),
                    // Never back: what was decided stays decided.
                    decided_until_ms: known
                        .as_ref()
                        .map_or(0, |known| known.decided_until_ms)
                        .max(from_now.decided_until),
                    waiting_ms: from_now.waiting,
                    last_job: known.as_ref().map(|known| known.last_job.clone()).unwrap_or_default(),
                    last_tick_ms: known.as_ref().map_or(0, |known| known.last_tick_ms),
                    ..ScheduleRecord::default()
                })))
            })
            .await?;
        let record = record.ok_or_else(|| not_found(&key))?;
        tracing::info!(
            schedule = key.name,
            cron = record.schedule.as_ref().map(|set| &*set.cron),
            "a schedule was set"
        );
        Ok(Response::new(view(&key.name, record, self.shared.now(), 1)))
    }

    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let namespace = request.into_inner().namespace;
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let mut records = Vec::new();
        let mut scan = Scan { prefix, ..Scan::default() };
        loop {
            let page = self.shared.options.state.scan(Keyspace::Schedules, scan.clone()).await.map_err(store)?;
            for entry in page.entries {
                let key = Key::new(Keyspace::Schedules, entry.name.clone());
                let record = decode(&key, &entry).unwrap_or_else(|status| ScheduleRecord {
                    // One that a newer version wrote must not hide the others.
                    problem: status.message().to_owned(),
                    ..ScheduleRecord::default()
                });
                records.push((entry.name, record));
            }
            match page.next {
                Some(after) => (scan.after, scan.at) = (Some(after), Some(page.revision)),
                None => break,
            }
        }
        let now = self.shared.now();
        let listed = move || records.into_iter().map(|(name, record)| view(&name, record, now, 1)).collect();
        let schedules = off_the_thread(listed).await?;
        Ok(Response::new(v1::ListSchedulesResponse { schedules }))
    }

    async fn get_schedule(
        &self,
        request: Request<v1::GetScheduleRequest>,
    ) -> Result<Response<v1::ScheduleView>, Status> {
        let v1::GetScheduleRequest { namespace, name, times } = request.into_inner();
        let key = key_of(&namespace, &name)?;
        let record = self.schedule_record(&key).await?;
        let now = self.shared.now();
        off_the_thread(move || view(&key.name, record, now, times)).await.map(Response::new)
    }

    async fn delete_schedule(
        &self,
        request: Request<v1::DeleteScheduleRequest>,
    ) -> Result<Response<v1::DeleteScheduleResponse>, Status> {
        let v1::DeleteScheduleRequest { namespace, name } = request.into_inner();
        let key = key_of(&namespace, &name)?;
        self.schedule_record(&key).await?;
        // Gone on another try: an earlier one had landed.
        self.change(&key, |known, _| Ok(if known.is_some() { Changed::Deleted } else { Changed::Same })).await?;
        tracing::info!(schedule = key.name, "a schedule was deleted");
        Ok(Response::new(v1::DeleteScheduleResponse {}))
    }

    async fn pause_schedule(
        &self,
        request: Request<v1::PauseScheduleRequest>,
    ) -> Result<Response<v1::PauseScheduleResponse>, Status> {
        let v1::PauseScheduleRequest { namespace, name, undo } = request.into_inner();
        let key = key_of(&namespace, &name)?;
        self.change(&key, |known, now| {
            let mut record = known.ok_or_else(|| not_found(&key))?;
            if record.paused != undo {
                return Ok(Changed::Same);
            }
            record.paused = !undo;
            if undo {
                let from_now = progress(&record).decided_until.max(now);
                record.decided_until_ms = from_now;
            }
            Ok(Changed::To(Box::new(record)))
        })
        .await?;
        Ok(Response::new(v1::PauseScheduleResponse {}))
    }

    async fn run_schedule(
        &self,
        request: Request<v1::RunScheduleRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let v1::RunScheduleRequest { namespace, name, idempotency_key } = request.into_inner();
        let key = key_of(&namespace, &name)?;
        self.shared.health.check_writable()?;
        let record = self.schedule_record(&key).await?;
        let run = record.schedule.and_then(|schedule| schedule.run).unwrap_or_default();
        let run = v1::RunDefinitionRequest { idempotency_key, ..run };
        let accepted = definitions::run(&self.shared, run, None).await?;
        Ok(Response::new(accepted.into()))
    }
}
