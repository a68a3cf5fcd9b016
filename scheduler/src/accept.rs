//! The durable accept (promise C1): a submit is answered only after the job, its owner and its idempotency key are
//! committed in one transaction. Planning comes after the answer, off the call.

use std::sync::Arc;

use muster_graph::ids::JobId;
use muster_graph::spec::{JobSpec, Work};
use muster_proto::{blob, storage, v1};
use muster_state::codec;
use muster_state::{Entry, Guard, Op, SessionId, Txn, TxnOutcome, keys};
use prost::Message as _;
use tonic::Status;

use crate::after;
use crate::definitions::Shelf;
use crate::engine::{Engine, Identity, Input};
use crate::groups::{self, Entrance, cancels::GroupCancels};
use crate::load;
use crate::options::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::prepare::prepare;
use crate::shared::{Shared, Transit};

/// What became of a submit.
pub(crate) struct Accepted {
    pub(crate) id: JobId,
    /// The idempotency key had been used for this very job before.
    pub(crate) existed: bool,
}

impl From<Accepted> for v1::SubmitResponse {
    fn from(accepted: Accepted) -> Self {
        Self { job_id: accepted.id.to_string(), existed: accepted.existed }
    }
}

/// Fresh ids tried; two jobs of one millisecond collide once in four million.
const ID_ATTEMPTS: u32 = 8;

/// What is asked for.
pub(crate) struct Submission {
    pub(crate) job: JobSpec,
    /// The idempotency key; empty: none.
    pub(crate) key: String,
    /// Of what was asked for, if that is not this very job.
    pub(crate) request_digest: Option<String>,
    /// The definitions that it refers to; `None`: they are still to be read.
    pub(crate) shelf: Option<Shelf>,
    /// The definition that it was made of.
    pub(crate) itself: Option<v1::DefinitionUse>,
    /// Why it is asked for now.
    pub(crate) occasion: Option<Occasion>,
}

/// A schedule's time has come: the job is accepted if what is told of the schedule lands with it.
pub(crate) struct Occasion {
    /// The time, for the tasks.
    pub(crate) tick: String,
    pub(crate) along: Along,
}

/// What has to hold, and what is written, when a job is accepted under this id.
pub(crate) type Along = Box<dyn Fn(JobId) -> Result<(Vec<Guard>, Vec<Op>), muster_state::Error> + Send + Sync>;

impl Submission {
    /// Of a job that came as it is.
    pub(crate) fn of(job: JobSpec, key: String) -> Self {
        Self { job, key, request_digest: None, shelf: None, itself: None, occasion: None }
    }
}

/// The job that this key was used for, if it was.
pub(crate) async fn known(
    shared: &Shared,
    namespace: &str,
    key: &str,
    request_digest: &str,
) -> Result<Option<Accepted>, Status> {
    check_key(key)?;
    if key.is_empty() {
        return Ok(None);
    }
    let entry = shared.options.state.get(&keys::idempotency(namespace, key)).await.map_err(store)?;
    entry.map(|entry| same_key(&entry, namespace, key, request_digest, None)).transpose()
}

fn check_key(key: &str) -> Result<(), Status> {
    if key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "idempotency_key: {} bytes, more than IDEMPOTENCY_KEY_BYTES_MAX = {IDEMPOTENCY_KEY_BYTES_MAX}",
            key.len()
        )));
    }
    Ok(())
}

