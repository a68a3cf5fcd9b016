//! `muster run`

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use muster_client::v1::{self, Gate, JobState, JobView, StageState, StageView};
use muster_client::{Client, JobId, LogStream, TaskFilter, is_finished};

use super::exit_of;
use super::logs::Source;
use super::outputs::bring;
use crate::context::Context;
use crate::embedded::{Embedded, TemporaryFolder};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offer::Offer;
use crate::output::in_words;
use crate::output::time::taken;
use crate::output::views::{self, Exited, JobAtLength};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::runnable::{Runnable, Work};
use crate::signals::Signals;

/// How long an interrupted run waits for its job to end: a task's default grace (10 s) and a little.
const CANCEL_WAIT: Duration = Duration::from_secs(12);
/// Tasks whose standard output is shown as the result.
const RESULTS_MAX: usize = 16;
/// Failed tasks whose log is shown.
const FAILURES_MAX: usize = 3;
/// The end of a failed task's log that is shown.
const FAILURE_LOG_BYTES: usize = 8 << 10;

/// Run a job: submit it, show how it comes along, print what its last stages wrote, or why it failed
///
/// With a cluster configured (--schedulers, MUSTER_SCHEDULERS or the configuration file) the job runs there. Without
/// one it runs on this machine, in this process, whether or not `muster up` is running: in a temporary directory that
/// is removed at the end, or in --data-dir, where it can be looked at and, after a crash, gone on with by `muster up`.
///
/// The exit code is the job's: see `muster help exit-codes`. Ctrl-C cancels the job; a second one does not wait for it.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    what: Runnable,
    /// Bring what the last stages left behind to DIR/STAGE/TASK/… when the job is successful
    #[arg(long, value_name = "DIR")]
    outputs: Option<PathBuf>,
    /// Keep everything there, if the job runs in this process
    #[arg(long, env = "MUSTER_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The same key with the same spec gives the same job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten, next_help_heading = "What this machine offers, if the job runs in this process")]
    offer: Offer,
}

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut work = self.what.read(context.console.color)?;
        let mut signals = Signals::listen()?;
        if context.settings.schedulers.is_some() {
            let client = context.client().await?;
            return self.follow(context, &client, &work, &mut signals, None).await;
        }
        let kept = self.data_dir.clone().or_else(|| context.settings.file.data_dir.clone());
        if kept.is_none() {
            self.what.for_no_cluster(&mut work, context.console)?;
        }
        let temporary = if kept.is_none() { Some(TemporaryFolder::create()?) } else { None };
        let folder =
            kept.as_deref().or(temporary.as_ref().map(TemporaryFolder::path)).expect("one of the two is there");
        let offer = |options: &mut muster_executor::Options| {
            self.offer.clone().apply(&context.settings.file.executor, options);
        };
        let embedded = Embedded::start(folder, SocketAddr::from(([127, 0, 0, 1], 0)), false, offer).await?;
        let client = Client::connect([embedded.address().to_string()], context.client_options()).await;
        let followed = match client {
            Ok(client) => self.follow(context, &client, &work, &mut signals, Some(&embedded)).await,
            Err(error) => Err(error.into()),
        };
        let stopped = embedded.stop().await;
        // What became of the job matters more than how the cluster ended.
        followed.and_then(|exit| stopped.map(|()| exit))
    }

    /// Submits the job and stays with it to the end.
    async fn follow(
        &self,
        context: &Context,
        client: &Client,
        work: &Work,
        signals: &mut Signals,
        embedded: Option<&Embedded>,
    ) -> Result<Exit, Failure> {
        let submitted = work.submit(client, self.idempotency_key.clone()).await?;
        let job = submitted.job;
        context.console.note(&format!("job {job} ({})", work.name()));
        let mut progress = Progress::new(context.console);
        let mut watch = client.watch_job(job);
        let mut last: Option<JobView> = None;
        let ended = loop {
            tokio::select! {
                biased;
                signal = signals.next() => break Ended::Signal(signal),
                failure = broken(embedded) => break Ended::Broken(failure),
                view = watch.next() => match view? {
                    Some(view) => {
                        progress.update(&view);
                        last = Some(view);
                    }
                    None => break Ended::Over,
                },
            }
        };
        progress.finish();
        match (ended, last) {
            (Ended::Over, Some(view)) => self.report(context, client, view).await,
            (Ended::Over, None) => Err(Failure::internal(format!("the watch of job {job} told nothing"))),
            (Ended::Broken(failure), _) => Err(failure),
            (Ended::Signal(signal), _) => {
                interrupt(context, client, job, signals).await;
                Ok(signal)
            }
        }
    }

    /// Prints what is worth printing of a finished job.
    async fn report(&self, context: &Context, client: &Client, view: JobView) -> Result<Exit, Failure> {
        let exit = exit_of(&view);
        let job: JobId = view.job_id.parse().map_err(|error| Failure::internal(format!("{error}")))?;
        let source = Source { client: client.clone(), job, attempt: None, follow: false };
        if context.output.is_for_people() {
            if view.state() == JobState::Failed {
                show_failures(context, &source, &view).await?;
            } else {
                show_results(context, &source, &view).await?;
            }
        } else {
            context.output_now().one(&JobAtLength::from(view.clone()))?;
        }
        if let Some(folder) = self.outputs.as_ref().filter(|_| exit == Exit::Success) {
            let outputs = client.list_outputs(job, None).await?;
            let reference = Reference { job, stage: None, index: None };
            for brought in bring(client, &reference, outputs, folder).await? {
                context.console.note(&format!("{} files in {}", brought.files, brought.directory));
            }
        }
        let because = if view.message.is_empty() { String::new() } else { format!(": {}", view.message) };
        context.console.note(&format!(
            "job {job} {}{because} ({}, took {})",
            views::job_state(view.state()),
            in_words(view.tasks.into()),
            taken(view.started_at_ms, view.finished_at_ms, context.output_now().now),
        ));
        Ok(exit)
    }
}

