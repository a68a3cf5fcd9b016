//! The ends of jobs that jobs here wait for.
//!
//! Each end writes a change for the job's groups, and these are watched as long as something waits: whose change is seen is looked at. Besides, everything
//! that is waited for is looked at from time to time, which alone would do.
//!
//! **Invariant:** what the engine is told is what the store said after the engine had asked. What a watch brings may be older: a job that failed
//! then may be active again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::groups::JobEnd;
use muster_graph::ids::JobId;
use muster_graph::spec::AfterJob;
use muster_proto::storage::JobHead;
use muster_proto::v1;
use muster_state::{Change, Entry, Error, Keyspace, Revision, StateBackend, codec, keys};
use tokio::time::Instant;
use tonic::Status;

use crate::accept::store;
use crate::engine::Input;
use crate::load;
use crate::shared::Shared;

/// A watch only makes sooner what looking alone would bring about.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// After an error of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// Jobs looked at in one reading: three keys each.
const AT_ONCE: usize = 40;

/// What a submit waits for has to be there, in its own namespace.
pub(crate) async fn check(state: &dyn StateBackend, namespace: &str, after: &[AfterJob]) -> Result<(), Status> {
    for (place, after) in after.iter().enumerate() {
        let known = load::head(state, after.job).await.map_err(store)?;
        if known.is_none_or(|known| known.head.namespace != namespace) {
            return Err(Status::invalid_argument(format!(
                "after_jobs[{place}]: there is no job {} in namespace {namespace}; submit first what is waited for",
                after.job
            )));
        }
    }
    Ok(())
}

/// Tells the engine of ends, for ever.
pub(crate) async fn follow(shared: Arc<Shared>) {
    loop {
        // As long as nothing waits, nobody is asked.
        match shared.engine.read(|engine| engine.awaited().is_empty()).await {
            Ok(true) => shared.awaited.notified().await,
            Ok(false) => {
                if let Err(error) = follow_once(&shared).await {
                    tracing::info!(%error, "following the ends of jobs again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // Stopping.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Until it is time to look at everything again.
async fn follow_once(shared: &Shared) -> Result<(), Error> {
    let until = Instant::now() + LOOK_EVERY;
    let state = &*shared.options.state;
    let (now, _) = state.get_many(&[keys::epoch()]).await?;
    let mut watch = state.watch(Keyspace::GroupCounts, keys::GROUP_CHANGES, now + 1).await?;
    // What ended before is seen by looking, and what ends after that by the watch.
    let awaited = shared.engine.read(|engine| engine.awaited()).await.unwrap_or_default();
    look(shared, &awaited).await?;
    while let Ok(Some(batch)) = tokio::time::timeout_at(until, watch.next()).await {
        let changed = |change: &Change| match change {
            Change::Put(entry) => keys::group_change_job(&entry.name),
            Change::Deleted { .. } => None,
        };
        let jobs: Vec<JobId> = batch?.changes.iter().filter_map(changed).collect();
        if !jobs.is_empty() {
            // Stopping: nobody waits any more.
            let _ = shared.engine.send(Input::JobsChanged(jobs)).await;
        }
    }
    Ok(())
}

/// Tells the engine which of these jobs have ended.
pub(crate) async fn look_at(shared: &Shared, jobs: &[JobId]) {
    if let Err(error) = look(shared, jobs).await {
        tracing::info!(%error, "whether jobs have ended that others wait for is looked at again soon");
    }
}

async fn look(shared: &Shared, jobs: &[JobId]) -> Result<(), Error> {
    for some in jobs.chunks(AT_ONCE) {
        let ends = ends(&*shared.options.state, some).await?;
        if !ends.is_empty() {
            // Stopping: nobody waits any more.
            let _ = shared.engine.send(Input::JobsEnded(ends)).await;
        }
    }
    Ok(())
}

/// Those that have ended, and those that are not there, as of one revision.
async fn ends(state: &dyn StateBackend, jobs: &[JobId]) -> Result<Vec<(JobId, Option<JobEnd>)>, Error> {
    let places = |job: &JobId| [keys::active_job(*job), keys::completed_job(*job), keys::failed_job(*job)];
    let names: Vec<_> = jobs.iter().flat_map(places).collect();
    let (_, entries): (Revision, Vec<Option<Entry>>) = state.get_many(&names).await?;
    let mut ends = Vec::new();
    for ((job, names), found) in jobs.iter().zip(names.chunks(3)).zip(entries.chunks(3)) {
        match found {
            [Some(_), ..] => {}
            [None, None, None] => ends.push((*job, None)),
            over => {
                for (key, entry) in names.iter().zip(over) {
                    let Some(entry) = entry else { continue };
                    let head: JobHead = codec::decode(key, &entry.value)?;
                    ends.extend(end_in(&head).map(|end| (*job, Some(end))));
                }
            }
        }
    }
    Ok(ends)
}

fn end_in(head: &JobHead) -> Option<JobEnd> {
    match head.state() {
        v1::JobState::Successful => Some(JobEnd::Successful),
        v1::JobState::Failed => Some(JobEnd::Failed),
        v1::JobState::Cancelled => Some(JobEnd::Cancelled),
        v1::JobState::Unspecified | v1::JobState::Queued | v1::JobState::Running => None,
    }
}
