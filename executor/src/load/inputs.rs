//! Brings a task's inputs to `$MUSTER_INPUT_DIR/<stage>/<index>/`, before it starts.
//!
//! Each upstream task has a directory there, which holds what it left in its `$MUSTER_OUTPUT_DIR`; of a shuffle just
//! the entry (file or directory) named by the number of the part, if there is one. What lies on this executor is
//! linked; what lies elsewhere is fetched, several at once, and verified.

use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt as _;
use muster_graph::ids::JobId;
use muster_proto::v1::{self, InputKind};

use super::fetch::{Failure, Fetcher, Source};
use crate::blocking;
use crate::keys::AttemptKey;
use crate::output::manifest::Manifest;
use crate::store::layout::{Layout, Room, directory_name};

/// Fetches of one attempt at once.
const PARALLEL_PER_ATTEMPT: usize = 8;

/// One upstream task's output, wanted whole or in part.
#[derive(Debug, Clone)]
struct Wanted {
    stage: u32,
    location: v1::Location,
    part: Option<u32>,
    /// Where it goes.
    to: PathBuf,
}

impl Wanted {
    fn source(&self, job: JobId) -> Source {
        let v1::Location { index, attempt, address, output, .. } = &self.location;
        let attempt = AttemptKey { job, stage: self.stage, index: *index, attempt: *attempt };
        Source { address: address.clone(), attempt, part: self.part, expected: output.unwrap_or_default() }
    }
}

/// Inputs that cannot be read.
#[derive(Debug)]
pub(crate) enum NotLoaded {
    /// They are gone or out of reach.
    Unreadable { message: String, lost: Vec<v1::LostOutput> },
    /// They cannot be written here.
    Disk(String),
}

/// Fetches inputs for all attempts.
pub(crate) struct Inputs {
    own_id: String,
    layout: Layout,
    fetcher: Arc<Fetcher>,
}

impl Inputs {
    pub(crate) fn new(own_id: String, layout: Layout, fetcher: Arc<Fetcher>) -> Self {
        Self { own_id, layout, fetcher }
    }

    /// Brings all inputs. Cancel-safe: what was brought half is never taken for whole.
    pub(crate) async fn bring(
        &self,
        key: AttemptKey,
        each: &[v1::EachInput],
        upstreams: &[v1::UpstreamOutputs],
    ) -> Result<(), NotLoaded> {
        let room = self.layout.attempt(key);
        let wanted = wanted(&room, key, each, upstreams);
        let stages: Vec<PathBuf> = upstreams
            .iter()
            .map(|upstream| directory(&room, &upstream.stage_name, &upstream.below))
            .chain(each.iter().map(|input| directory(&room, &input.stage_name, &input.below)))
            .collect();
        // A task that left no files has nothing to be fetched; its directory is there all the same.
        let (wanted, empty): (Vec<Wanted>, Vec<Wanted>) =
            wanted.into_iter().partition(|wanted| wanted.location.output.is_some_and(|output| output.files > 0));
        let (with_nobody, wanted): (Vec<Wanted>, Vec<Wanted>) =
            wanted.into_iter().partition(|wanted| wanted.location.executor_id.is_empty());
        if !with_nobody.is_empty() {
            let lost = |wanted| (wanted, Failure::Gone("it is being made again".to_owned()));
            return report(with_nobody.into_iter().map(lost).collect());
        }
        let (local, remote): (Vec<Wanted>, Vec<Wanted>) =
            wanted.into_iter().partition(|wanted| wanted.location.executor_id == self.own_id);
        let layout = self.layout.clone();
        let job = key.job;
        let linked = blocking::run(move || -> Result<Vec<(Wanted, Failure)>, std::io::Error> {
            for directory in stages.into_iter().chain(empty.into_iter().map(|empty| empty.to)) {
                std::fs::create_dir_all(directory)?;
            }
            Ok(local
                .into_iter()
                .filter_map(|wanted| link(&layout, job, &wanted).err().map(|why| (wanted, why)))
                .collect())
        });
        let mut failures = match linked.await {
            Ok(Ok(failures)) => failures,
            Ok(Err(error)) => return Err(NotLoaded::Disk(format!("cannot make the input directory: {error}"))),
            Err(stopped) => return Err(NotLoaded::Disk(stopped.to_string())),
        };
        let fetched = futures::stream::iter(remote)
            .map(|wanted| async {
                let source = wanted.source(job);
                let result = self.fetcher.fetch(&source, &wanted.to).await;
                result.err().map(|why| (wanted, why))
            })
            .buffer_unordered(PARALLEL_PER_ATTEMPT)
            .filter_map(std::future::ready);
        failures.extend(fetched.collect::<Vec<_>>().await);
        report(failures)
    }
}