/// How the following came to its end.
enum Ended {
    Over,
    Signal(Exit),
    Broken(Failure),
}

/// Waits for the embedded cluster, if there is one, to fail.
async fn broken(embedded: Option<&Embedded>) -> Failure {
    match embedded {
        Some(embedded) => embedded.failed().await,
        None => std::future::pending().await,
    }
}

/// Asks the job to cancel and waits shortly for it. A second signal, a deadline or an error ends the waiting.
async fn interrupt(context: &Context, client: &Client, job: JobId, signals: &mut Signals) {
    context.console.note(&format!("cancelling job {job}; once more to leave at once"));
    let cancelling = async {
        client.cancel_job(job, "the run was interrupted").await?;
        client.wait(job).await
    };
    let ended = tokio::select! {
        biased;
        _ = signals.next() => None,
        cancelled = tokio::time::timeout(CANCEL_WAIT, cancelling) => Some(cancelled),
    };
    match ended {
        Some(Ok(Ok(view))) if is_finished(&view) => {}
        Some(Ok(Err(error))) => context.console.always(&format!("job {job} could not be cancelled: {error}")),
        _ => context.console.note(&format!("job {job} has not ended yet; `muster job {job}` shows it")),
    }
}

/// The standard output of the stages whose output no other stage reads: what the job is about.
async fn show_results(context: &Context, source: &Source, view: &JobView) -> Result<(), Failure> {
    let is_stage = |stage: &&StageView| stage.gate() == Gate::Unspecified;
    let last = view.stages.iter().filter(is_stage);
    let last = last.filter(|stage| stage.state() == StageState::Successful && !stage.output_read);
    let mut room = RESULTS_MAX;
    let mut left_out = 0u64;
    for stage in last {
        let filter = TaskFilter { stage: Some(stage.name.clone()), index: None, states: Vec::new() };
        let (tasks, _) =
            if room > 0 { source.client.tasks(source.job, &filter, room).await? } else { (Vec::new(), true) };
        let total = u64::from(views::Counts::from(stage.tasks).total);
        left_out += total.saturating_sub(tasks.len() as u64);
        room -= tasks.len();
        for task in tasks {
            let mut log = source.client.read_log(source.request(&task, LogStream::Stdout));
            while let Some(chunk) = log.next().await? {
                let mut out = std::io::stdout().lock();
                out.write_all(&chunk.data)?;
                out.flush()?;
            }
        }
    }
    if left_out > 0 {
        context.console.note(&format!("(output of {left_out} more tasks is not shown)"));
    }
    Ok(())
}

/// Which tasks failed, and the end of what they wrote.
async fn show_failures(context: &Context, source: &Source, view: &JobView) -> Result<(), Failure> {
    let finals: Vec<&v1::Failure> = view.failures.iter().filter(|failure| failure.r#final).collect();
    for failure in finals.iter().take(FAILURES_MAX) {
        let shown = views::Failure::from((*failure).clone());
        let outcome = shown.outcome.unwrap_or("failed").replace('_', " ");
        // The message is the more telling of the two, and says the other one too.
        let how = match shown.message.or(shown.exit.map(Exited::text)) {
            Some(detail) => format!("{outcome}, {detail}"),
            None => outcome,
        };
        context.console.always(&format!("--- {}/{}, attempt {}: {how}", failure.stage, failure.index, failure.attempt));
        let task = v1::TaskView {
            stage: failure.stage.clone(),
            index: failure.index,
            attempt: failure.attempt,
            ..Default::default()
        };
        for stream in [LogStream::Stderr, LogStream::Stdout] {
            match source.tail(&task, stream, FAILURE_LOG_BYTES).await {
                Ok(tail) if tail.is_empty() => continue,
                Ok(tail) => {
                    let mut err = std::io::stderr().lock();
                    err.write_all(&tail)?;
                    if !tail.ends_with(b"\n") {
                        writeln!(err)?;
                    }
                }
                // The log went with its executor, or there never was one: the message above is all there is.
                Err(error) => context.console.note(&format!("(its log cannot be read: {error})")),
            }
            break;
        }
    }
    let more = finals.len().saturating_sub(FAILURES_MAX);
    if more > 0 {
        context.console.note(&format!("--- and {more} more failed tasks"));
    }
    Ok(())
}
