//! Watching a job's life: at once when it ends, and not more often than people can read before.

use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{Api, Place, followed, moved};
use crate::accept::unavailable;
use crate::engine::Changed;

/// A job's watchers are told at most this often.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

impl Api {
    pub(super) async fn watch(
        &self,
        id: JobId,
        mut place: Place,
        forwarded: bool,
        sender: &mpsc::Sender<Result<v1::JobView, Status>>,
    ) -> Result<(), Status> {
        loop {
            let changes = self.shared.engine.read(move |engine| engine.watch(id)).await.map_err(unavailable)?;
            if let Some(mut changes) = changes {
                if self.watch_here(id, &mut changes, sender).await? {
                    return Ok(());
                }
            } else if let Place::Over(_) = &place {
                if let Some(view) = self.view(id, &place).await? {
                    // The watcher may have gone: nothing is left to do either way.
                    let _ = sender.send(Ok(view)).await;
                }
                return Ok(());
            }
            // The job has moved: to the store's finished ones, to a peer, or to another owner on its way through memory.
            place = self.place_of(id, false).await?;
            if let Place::Peer(owner) = &place {
                // A peer that passes this on finds the new owner by itself.
                return if forwarded { Err(moved(id)) } else { self.watch_at(owner, id, sender).await };
            }
        }
    }

    /// Passes on what the job's new owner tells.
    async fn watch_at(
        &self,
        owner: &str,
        id: JobId,
        sender: &mpsc::Sender<Result<v1::JobView, Status>>,
    ) -> Result<(), Status> {
        let mut views =
            self.jobs_at(owner)?.watch_job(followed(v1::WatchJobRequest { job_id: id.to_string() })).await?;
        loop {
            let view = tokio::select! {
                biased;
                () = sender.closed() => return Ok(()),
                view = views.get_mut().message() => view?,
            };
            let Some(view) = view else { return Ok(()) };
            // The watcher may have gone: the next turn notices.
            let _ = sender.send(Ok(view)).await;
        }
    }

    /// Tells of a job as long as it is owned here. True: its end, or its watcher's, has come.
    async fn watch_here(
        &self,
        id: JobId,
        changes: &mut watch::Receiver<Changed>,
        sender: &mpsc::Sender<Result<v1::JobView, Status>>,
    ) -> Result<bool, Status> {
        loop {
            if let Some(view) = self.view(id, &Place::Here).await?
                && sender.send(Ok(view)).await.is_err()
            {
                return Ok(true);
            }
            let told = tokio::time::Instant::now();
            let moved = tokio::select! {
                biased;
                // The watcher has gone, and the job may be quiet for days.
                () = sender.closed() => return Ok(true),
                changed = changes.changed() => changed.is_err(),
            };
            // Not too often, but of the end at once.
            let is_over = |changed: &Changed| matches!(changed, Changed::Over(_));
            if !moved {
                drop(tokio::time::timeout_at(told + WATCH_PAUSE, changes.wait_for(is_over)).await);
            }
            let last = match &*changes.borrow() {
                Changed::Over(view) => Some(v1::JobView::clone(view)),
                Changed::Now => None,
            };
            if let Some(view) = last {
                let _ = sender.send(Ok(view)).await;
                return Ok(true);
            }
            if moved {
                return Ok(false);
            }
        }
    }
}
