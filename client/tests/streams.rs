//! Streams that break off: what is told once, and from where they go on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_client::fake::FakeCluster;
use muster_client::{Client, Error, JobId, LogRequest, LogStream, Options, v1};

const JOB: JobId = JobId(7);

fn options() -> Options {
    Options {
        backoff: Duration::from_millis(5),
        call_timeout: Duration::from_secs(5),
        stream_timeout: Duration::from_secs(5),
        ..Options::default()
    }
}

fn view(state: v1::JobState, successful: u32) -> v1::JobView {
    let tasks = Some(v1::Counts { successful, ..Default::default() });
    v1::JobView { job_id: JOB.to_string(), state: state.into(), tasks, ..Default::default() }
}

fn log(follow: bool) -> LogRequest {
    let (stage, stream) = ("main".to_owned(), LogStream::Stdout);
    LogRequest { job: JOB, stage, index: 0, attempt: None, stream, follow, offset: 0 }
}

async fn read_all(client: &Client, request: LogRequest) -> Result<Vec<u8>> {
    let mut log = client.read_log(request);
    let mut bytes = Vec::new();
    while let Some(chunk) = log.next().await? {
        assert_eq!(chunk.offset, bytes.len() as u64);
        bytes.extend_from_slice(&chunk.data);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_watch_that_breaks_off_tells_every_view_once() -> Result<()> {
    let cluster = FakeCluster::default();
    let states = [
        (v1::JobState::Queued, 0),
        (v1::JobState::Running, 1),
        (v1::JobState::Running, 2),
        (v1::JobState::Successful, 3),
    ];
    let views: Vec<_> = states.into_iter().map(|(state, done)| view(state, done)).collect();
    cluster.state().views = views.clone();
    cluster.state().break_watch_after = Some(2);
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    let mut watch = client.watch_job(JOB);
    let mut told = Vec::new();
    while let Some(view) = watch.next().await? {
        told.push(view);
    }
    assert_eq!(told, views);
    assert_eq!(cluster.state().break_watch_after, None, "the fault did not happen");
    let asked: Vec<_> = cluster.state().calls.iter().filter(|(call, _)| call == "watch_job").cloned().collect();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].1, asked[1].1, "the second subscription goes to the other scheduler");
    Ok(())
}

#[tokio::test]
async fn waiting_ends_with_the_jobs_last_view() -> Result<()> {
    let cluster = FakeCluster::default();
    cluster.state().views = vec![view(v1::JobState::Running, 1), view(v1::JobState::Failed, 1)];
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    assert_eq!(client.wait(JOB).await?.state(), v1::JobState::Failed);
    assert!(matches!(client.wait(JobId(8)).await, Err(Error::NotFound(_))));
    Ok(())
}

#[tokio::test]
async fn a_watch_without_any_scheduler_gives_up_after_its_patience() -> Result<()> {
    let cluster = FakeCluster::default();
    cluster.state().views = vec![view(v1::JobState::Running, 1)];
    let mut scheduler = cluster.start_scheduler();
    let options = Options { stream_timeout: Duration::from_millis(300), ..options() };
    let client = Client::connect([scheduler.address()], options).await?;
    let mut watch = client.watch_job(JOB);
    assert!(watch.next().await?.is_some());
    scheduler.kill();
    let gave_up = tokio::time::timeout(Duration::from_secs(5), watch.next()).await?;
    assert!(matches!(gave_up, Err(Error::Unavailable { .. })), "{gave_up:?}");
    Ok(())
}

