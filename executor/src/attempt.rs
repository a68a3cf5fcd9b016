//! One attempt, from its acceptance to its result in the outbox. Each has an asynchronous task of its own, so what
//! delays one delays no other.
//!
//! Invariants: an accepted attempt gets exactly one result, whatever happens, a panic here included; its share of the
//! machine is given back when its process is gone; a stop is obeyed at every point before the process starts, and by
//! the process after that.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use muster_graph::spec::resource_variable;
use muster_proto::v1::stage_work::Work;
use muster_proto::v1::{self, Outcome};
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::control::{Control, StopCause};
use crate::core::Core;
use crate::group::Group;
use crate::keys::AttemptKey;
use crate::load::inputs::NotLoaded;
use crate::place::{self, Gone};
use crate::runtime::{Ended, HowEnded, NotStarted, RunningTask, Setting, TaskSignal};
use crate::store::journal::Line;
use crate::store::workspaces::Workspace;

/// Between SIGTERM and SIGKILL when the stage does not say.
const GRACE: Duration = Duration::from_secs(10);
/// The grace when the executor itself has no time left.
const GRACE_AT_STOP: Duration = Duration::from_secs(2);

/// What admission accepted.
pub(crate) struct Accepted {
    pub(crate) key: AttemptKey,
    pub(crate) group: Arc<Group>,
    pub(crate) each: Vec<v1::EachInput>,
    pub(crate) control: Arc<Control>,
    /// When the admission began, by the boot-time clock.
    pub(crate) admitted_us: u64,
}

impl Accepted {
    fn has_inputs(&self) -> bool {
        self.group.inputs_revision > 0 || !self.each.is_empty()
    }
}

/// Runs an attempt to its result.
pub(crate) async fn run(core: Arc<Core>, accepted: Accepted) {
    let (key, fence, owner) = (accepted.key, accepted.group.fence, accepted.group.owner_address.clone());
    let finished = AssertUnwindSafe(Box::pin(drive(&core, accepted))).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(attempt = %key, "the attempt's own part panicked");
        finished(Outcome::ExecutorLost, "the executor failed; its log says how")
    });
    core.table.release(key);
    let outcome = Outcome::try_from(finished.outcome).unwrap_or_default().as_str_name();
    core.journal.note(Line { outcome: Some(outcome), ..core.line("end", key, fence) }).await;
    core.keep_result(key, &owner, finished).await;
}

/// Now, in this way.
pub(crate) fn finished(outcome: Outcome, message: impl Into<String>) -> v1::AttemptFinished {
    v1::AttemptFinished {
        outcome: outcome as i32,
        finished_at_ms: clock::wall_ms(),
        message: message.into(),
        ..v1::AttemptFinished::default()
    }
}

async fn drive(core: &Arc<Core>, accepted: Accepted) -> v1::AttemptFinished {
    let control = accepted.control.clone();
    let ready = match control.stop.run_until_cancelled(get_ready(core, &accepted)).await {
        None => {
            if accepted.has_inputs() {
                place::remove_what_was_brought(core, accepted.key).await;
            }
            return stopped(&control);
        }
        Some(Err(finished)) => return *finished,
        Some(Ok(ready)) => ready,
    };
    run_process(core, &accepted, ready).await
}

/// What a stop means for the result.
fn stopped(control: &Control) -> v1::AttemptFinished {
    match control.cause() {
        Some(StopCause::Disconnected) => {
            finished(Outcome::ExecutorLost, "no scheduler could be reached for longer than the job allows")
        }
        Some(StopCause::ExecutorStops) => finished(Outcome::ExecutorLost, "the executor was stopped"),
        Some(StopCause::GivenBack) => finished(Outcome::GivenBack, "given back before it began"),
        Some(StopCause::Replaced) => finished(Outcome::Cancelled, "replaced by a newer attempt"),
        Some(StopCause::Cancelled) | None => finished(Outcome::Cancelled, "cancelled"),
    }
}

struct Ready {
    work: Arc<v1::StageWork>,
    kind: Work,
    item: Option<String>,
}

