//! Runs tasks as processes, through a supervisor ([`crate::supervisor`]) that one asynchronous part here keeps alive.
//!
//! Invariants: a run whose start was sent gets exactly one end, also when the supervisor dies: then what is left of it
//! is ended from here, for this process is a child subreaper too, and the run is reported as lost. A new supervisor is
//! started before anything else is.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use muster_proto::v1::stage_work::Work;
use muster_proto::v1::{self, process::Run as ProcessRun};
use rustix::process::{Pid, Signal as UnixSignal, WaitOptions, kill_process, kill_process_group, waitpid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cgroup::Home;
use super::{Ended, NotStarted, RunningTask, Setting, TaskRuntime, TaskSignal};
use crate::supervisor::wire::{self, Order, Report, Signal, Start};

/// Orders that may wait for the supervisor.
const QUEUE_LEN: usize = 4096;
/// A supervisor that is asked to go ends its tasks with a grace and goes; after this long it is killed.
const GOES_WITHIN: Duration = Duration::from_secs(8);
/// After a supervisor's death, what it started is killed and reaped within this.
const REAPED_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries to start a supervisor.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// Reads and writes of the socket.
const BUFFER_BYTES: usize = 256 << 10;
/// Interpreter of a script that names none.
const DEFAULT_SHELL: &str = "/bin/sh";

/// What starting supervisors needs.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) argv: Vec<OsString>,
    pub(crate) lock: PathBuf,
    /// Marks the tasks of this life of this executor; other executors may live in this process.
    pub(crate) mark: String,
    pub(crate) cgroup: Option<Home>,
}

struct Slot {
    /// Whether the order went to a supervisor: then the supervisor's death is the run's end.
    sent: bool,
    pid: Option<u32>,
    started: Option<oneshot::Sender<Result<(u32, u64), NotStarted>>>,
    ended: Option<oneshot::Sender<Ended>>,
}

#[derive(Default)]
struct Runs {
    /// Locked to add, answer or take one.
    slots: Mutex<HashMap<u64, Slot>>,
}

/// The process runtime.
pub(crate) struct ProcessRuntime {
    setup: Setup,
    next_run: AtomicU64,
    runs: Arc<Runs>,
    orders: mpsc::Sender<Order>,
    closing: CancellationToken,
    closed: CancellationToken,
}

impl ProcessRuntime {
    /// Starts the first supervisor, so that a wrong argv is found at once. The returned future keeps it alive and must
    /// be run.
    pub(crate) fn start(setup: Setup) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        // So that nothing escapes when the supervisor dies.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let first = spawn(&setup)?;
        let runs = Arc::new(Runs::default());
        let (orders, receiver) = mpsc::channel(QUEUE_LEN);
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let keeper = Keeper {
            setup: setup.clone(),
            runs: runs.clone(),
            orders: receiver,
            closing: closing.clone(),
            closed: closed.clone(),
        };
        let runtime = Self { setup, next_run: AtomicU64::new(1), runs, orders, closing, closed };
        Ok((runtime, keeper.run(first)))
    }
}

#[async_trait]
impl TaskRuntime for ProcessRuntime {
    async fn start(&self, setting: Setting) -> Result<Box<dyn RunningTask>, NotStarted> {
        let gone = || NotStarted::Runtime("the executor stops".to_owned());
        let run = self.next_run.fetch_add(1, Ordering::Relaxed);
        let mut env = setting.env;
        env.push((crate::supervisor::MARK_VARIABLE.to_owned(), format!("{}:{run}", self.setup.mark)));
        let Work::Process(process) = setting.work;
        let start = Start {
            run,
            argv: argv(process, setting.script)?,
            env,
            directory: setting.directory,
            stdout: setting.stdout,
            stderr: setting.stderr,
            log_cap_bytes: setting.log_cap_bytes,
            memory_bytes: setting.memory_bytes,
        };
        let (started, is_started) = oneshot::channel();
        let (ended, is_ended) = oneshot::channel();
        self.runs.insert(run, Slot { sent: false, pid: None, started: Some(started), ended: Some(ended) });
        if self.orders.send(Order::Start(Box::new(start))).await.is_err() {
            self.runs.remove(run);
            return Err(gone());
        }
        let (pid, started_at_ms) = is_started.await.map_err(|_| gone())??;
        Ok(Box::new(RunningProcess { run, pid, started_at_ms, ended: is_ended, orders: self.orders.clone() }))
    }

