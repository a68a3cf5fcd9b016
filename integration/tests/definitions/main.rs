//! Definitions: each rule of theirs, at a scheduler over a store in memory; and from the command line, on real processes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod command_line;
mod edits;
mod runs;

use std::sync::Arc;

use muster_client::{Client, Error, JobId, v1};
use muster_graph::spec::{Format, NoFiles, Template};
use muster_integration::cluster;
use muster_integration::world::client;
use muster_scheduler::Handle;
use muster_state::{Memory, StateBackend};

async fn cluster_of_one() -> (Handle, Client) {
    cluster::logs();
    let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let scheduler = cluster::scheduler("one", state).await.unwrap();
    let client = client(&[scheduler.address()]).await;
    (scheduler, client)
}

fn text(yaml: &str) -> v1::DefinitionText {
    let spec = Template::read(yaml, Format::Yaml).unwrap().canonical(&NoFiles).unwrap();
    v1::DefinitionText { spec, text: yaml.to_owned(), format: "yaml".to_owned() }
}

/// One stage for each job that it refers to, and one of its own.
fn referring(name: &str, to: &[&str]) -> v1::DefinitionText {
    let stages: String = to.iter().enumerate().map(|(n, job)| format!(", s{n}: {{job: {job}}}")).collect();
    text(&format!("{{name: {name}, stages: {{own: {{run: 'true'}}{stages}}}}}"))
}

async fn define(client: &Client, texts: Vec<v1::DefinitionText>) -> Result<Vec<u32>, String> {
    match client.define(texts).await {
        Ok(defined) => Ok(defined.into_iter().map(|one| one.revision).collect()),
        Err(Error::InvalidArgument(why)) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

fn request(name: &str) -> v1::RunDefinitionRequest {
    v1::RunDefinitionRequest { name: name.to_owned(), ..v1::RunDefinitionRequest::default() }
}

async fn run(client: &Client, name: &str) -> JobId {
    client.run_definition(request(name)).await.unwrap().job
}

/// `name@revision` of all that a job was made of, its own first.
async fn made_of(client: &Client, job: JobId) -> Vec<String> {
    let view = client.get_job(job).await.unwrap();
    view.made_of.into_iter().map(|used| format!("{}@{}", used.name, used.revision)).collect()
}

async fn undefine(client: &Client, name: &str, force: bool) -> Result<Vec<String>, Error> {
    client.undefine(v1::UndefineRequest { name: name.to_owned(), force, ..v1::UndefineRequest::default() }).await
}
