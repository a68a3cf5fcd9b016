//! From committed effects to messages for executors.

use std::collections::BTreeMap;

use muster_graph::execution::{Effect, Event, TaskState};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, StageIndex, TaskId};
use muster_graph::plan::{Edge, LossPolicy};
use muster_proto::{convert, v1};
use muster_state::Revision;

use super::executors::HeldKey;
use super::inputs::seen_as;
use super::takeover::STALE_PAUSE_MS;
use super::{Engine, Job, Output};
use crate::options::LAUNCH_BATCH;

/// Which of some attempts are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that have not begun: they are asked back.
    Waiting,
}

impl Engine {
    /// Performs the effects of a commit that has landed.
    pub(super) fn perform(&mut self, id: JobId, effects: Vec<Effect>, now: Millis) {
        let mut launches: BTreeMap<(String, StageIndex), Vec<(TaskId, Attempt)>> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Launch { task, attempt, on } => {
                    let Some(job) = self.jobs.get(&id) else { return };
                    let Some(on) = job.graph.executor(on) else { continue };
                    let executor = self.executors.get_mut(&on.id).filter(|executor| executor.key == *on);
                    if executor.is_some_and(|executor| executor.send(&(id, task, attempt), now)) {
                        launches.entry((on.id.clone(), task.stage)).or_default().push((task, attempt));
                    } else {
                        // It has restarted or is lost since; that event has dealt with the attempt, or will.
                        tracing::info!(job = %id, ?task, executor = on.id, "launch withheld: executor moved on");
                        self.counts.launches_withheld += 1;
                    }
                }
                Effect::CancelAttempt { task, attempt, on } => {
                    let Some(job) = self.jobs.get(&id) else { return };
                    let Some(on) = job.graph.executor(on).cloned() else { continue };
                    self.send_cancel(&on, id, task, attempt, Which::All);
                }
                Effect::Emit(_) | Effect::Ignored { .. } => {}
            }
        }
        for ((executor, stage), attempts) in launches {
            for some in attempts.chunks(LAUNCH_BATCH) {
                self.launch(id, &executor, stage, some);
            }
        }
    }

    fn launch(&mut self, id: JobId, executor: &str, stage: StageIndex, attempts: &[(TaskId, Attempt)]) {
        let group = self.launch_group(&self.jobs[&id], stage, attempts);
        let executor = self.executors.get_mut(executor).expect("looked up by the caller");
        if executor.pull {
            executor.to_fetch.launches.push(group);
            return;
        }
        match self.outputs.last_mut() {
            Some(Output::Launch { executor: same, groups })
                if *same == executor.key && groups.iter().map(|g| g.attempts.len()).sum::<usize>() < LAUNCH_BATCH =>
            {
                groups.push(group);
            }
            _ => self.outputs.push(Output::Launch { executor: executor.key.clone(), groups: vec![group] }),
        }
    }

    fn launch_group(&self, job: &Job, stage: StageIndex, attempts: &[(TaskId, Attempt)]) -> v1::LaunchGroup {
        let plan = job.graph.plan();
        let described = &plan.stages[stage.0 as usize];
        let whole = described.upstreams.iter().any(|up| matches!(up.edge, Edge::All | Edge::Shuffle));
        let each: Vec<_> = described
            .upstreams
            .iter()
            .filter(|up| up.edge == Edge::Each)
            .map(|up| (up.stage, seen_as(up, &plan.stages[up.stage.0 as usize].name)))
            .collect();
        let inputs_revision = if whole { self.inputs_revision(job, stage) } else { 0 };
        v1::LaunchGroup {
            job_id: job.id.to_string(),
            fence: Some(v1::Fence { epoch: self.identity.epoch, token: job.token() }),
            owner_address: self.identity.address.clone(),
            stage: stage.0,
            spec_digest: described.spec_digest.clone(),
            stage_path: if described.name.contains(['/', '%']) { described.name.clone() } else { String::new() },
            inputs_revision,
            resources: Some((&described.resources).into()),
            lost_after_ms: match plan.lost_after {
                LossPolicy::Time(limit) => limit,
                // It did not ask for its tasks to be ended: they outlive any outage of the schedulers.
                LossPolicy::Cluster | LossPolicy::Never => 0,
            },
            attempts: attempts
                .iter()
                .map(|&(task, attempt)| v1::AttemptLaunch {
                    index: task.index.0,
                    attempt,
                    each: each
                        .iter()
                        .filter_map(|(upstream, (stage_name, below))| {
                            let location = self.location(job, TaskId { stage: *upstream, index: task.index })?;
                            Some(v1::EachInput {
                                stage_name: stage_name.clone(),
                                below: below.clone(),
                                stage: upstream.0,
                                location: Some(location),
                            })
                        })
                        .collect(),
                })
                .collect(),
        }
    }

    /// Says which version of its inputs' places a stage should read: it moves when an output was made again or moved, and when
    /// an executor came back under another address.
    pub(crate) fn inputs_revision(&self, job: &Job, stage: StageIndex) -> u64 {
        (u64::from(self.addresses_revision.wrapping_add(job.places_revision)) << 32)
            | u64::from(job.graph.stage(stage).map_or(0, |stage| stage.inputs_revision))
    }

    /// Where a task's accepted output is; none if the task is over without one. Of one that left nothing its readers find an empty
    /// directory. One that was lost and is being made again is with nobody: who was to read it ends, and waits.
    pub(crate) fn location(&self, job: &Job, task: TaskId) -> Option<v1::Location> {
        let state = job.graph.task(task)?;
        let nowhere = v1::Location { index: task.index.0, attempt: state.attempt, ..v1::Location::default() };
        let accepted = match state.state {
            TaskState::Successful(accepted) if accepted.output.files == 0 => return Some(nowhere),
            TaskState::Successful(accepted) => accepted,
            TaskState::Failed(_) | TaskState::Cancelled => return None,
            TaskState::Pending { .. } | TaskState::Assigned { .. } | TaskState::Running { .. } => {
                let output = Some(v1::Output { files: 1, ..v1::Output::default() });
                return Some(v1::Location { output, ..nowhere });
            }
        };
        let on = job.graph.executor(accepted.on)?;
        Some(v1::Location {
            index: task.index.0,
            attempt: state.attempt,
            executor_id: on.id.clone(),
            address: self.executors.get(&on.id).map(|executor| executor.address.clone()).unwrap_or_default(),
            output: Some(accepted.output.into()),
        })
    }

    pub(super) fn send_cancel(&mut self, key: &ExecutorKey, id: JobId, task: TaskId, attempt: Attempt, which: Which) {
        let only_waiting = which == Which::Waiting;
        let Some(job) = self.jobs.get(&id) else { return };
        let fence = v1::Fence { epoch: self.identity.epoch, token: job.token() };
        let reference = convert::to_attempt_ref(id, task, attempt);
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        if executor.pull {
            executor.to_fetch.cancels.push(v1::CancelTasksRequest {
                job_id: id.to_string(),
                fence: Some(fence),
                attempts: vec![reference],
                only_waiting,
            });
            return;
        }
        match self.outputs.last_mut() {
            Some(Output::CancelAttempts { executor: same, request })
                if same.id == key.id && request.job_id == reference.job_id && request.only_waiting == only_waiting =>
            {
                request.attempts.push(reference);
            }
            _ => self.outputs.push(Output::CancelAttempts {
                executor: executor.key.clone(),
                request: v1::CancelTasksRequest {
                    job_id: id.to_string(),
                    fence: Some(fence),
                    attempts: vec![reference],
                    only_waiting,
                },
            }),
        }
    }

    pub(super) fn launch_answered(
        &mut self,
        key: &ExecutorKey,
        count: u32,
        refused: Vec<(Revision, v1::Refusal)>,
        now: Millis,
    ) {
        if let Some(executor) = self.executors.get_mut(&key.id)
            && executor.key == *key
        {
            executor.answered(count);
        }
        for (token, refusal) in refused {
            let Some((id, task, attempt)) =
                refusal.attempt.as_ref().and_then(|attempt| convert::attempt_ref(attempt).ok())
            else {
                continue;
            };
            // Launched by an earlier copy of the job: the present one asks the executor, and learns of it so.
            if self.jobs.get(&id).is_none_or(|job| job.token() != token) {
                continue;
            }
            if let Some(executor) = self.executors.get_mut(&key.id) {
                executor.release(&(id, task, attempt));
            }
            tracing::info!(job = %id, ?task, executor = key.id, reason = ?refusal.reason(), "launch refused");
            *self.counts.launches_refused.entry(refusal.reason()).or_default() += 1;
            match refusal.reason() {
                v1::RefusalReason::StaleFence | v1::RefusalReason::StaleAttempt => {
                    self.read_again(id, "an executor has heard of a newer owner", STALE_PAUSE_MS);
                    continue;
                }
                v1::RefusalReason::DoesNotFit => self.mark_full(&key.id, now),
                v1::RefusalReason::Draining => {
                    if let Some(executor) = self.executors.get_mut(&key.id) {
                        executor.draining = true;
                    }
                }
                v1::RefusalReason::OtherIncarnation | v1::RefusalReason::Unspecified => {}
            }
            let event = Event::LaunchRefused { task, attempt, by: key.clone(), message: refusal.message };
            self.apply(id, event, now);
        }
    }

    /// A pull executor listed what it has: what it was given and does not have, its answer was lost on the way.
    pub(super) fn give_again(&mut self, key: &ExecutorKey, held: &[HeldKey]) {
        let groups = self.not_shown(key, held);
        if let Some(executor) = self.executors.get_mut(&key.id) {
            // Replaces what may still wait there: it is the same attempts.
            executor.to_fetch.launches = groups;
        }
    }

    /// What was on its way to a push executor may have been lost: it goes again, to the same life, for which the same attempt twice
    /// is one.
    pub(super) fn launch_again(&mut self, key: &ExecutorKey, held: &[HeldKey]) {
        let groups = self.not_shown(key, held);
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        for group in groups {
            executor.unanswered += u32::try_from(group.attempts.len()).unwrap_or(u32::MAX);
            self.outputs.push(Output::Launch { executor: key.clone(), groups: vec![group] });
        }
    }

    /// Launches, again, of what an executor was given and does not show to have.
    fn not_shown(&self, key: &ExecutorKey, held: &[HeldKey]) -> Vec<v1::LaunchGroup> {
        let Some(executor) = self.executors.get(&key.id) else { return Vec::new() };
        let has: std::collections::HashSet<_> = held.iter().copied().collect();
        let mut again: BTreeMap<(JobId, StageIndex), Vec<(TaskId, Attempt)>> = BTreeMap::new();
        // What was not sent is not committed. What it is still to be asked about may be on its way from an earlier owner; what it
        // was given since then came from here alone, and its answer does not speak of that.
        let in_doubt = |(id, task, attempt): &HeldKey| {
            executor.ask.get(id).is_some_and(|doubt| doubt.attempts.contains(&(*task, *attempt)))
        };
        let sent = executor.held.iter().filter(|(key, booking)| booking.sent && !in_doubt(key));
        for &(id, task, attempt) in sent.map(|(key, _)| key).filter(|key| !has.contains(key)) {
            let Some(job) = self.jobs.get(&id) else { continue };
            let waits = job
                .graph
                .task(task)
                .is_some_and(|state| state.attempt == attempt && matches!(state.state, TaskState::Assigned { .. }));
            if waits {
                again.entry((id, task.stage)).or_default().push((task, attempt));
            }
        }
        // Bookings have no order of their own.
        again.values_mut().for_each(|attempts| attempts.sort_unstable());
        let some = again.iter().flat_map(|(of, attempts)| attempts.chunks(LAUNCH_BATCH).map(move |some| (of, some)));
        some.map(|((id, stage), some)| self.launch_group(&self.jobs[id], *stage, some)).collect()
    }
}
