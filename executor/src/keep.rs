//! Keeps outputs of an executor that leaves: fetches them, with what the attempts printed, and serves them from then on as if
//! they had been made here.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::Status;

use crate::blocking;
use crate::core::Core;
use crate::keys::{AttemptKey, Fence};
use crate::load::fetch::{Failure, SILENCE_MAX, Source, judge};
use crate::output::manifest::Manifest;
use crate::store::layout::Room;
use crate::supervisor::TRUNCATED_SUFFIX;

/// Outputs at once that others hand over to this executor: fewer than it fetches for its own tasks.
const PARALLEL: usize = 8;
/// What has arrived is told together, this often.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// And if nothing has, a sign of life this often: far below what is taken for silence.
const SIGN_EVERY: Duration = Duration::from_secs(5);

/// What is being taken over just now.
pub(crate) struct Keeping {
    slots: Semaphore,
    attempts: Mutex<HashSet<AttemptKey>>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { slots: Semaphore::new(PARALLEL), attempts: Mutex::default() }
    }
}

impl Keeping {
    fn attempts(&self) -> MutexGuard<'_, HashSet<AttemptKey>> {
        self.attempts.lock().expect("no holder of this lock panics")
    }

    /// Whether something of a job is.
    pub(crate) fn has_job(&self, job: JobId) -> bool {
        self.attempts().iter().any(|attempt| attempt.job == job)
    }

    /// One at a time takes an attempt over.
    fn begin(&self, key: AttemptKey) -> Option<Begun<'_>> {
        let is_first = self.attempts().insert(key);
        // Made for nobody, it would end what another one has begun.
        is_first.then(|| Begun { keeping: self, key })
    }
}

struct Begun<'a> {
    keeping: &'a Keeping,
    key: AttemptKey,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.keeping.attempts().remove(&self.key);
    }
}

/// Outputs that are to be kept here.
pub(crate) struct Kept {
    pub(crate) job: JobId,
    /// Who has them.
    pub(crate) from: String,
    pub(crate) outputs: Vec<v1::KeptOutput>,
}

/// Fetches them until all are here, nobody listens any more, or this executor leaves, too.
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
                if core.table.is_draining() {
                    // What it has told by now it hands over like its own.
                    let leaves = Status::failed_precondition("it takes nothing new");
                    return drop(answers.send(Err(leaves)).await);
                }
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
    let named = v1::AttemptRef { job_id: String::new(), ..attempt.ok_or("attempt: it is missing")? };
    let key = AttemptKey::from_wire(&named, Some(job)).map_err(|error| error.to_string())?;
    let _slot = core.keeping.slots.acquire().await.expect("the semaphore is never closed");
    let _begun = core.keeping.begin(key).ok_or_else(|| format!("{key}: it is being taken over already"))?;
    if core.table.control(key).is_some() {
        return Err(format!("{key}: it runs here, or its result is not settled"));
    }
    let (room, expected) = (core.layout.attempt(key), output.unwrap_or_default());
    if on_disk(&room, move |room| Ok(is_here(room, expected))).await? {
        // Asked for before, by somebody who did not hear the answer; or it was made here, once.
        core.journal.note(core.line("keep", key, Fence::default())).await;
        return Ok(named);
    }
    // Without its manifest it is not visible, and may be half of an earlier try.
    on_disk(&room, |room| match fs::remove_dir_all(room.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(room.path()),
    })
    .await?;
    let problem = |failure| match failure {
        Failure::Gone(why) | Failure::OutOfReach(why) | Failure::Disk(why) => format!("{key}: {why}"),
    };
    for (stream, path, printed) in
        [(v1::Stream::Stdout, room.stdout(), stdout), (v1::Stream::Stderr, room.stderr(), stderr)]
    {
        if printed {
            fetch_log(core, from, key, stream, path).await.map_err(problem)?;
        }
    }
    let source = Source { address: from.to_owned(), attempt: key, part: None, expected };
    let manifest = core.fetcher.fetch(&source, &room.published()).await.map_err(problem)?;
    on_disk(&room, move |room| {
        if !manifest.has_its_files(&room.published()) {
            return Err(io::Error::other("its files were removed meanwhile"));
        }
        manifest.write(&room.manifest())
    })
    .await?;
    core.journal.note(core.line("keep", key, Fence::default())).await;
    Ok(named)
}

/// Whether an output is here, whole.
fn is_here(room: &Room, expected: v1::Output) -> bool {
    Manifest::read(&room.manifest())
        .is_ok_and(|manifest| manifest.summary() == expected && manifest.has_its_files(&room.published()))
}

async fn on_disk<T: Send + 'static>(
    room: &Room,
    work: impl FnOnce(&Room) -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let (at, name) = (room.clone(), room.path().display().to_string());
    let done = blocking::run(move || work(&at)).await.map_err(|stopped| stopped.to_string())?;
    done.map_err(|error| format!("cannot write {name}: {error}"))
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

#[cfg(test)]
mod tests {
    use muster_graph::ids::JobId;

    use super::*;

    #[test]
    fn an_attempt_is_taken_over_by_one_at_a_time() {
        let keeping = Keeping::default();
        let key = AttemptKey { job: JobId(1), stage: 0, index: 0, attempt: 1 };
        let begun = keeping.begin(key);
        assert!(begun.is_some());
        assert!(keeping.begin(key).is_none());
        assert!(keeping.has_job(JobId(1)), "who was refused has ended nothing");
        drop(begun);
        assert!(!keeping.has_job(JobId(1)));
        assert!(keeping.begin(key).is_some());
    }
}
