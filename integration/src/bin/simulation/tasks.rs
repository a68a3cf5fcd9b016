//! What runs on the simulated executors: nothing, for a time and with an end that the seed decides. It looks whether its inputs
//! are those that it should have, and most leave some files.
//!
//! How an attempt ends, and what it leaves, hangs on its name alone, not on when or where it runs: two runs of one attempt end alike.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_executor::runtime::{
    AttemptKey, Ended, HowEnded, NotStarted, RunningTask, Setting, TaskRuntime, TaskSignal,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::inputs::{self, Expected};
use crate::world::{World, now};

/// See the module.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) world: Arc<World>,
    pub(crate) host: String,
}

#[async_trait]
impl TaskRuntime for Idle {
    async fn start(&self, setting: Setting) -> Result<Box<dyn RunningTask>, NotStarted> {
        let end = end_of(self.world.seed, setting.key);
        // Most are short, so that commits, launches and takeovers meet them at every point; some outlive a session.
        let lasts = match self.world.between(0, 9) {
            0 => self.world.millis(1500, 4000),
            1..=3 => self.world.millis(200, 1000),
            _ => self.world.millis(1, 100),
        };
        self.world.note(format_args!("start {} {:?} {end:?} {}", self.host, setting.key, lasts.as_millis()));
        let task = Task {
            world: Arc::clone(&self.world),
            host: self.host.clone(),
            key: setting.key,
            started_at_ms: u64::try_from(now().as_millis()).unwrap_or(u64::MAX),
            ends_at: Instant::now() + lasts,
            end,
            output: directory(&setting, "MUSTER_OUTPUT_DIR"),
            killed: watch::Sender::new(None),
        };
        let wanted = setting.env.iter().find(|(name, _)| name == inputs::EXPECTED);
        let wanted = Expected::of(wanted.map(|(_, text)| text.as_str()));
        match inputs::check(self.world.seed, setting.key, wanted, &directory(&setting, "MUSTER_INPUT_DIR")) {
            Ok(0) => {}
            Ok(read) => self.world.fault("input-read", read),
            Err(wrong) => self.world.complain(format_args!("{:?} on {}: {wrong}", setting.key, self.host)),
        }
        Ok(Box::new(task))
    }

    async fn close(&self) {}
}

/// How an attempt ends if nobody ends it.
fn end_of(seed: u64, key: AttemptKey) -> Ended {
    let place = format!("{seed} {} {} {} {}", key.job, key.stage, key.index, key.attempt);
    let draw = blake3::hash(place.as_bytes()).as_bytes()[0];
    let process = |how, out_of_memory| Ended::Process { how, out_of_memory };
    match draw {
        0..=19 => process(HowEnded::Code(1), false),
        20..=24 => process(HowEnded::Signal(9), true),
        25..=29 => process(HowEnded::Signal(11), false),
        30..=33 => Ended::Lost,
        _ => process(HowEnded::Code(0), false),
    }
}

fn directory(setting: &Setting, variable: &str) -> PathBuf {
    let found = setting.env.iter().find(|(name, _)| name == variable);
    found.map(|(_, path)| PathBuf::from(path)).expect("each task is told its directories")
}

struct Task {
    world: Arc<World>,
    host: String,
    key: AttemptKey,
    started_at_ms: u64,
    ends_at: Instant,
    end: Ended,
    output: PathBuf,
    /// The signal that ended it.
    killed: watch::Sender<Option<i32>>,
}

#[async_trait]
impl RunningTask for Task {
    fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    async fn wait(&mut self) -> Ended {
        let mut killed = self.killed.subscribe();
        let by = tokio::select! {
            biased;
            Ok(by) = killed.wait_for(Option::is_some) => *by,
            () = sleep_until(self.ends_at) => None,
        };
        let ended = match by {
            Some(signal) => Ended::Process { how: HowEnded::Signal(signal), out_of_memory: false },
            None => self.end,
        };
        if matches!(ended, Ended::Process { how: HowEnded::Code(0), .. }) {
            inputs::leave(self.world.seed, self.key, &self.output);
        }
        self.world.note(format_args!("end {} {:?} {ended:?}", self.host, self.key));
        ended
    }

    async fn signal(&self, signal: TaskSignal) {
        match signal {
            // Some do not listen, and have to be killed.
            TaskSignal::Terminate if self.world.odds(200) => {}
            TaskSignal::Terminate => drop(self.killed.send_replace(Some(15))),
            TaskSignal::Kill => drop(self.killed.send_replace(Some(9))),
        }
    }
}

/// Between SIGTERM and SIGKILL, in the simulated jobs.
pub(crate) const GRACE: Duration = Duration::from_millis(300);
