//! The supervisor's single thread: orders in, processes and their pipes watched, reports out.
//!
//! Each process is watched through a pidfd. That tells of the end of exactly this process and leaves it unreaped, so
//! its group can be signalled before the number may be used again.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{
    self, Pid, PidfdFlags, Signal as UnixSignal, WaitOptions, kill_process, kill_process_group, test_kill_process_group,
};

use super::descendants;
use super::log_file::{Found, LogFile};
use super::program;
use super::wire::{self, HowEnded, Order, Report, Signal, Start};
use crate::clock;
use crate::runtime::cgroup::{Cgroup, Home};

/// Between SIGTERM and SIGKILL when the executor is gone.
const GRACE: Duration = Duration::from_secs(2);
/// A group whose members do not die of SIGKILL within this (they hang in the kernel) is reported as ended all the same.
const GROUP_GONE: Duration = Duration::from_secs(5);
/// How often is looked for orphans, at most.
const SCAN_EVERY: Duration = Duration::from_millis(250);
/// How often is looked whether what was killed is gone.
const REAP_EVERY: Duration = Duration::from_millis(2);
/// Orders are read in pieces of this size.
const READ_BYTES: usize = 256 << 10;
/// Wake-ups handled in one turn.
const EVENTS_MAX: usize = 256;

const SOCKET: u64 = 0;
/// An event's number is a run's number times this, plus what it is about.
const KINDS: u64 = 4;
const ENDED: u64 = 1;
const STDOUT: u64 = 2;
const STDERR: u64 = 3;

struct Run {
    pid: Pid,
    pidfd: OwnedFd,
    stdout: Option<LogFile>,
    stderr: Option<LogFile>,
    cgroup: Option<Cgroup>,
}

/// Its process is reaped; members of its group are still to die.
struct Ending {
    run: u64,
    group: Pid,
    how: HowEnded,
    out_of_memory: bool,
    until: Instant,
}

/// An orphan whose run is not known.
struct Stray {
    /// The runs during which it was first seen.
    suspects: HashSet<u64>,
}

pub(super) struct EventLoop {
    socket: OwnedFd,
    epoll: OwnedFd,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    watching_writes: bool,
    buffer: Vec<u8>,
    runs: HashMap<u64, Run>,
    endings: Vec<Ending>,
    strays: HashMap<Pid, Stray>,
    mark: String,
    cgroups: Option<Home>,
    /// Held until the end.
    lock: Option<File>,
    last_scan: Instant,
    scan_wanted: bool,
}

