//! Keeps outputs of an executor that leaves: fetches them, with what the attempts printed, and serves them from then on as if
//! they had been made here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::Status;

use crate::blocking;
use crate::core::Core;
use crate::keys::{AttemptKey, Fence};
use crate::load::fetch::{Failure, SILENCE_MAX, Source, judge};
use crate::output::manifest::Manifest;
use crate::supervisor::TRUNCATED_SUFFIX;

/// Outputs at once that one executor hands over to this one.
const PARALLEL: usize = 8;
/// What has arrived is told together, this often.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// And if nothing has, a sign of life this often: far below what is taken for silence.
const SIGN_EVERY: Duration = Duration::from_secs(5);

/// Outputs that are to be kept here.
pub(crate) struct Kept {
    pub(crate) job: JobId,
    /// Who has them.
    pub(crate) from: String,
    pub(crate) outputs: Vec<v1::KeptOutput>,
}

/// Fetches them until all are here or nobody listens any more.
pub(crate) async fn keep(core: Arc<Core>, kept: Kept, answers: mpsc::Sender<Result<v1::KeepOutputsResponse, Status>>) {
    let Kept { job, from, outputs } = kept;
    let fetched = futures::stream::iter(outputs).map(|output| keep_one(&core, job, &from, output));
    let mut fetched = std::pin::pin!(fetched.buffer_unordered(PARALLEL));
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    let nothing = || v1::KeepOutputsResponse { incarnation: core.incarnation(), ..Default::default() };
    let mut answer = nothing();
    loop {
        tokio::select! {
            outcome = fetched.next() => match outcome {
                Some(Ok(attempt)) => answer.kept.push(attempt),
                Some(Err(problem)) => answer.problem = problem,
                None => break,
            },
            _ = ticks.tick() => {
                let is_news = !answer.kept.is_empty() || !answer.problem.is_empty();
                if is_news || told.elapsed() > SIGN_EVERY {
                    told = Instant::now();
                    if answers.send(Ok(std::mem::replace(&mut answer, nothing()))).await.is_err() {
                        return;
                    }
                }
            }
            () = answers.closed() => return,
        }
    }
    let _ = answers.send(Ok(answer)).await;
}

async fn keep_one(core: &Core, job: JobId, from: &str, output: v1::KeptOutput) -> Result<v1::AttemptRef, String> {
    let v1::KeptOutput { attempt, output, stdout, stderr } = output;
    let attempt = attempt.ok_or_else(|| "attempt: it is missing".to_owned())?;
    let key = AttemptKey::from_wire(&attempt, Some(job)).map_err(|error| error.to_string())?;
    let named = v1::AttemptRef { job_id: String::new(), ..attempt };
    let room = core.layout.attempt(key);
    let expected = output.unwrap_or_default();
    if Manifest::read(&room.manifest()).is_ok_and(|manifest| manifest.summary() == expected) {
        // Asked for before, by somebody who did not hear the answer.
        return Ok(named);
    }
    let problem = |failure| match failure {
        Failure::Gone(why) | Failure::OutOfReach(why) | Failure::Disk(why) => format!("{key}: {why}"),
    };
    let disk = |path: &Path, error: io::Error| format!("{key}: cannot write {}: {error}", path.display());
    // Without its manifest it is not visible, and may be half of an earlier try.
    let at = room.path().to_owned();
    let emptied = blocking::run(move || match fs::remove_dir_all(&at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(&at),
    });
    let emptied = emptied.await.map_err(|stopped| stopped.to_string())?;
    emptied.map_err(|error| disk(room.path(), error))?;
    for (stream, path, printed) in
        [(v1::Stream::Stdout, room.stdout(), stdout), (v1::Stream::Stderr, room.stderr(), stderr)]
    {
        if printed {
            fetch_log(core, from, key, stream, path).await.map_err(problem)?;
        }
    }
    let source = Source { address: from.to_owned(), attempt: key, part: None, expected };
    let manifest = core.fetcher.fetch(&source, &room.published()).await.map_err(problem)?;
    let at = room.manifest();
    let written = blocking::run(move || manifest.write(&at)).await.map_err(|stopped| stopped.to_string())?;
    written.map_err(|error| disk(&room.manifest(), error))?;
    core.journal.note(core.line("keep", key, Fence::default())).await;
    Ok(named)
}

async fn fetch_log(core: &Core, from: &str, key: AttemptKey, stream: v1::Stream, path: PathBuf) -> Result<(), Failure> {
    let disk = |error: io::Error| Failure::Disk(format!("cannot write {}: {error}", path.display()));
    let silent = |_| Failure::OutOfReach(format!("{from} cannot be reached: nothing came for a long time"));
    let request = v1::ReadLogRequest { attempt: Some(key.to_wire()), stream: stream.into(), follow: false, offset: 0 };
    let call = async { core.fetcher.data_at(from)?.read_log(request).await.map_err(|status| judge(from, &status)) };
    let mut chunks = timeout(SILENCE_MAX, call).await.map_err(silent)??.into_inner();
    let mut file = File::create(&path).await.map_err(disk)?;
    loop {
        let chunk = timeout(SILENCE_MAX, chunks.message()).await.map_err(silent)?;
        let Some(chunk) = chunk.map_err(|status| judge(from, &status))? else { break };
        file.write_all(&chunk.data).await.map_err(disk)?;
        if chunk.truncated {
            let mut mark = path.clone().into_os_string();
            mark.push(TRUNCATED_SUFFIX);
            File::create(mark).await.map_err(disk)?;
        }
    }
    file.flush().await.map_err(disk)
}
