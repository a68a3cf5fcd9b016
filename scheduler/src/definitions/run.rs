//! Making jobs of definitions.

use std::sync::Arc;

use muster_graph::ids::Millis;
use muster_graph::schedule;
use muster_graph::spec::{self, JobSpec, NoFiles};
use muster_proto::storage::DefinitionRecord;
use muster_proto::{blob, convert, v1};
use muster_state::StateBackend;
use prost::Message as _;
use tonic::Status;

use super::{DEFINITION_NAME_BYTES_MAX, Root, Shelf, load, number, unknown};
use crate::accept::{self, Accepted, Along, Occasion, Submission};
use crate::groups;
use crate::shared::Shared;

/// A schedule's time that has come.
pub(crate) struct Tick<'a> {
    pub(crate) name: &'a str,
    pub(crate) at: Millis,
    pub(crate) along: Along,
}

/// Labels of the jobs that schedules make.
const SCHEDULE_LABEL: &str = "muster/schedule";
const TICK_LABEL: &str = "muster/tick";

/// A namespace that can be one; nothing means the one that specs are in that name none.
pub(crate) fn namespace(name: String) -> Result<String, Status> {
    match name.as_str() {
        "" => Ok("default".to_owned()),
        given if spec::is_namespace(given) => Ok(name),
        other => Err(Status::invalid_argument(format!(
            "namespace: '{}' cannot name one: a-z, 0-9 and -, a letter or digit first and last",
            other.escape_debug()
        ))),
    }
}

/// A definition's name that the store can look up.
pub(crate) fn checked(name: &str) -> Result<(), Status> {
    let fits = (1..=DEFINITION_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
    if fits { Ok(()) } else { Err(Status::invalid_argument("name: give the name of a definition, on one line")) }
}

/// One definition and all that it refers to. NOT_FOUND: there is none, or not that revision.
pub(crate) async fn shelf_of(
    state: &dyn StateBackend,
    namespace: &str,
    name: &str,
    revision: u32,
) -> Result<(Shelf, u32, DefinitionRecord), Status> {
    checked(name)?;
    let revision = (revision > 0).then_some(revision);
    let shelf = load(state, namespace, Shelf::default(), Root::Named(name.to_owned(), revision)).await?;
    let record = shelf.names.get(name).cloned().unwrap_or_default();
    match number(Some(&record), revision) {
        Some(number) => Ok((shelf, number, record)),
        None if record.id.is_empty() => Err(unknown(namespace, name, &record.renamed_to)),
        None => Err(Status::not_found(format!(
            "{name} has no revision {}: the newest one is {}",
            revision.unwrap_or_default(),
            record.latest
        ))),
    }
}

/// A definition's job with these arguments, and all that it refers to.
async fn job(
    shared: &Shared,
    message: v1::RunDefinitionRequest,
) -> Result<(JobSpec, Shelf, v1::DefinitionUse), Status> {
    let state = &*shared.options.state;
    let (shelf, revision, _) = shelf_of(state, &message.namespace, &message.name, message.revision).await?;
    let book = match shelf.book(&message.name, revision) {
        Some(Ok(book)) => book,
        Some(Err(why)) => {
            let why = format!("revision {revision} of {} cannot be read: {why}", message.name);
            return Err(Status::failed_precondition(why));
        }
        None => return Err(unknown(&message.namespace, &message.name, "")),
    };
    let arguments = message.arguments.into_iter().map(|(name, value)| (name, convert::argument(value))).collect();
    let mut job = book.template.draft(&arguments).and_then(|draft| draft.resolve(&NoFiles)).map_err(|problems| {
        // Their places are those of its JSON, which nobody has seen.
        let problems = problems.into_iter().map(|problem| spec::Problem { place: None, ..problem }).collect();
        Status::invalid_argument(spec::Problems(problems).to_string())
    })?;
    // As it is called now, wherever its text was written for.
    job.name.clone_from(&message.name);
    job.namespace = message.namespace;
    job.env.extend(message.env);
    let after = convert::after_jobs(message.after_jobs, "after_jobs");
    job.after_jobs
        .extend(after.map_err(|invalid| Status::invalid_argument(format!("{}: {}", invalid.field, invalid.message)))?);
    if !message.group.is_empty() {
        groups::path(&message.group)?.as_str().clone_into(&mut job.group);
    }
    Ok((job, shelf, v1::DefinitionUse { name: message.name, revision }))
}

/// Makes a job of a definition, for somebody who asked for it or because its time has come.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    mut message: v1::RunDefinitionRequest,
    tick: Option<Tick<'_>>,
) -> Result<Accepted, Status> {
    let key = std::mem::take(&mut message.idempotency_key);
    message.namespace = namespace(message.namespace)?;
    // Under one key the same must be asked for. What came of it then is the job's, whatever became of the definition.
    let request_digest = blob::digest(&message.encode_to_vec());
    if let Some(accepted) = accept::known(shared, &message.namespace, &key, &request_digest).await? {
        return Ok(accepted);
    }
    let (mut job, shelf, itself) = job(shared, message).await?;
    let occasion = tick.map(|Tick { name, at, along }| {
        let tick = schedule::in_words(at);
        let labels = [(SCHEDULE_LABEL, name), (TICK_LABEL, &tick)];
        job.labels.extend(labels.map(|(label, value)| (label.to_owned(), value.to_owned())));
        Occasion { tick, along }
    });
    let submission = Submission {
        job,
        key,
        request_digest: Some(request_digest),
        shelf: Some(shelf),
        itself: Some(itself),
        occasion,
    };
    accept::accept(shared, submission).await
}

/// Whether a definition could be run like that now; makes nothing of it.
pub(crate) async fn check_run(shared: &Shared, mut message: v1::RunDefinitionRequest) -> Result<(), Status> {
    message.namespace = namespace(message.namespace)?;
    let (job, shelf, _) = job(shared, message).await?;
    crate::blocking::run(move || spec::expand(job, &shelf).map(drop))
        .await
        .map_err(|error| Status::internal(format!("reading the job ended early: {error}")))?
        .map_err(|problems| Status::invalid_argument(problems.to_string()))
}