    async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
        if let Some(home) = &self.setup.cgroup {
            home.remove();
        }
    }
}

fn argv(process: v1::Process, script_file: PathBuf) -> Result<Vec<String>, NotStarted> {
    match process.run {
        Some(ProcessRun::Argv(argv)) => Ok(argv.args),
        Some(ProcessRun::Script(script)) => {
            let mut argv = if script.shell.is_empty() { vec![DEFAULT_SHELL.to_owned()] } else { script.shell };
            let path = script_file.into_os_string().into_string().map_err(|path| {
                NotStarted::Runtime(format!("the data directory's path is not UTF-8: {}", path.display()))
            })?;
            argv.push(path);
            Ok(argv)
        }
        None => Err(NotStarted::Task(
            "the stage says neither which program to run nor a script, or in a way that this executor is too old for"
                .to_owned(),
        )),
    }
}

struct RunningProcess {
    run: u64,
    pid: u32,
    started_at_ms: u64,
    ended: oneshot::Receiver<Ended>,
    orders: mpsc::Sender<Order>,
}

#[async_trait]
impl RunningTask for RunningProcess {
    fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }

    async fn wait(&mut self) -> Ended {
        (&mut self.ended).await.unwrap_or(Ended::Lost)
    }

    async fn signal(&self, signal: TaskSignal) {
        let signal = match signal {
            TaskSignal::Terminate => Signal::Terminate,
            TaskSignal::Kill => Signal::Kill,
        };
        // With the keeper gone the supervisor ends everything anyway.
        let _ = self.orders.send(Order::Signal { run: self.run, signal }).await;
    }
}

impl Runs {
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Slot>> {
        self.slots.lock().expect("no holder of this lock panics")
    }

    fn insert(&self, run: u64, slot: Slot) {
        self.slots().insert(run, slot);
    }

    fn remove(&self, run: u64) -> Option<Slot> {
        self.slots().remove(&run)
    }

    fn mark_sent(&self, run: u64) {
        if let Some(slot) = self.slots().get_mut(&run) {
            slot.sent = true;
        }
    }

    // An answer that nobody waits for any more is of an attempt that has been given up.
    fn report(&self, report: Report) {
        match report {
            Report::Ready => {}
            Report::Started { run, pid, at_ms } => {
                if let Some(slot) = self.slots().get_mut(&run) {
                    slot.pid = Some(pid);
                    if let Some(started) = slot.started.take() {
                        let _ = started.send(Ok((pid, at_ms)));
                    }
                }
            }
            Report::NotStarted { run, message } => {
                if let Some(started) = self.remove(run).and_then(|slot| slot.started) {
                    let _ = started.send(Err(NotStarted::Task(message)));
                }
            }
            Report::Ended { run, how, out_of_memory } => {
                if let Some(ended) = self.remove(run).and_then(|slot| slot.ended) {
                    let _ = ended.send(Ended::Process { how, out_of_memory });
                }
            }
        }
    }

    fn lose_sent(&self) -> Vec<Slot> {
        let mut slots = self.slots();
        let lost: Vec<u64> = slots.iter().filter(|(_, slot)| slot.sent).map(|(run, _)| *run).collect();
        lost.into_iter().filter_map(|run| slots.remove(&run)).collect()
    }
}

/// Keeps a supervisor alive.
struct Keeper {
    setup: Setup,
    runs: Arc<Runs>,
    orders: mpsc::Receiver<Order>,
    closing: CancellationToken,
    closed: CancellationToken,
}

fn spawn(setup: &Setup) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (program, arguments) = setup.argv.split_first().ok_or_else(|| io::Error::other("the argv is empty"))?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        // Ctrl-C at a terminal reaches the whole group; the supervisor must outlive the executor.
        .process_group(0)
        .spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

