//! Jobs, and what tests ask of them.

use std::net::SocketAddr;
use std::time::Duration;

use muster_proto::v1;
use muster_proto::v1::jobs_client::JobsClient;
use tonic::transport::Channel;

/// A stage of a test's job: its name, how many tasks it has, and which stages it reads.
pub type Stage<'a> = (&'a str, u32, &'a [(&'a str, v1::InputKind)]);

/// A job whose every stage runs `/bin/true`.
#[must_use]
pub fn job(name: &str, stages: &[Stage<'_>]) -> v1::JobSpec {
    v1::JobSpec {
        name: name.to_owned(),
        stages: stages
            .iter()
            .map(|(name, tasks, inputs)| v1::StageSpec {
                name: (*name).to_owned(),
                work: Some(v1::stage_spec::Work::Process(v1::Process {
                    run: Some(v1::process::Run::Argv(v1::Argv { args: vec!["/bin/true".to_owned()] })),
                })),
                tasks: Some(v1::stage_spec::Tasks::Count(*tasks)),
                inputs: inputs
                    .iter()
                    .map(|(stage, kind)| v1::Input {
                        stage: (*stage).to_owned(),
                        kind: (*kind).into(),
                        seen_as: Vec::new(),
                    })
                    .collect(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// A client of one scheduler.
pub async fn client(scheduler: SocketAddr) -> anyhow::Result<JobsClient<Channel>> {
    Ok(JobsClient::connect(format!("http://{scheduler}")).await?)
}

/// Submits a job under an idempotency key (empty: none) and answers its id.
pub async fn submit(client: &mut JobsClient<Channel>, spec: v1::JobSpec, key: &str) -> Result<String, tonic::Status> {
    let header = v1::SubmitHeader { spec: Some(spec), idempotency_key: key.to_owned() };
    let parts = [v1::SubmitRequest { part: Some(v1::submit_request::Part::Header(header)) }];
    Ok(client.submit(tokio_stream::iter(parts)).await?.into_inner().job_id)
}

/// Waits until a job is over.
pub async fn finished(client: &mut JobsClient<Channel>, id: &str, seconds: u64) -> anyhow::Result<v1::JobView> {
    let watching = async {
        loop {
            let mut views = match client.watch_job(v1::WatchJobRequest { job_id: id.to_owned() }).await {
                Ok(views) => views.into_inner(),
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Err(status) => return Err(anyhow::Error::from(status)),
            };
            while let Ok(Some(view)) = views.message().await {
                if view.finished_at_ms > 0 {
                    return Ok(view);
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds), watching)
        .await
        .map_err(|_| anyhow::anyhow!("job {id} was not over after {seconds} s"))?
}
