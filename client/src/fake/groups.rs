//! The scripted service's word on groups: as much of them as the tests of clients need.

use muster_proto::v1;
use muster_proto::v1::groups_server::Groups;
use tonic::{Request, Response, Status};

use super::{Answers, FakeState, Service, answers, broken_off};

/// A path without what may stand before it.
fn plain(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// Whether a job or group of this path is in the group; with `deep` also in those in it.
pub(super) fn holds(group: &str, path: &str, deep: bool) -> bool {
    let group = plain(group);
    let is_inside = group.is_empty() || path.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'));
    path == group || (deep && is_inside)
}

/// The newest view of a group.
fn view<'a>(state: &'a FakeState, path: &str) -> Result<&'a v1::GroupView, Status> {
    let found = state.groups.iter().rev().find(|view| view.path == plain(path));
    found.ok_or_else(|| Status::not_found(format!("group: there is no group '{path}'")))
}

#[tonic::async_trait]
impl Groups for Service {
    type WatchGroupStream = Answers<v1::GroupView>;

    async fn create_group(&self, request: Request<v1::CreateGroupRequest>) -> Result<Response<v1::GroupView>, Status> {
        let lose = self.begin("create_group").await?;
        let v1::CreateGroupRequest { namespace, path, spec } = request.into_inner();
        let path = plain(&path).to_owned();
        let mut state = self.cluster.state();
        let known = view(&state, &path).ok().cloned();
        let made = match known {
            Some(known) if known.spec.clone().unwrap_or_default() == spec.clone().unwrap_or_default() => known,
            Some(_) => return Err(Status::already_exists(format!("path: group {path} was made otherwise"))),
            None => {
                if let Some((parent, _)) = path.rsplit_once('/') {
                    view(&state, parent)?;
                }
                let made = v1::GroupView {
                    namespace,
                    path,
                    spec,
                    created_at_ms: 1,
                    state: v1::GroupState::Successful.into(),
                    ..Default::default()
                };
                state.groups.push(made.clone());
                made
            }
        };
        if lose { Err(broken_off()) } else { Ok(Response::new(made)) }
    }

    async fn get_group(&self, request: Request<v1::GetGroupRequest>) -> Result<Response<v1::GroupView>, Status> {
        self.begin("get_group").await?;
        let state = self.cluster.state();
        Ok(Response::new(view(&state, &request.into_inner().group)?.clone()))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        self.begin("list_groups").await?;
        let request = request.into_inner();
        let state = self.cluster.state();
        // The root is always there.
        if !plain(&request.group).is_empty() {
            view(&state, &request.group)?;
        }
        let limit = if request.limit == 0 { 1000 } else { request.limit as usize };
        let from: usize = request.page_token.parse().unwrap_or(0);
        let levels = |path: &str| path.split('/').filter(|name| !name.is_empty()).count();
        let lowest = levels(&request.group).saturating_add(request.depth as usize);
        let fits = |view: &&v1::GroupView| {
            holds(&request.group, &view.path, true) && (request.depth == 0 || levels(&view.path) <= lowest)
        };
        let all: Vec<v1::GroupView> = state.groups.iter().filter(fits).cloned().collect();
        let next_page_token = if from + limit < all.len() { (from + limit).to_string() } else { String::new() };
        let groups = all.into_iter().skip(from).take(limit).collect();
        Ok(Response::new(v1::ListGroupsResponse { groups, next_page_token }))
    }

    async fn watch_group(
        &self,
        request: Request<v1::WatchGroupRequest>,
    ) -> Result<Response<Self::WatchGroupStream>, Status> {
        self.begin("watch_group").await?;
        let group = request.into_inner().group;
        let path = plain(&group);
        let mut state = self.cluster.state();
        view(&state, path)?;
        let mut views: Vec<_> = state.groups.iter().filter(|view| view.path == path).cloned().map(Ok).collect();
        if let Some(after) = state.break_watch_after.take() {
            views.truncate(after);
            views.push(Err(broken_off()));
            // Whoever subscribes again gets the present first, which is what was told last.
            if let Some(told) = after.checked_sub(1) {
                let mut place = 0;
                state.groups.retain(|view| {
                    let is_of_group = view.path == path;
                    place += usize::from(is_of_group);
                    !is_of_group || place > told
                });
            }
        }
        Ok(answers(views))
    }

    async fn cancel_group(
        &self,
        request: Request<v1::CancelGroupRequest>,
    ) -> Result<Response<v1::CancelGroupResponse>, Status> {
        let lose = self.begin("cancel_group").await?;
        let request = request.into_inner();
        let mut state = self.cluster.state();
        let mut cancelled = view(&state, &request.group)?.clone();
        cancelled.state = v1::GroupState::Cancelled.into();
        cancelled.is_cancelled = true;
        cancelled.cancelled_by = cancelled.path.clone();
        let cancel = v1::GroupCancel { reason: request.reason.clone(), ..Default::default() };
        cancelled.cancelled = Some(cancel);
        state.groups.retain(|view| view.path != cancelled.path);
        state.groups.push(cancelled);
        state.cancels.push(request.reason);
        if lose { Err(broken_off()) } else { Ok(Response::new(v1::CancelGroupResponse {})) }
    }
}
