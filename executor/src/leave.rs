//! Leaving in order: the executor takes no new work, finishes what it has, delivers the results, and serves what it made
//! until no unfinished job needs it any more. Then it stops, and everybody is told.
//!
//! The wish can be changed and taken back as long as it has not come true. That it leaves is this life's wish alone; that it
//! takes no new work is in its record, and holds for a life after a crash too. One that has stopped in order takes work
//! when it is started again.

use std::time::Duration;

use muster_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use crate::core::Core;

/// How often the schedulers are asked who still needs something from here: each looks at its jobs for the answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Deadline of that question, which a scheduler passes on to its peers.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The wish that the executor leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leave {
    /// Then, whatever it has.
    pub(crate) at_the_latest: Option<Instant>,
}

/// Ends when it is time to stop.
pub(crate) async fn when_done(core: &Core) {
    let mut wishes = core.leave.subscribe();
    loop {
        let wish = *wishes.borrow_and_update();
        let done = async {
            match wish {
                None => std::future::pending().await,
                Some(Leave { at_the_latest: None }) => done(core).await,
                Some(Leave { at_the_latest: Some(at) }) => {
                    if tokio::time::timeout_at(at, done(core)).await.is_err() {
                        tracing::warn!("leaving although not everything is done or handed over");
                    }
                }
            }
        };
        tokio::select! {
            biased;
            Ok(()) = wishes.changed() => {}
            () = done => return,
        }
    }
}

/// Waits until nothing runs, no result waits for a scheduler, and nobody needs what was made here.
async fn done(core: &Core) {
    let mut told = false;
    loop {
        nothing_left(core).await;
        match outputs_needed(core).await {
            Ok(jobs) if jobs.is_empty() => return,
            Ok(jobs) if !std::mem::replace(&mut told, true) => {
                tracing::info!(?jobs, "nothing runs any more, but outputs here are still needed; waiting");
            }
            Ok(_) => {}
            Err(why) => tracing::debug!(why, "nobody says whether outputs here are needed"),
        }
        sleep(ASK_EVERY).await;
    }
}

/// Waits until nothing runs and no result waits for a scheduler.
pub(crate) async fn nothing_left(core: &Core) {
    while core.table.unfinished() > 0 || core.outbox.len() > 0 {
        sleep(LOOK_EVERY).await;
    }
}

async fn outputs_needed(core: &Core) -> Result<Vec<String>, String> {
    let home = core.home.address().ok_or("no scheduler can be reached")?;
    let mut scheduler = core.channels.executors(&home).ok_or("not an address")?;
    let request = v1::OutputsNeededRequest { executor_id: core.id().to_owned(), forwarded: false };
    match timeout(ASK_WITHIN, scheduler.outputs_needed(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner().job_ids),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Tells a scheduler that the executor stops: its home first, then whichever takes it.
pub(crate) async fn say_good_bye(core: &Core) {
    for address in core.home.address().into_iter().chain(core.home.candidates()) {
        let Some(mut scheduler) = core.channels.executors(&address) else { continue };
        let request = v1::ExecutorStoppedRequest {
            executor_id: core.id().to_owned(),
            incarnation: core.incarnation(),
            reason: "stopped".to_owned(),
        };
        match scheduler.executor_stopped(request).await {
            Ok(_) => return,
            Err(status) => tracing::debug!(scheduler = %address, %status, "the scheduler did not take the good-bye"),
        }
    }
}
