//! A scheduler that reaches the store but no executor, while its peers do, would own jobs and never start a task. It drains
//! by itself ([`crate::draining`]), until it reaches an executor again.
//!
//! One that is cut off from some executors places nothing there. A job that has something for such an executor, and so
//! would wait for as long as the cut lasts, goes to the scheduler that is the executor's home.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_graph::ids::Millis;
use muster_state::SessionId;

use crate::draining;
use crate::engine::{Input, Successor};
use crate::shared::Shared;
use crate::shell::Stopped;

/// How often the executors are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Drains this scheduler while it is cut off, for ever. A drain that an operator asked for is the operator's to undo.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = shared.now();
        if give_to_homes(&shared, now).await.is_err() {
            return;
        }
        let Ok(cut_off) = shared.engine.read(move |engine| engine.is_cut_off(now)).await else { return };
        let by_itself = shared.drains_by_itself.load(Ordering::Relaxed);
        let wanted = match (cut_off, by_itself) {
            (true, false) if !*shared.draining.borrow() => true,
            (false, true) => false,
            _ => continue,
        };
        if wanted {
            tracing::error!("no executor can be reached, though peers are at home to some: handing all jobs over");
        }
        shared.drains_by_itself.store(wanted, Ordering::Relaxed);
        if let Err(error) = draining::set(&shared, wanted).await {
            // What is known here holds; the peers hear of it with the next session.
            tracing::warn!(%error, draining = wanted, "the peers could not be told");
        }
    }
}

/// Hands the jobs over that wait for executors which only a peer reaches.
async fn give_to_homes(shared: &Shared, now: Millis) -> Result<(), Stopped> {
    if shared.health.check_writable().is_err() {
        return Ok(());
    }
    let beyond = shared.engine.read(move |engine| engine.jobs_beyond_reach(now)).await?;
    let live = shared.peers.live();
    for (home, jobs) in beyond {
        let session = SessionId(home);
        // One that drains would give them back.
        let Some(record) = live.get(&session).filter(|peer| !peer.draining).cloned() else { continue };
        tracing::warn!(
            jobs = jobs.len(),
            to = record.scheduler_id,
            "executor out of reach from here: its home takes the jobs that wait for it"
        );
        let to = Successor { session, record };
        shared.engine.send(Input::HandOver { jobs: jobs.into_iter().collect(), to }).await?;
    }
    Ok(())
}
