//! What all parts of one executor share, and the few operations that arrive by more than one way: a launch by stream or
//! by poll, a cancel by call or by poll.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::attempt;
use crate::blocking;
use crate::clock;
use crate::control::StopCause;
use crate::error::Error;
use crate::group::Group;
use crate::identity::Identity;
use crate::keep::Keeping;
use crate::keys::{AttemptKey, Fence};
use crate::leave::Leave;
use crate::load::blobs::Blobs;
use crate::load::fetch::Fetcher;
use crate::load::inputs::Inputs;
use crate::load::upstreams::Upstreams;
use crate::load::{Advisors, Backoff};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::resources::Resources;
use crate::runtime::TaskRuntime;
use crate::store::fences::Fences;
use crate::store::journal::{Journal, Line};
use crate::store::layout::Layout;
use crate::store::outbox::Outbox;
use crate::store::workspaces::Workspaces;
use crate::table::{Table, Verdict};
use crate::tasks::Tasks;
use crate::uplink::channels::Channels;
use crate::uplink::home::{Home, normal};

/// Longest message of a result, in bytes: it is for one line on a screen.
const MESSAGE_BYTES_MAX: usize = 4096;
/// What still runs of a forgotten job is killed within its grace; its files wait this long for it.
const FORGET_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// One executor.
pub(crate) struct Core {
    pub(crate) identity: Identity,
    pub(crate) options: Options,
    /// Where others reach this executor.
    pub(crate) advertised: String,
    pub(crate) layout: Layout,
    pub(crate) table: Table,
    pub(crate) fences: Fences,
    pub(crate) outbox: Outbox,
    pub(crate) journal: Journal,
    pub(crate) works: Blobs<v1::StageWork>,
    pub(crate) items: Blobs<v1::Items>,
    pub(crate) upstreams: Upstreams,
    pub(crate) inputs: Inputs,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) keeping: Keeping,
    pub(crate) workspaces: Workspaces,
    pub(crate) runtime: Arc<dyn TaskRuntime>,
    pub(crate) channels: Channels,
    pub(crate) home: Arc<Home>,
    /// Given once a scheduler has registered this life. Nothing is taken in before: what is on its way may be meant for an
    /// earlier one that came by the same number.
    pub(crate) accepted: CancellationToken,
    /// A scheduler does not know us any more.
    pub(crate) register_again: Notify,
    /// It takes no new work because an operator wants that, not because it is about to end.
    pub(crate) told_to_drain: AtomicBool,
    /// A scheduler asked the executor to stop.
    pub(crate) stop_asked: CancellationToken,
    /// The wish that it leaves when it has nothing left to do.
    pub(crate) leave: watch::Sender<Option<Leave>>,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
}

impl Core {
    pub(crate) fn id(&self) -> &str {
        &self.identity.id
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.identity.incarnation()
    }

    /// Goes on as a later life than all that schedulers know of.
    pub(crate) async fn rise_above(&self, known: u64) -> Result<(), Error> {
        let before = self.incarnation();
        self.identity.rise_above(known).await?;
        self.outbox.begin(self.incarnation());
        self.note_beginning().await;
        let incarnation = self.incarnation();
        tracing::warn!(before, known, incarnation, "earlier lives are known that the data directory has forgotten");
        Ok(())
    }

    pub(crate) fn advisors(&self, owner_address: &Arc<str>) -> Advisors {
        Advisors { channels: self.channels.clone(), home: self.home.clone(), owner_address: owner_address.clone() }
    }

