//! Leaving in order: the executor takes no new work, finishes what it has, delivers the results, and gives what unfinished jobs
//! still need of what it made to others, or serves it while there are none. Then it stops, and everybody is told.
//!
//! The wish can be changed and taken back as long as it has not come true. That it leaves is this life's wish alone; that it
//! takes no new work is in its record, and holds for a life after a crash too. One that has stopped in order takes work
//! when it is started again.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use crate::core::Core;
use crate::hand_over;

/// How often the schedulers are asked who still needs something from here: each looks at its jobs for the answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Whoever stops at once waits for the answer only so long.
const SAID_WITHIN: Duration = Duration::from_secs(2);
/// Between two rounds of handing over.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Whoever stops at once puts up with schedulers that do not answer, or cannot yet, for so long.
const HITCH_MAX: Duration = Duration::from_secs(3);
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

/// Waits until nothing runs, no result waits for a scheduler, and nobody needs what was made here: others have it, or need it no more.
async fn done(core: &Core) {
    let mut avoid = BTreeSet::new();
    let mut told = false;
    loop {
        nothing_left(core).await;
        match hand_over::needed(core, &avoid).await {
            Ok(needed) if needed.job_ids.is_empty() => return,
            Ok(needed) if !needed.hand_over.is_empty() => {
                hand_over::give(core, needed.hand_over, &mut avoid).await;
                sleep(AGAIN_AFTER).await;
                continue;
            }
            Ok(needed) => {
                if !std::mem::replace(&mut told, true) {
                    let jobs = needed.job_ids;
                    tracing::info!(?jobs, "outputs here are still needed, and no other executor takes them; waiting");
                }
                avoid.clear();
            }
            Err(why) => tracing::debug!(why, "nobody says whether outputs here are needed"),
        }
        sleep(ASK_EVERY).await;
    }
}

/// Gives away what is still needed of the outputs, as much as others take at once. For an executor that stops and does not wait.
pub(crate) async fn hand_over_at_once(core: &Core) {
    let mut avoid = BTreeSet::new();
    let mut heard = Instant::now();
    loop {
        let needed = timeout(SAID_WITHIN, hand_over::needed(core, &avoid)).await;
        match needed.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(needed) if !needed.hand_over.is_empty() => {
                hand_over::give(core, needed.hand_over, &mut avoid).await;
                heard = Instant::now();
            }
            Ok(needed) if needed.job_ids.is_empty() => return,
            Ok(needed) => {
                let jobs = needed.job_ids;
                return tracing::warn!(?jobs, "outputs here are still needed, and no other executor takes them");
            }
            Err(why) if heard.elapsed() > HITCH_MAX => {
                return tracing::warn!(why, "nobody says whether outputs here are needed");
            }
            Err(why) => tracing::debug!(why, "nobody says yet whether outputs here are needed"),
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Waits until nothing runs and no result waits for a scheduler.
pub(crate) async fn nothing_left(core: &Core) {
    while core.table.unfinished() > 0 || core.outbox.len() > 0 {
        sleep(LOOK_EVERY).await;
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
