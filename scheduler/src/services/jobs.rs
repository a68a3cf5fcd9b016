//! What users ask of jobs as a whole.

use std::collections::BTreeSet;
use std::pin::Pin;

use futures::Stream;
use muster_graph::ids::JobId;
use muster_graph::spec::JobSpec;
use muster_proto::storage::JobHead;
use muster_proto::v1::jobs_client::JobsClient;
use muster_proto::v1::jobs_server::Jobs;
use muster_proto::{MESSAGE_BYTES_MAX, v1};
use muster_state::{Guard, Key, Keyspace, Op, Scan, Txn, TxnOutcome, codec, keys};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, Place, followed, forwarded, from_peer, is_forwarded, job_id, moved};
use crate::accept::{self, Submission, store, unavailable};
use crate::engine::{head_view, view};
use crate::load::send_until_known;
use crate::options::CALL_DEADLINE;
use crate::{definitions, groups, ownership, updates};

/// Text and items of one submit. A million items of some tens of bytes fit.
const SUBMIT_BYTES_MAX: usize = 128 << 20;
/// Jobs in one answer.
const LIST_MAX: u32 = 1000;
/// Jobs in one answer, when the caller does not say.
const LIST_DEFAULT: u32 = 100;
/// Heads read at once.
const HEADS_AT_ONCE: usize = 100;
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Api {
    pub(super) fn jobs_at(&self, address: &str) -> Result<JobsClient<Channel>, Status> {
        Ok(JobsClient::new(self.shared.peers.channel(&self.shared.options.network, address)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    async fn whole_submit(mut parts: Streaming<v1::SubmitRequest>) -> Result<(JobSpec, String), Status> {
        let next = tokio::time::timeout(CALL_DEADLINE, parts.message());
        let first = next.await.map_err(|_| Status::deadline_exceeded("submit: no message came"))??;
        let Some(v1::SubmitRequest { part: Some(v1::submit_request::Part::Header(header)) }) = first else {
            return Err(Status::invalid_argument("submit: the first message must hold the header"));
        };
        let spec = header.spec.ok_or_else(|| Status::invalid_argument("header.spec: missing"))?;
        let mut spec = JobSpec::try_from(spec).map_err(Status::from)?;
        let mut bytes = 0;
        loop {
            let next = tokio::time::timeout(CALL_DEADLINE, parts.message());
            let Some(part) = next.await.map_err(|_| Status::deadline_exceeded("submit: the rest did not come"))??
            else {
                return Ok((spec, header.idempotency_key));
            };
            let Some(v1::submit_request::Part::Items(more)) = part.part else {
                return Err(Status::invalid_argument("submit: messages after the first must hold items"));
            };
            bytes += more.values.iter().map(String::len).sum::<usize>();
            if bytes > SUBMIT_BYTES_MAX {
                return Err(Status::resource_exhausted(format!(
                    "items: more than SUBMIT_BYTES_MAX = {SUBMIT_BYTES_MAX} bytes"
                )));
            }
            let Some(stage) = spec.stages.get_mut(more.stage as usize) else {
                return Err(Status::invalid_argument(format!("items.stage: there is no stage {}", more.stage)));
            };
            match &mut stage.tasks {
                muster_graph::spec::Tasks::Items(values) => values.extend(more.values),
                muster_graph::spec::Tasks::Count(_) => {
                    return Err(Status::invalid_argument(format!(
                        "items.stage: stage '{}' was announced with a count, not with items",
                        stage.name
                    )));
                }
            }
        }
    }

    pub(super) async fn view(&self, id: JobId, place: &Place) -> Result<Option<v1::JobView>, Status> {
        let over = matches!(place, Place::Over(_));
        self.look(id, place, move |engine, head, graph| match engine.job(id) {
            Some(job) if !over => engine.job_view(job),
            _ => view::graph_view(id, head, graph),
        })
        .await
    }

    /// The names of all jobs, newest first.
    async fn names(&self) -> Result<Vec<(JobId, Keyspace)>, Status> {
        // First those that no scheduler has yet: where they go to is read after it.
        let staged = updates::waiting_parts(&*self.shared.options.state, None).await.map_err(store)?;
        let jobs = staged.into_iter().flat_map(|(_, part)| part.jobs);
        let mut names: Vec<_> = jobs.filter_map(|job| Some((job.job_id.parse().ok()?, Keyspace::StagedJobs))).collect();
        for keyspace in [Keyspace::ActiveJobs, Keyspace::CompletedJobs, Keyspace::FailedJobs] {
            let mut scan = Scan::default();
            loop {
                let page = self.shared.options.state.scan_keys(keyspace, scan.clone()).await.map_err(store)?;
                names.extend(page.entries.iter().filter_map(|entry| Some((entry.name.parse().ok()?, keyspace))));
                match page.next {
                    Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..Scan::default() },
                    None => break,
                }
            }
        }
        names.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        // A job that moved while the keyspaces were read one after the other is there twice: once is enough, where it is now.
        names.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        Ok(names)
    }

    /// The jobs of the group that a list is for; `None`: all. And its namespace.
    async fn members(&self, message: &v1::ListJobsRequest) -> Result<(Option<BTreeSet<JobId>>, String), Status> {
        let Some(group) = &message.group else { return Ok((None, message.namespace.clone())) };
        let state = &*self.shared.options.state;
        let namespace = definitions::namespace(message.namespace.clone())?;
        let group = groups::find(state, &namespace, group).await?;
        if group.is_root() {
            return Ok((None, namespace));
        }
        let mut members = BTreeSet::new();
        let mut scan = Scan { prefix: keys::group_members_within(&namespace, group.as_str()), ..Scan::default() };
        loop {
            let page = state.scan_keys(Keyspace::Groups, scan.clone()).await.map_err(store)?;
            let found = page.entries.iter().filter_map(|entry| keys::group_member_of(&entry.name));
            let listed = found.filter(|(path, _)| message.recursive || *path == group.as_str());
            members.extend(listed.map(|(_, id)| id));
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
                None => return Ok((Some(members), namespace)),
            }
        }
    }

    /// A finished job is made active and ours again, in one transaction.
    async fn reopen(&self, id: JobId, stored: &crate::load::StoredJob) -> Result<(), Status> {
        let namespace = &stored.head.namespace;
        let group = groups::path(&stored.head.group)?;
        let cancels = groups::cancels::current(&self.shared, namespace).await?;
        groups::check_open(namespace, &group, &cancels)?;
        if stored.head.state == i32::from(v1::JobState::Successful) {
            return Err(Status::failed_precondition(format!(
                "job {id} was successful: there is nothing to retry; submit it again to run it again"
            )));
        }
        let identity = self.shared.presence().identity;
        let mut head = stored.head.clone();
        head.commit_id = format!("reopen:{:016x}", rand::random::<u64>());
        head.state = v1::JobState::Running.into();
        head.finished_at_ms = 0;
        head.retry_requested = true;
        head.token = 0;
        let owner = ownership::owner_record(&self.shared, &identity.session);
        let from = Key::new(stored.keyspace, id.to_string());
        let mut txn = Txn {
            guards: vec![
                Guard::AtRevision(keys::epoch(), identity.epoch_revision),
                Guard::SessionAlive(identity.session.clone()),
                Guard::AtRevision(from.clone(), stored.head_entry.mod_revision),
                Guard::Absent(keys::active_job(id)),
                Guard::Absent(keys::owner(id)),
                cancels.guard(namespace),
            ],
            ops: vec![
                Op::Delete(from),
                Op::Put { key: keys::active_job(id), value: codec::encode(&head).map_err(store)?, session: None },
                Op::Put { key: keys::owner(id), value: codec::encode(&owner).map_err(store)?, session: None },
            ],
            read_on_failure: vec![keys::group_cancels_head(namespace)],
        };
        if stored.head.counted {
            txn.ops.push(groups::changes::returned(id, &stored.head).map_err(store)?);
        }
        match send_until_known(&*self.shared.options.state, txn).await.map_err(store)? {
            TxnOutcome::Refused { read, .. }
                if read.first().and_then(Option::as_ref).map_or(0, |head| head.mod_revision) != cancels.as_of() =>
            {
                groups::cancels::refresh(&self.shared, namespace).await?;
                Err(unavailable("groups of its namespace were cancelled just now; try again"))
            }
            // Refused: somebody else reopened it, or an earlier sending had landed. Either way it is active now.
            TxnOutcome::Committed(_) | TxnOutcome::Refused { .. } => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Jobs for Api {
    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        self.shared.health.check_writable()?;
        let (spec, key) = Self::whole_submit(request.into_inner()).await?;
        let accepted = accept::accept(&self.shared, Submission::of(spec, key)).await?;
        Ok(Response::new(accepted.into()))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::JobView>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        let place = self.place_of(id, forward).await?;
        if let Place::Peer(address) = &place {
            return self.jobs_at(address)?.get_job(forwarded(message)).await.map_err(from_peer);
        }
        if let Some(view) = self.view(id, &place).await? {
            return Ok(Response::new(view));
        }
        // It ended, or moved, between the two looks.
        let place = self.place_of(id, forward).await?;
        self.view(id, &place).await?.map(Response::new).ok_or_else(|| moved(id))
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        let message = request.into_inner();
        let limit = if message.limit == 0 { LIST_DEFAULT } else { message.limit.min(LIST_MAX) } as usize;
        let before = match message.page_token.as_str() {
            "" => None,
            token => Some(
                muster_proto::convert::job_id(token)
                    .map_err(|_| Status::invalid_argument("page_token: not one that a list has given"))?,
            ),
        };
        let (members, namespace) = self.members(&message).await?;
        let is_listed = |id: &JobId| {
            before.is_none_or(|before| *id < before) && members.as_ref().is_none_or(|members| members.contains(id))
        };
        let names: Vec<(JobId, Keyspace)> = self.names().await?.into_iter().filter(|(id, _)| is_listed(id)).collect();
        let is_in_root_alone = message.group.is_some() && members.is_none() && !message.recursive;
        let mut jobs = Vec::new();
        let mut next_page_token = String::new();
        'pages: for some in names.chunks(HEADS_AT_ONCE) {
            let keys: Vec<Key> = some.iter().map(|(id, keyspace)| Key::new(*keyspace, id.to_string())).collect();
            let (_, entries) = self.shared.options.state.get_many(&keys).await.map_err(store)?;
            let ids: Vec<JobId> = some.iter().map(|(id, _)| *id).collect();
            let live = self
                .shared
                .engine
                .read(move |engine| {
                    ids.into_iter()
                        .filter_map(|id| {
                            let mut view = engine.job_view(engine.job(id)?);
                            view.stages.clear();
                            view.failures.clear();
                            Some((id, view))
                        })
                        .collect::<std::collections::BTreeMap<_, _>>()
                })
                .await
                .map_err(unavailable)?;
            for ((id, _), (key, entry)) in some.iter().zip(keys.iter().zip(entries)) {
                let entry = match entry {
                    // Its update's jobs are being taken up.
                    None if key.keyspace == Keyspace::StagedJobs => {
                        self.shared.options.state.get(&keys::active_job(*id)).await.map_err(store)?
                    }
                    entry => entry,
                };
                // Gone since its name was read: it has just moved to another keyspace, and is in the next list.
                let Some(entry) = entry else { continue };
                let view = match live.get(id) {
                    Some(view) => view.clone(),
                    None => match codec::decode::<JobHead>(key, &entry.value) {
                        Ok(head) => head_view(*id, &head),
                        // One job that a newer version wrote must not hide the others.
                        Err(error) => {
                            v1::JobView { job_id: id.to_string(), message: error.to_string(), ..Default::default() }
                        }
                    },
                };
                let wanted = (namespace.is_empty() || namespace == view.namespace)
                    && (!is_in_root_alone || view.group.is_empty())
                    && (message.states.is_empty() || message.states.contains(&view.state));
                if !wanted {
                    continue;
                }
                if jobs.len() == limit {
                    next_page_token = jobs.last().map_or_else(String::new, |last: &v1::JobView| last.job_id.clone());
                    break 'pages;
                }
                jobs.push(view);
            }
        }
        Ok(Response::new(v1::ListJobsResponse { jobs, next_page_token }))
    }

    type WatchJobStream = Answers<v1::JobView>;

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        let place = self.place_of(id, forward).await?;
        if let Place::Peer(address) = &place {
            let stream = self.jobs_at(address)?.watch_job(followed(message)).await.map_err(from_peer)?.into_inner();
            return Ok(Response::new(Box::pin(stream)));
        }
        let (sender, receiver) = mpsc::channel(4);
        let api = self.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            // Cancelled between two looks: the watcher sees the stream end and watches elsewhere.
            stop.run_until_cancelled(async move {
                if let Err(status) = api.watch(id, place, forward, &sender).await {
                    let _ = sender.send(Err(status)).await;
                }
            })
            .await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        self.tasks(request).await
    }

    async fn list_attempts(
        &self,
        request: Request<v1::ListAttemptsRequest>,
    ) -> Result<Response<v1::ListAttemptsResponse>, Status> {
        self.attempts(request).await
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::Explanation>, Status> {
        self.explanation(request).await
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        self.cancel(request).await
    }

    async fn retry_job(&self, request: Request<v1::RetryJobRequest>) -> Result<Response<v1::RetryJobResponse>, Status> {
        let forward = is_forwarded(&request);
        let message = request.into_inner();
        let id = job_id(&message.job_id)?;
        self.shared.health.check_writable()?;
        let transit = match self.place_of(id, forward).await? {
            // Whoever owns it would say the same.
            Place::Here | Place::Peer(_) => {
                return Err(Status::failed_precondition(format!(
                    "job {id} is not over yet: only a finished job can be retried; wait for its end, or cancel it first"
                )));
            }
            Place::Over(stored) => {
                // Before it is active again: the scan must not be the one that reads it, since this call waits.
                let transit = self.shared.transit(id).ok_or_else(|| moved(id))?;
                self.reopen(id, &stored).await?;
                transit
            }
        };
        let (reply, answer) = oneshot::channel();
        ownership::adopt_for(&self.shared, transit, reply).await;
        match tokio::time::timeout(CALL_DEADLINE, answer).await {
            Ok(Ok(Some(tasks))) => Ok(Response::new(v1::RetryJobResponse { tasks })),
            Ok(Ok(None) | Err(_)) => Err(moved(id)),
            Err(_) => Err(Status::deadline_exceeded("the retry is not committed yet; it may still be")),
        }
    }

    type ReadLogStream = Answers<v1::LogChunk>;

    async fn read_log(
        &self,
        request: Request<v1::ReadTaskLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        self.log(request).await
    }

    async fn list_outputs(
        &self,
        request: Request<v1::ListOutputsRequest>,
    ) -> Result<Response<v1::ListOutputsResponse>, Status> {
        self.outputs(request).await
    }

    type ReadOutputStream = Answers<v1::OutputChunk>;

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        self.output(request).await
    }
}
