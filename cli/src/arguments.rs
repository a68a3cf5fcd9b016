//! The command line's grammar. What each verb does is in the file of its name under `commands/`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::configuration::Color;
use crate::output::Form;
use crate::quantity;

/// A job scheduler with no single point of failure.
///
/// `muster run FILE` runs a job on this machine, with nothing else needed. `muster up` starts a one-machine cluster
/// that keeps its jobs; `muster scheduler` and `muster executor` are the parts of a larger one.
#[derive(Debug, Parser)]
#[command(name = "muster", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every verb takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Schedulers of the cluster, host:port; one that is alive is enough [default: 127.0.0.1:7077]
    #[arg(
        long,
        global = true,
        env = "MUSTER_SCHEDULERS",
        hide_env_values = true,
        value_name = "ADDRESS,…",
        value_delimiter = ','
    )]
    pub(crate) schedulers: Option<Vec<String>>,

    /// Form of the answer [default: table]
    #[arg(short, long, global = true, env = "MUSTER_OUTPUT", hide_env_values = true, value_enum, value_name = "FORM")]
    pub(crate) output: Option<Form>,

    /// When to use color; auto: on a terminal, unless NO_COLOR is set [default: auto]
    #[arg(long, global = true, env = "MUSTER_COLOR", hide_env_values = true, value_enum, value_name = "WHEN")]
    pub(crate) color: Option<Color>,

    /// How long a call may take over all of its tries, for instance 30s [default: 30s]
    #[arg(long, global = true, env = "MUSTER_CALL_TIMEOUT", hide_env_values = true, value_parser = quantity::duration, value_name = "DURATION")]
    pub(crate) call_timeout: Option<Duration>,

    /// Configuration file [default: ~/.config/muster/config.toml, if it exists]
    #[arg(long, global = true, env = "MUSTER_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Say nothing but the answer and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Log to standard error; -vv and -vvv say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The verbs, in the order in which one meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(commands::run::Run),
    Submit(commands::submit::Submit),
    Jobs(commands::jobs::Jobs),
    Job(commands::job::Job),
    Explain(commands::explain::Explain),
    Wait(commands::wait::Wait),
    Watch(commands::watch::Watch),
    Logs(commands::logs::Logs),
    Outputs(commands::outputs::Outputs),
    Cancel(commands::cancel::Cancel),
    Retry(commands::retry::Retry),
    Update(commands::update::Updates),
    Groups(commands::groups::Groups),
    Group(commands::group::Group),
    Schedules(commands::schedules::Schedules),
    Lint(commands::lint::Lint),
    Schema(commands::schema::Schema),
    Define(commands::define::Define),
    Definitions(commands::definitions::Definitions),
    Definition(commands::definition::Definition),
    Undefine(commands::undefine::Undefine),
    Rename(commands::rename::Rename),
    Export(commands::export::Export),
    Up(commands::up::Up),
    Scheduler(commands::scheduler::Scheduler),
    Executor(commands::executor::Executor),
    Executors(commands::executors::Executors),
    Schedulers(commands::schedulers::Schedulers),
    Namespaces(commands::namespaces::Namespaces),
    Admin(commands::admin::Admin),
    Bench(commands::bench::Bench),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
    ExitCodes(commands::exit_codes::ExitCodes),
    #[command(hide = true)]
    Supervise(commands::supervise::Supervise),
}