#[tokio::test]
async fn a_log_that_breaks_off_goes_on_at_the_next_byte_of_the_same_attempt() -> Result<()> {
    let cluster = FakeCluster::default();
    let text = b"all work and no play makes a dull log\n".repeat(20);
    {
        let mut state = cluster.state();
        state.tasks.push(v1::TaskView { stage: "main".to_owned(), attempt: 1, ..Default::default() });
        state.logs.insert(("main".to_owned(), 0, 1, false), text.clone());
        state.logs.insert(("main".to_owned(), 0, 2, false), b"another attempt".to_vec());
        state.break_log_after = Some(101);
    }
    let (first, _second) = (cluster.start_scheduler(), cluster.start_scheduler());
    let client = Client::connect([first.address()], options()).await?;
    let mut log = client.read_log(log(false));
    let mut bytes = Vec::new();
    while let Some(chunk) = log.next().await? {
        assert_eq!(chunk.offset, bytes.len() as u64);
        bytes.extend_from_slice(&chunk.data);
        // From now on there is a newer attempt, whose log must not be mixed in.
        cluster.state().tasks[0].attempt = 2;
    }
    assert_eq!(cluster.state().break_log_after, None, "the fault did not happen");
    assert_eq!(String::from_utf8(bytes)?, String::from_utf8(text)?);
    assert_eq!(log.attempt(), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_log_from_an_offset_begins_there_even_if_the_scheduler_sends_more() -> Result<()> {
    let cluster = FakeCluster::default();
    cluster.state().tasks.push(v1::TaskView { stage: "main".to_owned(), attempt: 1, ..Default::default() });
    cluster.state().logs.insert(("main".to_owned(), 0, 1, false), b"0123456789".to_vec());
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let mut log = client.read_log(LogRequest { offset: 4, ..log(false) });
    let mut bytes = Vec::new();
    while let Some(chunk) = log.next().await? {
        bytes.extend_from_slice(&chunk.data);
    }
    assert_eq!(bytes, b"456789");
    Ok(())
}

#[tokio::test]
async fn following_waits_for_the_first_attempt_and_reading_does_not() -> Result<()> {
    let cluster = FakeCluster::default();
    {
        let mut state = cluster.state();
        state.views.push(view(v1::JobState::Running, 0));
        state.tasks.push(v1::TaskView { stage: "main".to_owned(), ..Default::default() });
        state.logs.insert(("main".to_owned(), 0, 1, false), b"at last\n".to_vec());
    }
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let error = read_all(&client, log(false)).await.err().context("nothing was started")?;
    assert!(error.to_string().contains("has not been started"), "{error}");

    let follower = tokio::spawn({
        let client = client.clone();
        async move { read_all(&client, log(true)).await }
    });
    // The follower has looked once, in vain, when it asks whether the job is over.
    let asked = async {
        while !cluster.state().calls.iter().any(|(call, _)| call == "get_job") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), asked).await?;
    cluster.state().tasks[0].attempt = 1;
    let bytes = tokio::time::timeout(Duration::from_secs(5), follower).await???;
    assert_eq!(bytes, b"at last\n");
    Ok(())
}

#[tokio::test]
async fn following_a_task_that_never_started_ends_with_the_job() -> Result<()> {
    let cluster = FakeCluster::default();
    cluster.state().views.push(view(v1::JobState::Cancelled, 0));
    cluster.state().tasks.push(v1::TaskView { stage: "main".to_owned(), ..Default::default() });
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let error = read_all(&client, log(true)).await.err().context("it never started")?;
    assert!(error.to_string().contains("has not been started"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_download_that_breaks_off_starts_again_and_appears_whole() -> Result<()> {
    let cluster = FakeCluster::default();
    let files = vec![
        ("counts".to_owned(), b"3 apples\n".repeat(100)),
        ("empty".to_owned(), Vec::new()),
        ("deep/er/file".to_owned(), b"x".to_vec()),
        ("link:deep/link".to_owned(), b"../counts".to_vec()),
    ];
    cluster.state().outputs.insert(("reduce".to_owned(), 2), files.clone());
    cluster.state().break_output_after = Some(1);
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let folder = tempfile::tempdir()?;
    let into = folder.path().join("results/reduce-2");
    let brought = client.download(JOB, "reduce", 2, &into).await?;
    assert_eq!(cluster.state().break_output_after, None, "the fault did not happen");
    assert_eq!((brought.files, brought.bytes), (4, 901));
    for (path, content) in &files[..3] {
        assert_eq!(std::fs::read(into.join(path))?, *content);
    }
    assert_eq!(std::fs::read_link(into.join("deep/link"))?, std::path::Path::new("../counts"));
    let left: Vec<_> = std::fs::read_dir(folder.path().join("results"))?.collect::<Result<_, _>>()?;
    assert_eq!(left.len(), 1, "nothing partial is left: {left:?}");

    let again = client.download(JOB, "reduce", 2, &into).await;
    assert!(matches!(again, Err(Error::File { .. })), "an existing directory is left alone: {again:?}");
    Ok(())
}

#[tokio::test]
async fn an_output_that_names_files_outside_of_itself_writes_nothing() -> Result<()> {
    for path in ["../evil", "/tmp/evil", "a/../../evil", "link:evil"] {
        let cluster = FakeCluster::default();
        cluster.state().outputs.insert(("main".to_owned(), 0), vec![(path.to_owned(), b"/etc".to_vec())]);
        let scheduler = cluster.start_scheduler();
        let client = Client::connect([scheduler.address()], options()).await?;
        let folder = tempfile::tempdir()?;
        let into = folder.path().join("results/main-0");
        let refused = client.download(JOB, "main", 0, &into).await;
        assert!(
            matches!(&refused, Err(Error::DataLoss(why)) if why.contains("leads out") || why.contains("outside")),
            "{path}: {refused:?}"
        );
        assert_eq!(std::fs::read_dir(folder.path().join("results"))?.count(), 0, "{path}");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn an_output_with_a_wrong_checksum_never_appears() -> Result<()> {
    let cluster = FakeCluster::default();
    cluster.state().outputs.insert(("main".to_owned(), 0), vec![("a".to_owned(), b"!".to_vec())]);
    cluster.state().damage_outputs = true;
    let scheduler = cluster.start_scheduler();
    let client = Client::connect([scheduler.address()], options()).await?;
    let folder = tempfile::tempdir()?;
    let refused = client.download(JOB, "main", 0, &folder.path().join("main-0")).await;
    assert!(matches!(&refused, Err(Error::DataLoss(why)) if why.contains("checksum")), "{refused:?}");
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
    Ok(())
}
