//! `muster bench`

use std::time::Duration;

use clap::{Args, Subcommand};
use muster_executor::simulated::{Options, Simulated};

use super::daemon;
use crate::context::Context;
use crate::embedded::not_started;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::bench::{Progress, Rate};
use crate::quantity;
use crate::signals::Signals;

/// Each has a port, a connection to every scheduler, and one from it.
const EXECUTORS_MAX: i64 = 10_000;
/// The largest number of cores that one executor can offer.
const SLOTS_MAX: i64 = 100_000;

/// Put load on a cluster, to measure it
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Simulate executors: they take the tasks of the cluster at --schedulers, run nothing, and say that it went well
    ///
    /// Never where real jobs run: these would seem to be done. Every second a line says what they have done so far. Ctrl-C
    /// ends them.
    Executors {
        /// How many
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=EXECUTORS_MAX), value_name = "NUMBER")]
        count: u32,
        /// Cores that each offers, and tasks that each runs at once
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=SLOTS_MAX), value_name = "NUMBER")]
        slots: u32,
        /// How long each task takes, in milliseconds; 0: it ends as soon as it begins
        #[arg(long, default_value_t = 0, value_name = "MILLISECONDS")]
        task_ms: u64,
        /// They are named by it, with a number
        #[arg(long, default_value = "simulated", value_name = "NAME")]
        prefix: String,
        /// Time between lines
        #[arg(long, default_value = "1s", value_parser = quantity::duration, value_name = "DURATION")]
        every: Duration,
    },
}

impl Bench {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let What::Executors { count, slots, task_ms, prefix, every } = self.what;
        let schedulers = context.settings.schedulers_or_default();
        let options = Options { schedulers, count, slots, task: Duration::from_millis(task_ms), prefix };
        let mut signals = Signals::listen()?;
        let simulated = Simulated::start(&options).await.map_err(|error| not_started("simulated executor", &error))?;
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let slots = u64::from(count) * u64::from(slots);
        let mut rate = Rate::default();
        loop {
            tokio::select! {
                biased;
                _ = signals.next() => break,
                _ = ticks.tick() => context.output_now().one(&Progress::new(&simulated.counts(), slots, &mut rate))?,
            }
        }
        let stopping = async {
            simulated.stop().await;
            Ok(())
        };
        daemon::stop(context, &mut signals, stopping).await?;
        Ok(Exit::Success)
    }
}
