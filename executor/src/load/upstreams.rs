//! Where the outputs lie that a stage reads, asked once for all its tasks of one revision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{ASK_WITHIN, Advisors, Backoff, is_passing};

/// Answers kept; a stage has few revisions, and finished stages are asked about no more.
const CACHED_MAX: usize = 128;

type Key = (JobId, u32, u64);
type Answer = Result<Arc<Vec<v1::UpstreamOutputs>>, String>;

/// The cache.
#[derive(Default)]
pub(crate) struct Upstreams {
    /// Locked to find or add a cell.
    cells: Mutex<HashMap<Key, Arc<OnceCell<Answer>>>>,
}

impl Upstreams {
    /// Cancel-safe. Ends only when the answer is here, or no scheduler will ever give it.
    pub(crate) async fn get(&self, job: JobId, stage: u32, revision: u64, advisors: &Advisors) -> Answer {
        let key = (job, stage, revision);
        let cell = {
            let mut cells = self.cells.lock().expect("no holder of this lock panics");
            if cells.len() >= CACHED_MAX {
                cells.retain(|_, cell| Arc::strong_count(cell) > 1);
            }
            cells.entry(key).or_default().clone()
        };
        let answer = cell.get_or_init(|| ask(job, stage, revision, advisors)).await.clone();
        if answer.is_err() {
            self.cells.lock().expect("no holder of this lock panics").remove(&key);
        }
        answer
    }
}

async fn ask(job: JobId, stage: u32, inputs_revision: u64, advisors: &Advisors) -> Answer {
    let mut upstreams: Vec<v1::UpstreamOutputs> = Vec::new();
    let mut from = None;
    loop {
        let request = v1::GetStageInputsRequest { job_id: job.to_string(), stage, inputs_revision, from: from.take() };
        let page = ask_page(request, advisors).await?;
        for more in page.upstreams {
            match upstreams.last_mut().filter(|last| last.stage == more.stage) {
                Some(last) => last.locations.extend(more.locations),
                None => upstreams.push(more),
            }
        }
        from = page.next;
        if from.is_none() {
            return Ok(Arc::new(upstreams));
        }
    }
}

async fn ask_page(
    request: v1::GetStageInputsRequest,
    advisors: &Advisors,
) -> Result<v1::GetStageInputsResponse, String> {
    let (job, stage) = (&request.job_id, request.stage);
    let mut backoff = Backoff::new();
    for tries in 0.. {
        if let Some(mut scheduler) = advisors.pick(tries) {
            match timeout(ASK_WITHIN, scheduler.get_stage_inputs(request.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if !is_passing(&status) => {
                    return Err(format!("the scheduler does not know where the inputs are: {}", status.message()));
                }
                Ok(Err(status)) => tracing::debug!(job, stage, %status, "the inputs' places cannot be had now"),
                Err(_) => tracing::debug!(job, stage, "the inputs' places did not come in time"),
            }
        }
        backoff.pause().await;
    }
    unreachable!("the numbers do not end")
}
