//! Groups, as users make and see them. What they do by themselves is [`crate::groups`]'.

use std::time::Duration;

use muster_graph::groups::GroupPath;
use muster_proto::storage::GroupRecord;
use muster_proto::v1::groups_server::Groups;
use muster_proto::{MESSAGE_BYTES_MAX, v1};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Api;
use super::cancel::check_reason;
use super::jobs::Answers;
use crate::accept::store;
use crate::definitions;
use crate::groups::{self, cancels, views::Tree};

/// Groups in one answer, when the caller does not say.
const LIST_DEFAULT: u32 = 1_000;
/// And at most.
const LIST_MAX: u32 = 10_000;
/// Of one answer: there is room in a message for one more group.
const PAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Between two looks at a group that is watched.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Api {
    async fn group_view(&self, namespace: &str, path: &GroupPath) -> Result<v1::GroupView, Status> {
        let some = std::slice::from_ref(path);
        let view = self.group_views(namespace, path, |_| some.to_vec()).await?.into_iter().next();
        view.ok_or_else(|| Status::not_found(format!("group: there is no group {path} in namespace {namespace}")))
    }

    /// Views of some groups of what is at a path and below it.
    async fn group_views(
        &self,
        namespace: &str,
        path: &GroupPath,
        choose: impl FnOnce(&Tree) -> Vec<GroupPath>,
    ) -> Result<Vec<v1::GroupView>, Status> {
        let state = &*self.shared.options.state;
        let live = self.shared.live.jobs(state).await.map_err(store)?;
        let tree = Tree::read(state, namespace, path, live.revision, self.shared.now()).await.map_err(store)?;
        let cancels = cancels::read(state, namespace).await.map_err(store)?;
        let chosen = choose(&tree);
        Ok(tree.views(&chosen, &cancels, &live))
    }
}

#[tonic::async_trait]
impl Groups for Api {
    async fn create_group(&self, request: Request<v1::CreateGroupRequest>) -> Result<Response<v1::GroupView>, Status> {
        let v1::CreateGroupRequest { namespace, path, spec } = request.into_inner();
        let namespace = definitions::namespace(namespace)?;
        let path = groups::path(&path)?;
        let spec = spec.unwrap_or_default();
        groups::check_spec(&spec)?;
        self.shared.health.check_writable()?;
        let id = if path.is_root() { groups::ROOT_ID.to_owned() } else { format!("{:016x}", rand::random::<u64>()) };
        let record = GroupRecord { id, spec: Some(spec), created_at_ms: self.shared.now(), ..GroupRecord::default() };
        groups::create(&self.shared, &namespace, &path, record).await?;
        Ok(Response::new(self.group_view(&namespace, &path).await?))
    }

    async fn get_group(&self, request: Request<v1::GetGroupRequest>) -> Result<Response<v1::GroupView>, Status> {
        let message = request.into_inner();
        let namespace = definitions::namespace(message.namespace)?;
        let path = groups::find(&*self.shared.options.state, &namespace, &message.group).await?;
        Ok(Response::new(self.group_view(&namespace, &path).await?))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let message = request.into_inner();
        let namespace = definitions::namespace(message.namespace)?;
        let path = groups::find(&*self.shared.options.state, &namespace, &message.group).await?;
        let limit = if message.limit == 0 { LIST_DEFAULT } else { message.limit.min(LIST_MAX) } as usize;
        let after = match message.page_token.as_str() {
            "" => None,
            token => Some(
                token
                    .parse::<GroupPath>()
                    .map_err(|_| Status::invalid_argument("page_token: not one that a list has given"))?,
            ),
        };
        let deepest = if message.depth == 0 { usize::MAX } else { path.depth() + message.depth as usize };
        let mut more = false;
        let mut groups = self
            .group_views(&namespace, &path, |tree| {
                let mut chosen: Vec<GroupPath> = tree.paths().filter(|path| path.depth() <= deepest).cloned().collect();
                // By their names, level by level, so that all that is in a group follows it.
                chosen.sort_by(|one, other| one.as_str().split('/').cmp(other.as_str().split('/')));
                if let Some(after) = after {
                    let is_after = |path: &GroupPath| path.as_str().split('/').gt(after.as_str().split('/'));
                    chosen.retain(is_after);
                }
                more = chosen.len() > limit;
                chosen.truncate(limit);
                chosen
            })
            .await?;
        // And no more than fit into an answer.
        let mut bytes = 0;
        let fitting = groups.iter().take_while(|view| {
            bytes += view.encoded_len();
            bytes <= PAGE_BYTES_MAX
        });
        let fitting = fitting.count().max(1);
        more |= fitting < groups.len();
        groups.truncate(fitting);
        let next_page_token = groups.last().filter(|_| more).map(|last| format!("/{}", last.path)).unwrap_or_default();
        Ok(Response::new(v1::ListGroupsResponse { groups, next_page_token }))
    }

    type WatchGroupStream = Answers<v1::GroupView>;

    async fn watch_group(
        &self,
        request: Request<v1::WatchGroupRequest>,
    ) -> Result<Response<Self::WatchGroupStream>, Status> {
        let message = request.into_inner();
        let namespace = definitions::namespace(message.namespace)?;
        let path = groups::find(&*self.shared.options.state, &namespace, &message.group).await?;
        let (sender, receiver) = mpsc::channel(1);
        let api = self.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(async move {
                let mut told = None;
                loop {
                    let view = api.group_view(&namespace, &path).await;
                    let is_last =
                        view.as_ref().map_or(true, |view| view.jobs.as_ref().is_none_or(|jobs| jobs.live == 0));
                    let is_new = view.as_ref().map_or(true, |view| told.as_ref() != Some(view));
                    told = view.as_ref().ok().cloned();
                    if (is_new && sender.send(view).await.is_err()) || is_last || sender.is_closed() {
                        return;
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            })
            .await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel_group(
        &self,
        request: Request<v1::CancelGroupRequest>,
    ) -> Result<Response<v1::CancelGroupResponse>, Status> {
        let message = request.into_inner();
        let namespace = definitions::namespace(message.namespace)?;
        check_reason(&message.reason)?;
        self.shared.health.check_writable()?;
        let path = groups::find(&*self.shared.options.state, &namespace, &message.group).await?;
        cancels::mark(&self.shared, &namespace, &path, message.reason).await?;
        Ok(Response::new(v1::CancelGroupResponse {}))
    }
}