    /// The one admission. Answers when all accepted attempts are in the table and all fences on disk; what is loaded
    /// and started comes after that. An error means that nothing was accepted.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        incarnation: u64,
        launches: Vec<v1::LaunchGroup>,
    ) -> Result<Vec<v1::Refusal>, Status> {
        let mut refused = Vec::new();
        let groups = launches.into_iter().map(understand).collect::<Result<Vec<_>, Status>>()?;
        if incarnation != self.incarnation() {
            let message = format!("this is incarnation {}", self.incarnation());
            for (group, attempts) in &groups {
                for launch in attempts {
                    let key = key(group, launch);
                    refused.push(refusal(key, v1::RefusalReason::OtherIncarnation, message.clone()));
                }
            }
            self.metrics.refused(&refused);
            return Ok(refused);
        }
        let heard: Vec<(JobId, Fence)> = groups.iter().map(|(group, _)| (group.job, group.fence)).collect();
        // The table compares again: this is for the disk.
        self.hear(&heard).await?;
        for (group, attempts) in groups {
            self.home.shorten_limit(group.lost_after_ms);
            for launch in attempts {
                let key = key(&group, &launch);
                let admitted_us = clock::boot_us();
                match self.table.admit(&group, key, || self.fences.get(group.job)) {
                    Verdict::Known => {}
                    Verdict::Refused(reason, message) => {
                        tracing::info!(attempt = %key, ?reason, message, "launch refused");
                        refused.push(refusal(key, reason, message));
                    }
                    Verdict::Accepted(control) => {
                        let accepted =
                            attempt::Accepted { key, group: group.clone(), each: launch.each, control, admitted_us };
                        self.tasks.spawn(attempt::run(self.clone(), accepted));
                    }
                }
            }
        }
        self.metrics.refused(&refused);
        Ok(refused)
    }

    /// Hears of fences: see [`Fences::raise`]. Those that are news go into the executor's own record as well.
    pub(crate) async fn hear(&self, heard: &[(JobId, Fence)]) -> Result<Vec<bool>, Status> {
        let news: Vec<(JobId, Fence)> = heard
            .iter()
            .filter(|(job, fence)| self.fences.get(*job).is_none_or(|known| known < *fence))
            .copied()
            .collect();
        let counts = self.fences.raise(heard).await.map_err(|error| Status::unavailable(error.to_string()))?;
        for (job, fence) in news {
            let about = AttemptKey { job, stage: 0, index: 0, attempt: 0 };
            self.journal.note(self.line("fence", about, fence)).await;
        }
        Ok(counts)
    }

    /// A scheduler asks about jobs that it took over. On disk before it is answered: from here on the former owner starts
    /// nothing here. Answers which jobs it may be told of, and of which a newer owner was heard.
    pub(crate) async fn asked(&self, questions: Vec<v1::JobFence>) -> Result<(Vec<JobId>, Vec<JobId>), Status> {
        let mut jobs = Vec::new();
        let mut owners = Vec::new();
        for job in questions {
            let id: JobId = job.job_id.parse().map_err(|error| Status::invalid_argument(format!("jobs: {error}")))?;
            jobs.push((id, Fence::from_wire(job.fence.as_ref())));
            owners.push(job.owner_address);
        }
        let counts = self.hear(&jobs).await?;
        let (mut asked, mut refused) = (Vec::new(), Vec::new());
        for (((job, _), owner), counts) in jobs.into_iter().zip(owners).zip(counts) {
            if !counts {
                refused.push(job);
                continue;
            }
            if !owner.is_empty() {
                self.owner_is(job, &owner);
            }
            asked.push(job);
        }
        Ok((asked, refused))
    }

    /// A scheduler says where a job's owner is.
    pub(crate) fn owner_is(&self, job: JobId, address: &str) {
        self.outbox.owner_is(job, address);
        self.table.owner_is(job, &normal(address));
    }

    /// Asks attempts to end, if the one who asks owns the job.
    pub(crate) async fn cancel(&self, request: v1::CancelTasksRequest) -> Result<(), Status> {
        let bad = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let job: JobId = request.job_id.parse().map_err(|error| bad(&error))?;
        let keys = request
            .attempts
            .iter()
            .map(|attempt| AttemptKey::from_wire(attempt, Some(job)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(&error))?;
        if let Some(key) = keys.iter().find(|key| key.job != job) {
            return Err(Status::invalid_argument(format!("attempts: {key} is not of job {job}, whose fence this is")));
        }
        let fence = Fence::from_wire(request.fence.as_ref());
        let counts = self.hear(&[(job, fence)]).await?;
        if !counts[0] {
            return Err(Status::failed_precondition(format!(
                "fence {fence} of job {job} is stale: a newer owner was heard of"
            )));
        }
        for key in keys {
            if request.only_waiting {
                self.table.give_back(key);
            } else {
                self.table.stop(key, StopCause::Cancelled);
            }
        }
        Ok(())
    }

    /// Takes no new work from now on, or takes it again; schedulers hear of it by a new registration.
    pub(crate) fn set_draining(&self, draining: bool) {
        if self.table.set_draining(draining) {
            self.register_again.notify_one();
        }
    }

    /// Drops all that is kept of jobs that are over.
    pub(crate) async fn forget(self: &Arc<Self>, jobs: &[String]) {
        for job in jobs.iter().filter_map(|job| job.parse::<JobId>().ok()) {
            let running = self.table.forget(job);
            self.outbox.forget(job).await;
            let core = self.clone();
            self.tasks.spawn(async move {
                let all_over = futures::future::join_all(running.iter().map(|control| control.over.cancelled()));
                if timeout(FORGET_WITHIN, all_over).await.is_err() {
                    tracing::warn!(%job, "a forgotten job's tasks do not end; its files stay for now");
                    return;
                }
                // What ended just now has left its result, which nobody wants.
                drop(core.table.forget(job));
                core.outbox.forget(job).await;
                let files = core.layout.job(job);
                // Only a closing runtime refuses; then the next clean-up does it.
                if let Ok(Err(error)) = blocking::run(move || std::fs::remove_dir_all(files)).await
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(%job, %error, "cannot remove a job's files");
                }
            });
        }
    }

    /// Results that a scheduler has settled.
    pub(crate) async fn settle(&self, sequences: &[u64]) {
        if !sequences.is_empty() {
            let keys = self.outbox.settle(sequences).await;
            self.table.remove_finished(&keys);
        }
    }

    /// In pull mode a refusal can only be told as a result. A stale owner is told nothing: it is not asked any more.
    pub(crate) async fn tell_refused(self: &Arc<Self>, refusal: v1::Refusal) {
        use v1::RefusalReason as Reason;
        let Some(Ok(key)) = refusal.attempt.as_ref().map(|attempt| AttemptKey::from_wire(attempt, None)) else {
            return;
        };
        if !matches!(refusal.reason(), Reason::DoesNotFit | Reason::Draining) {
            return;
        }
        self.table.refuse_for_good(key);
        let finished = v1::AttemptFinished {
            outcome: v1::Outcome::LaunchRefused as i32,
            finished_at_ms: clock::wall_ms(),
            message: refusal.message,
            ..v1::AttemptFinished::default()
        };
        self.keep_result(key, &Arc::from(""), finished).await;
    }

    /// Puts a result into the outbox; on a full disk it waits for room, for a result must not be lost.
    pub(crate) async fn keep_result(&self, key: AttemptKey, owner: &Arc<str>, mut finished: v1::AttemptFinished) {
        shorten(&mut finished.message);
        let mut backoff = Backoff::new();
        while let Err(error) = self.outbox.keep(key, owner.clone(), finished.clone()).await {
            tracing::error!(attempt = %key, %error, "cannot keep a result; trying again");
            backoff.pause().await;
        }
        self.table.set_finished(key);
    }

    /// Notes that this life of the executor has begun.
    pub(crate) async fn note_beginning(&self) {
        let nothing = AttemptKey { job: JobId(0), stage: 0, index: 0, attempt: 0 };
        let line = self.line("begin", nothing, Fence::default());
        self.journal.note(Line { job: String::new(), ..line }).await;
    }

    /// A line of the executor's own record, of now.
    pub(crate) fn line(&self, event: &'static str, key: AttemptKey, fence: Fence) -> Line {
        Line {
            event,
            boot_us: clock::boot_us(),
            incarnation: self.incarnation(),
            job: key.job.to_string(),
            stage: key.stage,
            index: key.index,
            attempt: key.attempt,
            epoch: fence.epoch,
            token: fence.token,
            admitted_us: None,
            pid: None,
            outcome: None,
        }
    }
}

