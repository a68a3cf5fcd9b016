//! Which jobs are live, as of one revision of the store, and what their heads tell, at most about a second old. Only what has changed is
//! read.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_graph::groups::GroupPath;
use muster_graph::ids::JobId;
use muster_proto::storage::JobHead;
use muster_proto::v1;
use muster_state::{Error, Key, Keyspace, Revision, Scan, StateBackend, codec, keys};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

use crate::updates;

/// So old what is told of a job may be.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Heads read at once.
const AT_ONCE: usize = 100;

/// A job that is not over.
#[derive(Debug, Clone)]
pub(crate) struct LiveJob {
    revision: Revision,
    read_at: Instant,
    pub(crate) namespace: String,
    pub(crate) group: GroupPath,
    pub(crate) tasks: v1::Counts,
}

/// All jobs that are not over.
#[derive(Debug, Default)]
pub(crate) struct LiveJobs {
    /// As of this revision.
    pub(crate) revision: Revision,
    pub(crate) jobs: BTreeMap<JobId, LiveJob>,
}

/// Keeps what was read for those who ask next.
#[derive(Debug, Default)]
pub(crate) struct Live {
    known: Mutex<Arc<LiveJobs>>,
}

impl Live {
    /// Who asks while another one reads waits for that.
    pub(crate) async fn jobs(&self, state: &dyn StateBackend) -> Result<Arc<LiveJobs>, Error> {
        let mut known = self.known.lock().await;
        *known = Arc::new(read(state, &known).await?);
        Ok(Arc::clone(&known))
    }
}

async fn read(state: &dyn StateBackend, before: &LiveJobs) -> Result<LiveJobs, Error> {
    let mut now = LiveJobs::default();
    let mut changed = Vec::new();
    let mut scan = Scan::default();
    loop {
        let page = state.scan_keys(Keyspace::ActiveJobs, scan.clone()).await?;
        now.revision = page.revision;
        for entry in page.entries {
            let Ok(id) = entry.name.parse::<JobId>() else { continue };
            match before.jobs.get(&id) {
                Some(known) if known.revision == entry.mod_revision || known.read_at.elapsed() < FRESH_FOR => {
                    now.jobs.insert(id, known.clone());
                }
                _ => changed.push(id),
            }
        }
        match page.next {
            Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
            None => break,
        }
    }
    for (namespace, part) in updates::waiting_parts(state, Some(now.revision)).await? {
        for job in part.jobs {
            let Ok(id) = job.job_id.parse::<JobId>() else { continue };
            let tasks = v1::Counts { pending: job.tasks, ..v1::Counts::default() };
            let (namespace, group) = (namespace.clone(), job.group.parse().unwrap_or_default());
            now.jobs.insert(id, LiveJob { revision: 0, read_at: Instant::now(), namespace, group, tasks });
        }
    }
    for some in changed.chunks(AT_ONCE) {
        let keys: Vec<Key> = some.iter().map(|id| keys::active_job(*id)).collect();
        let (_, entries) = state.get_many(&keys).await?;
        for (id, (key, entry)) in some.iter().zip(keys.iter().zip(entries)) {
            // Over since then: what was known of it before is the best there is.
            let Some(entry) = entry else {
                now.jobs.extend(before.jobs.get(id).map(|known| (*id, known.clone())));
                continue;
            };
            // A newer version's job is not told of.
            let Ok(head) = codec::decode::<JobHead>(key, &entry.value) else { continue };
            // Groups do not count it.
            if !head.counted {
                continue;
            }
            let job = LiveJob {
                revision: entry.mod_revision,
                read_at: Instant::now(),
                namespace: head.namespace,
                group: head.group.parse().unwrap_or_default(),
                tasks: head.tasks.unwrap_or_default(),
            };
            now.jobs.insert(*id, job);
        }
    }
    Ok(now)
}