impl Keeper {
    async fn run(mut self, first: (Child, UnixStream)) {
        let mut next = Some(first);
        loop {
            let (child, stream) = match next.take() {
                Some(first) => first,
                None => match spawn(&self.setup) {
                    Ok(supervisor) => supervisor,
                    Err(error) => {
                        tracing::error!(%error, "cannot start a supervisor");
                        if self.closing.run_until_cancelled(tokio::time::sleep(RESTART_AFTER)).await.is_none() {
                            break;
                        }
                        continue;
                    }
                },
            };
            let why = self.serve(stream).await;
            if self.closing.is_cancelled() {
                end_child(child, GOES_WITHIN).await;
                break;
            }
            tracing::error!(error = %why, "the supervisor is gone; its tasks are lost");
            end_child(child, Duration::ZERO).await;
            let lost = self.runs.lose_sent();
            let pids: Vec<u32> = lost.iter().filter_map(|slot| slot.pid).collect();
            let mark = self.setup.mark.clone();
            if tokio::task::spawn_blocking(move || end_orphans(&pids, &mark)).await.is_err() {
                break;
            }
            for slot in lost {
                if let Some(started) = slot.started {
                    let _ = started.send(Err(NotStarted::Runtime("the supervisor died".to_owned())));
                }
                if let Some(ended) = slot.ended {
                    let _ = ended.send(Ended::Lost);
                }
            }
        }
        self.runs.slots().clear();
        self.closed.cancel();
    }

    /// Until the supervisor is gone or the executor closes; says why.
    async fn serve(&mut self, stream: UnixStream) -> io::Error {
        let (mut reader, mut writer) = stream.into_split();
        let hello = Order::Hello {
            lock: self.setup.lock.clone(),
            mark: self.setup.mark.clone(),
            cgroup: self.setup.cgroup.clone(),
        };
        let runs = self.runs.clone();
        let orders = &mut self.orders;
        let write = async {
            let mut buffer = Vec::with_capacity(BUFFER_BYTES);
            wire::put(&mut buffer, &hello);
            let mut batch = Vec::new();
            loop {
                if let Err(error) = writer.write_all(&buffer).await {
                    return error;
                }
                buffer.clear();
                if orders.recv_many(&mut batch, QUEUE_LEN).await == 0 {
                    return io::Error::other("the runtime was dropped");
                }
                for order in batch.drain(..) {
                    if let Order::Start(start) = &order {
                        runs.mark_sent(start.run);
                    }
                    wire::put(&mut buffer, &order);
                }
            }
        };
        let read = async {
            let mut buffer = Vec::with_capacity(BUFFER_BYTES);
            loop {
                match reader.read_buf(&mut buffer).await {
                    Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof),
                    Ok(_) => {}
                    Err(error) => return error,
                }
                match wire::take(&mut buffer) {
                    Ok(reports) => reports.into_iter().for_each(|report| self.runs.report(report)),
                    Err(error) => return error,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.closing.cancelled() => io::Error::other("closing"),
            error = write => error,
            error = read => error,
        }
    }
}

/// Waits for a supervisor's end, and kills it after `within`.
async fn end_child(mut child: Child, within: Duration) {
    let until = Instant::now() + within;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = child.kill();
    // Killed just now, so this takes no time worth a thread.
    let _ = child.wait();
}

/// The supervisor died, and its children are ours now: ends them.
fn end_orphans(groups: &[u32], mark: &str) {
    let groups: Vec<Pid> = groups.iter().filter_map(|pid| Pid::from_raw((*pid).cast_signed())).collect();
    let mut ours = groups.clone();
    let until = std::time::Instant::now() + REAPED_WITHIN;
    loop {
        // A number is used again only after its process is reaped, which nobody but us does now.
        for group in &groups {
            let _ = kill_process_group(*group, UnixSignal::KILL);
        }
        let mut left = false;
        for child in crate::supervisor::children(std::process::id()) {
            let in_group = || rustix::process::getpgid(Some(child.pid)).is_ok_and(|group| groups.contains(&group));
            if !ours.contains(&child.pid) && (in_group() || crate::supervisor::marked_run(child.pid, mark).is_some()) {
                ours.push(child.pid);
            }
            if ours.contains(&child.pid) {
                left = true;
                let _ = kill_process(child.pid, UnixSignal::KILL);
                let _ = waitpid(Some(child.pid), WaitOptions::NOHANG);
            }
        }
        if !left || std::time::Instant::now() > until {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