impl EventLoop {
    pub(super) fn on_standard_input() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        process::set_child_subreaper(Some(process::getpid()))?;
        raise_file_limit();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &socket, EventData::new_u64(SOCKET), EventFlags::IN)?;
        Ok(Self {
            socket,
            epoll,
            inbox: Vec::new(),
            outbox: Vec::new(),
            watching_writes: false,
            buffer: Vec::new(),
            runs: HashMap::new(),
            endings: Vec::new(),
            strays: HashMap::new(),
            mark: String::new(),
            cgroups: None,
            lock: None,
            last_scan: Instant::now(),
            scan_wanted: false,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            let timeout =
                self.timeout().map(|after| rustix::event::Timespec::try_from(after).expect("less than a day"));
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
            let mut orders = false;
            for event in &events {
                let data = event.data.u64();
                match (data / KINDS, data % KINDS) {
                    (0, _) => orders = true,
                    (run, ENDED) => self.process_ended(run),
                    (run, stream) => self.pump(run, stream),
                }
            }
            if orders && !self.take_orders()? {
                self.end_everything();
                return Ok(());
            }
            self.settle_endings();
            self.look_for_orphans();
            self.send();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.endings.is_empty() {
            Some(REAP_EVERY)
        } else if self.scan_wanted || !self.strays.is_empty() {
            Some(SCAN_EVERY)
        } else {
            None
        }
    }

    /// False when the executor is gone.
    fn take_orders(&mut self) -> io::Result<bool> {
        self.buffer.resize(READ_BYTES, 0);
        match rustix::io::read(&self.socket, &mut self.buffer[..]) {
            Ok(0) => return Ok(false),
            Ok(length) => self.inbox.extend_from_slice(&self.buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            Err(_) => return Ok(false),
        }
        for order in wire::take(&mut self.inbox)? {
            match order {
                Order::Hello { lock, mark, cgroup } => {
                    let file = File::options().create(true).truncate(false).write(true).open(lock)?;
                    // The supervisor before this one may still be ending what it started: wait for it.
                    flock(&file, FlockOperation::LockExclusive)?;
                    self.lock = Some(file);
                    self.mark = mark;
                    self.cgroups = cgroup;
                    wire::put(&mut self.outbox, &Report::Ready);
                }
                Order::Start(start) => self.start(&start),
                Order::Signal { run, signal } => {
                    if let Some(run) = self.runs.get(&run) {
                        // Its own process is not reaped yet, so the group's number is still its own.
                        let _ = kill_process_group(run.pid, to_unix(signal));
                    }
                }
            }
            // Short tasks end while others are started: their slots should not wait for the whole batch.
            if self.outbox.len() > READ_BYTES {
                self.send();
            }
        }
        Ok(true)
    }

    fn start(&mut self, start: &Start) {
        let run = start.run;
        let report = match self.try_start(start) {
            Ok(pid) => Report::Started { run, pid: pid.as_raw_nonzero().get().unsigned_abs(), at_ms: clock::wall_ms() },
            Err(message) => Report::NotStarted { run, message },
        };
        wire::put(&mut self.outbox, &report);
    }

    fn try_start(&mut self, start: &Start) -> Result<Pid, String> {
        let inside = match (&self.cgroups, start.memory_bytes) {
            (Some(home), 1..) => Some(
                home.enter(start.run).map_err(|error| format!("cannot make a cgroup for the memory limit: {error}"))?,
            ),
            _ => None,
        };
        let spawned = program::start(start);
        let cgroup = inside.map(|inside| inside.leave(start.memory_bytes));
        let mut child = spawned?;
        let pid = Pid::from_child(&child);
        let cgroup = match cgroup.transpose() {
            Ok(cgroup) => cgroup,
            Err(error) => {
                let _ = kill_process_group(pid, UnixSignal::KILL);
                let _ = process::waitpid(Some(pid), WaitOptions::empty());
                return Err(format!("cannot set the memory limit: {error}"));
            }
        };
        let watched = (|| {
            let pidfd = process::pidfd_open(pid, PidfdFlags::empty())?;
            let stdout = child.stdout.take().expect("stdout was piped").into();
            let stderr = child.stderr.take().expect("stderr was piped").into();
            let stdout = LogFile::new(stdout, start.stdout.clone(), start.log_cap_bytes)?;
            let stderr = LogFile::new(stderr, start.stderr.clone(), start.log_cap_bytes)?;
            let at = start.run * KINDS;
            epoll::add(&self.epoll, &pidfd, EventData::new_u64(at + ENDED), EventFlags::IN)?;
            epoll::add(&self.epoll, &stdout.pipe, EventData::new_u64(at + STDOUT), EventFlags::IN)?;
            epoll::add(&self.epoll, &stderr.pipe, EventData::new_u64(at + STDERR), EventFlags::IN)?;
            io::Result::Ok((pidfd, stdout, stderr))
        })();
        match watched {
            Ok((pidfd, stdout, stderr)) => {
                let run = Run { pid, pidfd, stdout: Some(stdout), stderr: Some(stderr), cgroup };
                self.runs.insert(start.run, run);
                Ok(pid)
            }
            Err(error) => {
                let _ = kill_process_group(pid, UnixSignal::KILL);
                let _ = process::waitpid(Some(pid), WaitOptions::empty());
                Err(format!("cannot watch the process: {error}"))
            }
        }
    }

    fn pump(&mut self, run: u64, stream: u64) {
        let Some(run) = self.runs.get_mut(&run) else { return };
        let log = if stream == STDOUT { &mut run.stdout } else { &mut run.stderr };
        if let Some(open) = log
            && open.pump(&mut self.buffer) == Found::End
        {
            // Closing a file that nobody else has open takes it out of the epoll too.
            *log = None;
        }
    }

    fn process_ended(&mut self, number: u64) {
        let Some(mut run) = self.runs.remove(&number) else { return };
        // Not reaped yet: the group's number cannot be anybody else's.
        let _ = kill_process_group(run.pid, UnixSignal::KILL);
        let out_of_memory = run.cgroup.as_ref().is_some_and(Cgroup::ran_out_of_memory);
        if let Some(cgroup) = run.cgroup.take() {
            cgroup.kill_and_remove();
        }
        let status = loop {
            match process::waitpid(Some(run.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Ok(Some((_, status))) => break Some(status),
                Ok(None) | Err(_) => break None,
            }
        };
        drop(run.pidfd);
        for log in [&mut run.stdout, &mut run.stderr].into_iter().flatten() {
            log.drain(&mut self.buffer);
        }
        let how = match status {
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => HowEnded::Code(code),
                (None, signal) => HowEnded::Signal(signal.unwrap_or(0)),
            },
            None => HowEnded::Signal(0),
        };
        self.scan_wanted = true;
        let ending = Ending { run: number, group: run.pid, how, out_of_memory, until: Instant::now() + GROUP_GONE };
        if is_gone(&ending) {
            self.report_end(&ending);
        } else {
            self.endings.push(ending);
        }
    }

    fn settle_endings(&mut self) {
        if self.endings.is_empty() {
            return;
        }
        // The members were killed; those whose parent was the task's process are ours to reap.
        for ending in &self.endings {
            reap_group(ending.group);
        }
        let (gone, left) = std::mem::take(&mut self.endings).into_iter().partition::<Vec<_>, _>(is_gone);
        self.endings = left;
        for ending in &gone {
            self.report_end(ending);
        }
    }

    fn report_end(&mut self, ending: &Ending) {
        let Ending { run, how, out_of_memory, .. } = *ending;
        wire::put(&mut self.outbox, &Report::Ended { run, how, out_of_memory });
    }

    fn look_for_orphans(&mut self) {
        let idle = !self.scan_wanted && self.strays.is_empty();
        if idle || self.last_scan.elapsed() < SCAN_EVERY {
            return;
        }
        self.last_scan = Instant::now();
        self.scan_wanted = false;
        let own: HashSet<Pid> = self.runs.values().map(|run| run.pid).collect();
        let mut seen = HashSet::new();
        for child in descendants::children(std::process::id()) {
            if own.contains(&child.pid) {
                continue;
            }
            seen.insert(child.pid);
            if child.zombie {
                let _ = process::waitpid(Some(child.pid), WaitOptions::NOHANG);
                continue;
            }
            let finished = match descendants::marked_run(child.pid, &self.mark) {
                Some(run) => !self.runs.contains_key(&run),
                None => {
                    let runs = &self.runs;
                    let stray = self
                        .strays
                        .entry(child.pid)
                        .or_insert_with(|| Stray { suspects: runs.keys().copied().collect() });
                    stray.suspects.retain(|run| runs.contains_key(run));
                    stray.suspects.is_empty()
                }
            };
            if finished {
                // It is our child and not reaped, so the number is its own. Its children come to us in turn.
                let _ = kill_process(child.pid, UnixSignal::KILL);
            }
            self.scan_wanted = true;
        }
        self.strays.retain(|pid, _| seen.contains(pid));
    }

    /// The executor is gone: nothing that it started may stay.
    fn end_everything(&mut self) {
        for run in self.runs.values() {
            let _ = kill_process_group(run.pid, UnixSignal::TERM);
        }
        let killed_from = Instant::now() + GRACE;
        loop {
            // Nobody reads the pipes any more; a task must not hang on a full one while it ends.
            for run in self.runs.values_mut() {
                for log in [&mut run.stdout, &mut run.stderr].into_iter().flatten() {
                    log.drain(&mut self.buffer);
                }
            }
            loop {
                match process::wait(WaitOptions::NOHANG) {
                    Ok(Some((pid, _))) => {
                        self.runs.retain(|_, run| {
                            if run.pid == pid
                                && let Some(cgroup) = run.cgroup.take()
                            {
                                cgroup.kill_and_remove();
                            }
                            run.pid != pid
                        });
                    }
                    Ok(None) | Err(Errno::INTR) => break,
                    // No children, and so no descendants: they would be ours.
                    Err(_) => return,
                }
            }
            let late = Instant::now() >= killed_from;
            for child in descendants::children(std::process::id()) {
                let own = self.runs.values().any(|run| run.pid == child.pid);
                if late || !own {
                    let _ = kill_process_group(child.pid, UnixSignal::KILL);
                    let _ = kill_process(child.pid, UnixSignal::KILL);
                }
            }
            std::thread::sleep(REAP_EVERY * 5);
        }
    }

    fn send(&mut self) {
        while !self.outbox.is_empty() {
            match rustix::io::write(&self.socket, &self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(Errno::INTR) => {}
                // Full, or the executor is gone; the second shows when the socket is read.
                Err(_) => break,
            }
        }
        let wanted = !self.outbox.is_empty();
        if wanted != self.watching_writes {
            let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            if epoll::modify(&self.epoll, &self.socket, EventData::new_u64(SOCKET), flags).is_ok() {
                self.watching_writes = wanted;
            }
        }
    }
}

fn to_unix(signal: Signal) -> UnixSignal {
    match signal {
        Signal::Terminate => UnixSignal::TERM,
        Signal::Kill => UnixSignal::KILL,
    }
}

fn is_gone(ending: &Ending) -> bool {
    test_kill_process_group(ending.group) == Err(Errno::SRCH) || Instant::now() >= ending.until
}

fn reap_group(group: Pid) {
    while let Ok(Some(_)) = process::waitpgid(group, WaitOptions::NOHANG) {}
}

/// Each task takes three descriptors here.
fn raise_file_limit() {
    let mut limit = process::getrlimit(process::Resource::Nofile);
    limit.current = limit.maximum;
    // With the lower limit fewer tasks can run at once; each start beyond it fails and says so.
    let _ = process::setrlimit(process::Resource::Nofile, limit);
}
