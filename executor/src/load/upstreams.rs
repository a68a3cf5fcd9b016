//! Where the outputs lie that a stage reads, asked once for all its tasks until that changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{ASK_WITHIN, Advisors, Backoff, is_passing};
use crate::keys::Fence;

/// Stages kept; those that are over are asked about no more.
const CACHED_MAX: usize = 128;

type Answer = Result<Arc<Vec<v1::UpstreamOutputs>>, String>;

/// As of when places are told: the owner that tells them, and its revision. What is newer is as good for whoever asks for less:
/// an attempt that must not read it does not count any more.
type AsOf = (Fence, u64);

/// What was told last.
struct Told {
    as_of: AsOf,
    cell: Arc<OnceCell<Answer>>,
}

/// The cache.
#[derive(Default)]
pub(crate) struct Upstreams {
    /// By stage. Locked to find, replace or drop one.
    stages: Mutex<HashMap<(JobId, u32), Told>>,
}

impl Upstreams {
    /// Cancel-safe. Ends only when the answer is here, or no scheduler will ever give it.
    pub(crate) async fn get(&self, job: JobId, stage: u32, as_of: AsOf, advisors: &Advisors) -> Answer {
        let (cell, revision) = {
            let mut stages = self.stages();
            if stages.len() >= CACHED_MAX {
                stages.retain(|_, told| Arc::strong_count(&told.cell) > 1);
            }
            let new = || Told { as_of, cell: Arc::default() };
            let told = stages.entry((job, stage)).or_insert_with(new);
            if told.as_of < as_of {
                *told = new();
            }
            (told.cell.clone(), told.as_of.1)
        };
        let answer = cell.get_or_init(|| ask(job, stage, revision, advisors)).await.clone();
        if answer.is_err() {
            self.forget(job, stage);
        }
        answer
    }

    /// What was told does not hold: the next one asks again.
    pub(crate) fn forget(&self, job: JobId, stage: u32) {
        self.stages().remove(&(job, stage));
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<(JobId, u32), Told>> {
        self.stages.lock().expect("no holder of this lock panics")
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
