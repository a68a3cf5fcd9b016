//! `muster`, the one binary: every part of a cluster, and the way to talk to one.
//!
//! The way through: [`arguments`] is the grammar, [`configuration`] puts settings together, a file under [`commands`]
//! does the work, [`output`] prints the answer, and a [`failure::Failure`] is printed here, once.

mod arguments;
mod bulk;
mod commands;
mod configuration;
mod context;
mod embedded;
mod exit;
mod failure;
mod group_progress;
mod metrics;
mod offer;
mod output;
mod progress;
mod quantity;
mod reference;
mod runnable;
mod signals;
mod specification;

#[cfg(test)]
mod documentation_tests;
#[cfg(test)]
mod help_tests;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};
use crate::configuration::{File, Settings};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// How long what still runs in the background may take when the command is over.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    // Before everything else: the supervisor starts processes, and is to stay small and single-threaded.
    if let Command::Supervise(supervise) = command {
        return match supervise.run() {
            Ok(exit) => exit.into(),
            Err(failure) => {
                eprintln!("muster supervise: {}", failure.message);
                failure.exit.into()
            }
        };
    }
    // Named places where a test breaks a debug build; see `FAILPOINTS` of the crate `fail`.
    let _faults = cfg!(debug_assertions).then(fail::FailScenario::setup);
    let (settings, wrong) = match File::load(global.config.as_deref()) {
        Ok(file) => (Settings::over(file, &global), None),
        Err(failure) => (Settings::over(File::default(), &global), Some(failure)),
    };
    let context = Context::new(settings);
    let result = match wrong {
        Some(failure) => Err(failure),
        None => execute(command, &context),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            context.console.failure(&failure);
            failure.exit.into()
        }
    }
}

fn execute(command: Command, context: &Context) -> Result<Exit, Failure> {
    start_logging(&command, context);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("the runtime did not start: {error}")))?;
    let result = runtime.block_on(dispatch(command, context));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    // Boxed: the largest command's future would otherwise be everybody's.
    match command {
        Command::Run(run) => Box::pin(run.run(context)).await,
        Command::Submit(submit) => Box::pin(submit.run(context)).await,
        Command::Jobs(jobs) => Box::pin(jobs.run(context)).await,
        Command::Job(job) => Box::pin(job.run(context)).await,
        Command::Explain(explain) => Box::pin(explain.run(context)).await,
        Command::Wait(wait) => Box::pin(wait.run(context)).await,
        Command::Watch(watch) => Box::pin(watch.run(context)).await,
        Command::Logs(logs) => Box::pin(logs.run(context)).await,
        Command::Outputs(outputs) => Box::pin(outputs.run(context)).await,
        Command::Cancel(cancel) => Box::pin(cancel.run(context)).await,
        Command::Retry(retry) => Box::pin(retry.run(context)).await,
        Command::Update(update) => Box::pin(update.run(context)).await,
        Command::Groups(groups) => Box::pin(groups.run(context)).await,
        Command::Group(group) => Box::pin(group.run(context)).await,
        Command::Schedules(schedules) => Box::pin(schedules.run(context)).await,
        Command::Define(define) => Box::pin(define.run(context)).await,
        Command::Definitions(definitions) => Box::pin(definitions.run(context)).await,
        Command::Definition(definition) => Box::pin(definition.run(context)).await,
        Command::Undefine(undefine) => Box::pin(undefine.run(context)).await,
        Command::Rename(rename) => Box::pin(rename.run(context)).await,
        Command::Export(export) => Box::pin(export.run(context)).await,
        Command::Up(up) => Box::pin(up.run(context)).await,
        Command::Scheduler(scheduler) => Box::pin(scheduler.run(context)).await,
        Command::Executor(executor) => Box::pin(executor.run(context)).await,
        Command::Executors(executors) => Box::pin(executors.run(context)).await,
        Command::Schedulers(schedulers) => Box::pin(schedulers.run(context)).await,
        Command::Namespaces(namespaces) => Box::pin(namespaces.run(context)).await,
        Command::Admin(admin) => Box::pin(admin.run(context)).await,
        Command::Bench(bench) => Box::pin(bench.run(context)).await,
        Command::Lint(lint) => lint.run(context),
        Command::Schema(schema) => schema.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(context),
        Command::ExitCodes(exit_codes) => exit_codes.run(),
        Command::Supervise(supervise) => supervise.run(),
    }
}

/// Logs go to standard error. What an operator cares about is shown by the verbs that operate something; others speak
/// when there is trouble.
fn start_logging(command: &Command, context: &Context) {
    // What the parts of an embedded cluster say to an operator is noise around a job's result.
    let runs = matches!(command, Command::Run(_));
    let operates = matches!(command, Command::Up(_) | Command::Scheduler(_) | Command::Executor(_));
    let level = match (context.settings.quiet, context.settings.verbose, operates) {
        (true, ..) => "error",
        (_, 0, false) if runs => "warn,muster_scheduler=error,muster_executor=error",
        (_, 0, false) => "warn",
        (_, 0, true) | (_, 1, false) => "info",
        // Other people's libraries at debug drown ours.
        (_, 1, true) | (_, 2, _) => {
            "info,muster=debug,muster_cli=debug,muster_client=debug,muster_scheduler=debug,muster_executor=debug,muster_state=debug"
        }
        (_, 3.., _) => "trace",
    };
    let filter = EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(context.console.color)
        .init();
}