fn understand(wire: v1::LaunchGroup) -> Result<(Arc<Group>, Vec<v1::AttemptLaunch>), Status> {
    let job: JobId = wire.job_id.parse().map_err(|error| Status::invalid_argument(format!("job_id: {error}")))?;
    if let Some(launch) = wire.attempts.iter().find(|launch| launch.attempt == 0) {
        return Err(Status::invalid_argument(format!(
            "attempts: task {} has attempt 0; attempts are numbered from 1",
            launch.index
        )));
    }
    let group = Group {
        job,
        fence: Fence::from_wire(wire.fence.as_ref()),
        owner_address: normal(&wire.owner_address),
        stage_path: wire.stage_path.as_str().into(),
        stage: wire.stage,
        spec_digest: Arc::from(wire.spec_digest),
        inputs_revision: wire.inputs_revision,
        need: Arc::new(Resources::from_wire(wire.resources.as_ref())),
        lost_after_ms: wire.lost_after_ms,
    };
    Ok((Arc::new(group), wire.attempts))
}

fn key(group: &Group, launch: &v1::AttemptLaunch) -> AttemptKey {
    AttemptKey { job: group.job, stage: group.stage, index: launch.index, attempt: launch.attempt }
}

fn refusal(key: AttemptKey, reason: v1::RefusalReason, message: String) -> v1::Refusal {
    v1::Refusal { attempt: Some(key.to_wire()), reason: reason as i32, message }
}

fn shorten(message: &mut String) {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX - 3);
        message.truncate(end);
        message.push('…');
    }
    if message.contains('\n') {
        *message = message.replace('\n', " ");
    }
}