/// What is loaded, and the wait for a share of the machine. Given up at any await when the attempt is stopped.
async fn get_ready(core: &Arc<Core>, accepted: &Accepted) -> Result<Ready, Box<v1::AttemptFinished>> {
    let Accepted { key, group, each, control, .. } = accepted;
    let advisors = core.advisors(&group.owner_address);
    let fail = |outcome, message: String| Box::new(finished(outcome, message));
    let work = core
        .works
        .get(key.job, &group.spec_digest, &advisors)
        .await
        .map_err(|error| fail(Outcome::Failed, error.to_string()))?;
    let item = match work.items_per_chunk {
        0 => None,
        per_chunk => {
            let (chunk, place) = (key.index / per_chunk, (key.index % per_chunk) as usize);
            let missing = || fail(Outcome::Failed, format!("the stage has no item for task {}", key.index));
            let digest = work.item_chunks.get(chunk as usize).ok_or_else(missing)?;
            let items = core
                .items
                .get(key.job, digest, &advisors)
                .await
                .map_err(|error| fail(Outcome::Failed, error.to_string()))?;
            Some(items.values.get(place).cloned().ok_or_else(missing)?)
        }
    };
    let Some(kind) = work.work.clone() else {
        let message = "this executor is too old for the stage's kind of work; start a newer one".to_owned();
        return Err(fail(Outcome::Failed, message));
    };
    let upstreams = match group.inputs_revision {
        0 => None,
        revision => Some(
            core.upstreams
                .get(key.job, key.stage, (group.fence, revision), &advisors)
                .await
                .map_err(|message| fail(Outcome::InputUnreadable, message))?,
        ),
    };
    // Bringing inputs takes no share of the machine that is accounted for; what follows does.
    if upstreams.is_some() || !each.is_empty() {
        let places = upstreams.as_ref().map_or(&[][..], |upstreams| upstreams.as_slice());
        core.inputs.bring(*key, each, places).await.map_err(|problem| match problem {
            NotLoaded::Disk(message) => fail(Outcome::LaunchRefused, message),
            NotLoaded::Unreadable { message, lost } => {
                core.upstreams.forget(key.job, key.stage);
                let mut finished = fail(Outcome::InputUnreadable, message);
                finished.unreadable = lost;
                finished
            }
        })?;
    }
    control.go.cancelled().await;
    Ok(Ready { work, kind, item })
}

fn not_started(error: NotStarted) -> v1::AttemptFinished {
    match error {
        NotStarted::Task(message) => finished(Outcome::Failed, message),
        NotStarted::Runtime(message) => finished(Outcome::ExecutorLost, message),
    }
}

/// Variables of the executor's own environment that tasks inherit; nothing else is.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "USER", "TZ"];
/// PATH for an executor that has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn environment(
    key: AttemptKey,
    work: &v1::StageWork,
    stage_path: &str,
    item: Option<String>,
    named: &BTreeMap<String, String>,
    workspace: &Workspace,
    input: PathBuf,
) -> Result<Vec<(String, String)>, String> {
    let path = |path: PathBuf| {
        path.into_os_string()
            .into_string()
            .map_err(|path| format!("the data directory's path is not UTF-8: {}", path.display()))
    };
    let mut env: BTreeMap<String, String> =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    env.insert("TMPDIR".to_owned(), path(workspace.work())?);
    env.extend(work.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.extend(named.iter().map(|(resource, text)| (resource_variable(resource), text.clone())));
    let mut own = |name: &str, value: String| drop(env.insert(format!("MUSTER_{name}"), value));
    own("JOB_ID", key.job.to_string());
    own("STAGE", work.stage_name.clone());
    own("STAGE_PATH", if stage_path.is_empty() { work.stage_name.clone() } else { stage_path.to_owned() });
    own("TASK_INDEX", key.index.to_string());
    own("TASK_COUNT", work.task_count.to_string());
    own("ATTEMPT", key.attempt.to_string());
    own("INPUT_DIR", path(input)?);
    own("OUTPUT_DIR", path(workspace.output())?);
    if let Some(item) = item {
        own("ITEM", item);
    }
    if work.shuffle_parts > 0 {
        own("SHUFFLE_PARTS", work.shuffle_parts.to_string());
    }
    Ok(env.into_iter().collect())
}

/// Why the process was asked to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Stop,
    TimeOut,
}

