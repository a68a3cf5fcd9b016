//! A job as it is asked for becomes what can be stored: checked, the jobs in it put where its stages name them, and encoded. All without an id, and
//! nothing is written.

use std::sync::Arc;

use muster_graph::groups::GroupPath;
use muster_graph::ids::{JobId, Millis};
use muster_graph::schedule::TICK_VARIABLE;
use muster_graph::spec::{self, AfterJob, JobSpec, Outline};
use muster_proto::{blob, storage, v1};
use muster_state::codec::{self, blob::Blob};
use muster_state::{Error, Op};
use prost::Message as _;
use tonic::Status;

use crate::accept::store;
use crate::definitions::{self, Root, Shelf};
use crate::groups;
use crate::load;
use crate::shared::Shared;

/// See the module.
pub(crate) struct Prepared {
    pub(crate) namespace: String,
    pub(crate) group: GroupPath,
    pub(crate) after: Vec<AfterJob>,
    pub(crate) tasks: u64,
    pub(crate) stored: storage::StoredSpec,
    /// Of what is stored.
    pub(crate) digest: String,
    /// All of its head that does not depend on its id.
    head: storage::JobHead,
    bytes: Vec<u8>,
    items: Vec<blob::Blob>,
}

/// The definitions that a job refers to; none are read for one that refers to none, or that is wrong in itself.
async fn shelf(shared: &Shared, job: &JobSpec) -> Result<Shelf, Status> {
    let references = Outline::of(job).references;
    if references.is_empty() || !spec::check(job).is_empty() {
        return Ok(Shelf::default());
    }
    definitions::load(&*shared.options.state, &job.namespace, Shelf::default(), Root::References(references)).await
}

/// `shelf`: the definitions that it refers to, if they were read; `itself`: the one that it was made of; `tick`: the time of a schedule for
/// which it is.
pub(crate) async fn prepare(
    shared: &Arc<Shared>,
    job: JobSpec,
    read: Option<Shelf>,
    itself: Option<v1::DefinitionUse>,
    tick: Option<&str>,
) -> Result<Prepared, Status> {
    let library = match read {
        Some(shelf) => shelf,
        None => shelf(shared, &job).await?,
    };
    let ended = |error| Status::internal(format!("reading the job ended early: {error}"));
    // Expanding, hashing and encoding a large job take long enough to be in the way of everything else on this thread.
    let expanded = crate::blocking::run(move || spec::expand(job, &library))
        .await
        .map_err(ended)?
        .map_err(|problems| Status::invalid_argument(problems.to_string()))?;
    let mut job = expanded.spec;
    if let Some(tick) = tick {
        job.env.insert(TICK_VARIABLE.to_owned(), tick.to_owned());
    }
    let used = expanded.made_of.into_iter().map(|used| v1::DefinitionUse { name: used.name, revision: used.revision });
    let tasks = job.stages.iter().map(|stage| u64::from(stage.tasks.count())).sum();
    let (group, after) = (groups::path(&job.group)?, job.after_jobs.clone());
    let head = storage::JobHead {
        name: job.name.clone(),
        namespace: job.namespace.clone(),
        labels: job.labels.clone(),
        priority: job.priority,
        state: v1::JobState::Queued.into(),
        task_total: tasks,
        tasks: Some(v1::Counts { pending: u32::try_from(tasks).unwrap_or(u32::MAX), ..Default::default() }),
        made_of: itself.into_iter().chain(used).collect(),
        group: group.as_str().to_owned(),
        counted: true,
        ..Default::default()
    };
    let (stored, items, bytes, digest) = crate::blocking::run(move || {
        let (stored, items) = blob::take_apart(job);
        let digest = blob::digest(&stored.encode_to_vec());
        codec::encode(&stored).map(|bytes| (stored, items, bytes.to_vec(), digest))
    })
    .await
    .map_err(ended)?
    .map_err(store)?;
    Ok(Prepared { namespace: head.namespace.clone(), group, after, tasks, stored, digest, head, bytes, items })
}

impl Prepared {
    /// As the job of this id: its head, and the writes of what is too large for that.
    pub(crate) fn as_job(&self, id: JobId, now: Millis) -> Result<(storage::JobHead, Vec<Op>), Error> {
        let mut blobs = Vec::new();
        let spec = load::to_content(id, self.bytes.clone(), &mut blobs)?;
        for item in &self.items {
            blobs.extend(Blob::new(&item.content)?.puts(id));
        }
        let head = storage::JobHead {
            submitted_at_ms: now,
            spec: Some(spec),
            commit_id: format!("accept:{:016x}", rand::random::<u64>()),
            ..self.head.clone()
        };
        Ok((head, blobs))
    }
}
