//! A scheduler as the home of executors: it hears their heartbeats, and sends them on to peers that have work, or passes
//! their polls on.

use std::time::Duration;

use muster_graph::ids::ExecutorKey;
use muster_graph::spec::Resources;
use muster_proto::v1;
use tokio::sync::mpsc;
use tonic::{Response, Status, Streaming};

use super::{Api, from_peer};
use crate::demand;
use crate::engine::Input;
use crate::options::{PEER_DEADLINE, POLL_WAIT_MAX};

impl Api {
    /// A peer to send an executor to, once there has been time for work of our own.
    pub(super) async fn peer_with_work(&self, last: &str) -> String {
        /// A placement and its commit, with room.
        const OWN_WORK_FIRST: Duration = Duration::from_millis(50);
        /// As long as executors wait at a peer: where all are in want, whatever becomes free is anybody's.
        const TURN: Duration = Duration::from_millis(500);
        tokio::time::sleep(if self.shared.demand.is_unmet() { TURN } else { OWN_WORK_FIRST }).await;
        demand::of_a_peer(&self.shared, last).await
    }

    /// Passes a poll on to the peer that it is for, which the executor does not reach itself. Whose poll it is, and what it
    /// says, is that peer's matter; so is the answer the executor's.
    pub(super) async fn pass_on(
        &self,
        mut poll: v1::PollWorkRequest,
    ) -> Result<Response<v1::PollWorkResponse>, Status> {
        // Once at most.
        let to = std::mem::take(&mut poll.pass_on_to);
        if !self.shared.peers.live().values().any(|peer| peer.address == to) {
            return Err(Status::unavailable(format!("pass_on_to: {to} is not the address of a live scheduler")));
        }
        let mut peer = self.executors_at(&to)?;
        let answer = tokio::time::timeout(POLL_WAIT_MAX + PEER_DEADLINE, peer.poll_work(poll)).await;
        answer.map_err(|_| Status::unavailable(format!("scheduler {to} does not answer")))?.map_err(from_peer)
    }

    /// Hears an executor's heartbeats until its stream ends.
    pub(super) async fn hear(
        &self,
        mut beats: Streaming<v1::Heartbeat>,
        signals: &mpsc::Sender<Result<v1::SchedulerSignal, Status>>,
        seen: &mut Option<ExecutorKey>,
    ) {
        let session = self.shared.presence().identity.session;
        let mut told = Vec::new();
        loop {
            let beat = tokio::select! {
                biased;
                () = self.shared.told_to_give_way() => None,
                beat = beats.message() => match beat {
                    Ok(Some(beat)) => Some(beat),
                    Ok(None) | Err(_) => return,
                },
            };
            let Some(beat) = beat else {
                for signal in self.shared.goodbye() {
                    // The executor may have gone; that is as good.
                    let _ = signals.send(Ok(signal)).await;
                }
                return;
            };
            let key = ExecutorKey { id: beat.executor_id, incarnation: beat.incarnation };
            let known = {
                let key = key.clone();
                self.shared.engine.read(move |engine| engine.executor(&key.id).is_some_and(|e| e.is_here(&key))).await
            };
            let Ok(known) = known else { return };
            if self.shared.slack().is_zero() {
                // By the store this executor has no home any more, and would be declared lost in time. It has to look for
                // a scheduler with a session.
                return;
            }
            // A new session of this scheduler's is a new home, which the store must be told of.
            let same_home = self.shared.presence().identity.session == session;
            let mut answers = Vec::new();
            if known && same_home {
                *seen = Some(key.clone());
                let free = beat.free.as_ref().map(Resources::from).unwrap_or_default();
                let v1::Heartbeat { running, draining, account, .. } = beat;
                if let Some(account) = account {
                    let _ = self.shared.engine.send(Input::Account { executor: key.clone(), account }).await;
                }
                let input = Input::Heartbeat { executor: key, free, running, draining };
                if self.shared.engine.send(input).await.is_err() {
                    return;
                }
                answers.push(v1::scheduler_signal::Signal::Seen(v1::HeartbeatSeen {}));
            } else {
                *seen = None;
                answers.push(v1::scheduler_signal::Signal::RegisterAgain(v1::RegisterAgain {
                    reason: "this scheduler does not know this executor's present life, or has no connection to it"
                        .to_owned(),
                }));
            }
            let addresses = self.shared.peers.addresses();
            if addresses != told {
                told.clone_from(&addresses);
                answers.push(v1::scheduler_signal::Signal::Schedulers(v1::SchedulerList { addresses }));
            }
            for signal in answers {
                if signals.send(Ok(v1::SchedulerSignal { signal: Some(signal) })).await.is_err() {
                    return;
                }
            }
        }
    }
}