/// From a workspace to what was left in it.
async fn run_process(core: &Arc<Core>, accepted: &Accepted, ready: Ready) -> v1::AttemptFinished {
    let Accepted { key, group, control, .. } = accepted;
    let Ready { work, kind, item } = ready;
    let Work::Process(process) = &kind;
    let script = match &process.run {
        Some(v1::process::Run::Script(script)) => Some(script.text.as_str()),
        _ => None,
    };
    let workspace = match place::take(core, *key, script).await {
        Ok(workspace) => workspace,
        Err(message) => return finished(Outcome::ExecutorLost, message),
    };
    let leave = |for_certain, workspace, result| {
        place::leave(core, *key, Gone { workspace, had_inputs: accepted.has_inputs(), for_certain, result })
    };
    if control.stop.is_cancelled() {
        return leave(true, workspace, stopped(control)).await;
    }
    let room = core.layout.attempt(*key);
    let named = core.table.told(*key);
    let env = match environment(*key, &work, &group.stage_path, item, &named, &workspace, room.input()) {
        Ok(env) => env,
        Err(message) => return leave(true, workspace, finished(Outcome::LaunchRefused, message)).await,
    };
    let setting = Setting {
        key: *key,
        work: kind,
        env,
        directory: workspace.work(),
        script: workspace.script(),
        stdout: room.stdout(),
        stderr: room.stderr(),
        log_cap_bytes: core.options.log_cap_bytes,
        memory_bytes: group.need.memory_bytes,
    };
    let mut task = match core.runtime.start(setting).await {
        Ok(task) => task,
        Err(error) => {
            let never_ran = matches!(error, NotStarted::Task(_));
            return leave(never_ran, workspace, not_started(error)).await;
        }
    };
    let began = Instant::now();
    core.table.set_running(*key);
    let admitted_us = Some(accepted.admitted_us);
    core.journal.note(Line { admitted_us, pid: task.pid(), ..core.line("start", *key, group.fence) }).await;
    core.outbox.started(*key, group.owner_address.clone(), task.started_at_ms());
    let timeout = (work.timeout_ms > 0).then(|| Duration::from_millis(work.timeout_ms));
    let grace = if work.grace_ms == 0 { GRACE } else { Duration::from_millis(work.grace_ms) };
    let times = Times { deadline: timeout.map(|after| began + after), grace, lost_after_ms: group.lost_after_ms };
    let (ended, asked) = watch(task.as_mut(), control, &times).await;
    core.table.release(*key);

    let for_certain = ended != Ended::Lost;
    let mut result = leave(for_certain, workspace, judge(ended, asked, control, timeout)).await;
    result.started_at_ms = task.started_at_ms();
    result.finished_at_ms = clock::wall_ms();
    result
}

/// What limits an attempt's process.
struct Times {
    deadline: Option<Instant>,
    grace: Duration,
    lost_after_ms: u64,
}

/// Waits for the end, and brings it about when the time is up or the attempt is stopped: SIGTERM, and SIGKILL after
/// the grace.
async fn watch(task: &mut dyn RunningTask, control: &Control, times: &Times) -> (Ended, Asked) {
    let time_is_up = async {
        match times.deadline {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let asked = tokio::select! {
        biased;
        ended = task.wait() => return (ended, Asked::No),
        () = control.stop.cancelled() => Asked::Stop,
        () = time_is_up => Asked::TimeOut,
    };
    task.signal(TaskSignal::Terminate).await;
    let grace = match control.cause() {
        Some(StopCause::ExecutorStops) => times.grace.min(GRACE_AT_STOP),
        // It is to be over before it begins elsewhere.
        Some(StopCause::Disconnected) => {
            times.grace.min(Duration::from_millis(Group::ends_ahead_ms(times.lost_after_ms) / 2))
        }
        _ => times.grace,
    };
    let killed_at = Instant::now() + grace;
    tokio::select! {
        biased;
        ended = task.wait() => return (ended, asked),
        () = sleep_until(killed_at) => {}
    }
    task.signal(TaskSignal::Kill).await;
    (task.wait().await, asked)
}

fn judge(ended: Ended, asked: Asked, control: &Control, timeout: Option<Duration>) -> v1::AttemptFinished {
    let Ended::Process { how, out_of_memory } = ended else {
        return finished(Outcome::ExecutorLost, "the supervisor process of the executor died, and the task with it");
    };
    let (exit, succeeded, text) = match how {
        HowEnded::Code(code) => (v1::exit::How::Code(code), code == 0, format!("exit code {code}")),
        HowEnded::Signal(signal) => {
            (v1::exit::How::Signal(signal), false, format!("killed by signal {signal}{}", signal_name(signal)))
        }
    };
    let mut result = if asked == Asked::Stop {
        stopped(control)
    } else if asked == Asked::TimeOut {
        let seconds = timeout.unwrap_or_default().as_secs_f64();
        finished(Outcome::TimedOut, format!("ended after its time-out of {seconds} s ({text})"))
    } else if succeeded {
        finished(Outcome::Succeeded, "")
    } else if out_of_memory {
        finished(Outcome::OutOfMemory, format!("out of memory: it used more than resources.memory allows ({text})"))
    } else {
        finished(Outcome::Failed, text)
    };
    result.exit = Some(v1::Exit { how: Some(exit) });
    result
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        _ => "",
    }
}
