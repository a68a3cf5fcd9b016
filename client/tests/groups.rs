//! Groups: pages, repeated calls, and a watch that lives through its schedulers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_client::fake::{FakeCluster, Fault};
use muster_client::{Client, Error, Options, v1};

fn options() -> Options {
    Options {
        backoff: Duration::from_millis(5),
        call_timeout: Duration::from_secs(5),
        stream_timeout: Duration::from_secs(5),
        ..Options::default()
    }
}

fn group(path: &str, live: u64, failed: u64) -> v1::GroupView {
    let state = match (live, failed) {
        (_, 1..) => v1::GroupState::Failed,
        (0, 0) => v1::GroupState::Successful,
        (1.., 0) => v1::GroupState::Running,
    };
    let jobs = Some(v1::JobCounts { live, failed, ..Default::default() });
    v1::GroupView { path: path.to_owned(), state: state.into(), jobs, ..Default::default() }
}

fn count(cluster: &FakeCluster, call: &str) -> usize {
    cluster.state().calls.iter().filter(|(name, _)| name == call).count()
}

#[tokio::test]
async fn a_watch_of_a_group_that_breaks_off_tells_every_view_once() -> Result<()> {
    let cluster = FakeCluster::default();
    // A group that has failed goes on, as long as some of its jobs do.
    let views = vec![group("a", 3, 0), group("a", 2, 0), group("a", 1, 1), group("a", 0, 1)];
    cluster.state().groups = views.clone();
    cluster.state().groups.push(group("b", 9, 0));
    cluster.state().break_watch_after = Some(2);
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    let mut watch = client.watch_group("", "a");
    let mut told = Vec::new();
    while let Some(view) = watch.next().await? {
        told.push(view);
    }
    assert_eq!(told, views);
    assert_eq!(cluster.state().break_watch_after, None, "the fault did not happen");
    let asked: Vec<_> = cluster.state().calls.iter().filter(|(call, _)| call == "watch_group").cloned().collect();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].1, asked[1].1, "the second subscription goes to the other scheduler");
    Ok(())
}

#[tokio::test]
async fn waiting_for_a_group_ends_when_none_of_its_jobs_is_live() -> Result<()> {
    let cluster = FakeCluster::default();
    cluster.state().groups = vec![group("a", 1, 1), group("a", 0, 1), group("empty", 0, 0)];
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    assert_eq!(client.wait_group("", "a").await?, group("a", 0, 1));
    assert_eq!(client.wait_group("", "empty").await?.state(), v1::GroupState::Successful);
    assert!(matches!(client.wait_group("", "c").await, Err(Error::NotFound(_))));
    Ok(())
}

#[tokio::test]
async fn groups_are_collected_over_all_pages() -> Result<()> {
    let cluster = FakeCluster::default();
    cluster.state().groups.push(group("a", 0, 0));
    cluster.state().groups.extend((0..2345).map(|number| group(&format!("a/{number}"), 0, 0)));
    cluster.state().groups.push(group("ab", 0, 0));
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let all = client.list_groups("", "a", 0).await?;
    assert_eq!((all.len(), count(&cluster, "list_groups")), (2346, 3));
    let request = v1::ListGroupsRequest { limit: 10, ..Default::default() };
    let page = client.list_groups_page(request).await?;
    assert_eq!((page.groups.len(), page.next_page_token.as_str()), (10, "10"));
    Ok(())
}

#[tokio::test]
async fn making_and_cancelling_a_group_are_repeated_until_they_are_answered() -> Result<()> {
    let cluster = FakeCluster::default();
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    cluster.state().faults.insert("create_group", [Fault::LoseAnswer].into());
    cluster.state().faults.insert("cancel_group", [Fault::LoseAnswer].into());
    let spec = v1::GroupSpec { cancel_after_failures: 3, ..Default::default() };
    let request = v1::CreateGroupRequest { path: "a".to_owned(), spec: Some(spec), ..Default::default() };
    assert_eq!(client.create_group(request.clone()).await?.path, "a");
    assert_eq!((count(&cluster, "create_group"), cluster.state().groups.len()), (2, 1));
    client.cancel_group("", "a", "enough").await?;
    assert_eq!(cluster.state().cancels, ["enough", "enough"]);
    let other = v1::CreateGroupRequest { spec: None, ..request };
    let error = client.create_group(other).await.err().context("it was made otherwise")?;
    assert!(matches!(error, Error::AlreadyExists(_)), "{error}");
    Ok(())
}
