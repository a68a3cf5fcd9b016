//! Executors that fetch their work. A poll brings the executor's whole table of attempts, so that an answer that was lost
//! on the way is given again; the newest poll wins, and an answer to an older one is void.
//!
//! **Invariant:** a table says what is not there only about jobs that the executor was asked about before it made the
//! table. A scheduler sees its own polls alone: one may be on its way for long, and later ones have gone to peers.

use std::collections::BTreeMap;

use muster_graph::ids::{ExecutorKey, JobId, Millis};
use muster_graph::spec::Resources;
use muster_proto::v1;
use tokio::sync::oneshot;

use super::executors::HeldKey;
use super::takeover::{ASK_JOBS_MAX, Doubt, job_fence};
use super::{Engine, Link};

/// A poll that waits for work.
#[derive(Debug)]
pub(crate) struct WaitingPoll {
    pub(crate) sequence: u64,
    pub(crate) reply: oneshot::Sender<v1::PollWorkResponse>,
}

impl Engine {
    pub(super) fn poll(
        &mut self,
        poll: v1::PollWorkRequest,
        reply: oneshot::Sender<v1::PollWorkResponse>,
        now: Millis,
    ) {
        let key = ExecutorKey { id: poll.executor_id, incarnation: poll.incarnation };
        let register_again = |reply: oneshot::Sender<v1::PollWorkResponse>| {
            // The poll's caller may have gone away; then it asks again.
            let _ = reply.send(v1::PollWorkResponse { register_again: true, ..Default::default() });
        };
        let read = |held: &v1::HeldAttempt| muster_proto::convert::attempt_ref(held.attempt.as_ref()?).ok();
        let held: Vec<HeldKey> = poll.held.iter().filter_map(read).collect();
        // There is nothing to end of what has ended. It is listed until its result is settled.
        let unended = poll.held.iter().filter(|held| held.state() != v1::HeldState::Finished);
        let unended: Vec<HeldKey> = unended.filter_map(read).collect();
        let Some(executor) = self.executors.get_mut(&key.id) else { return register_again(reply) };
        if executor.key != key || !executor.pull || executor.link == Link::Gone {
            return register_again(reply);
        }
        if poll.sequence < executor.newest_poll {
            // A later poll has been seen: whatever this one was told would be out of date.
            let _ = reply.send(v1::PollWorkResponse::default());
            return;
        }
        executor.newest_poll = poll.sequence;
        executor.draining = poll.draining;
        executor.since = now;
        // Its session may be broken; it is not out of reach.
        executor.away_since = executor.away_since.map(|_| now);
        let free = poll.free.as_ref().map(Resources::from).unwrap_or_default();
        match &poll.account {
            Some(account) => executor.accounted(account),
            None => executor.counted(&free, u32::try_from(unended.len()).unwrap_or(u32::MAX)),
        }
        if let Some(older) = executor.poll.replace(WaitingPoll { sequence: poll.sequence, reply }) {
            let _ = older.reply.send(v1::PollWorkResponse::default());
        }
        self.settle_heeded(&key, poll.heeded, &held, now);
        if let Some(executor) = self.executors.get_mut(&key.id) {
            held.iter().for_each(|attempt| executor.arrived(attempt));
        }
        self.end_unwanted(&key, &unended);
        self.give_again(&key, &held);
    }

    pub(super) fn poll_expired(&mut self, id: &str, sequence: u64) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        if let Some(poll) = executor.poll.take_if(|poll| poll.sequence == sequence) {
            let _ = poll.reply.send(std::mem::take(&mut executor.to_fetch));
        }
    }

    /// Whether tasks wait that no executor takes: none is free, or the one that they were given to has gone elsewhere,
    /// perhaps without them: an answer to a poll may be lost, and that executor's next poll need not come here. Or whether
    /// such a one does not know yet that it should end some.
    #[must_use]
    pub fn has_unmet_demand(&self) -> bool {
        let uncollected = |executor: &super::Executor| {
            let unheard = !executor.to_fetch.cancels.is_empty() || !executor.ask.is_empty();
            let uncertain = executor.on_their_way > 0 || !executor.to_fetch.launches.is_empty();
            executor.pull && executor.poll.is_none() && (uncertain || executor.is_reachable() && unheard)
        };
        !self.queues.is_empty() || self.executors.values().any(uncollected)
    }

    /// The table answers what the executor was asked in the answer that it heeded.
    fn settle_heeded(&mut self, key: &ExecutorKey, heeded: u64, held: &[HeldKey], now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        let settled: BTreeMap<JobId, Doubt> =
            executor.ask.extract_if(.., |_, doubt| doubt.poll.is_some_and(|poll| poll == heeded)).collect();
        // What it did not heed, it did not get.
        executor.ask.values_mut().for_each(|doubt| doubt.poll = None);
        self.settle_doubts(key, settled, held, now);
    }

    /// Questions go with the answer to a poll, too: an executor that fetches its work may be out of reach for calls.
    fn ask_by_poll(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        let Some(poll) = &executor.poll else { return };
        let jobs = &self.jobs;
        let new = executor.ask.iter_mut().filter(|(_, doubt)| doubt.poll.is_none());
        for (job, doubt) in new.filter_map(|(id, doubt)| Some((jobs.get(id)?, doubt))).take(ASK_JOBS_MAX) {
            doubt.poll = Some(poll.sequence);
            executor.to_fetch.ask.push(job_fence(&self.identity, job));
        }
    }

    /// Answers the polls for which there is something.
    pub(super) fn answer_polls(&mut self) {
        let asked = |executor: &&super::Executor| executor.poll.is_some() && !executor.ask.is_empty();
        let asked: Vec<String> = self.executors.values().filter(asked).map(|known| known.key.id.clone()).collect();
        asked.iter().for_each(|executor| self.ask_by_poll(executor));
        for executor in self.executors.values_mut() {
            let fetched = &executor.to_fetch;
            if fetched.launches.is_empty() && fetched.cancels.is_empty() && fetched.ask.is_empty() {
                continue;
            }
            if let Some(poll) = executor.poll.take() {
                // If the caller is gone, the executor's next poll does not list the attempts, and they are given again.
                let _ = poll.reply.send(std::mem::take(&mut executor.to_fetch));
            }
        }
    }
}
