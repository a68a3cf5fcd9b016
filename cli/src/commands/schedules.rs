//! `muster schedules`

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use muster_proto::v1;
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::schedule::Schedule;
use crate::output::{Cell, Row};
use crate::quantity;
use crate::runnable::revision_of;

/// List the schedules, which run definitions by themselves; set, show, pause or delete some
#[derive(Debug, Args)]
pub(crate) struct Schedules {
    /// Only those of this namespace; for the verbs: the schedule's [default: all; for the verbs: default]
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Set(Set),
    Show(Show),
    /// Have schedules rest: times that pass meanwhile are not made up for
    Pause(Named),
    /// Have paused schedules go on, from now
    Resume(Named),
    /// Run what schedules run once, now; their times stay as they are
    Run(Named),
    /// Delete schedules; what runs goes on
    Delete(Named),
}

/// Make a schedule, or replace what it says; its times count from now on
///
/// In the hour that a change of the clocks leaves out, a fixed time of the day comes as soon as it is over; in one that comes twice,
/// it comes the first time only. What repeats every so often, such as */15, goes on evenly through both.
#[derive(Debug, Args)]
struct Set {
    /// The schedule
    name: String,
    /// When: minute, hour, day of the month, month, day of the week; with seconds first if there are six; or @daily and the like
    #[arg(long, value_name = "PATTERN")]
    cron: String,
    /// The time zone, by its IANA name, for instance Europe/Berlin
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// What: a definition, or one revision of it; without a revision each run takes the newest
    #[arg(long, value_name = "NAME[@REVISION]")]
    run: String,
    /// A value for a parameter of the definition; may be given several times
    #[arg(short, long, value_parser = quantity::pair, value_name = "NAME=VALUE")]
    param: Vec<(String, String)>,
    /// A time that comes while the job of an earlier one is unfinished
    #[arg(long, value_enum, default_value_t)]
    overlap: Overlap,
    /// Times at which no scheduler was there
    #[arg(long, value_enum, default_value_t)]
    missed: Missed,
    /// What was missed longer ago is not made up for [default: however long]
    #[arg(long, value_parser = quantity::duration, value_name = "DURATION")]
    window: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Overlap {
    /// It is passed over
    #[default]
    Skip,
    /// It waits; those that wait run one after the other
    Queue,
    /// It runs, and the unfinished job is cancelled
    Replace,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Missed {
    /// They are passed over
    None,
    /// One run makes up for all of them
    #[default]
    One,
    /// Each of them runs, one after the other
    All,
}

/// Show a schedule with its coming times, and what became of earlier ones
#[derive(Debug, Args)]
struct Show {
    /// The schedule
    name: String,
    /// So many coming times
    #[arg(short, long, default_value_t = 5, value_name = "NUMBER")]
    times: u32,
}

#[derive(Debug, Args)]
struct Named {
    /// The schedules
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What became of a wish.
#[derive(Debug, Clone, Serialize)]
struct Changed {
    name: String,
    /// `active`, `paused`, `deleted`; or the job that runs.
    state: String,
}

impl Row for Changed {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["SCHEDULE", "STATE"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![Cell::new(&self.name), Cell::new(&self.state)]
    }
}

impl Set {
    fn request(self, namespace: String) -> Result<v1::SetScheduleRequest, Failure> {
        let (name, revision) = revision_of(&self.run)?;
        let arguments = self
            .param
            .into_iter()
            .map(|(name, word)| (name, v1::Argument { value: Some(v1::argument::Value::Word(word)) }));
        let overlap = match self.overlap {
            Overlap::Skip => v1::Overlap::Skip,
            Overlap::Queue => v1::Overlap::Queue,
            Overlap::Replace => v1::Overlap::Replace,
        };
        let missed = match self.missed {
            Missed::None => v1::Missed::None,
            Missed::One => v1::Missed::One,
            Missed::All => v1::Missed::All,
        };
        let schedule = v1::Schedule {
            cron: self.cron,
            zone: self.zone,
            run: Some(v1::RunDefinitionRequest {
                name,
                revision,
                arguments: arguments.collect(),
                ..Default::default()
            }),
            overlap: overlap.into(),
            missed: missed.into(),
            window_ms: self.window.map(|window| u64::try_from(window.as_millis()).unwrap_or(u64::MAX)),
        };
        Ok(v1::SetScheduleRequest { namespace, name: self.name, schedule: Some(schedule) })
    }
}

impl Schedules {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let namespace = self.namespace.unwrap_or_default();
        let mut changed = Vec::new();
        let mut tell = |name: &str, state: String| changed.push(Changed { name: name.to_owned(), state });
        match self.verb {
            None => {
                let listed: Vec<Schedule> =
                    client.list_schedules(&namespace).await?.into_iter().map(Schedule::from).collect();
                context.output.list(&listed)?;
                return Ok(Exit::Success);
            }
            Some(Verb::Set(set)) => {
                let set = client.set_schedule(set.request(namespace)?).await?;
                context.output.one(&Schedule::from(set))?;
                return Ok(Exit::Success);
            }
            Some(Verb::Show(Show { name, times })) => {
                context.output.one(&Schedule::from(client.schedule(&namespace, &name, times).await?))?;
                return Ok(Exit::Success);
            }
            Some(Verb::Pause(Named { names })) => {
                for name in names {
                    client.pause_schedule(&namespace, &name, false).await?;
                    tell(&name, "paused".to_owned());
                }
            }
            Some(Verb::Resume(Named { names })) => {
                for name in names {
                    client.pause_schedule(&namespace, &name, true).await?;
                    tell(&name, "active".to_owned());
                }
            }
            Some(Verb::Run(Named { names })) => {
                for name in names {
                    let job = client.run_schedule(&namespace, &name).await?.job;
                    tell(&name, job.to_string());
                }
            }
            Some(Verb::Delete(Named { names })) => {
                for name in names {
                    client.delete_schedule(&namespace, &name).await?;
                    tell(&name, "deleted".to_owned());
                }
            }
        }
        context.output.list(&changed)?;
        Ok(Exit::Success)
    }
}