/// Where the output of a stage is brought to.
fn directory(room: &Room, stage_name: &str, below: &[String]) -> PathBuf {
    let start = room.input().join(directory_name(stage_name));
    below.iter().fold(start, |path, name| path.join(directory_name(name)))
}

fn wanted(room: &Room, key: AttemptKey, each: &[v1::EachInput], upstreams: &[v1::UpstreamOutputs]) -> Vec<Wanted> {
    let place = |stage_name: &str, below: &[String], location: &v1::Location| {
        directory(room, stage_name, below).join(location.index.to_string())
    };
    let mut wanted = Vec::new();
    for input in each {
        if let Some(location) = &input.location {
            let to = place(&input.stage_name, &input.below, location);
            wanted.push(Wanted { stage: input.stage, location: location.clone(), part: None, to });
        }
    }
    for upstream in upstreams {
        let part = (upstream.kind() == InputKind::Shuffle).then_some(key.index);
        for location in &upstream.locations {
            let to = place(&upstream.stage_name, &upstream.below, location);
            wanted.push(Wanted { stage: upstream.stage, location: location.clone(), part, to });
        }
    }
    wanted
}

fn link(layout: &Layout, job: JobId, wanted: &Wanted) -> Result<(), Failure> {
    let attempt =
        AttemptKey { job, stage: wanted.stage, index: wanted.location.index, attempt: wanted.location.attempt };
    let room = layout.attempt(attempt);
    let disk = |error: std::io::Error| Failure::Disk(format!("cannot link an input: {error}"));
    let manifest =
        Manifest::read(&room.manifest()).map_err(|error| Failure::Gone(format!("it is not here: {error}")))?;
    let expected = wanted.location.output.unwrap_or_default();
    if manifest.summary().checksum != expected.checksum {
        return Err(Failure::Gone("it is not the output that the scheduler knows of".to_owned()));
    }
    let published = room.published();
    match wanted.part {
        None => {
            if !published.is_dir() {
                return Err(Failure::Gone("its files are gone".to_owned()));
            }
            std::os::unix::fs::symlink(published, &wanted.to).map_err(disk)
        }
        Some(part) => {
            std::fs::create_dir_all(&wanted.to).map_err(disk)?;
            let name = part.to_string();
            if !manifest.entries.iter().any(|entry| entry.is_of_part(part)) {
                return Ok(());
            }
            let source = published.join(&name);
            if source.symlink_metadata().is_err() {
                return Err(Failure::Gone("its files are gone".to_owned()));
            }
            std::os::unix::fs::symlink(source, wanted.to.join(name)).map_err(disk)
        }
    }
}

fn report(failures: Vec<(Wanted, Failure)>) -> Result<(), NotLoaded> {
    let mut lost = Vec::new();
    let mut message = None;
    for (wanted, failure) in failures {
        let (why, gone) = match failure {
            Failure::Disk(why) => return Err(NotLoaded::Disk(why)),
            Failure::Gone(why) => (why, true),
            Failure::OutOfReach(why) => (why, false),
        };
        let v1::Location { index, attempt, executor_id, .. } = &wanted.location;
        let stage = wanted.stage;
        let executor_id = executor_id.clone();
        lost.push(v1::LostOutput { stage, index: *index, attempt: *attempt, gone, executor_id });
        message.get_or_insert_with(|| {
            format!(
                "cannot read the output of task {index} of stage {stage} (attempt {attempt}) on {}: {why}",
                wanted.location.executor_id
            )
        });
    }
    match message {
        None => Ok(()),
        Some(message) => Err(NotLoaded::Unreadable { message, lost }),
    }
}
