//! Gives what others still need of this executor's outputs to executors that stay, so that it need not wait, and nothing is
//! made again, when it leaves.
//!
//! Who needs what, and who is to have it, the owners of the jobs say. The heir fetches it from here; then the owner commits
//! that it lies there, and from then on does not name it any more. Nothing of this is kept: whatever breaks off is asked for again.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::time::timeout;

use crate::blocking;
use crate::core::Core;
use crate::keys::AttemptKey;
use crate::load::fetch::SILENCE_MAX;
use crate::store::layout::Layout;
use crate::uplink::COMMIT_WITHIN;

/// Deadline of the question who needs what, which a scheduler passes on to its peers.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// Heirs that take something at once.
const PARALLEL: usize = 8;

/// Asks who needs what lies here, and who is to have it: none of those that did not take it.
pub(crate) async fn needed(core: &Core, avoid: &BTreeSet<String>) -> Result<v1::OutputsNeededResponse, String> {
    let home = core.home.address().ok_or("no scheduler can be reached")?;
    let mut scheduler = core.channels.executors(&home).ok_or("not an address")?;
    let avoid = avoid.iter().cloned().collect();
    let request = v1::OutputsNeededRequest { executor_id: core.id().to_owned(), forwarded: false, avoid };
    match timeout(ASK_WITHIN, scheduler.outputs_needed(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Gives all of it to those who are to have it, and notes who took nothing.
pub(crate) async fn give(core: &Core, what: Vec<v1::HandOver>, avoid: &mut BTreeSet<String>) {
    let mut given = futures::stream::iter(what)
        .map(|what| async {
            let (heir, outputs) = (what.executor_id.clone(), what.outputs.len());
            let moved = give_to(core, what).await;
            (heir, outputs, moved)
        })
        .buffer_unordered(PARALLEL);
    while let Some((heir, outputs, moved)) = given.next().await {
        match moved {
            Ok(moved) if moved == outputs => tracing::info!(heir, moved, "handed outputs over"),
            Ok(moved) if moved > 0 => tracing::warn!(heir, moved, outputs, "handed over only some of the outputs"),
            refused => {
                let why = refused.err();
                tracing::warn!(heir, outputs, why, "the heir does not take the outputs");
                avoid.insert(heir);
            }
        }
    }
}

/// How many it took of what one executor is to have of one job.
async fn give_to(core: &Core, what: v1::HandOver) -> Result<usize, String> {
    let v1::HandOver { executor_id, address, job_id, outputs } = what;
    let job: JobId = job_id.parse().map_err(|error| format!("job_id: {error}"))?;
    let outputs: Vec<v1::KeptOutput> = blocking::run({
        let layout = core.layout.clone();
        move || outputs.into_iter().map(|output| with_logs(&layout, job, output)).collect()
    })
    .await
    .map_err(|stopped| stopped.to_string())?;
    let name = |attempt: &v1::AttemptRef| (attempt.stage, attempt.index, attempt.attempt);
    let mut given: HashSet<(u32, u32, u32)> =
        outputs.iter().filter_map(|output| output.attempt.as_ref()).map(name).collect();
    let request = v1::KeepOutputsRequest {
        executor_id: executor_id.clone(),
        from_address: core.advertised.clone(),
        job_id: job_id.clone(),
        outputs,
    };
    let mut heir = core.fetcher.data_at(&address).map_err(|_| format!("'{address}' is not an address"))?;
    let silent = |_| "nothing came for a long time".to_owned();
    let answer = timeout(SILENCE_MAX, heir.keep_outputs(request)).await.map_err(silent)?;
    let mut answers = answer.map_err(|status| status.to_string())?.into_inner();
    let mut moved = 0;
    loop {
        let answer = timeout(SILENCE_MAX, answers.message()).await.map_err(silent)?;
        let Some(answer) = answer.map_err(|status| status.to_string())? else { return Ok(moved) };
        if !answer.problem.is_empty() {
            tracing::warn!(heir = executor_id, problem = answer.problem, "an output is not handed over");
        }
        let heir = v1::OutputMoved { executor_id: executor_id.clone(), incarnation: answer.incarnation };
        let kept = answer.kept.into_iter().filter(|attempt| given.remove(&name(attempt))).collect();
        moved += tell(core, job, &heir, kept).await?;
    }
}

/// Tells the job's owner that the heir has these now. How many of them it has committed.
async fn tell(core: &Core, job: JobId, heir: &v1::OutputMoved, kept: Vec<v1::AttemptRef>) -> Result<usize, String> {
    if kept.is_empty() {
        return Ok(0);
    }
    let moved = |(sequence, attempt)| v1::AttemptStatus {
        sequence,
        attempt: Some(v1::AttemptRef { job_id: job.to_string(), ..attempt }),
        what: Some(v1::attempt_status::What::Moved(heir.clone())),
    };
    let home = core.home.address().ok_or("no scheduler can be reached")?;
    let mut scheduler = core.channels.executors(&home).ok_or("not an address")?;
    let request = v1::UpdateTaskStatusRequest {
        executor_id: core.id().to_owned(),
        incarnation: core.incarnation(),
        statuses: (1..).zip(kept).map(moved).collect(),
        forwarded: false,
        account: None,
    };
    match timeout(COMMIT_WITHIN, scheduler.update_task_status(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner().settled.len()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err("it is not known whether it was committed".to_owned()),
    }
}

/// Says what was printed, too: the heir need not ask for nothing.
fn with_logs(layout: &Layout, job: JobId, output: v1::KeptOutput) -> v1::KeptOutput {
    let key = output.attempt.as_ref().and_then(|attempt| AttemptKey::from_wire(attempt, Some(job)).ok());
    let Some(room) = key.map(|key| layout.attempt(key)) else { return output };
    v1::KeptOutput { stdout: room.stdout().exists(), stderr: room.stderr().exists(), ..output }
}