/// Checks a job, puts the jobs in it that its stages name, stores it, and answers when it is committed.
pub(crate) async fn accept(shared: &Arc<Shared>, submission: Submission) -> Result<Accepted, Status> {
    let Submission { job, key, mut request_digest, shelf: read, itself, occasion } = submission;
    check_key(&key)?;
    shared.check_not_draining()?;
    if request_digest.is_none() && job.stages.iter().any(|stage| matches!(stage.work, Work::Job(_))) {
        // Under one key the same must be asked for: that is what was written, and not what it is expanded to, which changes as
        // definitions do. So it is also looked for before they are.
        let asked = job.clone();
        let digest = crate::blocking::run(move || blob::digest(&blob::take_apart(asked).0.encode_to_vec()))
            .await
            .map_err(|error| Status::internal(format!("reading the job ended early: {error}")))?;
        if let Some(accepted) = known(shared, &job.namespace, &key, &digest).await? {
            return Ok(accepted);
        }
        request_digest = Some(digest);
    }
    let tick = occasion.as_ref().map(|occasion| occasion.tick.as_str());
    let prepared = prepare(shared, job, read, itself, tick).await?;
    let (namespace, group) = (&*prepared.namespace, &prepared.group);
    check_room(shared, prepared.tasks).await?;
    let request_digest = request_digest.unwrap_or_else(|| prepared.digest.clone());

    for _ in 0..ID_ATTEMPTS {
        let now = shared.now();
        let id = JobId::single(now, rand::random());
        let Some(transit) = shared.transit(id) else { continue };
        let (mut head, blobs) = prepared.as_job(id, now).map_err(store)?;
        head.idempotency_key.clone_from(&key);
        if let Some(accepted) = known(shared, namespace, &key, &request_digest).await? {
            return Ok(accepted);
        }
        after::check(&*shared.options.state, namespace, &prepared.after).await?;
        check_quota(shared, namespace, 1).await?;
        let cancels = groups::cancels::current(shared, namespace).await?;
        groups::check_open(namespace, group, &cancels)?;
        // Compared again when it is accepted; but then much of it is written.
        groups::find(&*shared.options.state, namespace, group.as_str()).await?;
        // Too large for the accepting transaction, and of no effect without it.
        load::write_blobs(&*shared.options.state, &[], blobs).await.map_err(store)?;
        let identity = shared.presence().identity;
        match commit(shared, &identity, id, &head, &request_digest, &cancels, occasion.as_ref()).await? {
            Outcome::Committed(revision) => {
                crate::faults::die_at("after-accept-before-answer");
                adopt(shared, transit, identity.session, head, prepared.stored, revision);
                return Ok(Accepted { id, existed: false });
            }
            Outcome::KeyUsed(entry) => return same_key(&entry, namespace, &key, &request_digest, Some(id)),
            Outcome::IdUsed => {}
            // The group has to be there, and is perhaps cancelled.
            Outcome::GroupsChanged => groups::cancels::refresh(shared, namespace).await?,
        }
    }
    Err(retry_later("no free job id was found: submit again".to_owned()))
}

/// A scheduler that owns as much as it may takes no more.
async fn check_room(shared: &Shared, tasks: u64) -> Result<(), Status> {
    let most = shared.options.owned_max;
    if tasks > most.tasks {
        return Err(Status::failed_precondition(format!(
            "stages: {tasks} tasks are more than the {} that this scheduler takes (--max-tasks): split the job",
            most.tasks
        )));
    }
    let owned = |engine: &mut Engine| (engine.jobs_owned(), engine.tasks_owned());
    let (jobs, owned) = shared.engine.read(owned).await.map_err(unavailable)?;
    if jobs < most.jobs && owned + tasks <= most.tasks {
        return Ok(());
    }
    Err(retry_later(format!(
        "this scheduler has {jobs} unfinished jobs of {owned} tasks and takes up to {} jobs of {} tasks (--max-jobs, --max-tasks): \
         submit again later, or to another one",
        most.jobs, most.tasks
    )))
}

/// A namespace gets no more jobs than it may have. What peers have of it is known as of a moment ago.
pub(crate) async fn check_quota(shared: &Shared, namespace: &str, more: u64) -> Result<(), Status> {
    let name = namespace.to_owned();
    let full = shared.engine.read(move |engine| engine.quota_reached(&name, more)).await.map_err(unavailable)?;
    full.map_or(Ok(()), |(jobs, most)| {
        Err(Status::failed_precondition(format!(
            "namespace: {namespace} has {jobs} jobs that are not over, and may have {most} (`max_jobs`): submit {more} more when some are, or \
             see `muster namespaces set --help`"
        )))
    })
}

enum Outcome {
    Committed(u64),
    KeyUsed(Entry),
    IdUsed,
    GroupsChanged,
}

async fn commit(
    shared: &Arc<Shared>,
    identity: &Identity,
    id: JobId,
    head: &storage::JobHead,
    request_digest: &str,
    cancels: &GroupCancels,
    occasion: Option<&Occasion>,
) -> Result<Outcome, Status> {
    let encoded = |bytes: Result<bytes::Bytes, _>| bytes.map_err(store);
    let owner = crate::ownership::owner_record(shared, &identity.session);
    let mut txn = Txn {
        guards: vec![
            Guard::AtRevision(keys::epoch(), identity.epoch_revision),
            Guard::SessionAlive(identity.session.clone()),
            Guard::Absent(keys::active_job(id)),
            Guard::Absent(keys::completed_job(id)),
            Guard::Absent(keys::failed_job(id)),
            Guard::Absent(keys::owner(id)),
        ],
        ops: vec![
            Op::Put { key: keys::active_job(id), value: encoded(codec::encode(head))?, session: None },
            Op::Put { key: keys::owner(id), value: encoded(codec::encode(&owner))?, session: None },
        ],
        read_on_failure: vec![keys::active_job(id), keys::owner(id)],
    };
    let entrance = Entrance::of(id, head, cancels);
    entrance.add_to(&mut txn).map_err(store)?;
    if !head.idempotency_key.is_empty() {
        let key = keys::idempotency(&head.namespace, &head.idempotency_key);
        let record = storage::IdempotencyRecord {
            job_id: id.to_string(),
            request_digest: request_digest.to_owned(),
            at_ms: head.submitted_at_ms,
        };
        txn.guards.push(Guard::Absent(key.clone()));
        txn.ops.push(Op::Put { key: key.clone(), value: encoded(codec::encode(&record))?, session: None });
        txn.read_on_failure.push(key);
    }
    if let Some(occasion) = occasion {
        let (guards, ops) = (occasion.along)(id).map_err(store)?;
        txn.guards.extend(guards);
        txn.ops.extend(ops);
    }
    match load::send_until_known(&*shared.options.state, txn).await.map_err(store)? {
        TxnOutcome::Committed(revision) => Ok(Outcome::Committed(revision)),
        TxnOutcome::Refused { read, .. } => {
            let mut read = read.into_iter();
            let (active, owner) = (read.next().flatten(), read.next().flatten());
            let is_open = entrance.is_open(&mut read);
            let key = read.next().flatten();
            if let Some(active) = active {
                let stored: storage::JobHead = codec::decode(&keys::active_job(id), &active.value).map_err(store)?;
                // An earlier sending whose answer was lost has landed. Its revision is the owner's: the head's may
                // have moved on.
                return Ok(match owner {
                    Some(owner) if stored.commit_id == head.commit_id => Outcome::Committed(owner.mod_revision),
                    _ => Outcome::IdUsed,
                });
            }
            match key {
                Some(entry) => Ok(Outcome::KeyUsed(entry)),
                None if !is_open => Ok(Outcome::GroupsChanged),
                None if occasion.is_some() => {
                    Err(unavailable("the schedule was changed, or the session lost, just now"))
                }
                None => Err(unavailable("this scheduler's session was lost just now")),
            }
        }
    }
}

/// The idempotency key is known: the same job, or another one.
fn same_key(
    entry: &Entry,
    namespace: &str,
    key: &str,
    request_digest: &str,
    ours: Option<JobId>,
) -> Result<Accepted, Status> {
    let record: storage::IdempotencyRecord =
        codec::decode(&keys::idempotency(namespace, key), &entry.value).map_err(store)?;
    if record.request_digest != request_digest {
        return Err(Status::already_exists(format!(
            "idempotency_key: '{key}' was used for job {} with another spec; use another key",
            record.job_id
        )));
    }
    let id: JobId = record.job_id.parse().map_err(|error| Status::data_loss(format!("idempotency record: {error}")))?;
    Ok(Accepted { id, existed: ours != Some(id) })
}

/// Plans the job, off the call, and gives it to the engine.
fn adopt(
    shared: &Arc<Shared>,
    transit: Transit,
    session: SessionId,
    head: storage::JobHead,
    stored: storage::StoredSpec,
    revision: u64,
) {
    let (shared, id) = (Arc::clone(shared), transit.job());
    tokio::spawn(async move {
        match load::plan(&*shared.options.state, id, &session, head, stored, (revision, revision)).await {
            Ok(loaded) => {
                // Stopping: whoever comes next finds the job in the store.
                let _ = shared.engine.send(Input::Adopted(Box::new(loaded))).await;
            }
            Err(error) => {
                tracing::warn!(job = %id, %error, "planning failed; reading the job again");
                crate::ownership::adopt(shared, transit).await;
            }
        }
    });
}

/// The store's error, for a caller.
pub(crate) fn store(error: muster_state::Error) -> Status {
    use muster_state::Error;
    match error {
        // Not RESOURCE_EXHAUSTED, which asks for the same again later.
        Error::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        Error::NoSpace(_) => retry_later(error.to_string()),
        Error::Unknown(_) | Error::Unavailable(_) | Error::SessionLost | Error::Compacted { .. } => {
            Status::unavailable(error.to_string())
        }
        Error::Record { .. } => Status::data_loss(error.to_string()),
        Error::Fatal(_) => Status::internal(error.to_string()),
    }
}

/// Try another scheduler, or this one in a moment.
pub(crate) fn unavailable(why: impl std::fmt::Display) -> Status {
    Status::unavailable(why.to_string())
}

/// Overload is answered, never buffered.
pub(crate) fn retry_later(why: String) -> Status {
    let mut status = Status::resource_exhausted(why);
    // The first for people and scripts, the second for gRPC's own retries.
    for name in ["retry-after-ms", "grpc-retry-pushback-ms"] {
        status.metadata_mut().insert(name, tonic::metadata::MetadataValue::from_static("1000"));
    }
    status
}
