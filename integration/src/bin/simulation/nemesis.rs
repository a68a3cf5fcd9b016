//! What strikes machines and the network between them, far more often than life does. Faults of the store's calls are in
//! the store's own module.
//!
//! Each fault has an end, and at most one of the network lies between two hosts at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_state::Session as _;
use tokio::sync::watch;
use turmoil::Sim;

use crate::hosts::{Size, Stop, executor, scheduler};
use crate::world::World;

/// See the module.
pub(crate) struct Nemesis {
    world: Arc<World>,
    size: Size,
    /// Of each scheduler: counts the orders to stop.
    stops: Vec<watch::Sender<u32>>,
    /// Of each executor: the order to stop.
    executor_stops: Vec<watch::Sender<Stop>>,
    next_at: Duration,
    ends: Vec<(Duration, End)>,
    /// Pairs of hosts with a fault between them.
    troubled: BTreeSet<(String, String)>,
    /// Hosts that are down, or whose store is cut off.
    struck: BTreeSet<String>,
}

/// What brings things back.
#[derive(Debug, Clone)]
enum End {
    Bounce(String),
    Repair(String, String),
    Release(String, String),
    StoreBack(usize),
    /// Not an end, but the second half of a fault.
    Overtake(usize),
}

impl Nemesis {
    pub(crate) fn new(
        world: Arc<World>,
        size: Size,
        stops: Vec<watch::Sender<u32>>,
        executor_stops: Vec<watch::Sender<Stop>>,
    ) -> Self {
        Self {
            world,
            size,
            stops,
            executor_stops,
            next_at: Duration::from_millis(300),
            ends: Vec::new(),
            troubled: BTreeSet::new(),
            struck: BTreeSet::new(),
        }
    }

    /// Called between two steps.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let due: Vec<(Duration, End)> = self.ends.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, end) in due {
            self.end(sim, end);
        }
        if self.world.is_calm() || now < self.next_at {
            return;
        }
        self.next_at = now + self.world.millis(50, 700);
        match self.world.between(0, 99) {
            0..=12 => self.crash_scheduler(sim, now),
            13..=25 => self.crash_executor(sim, now),
            26..=43 => self.cut_pair(sim, now),
            44..=56 => self.hold_pair(sim, now),
            57..=62 => self.isolate_scheduler(sim, now),
            63..=69 => self.isolate_executor(sim, now),
            70..=75 => self.stall_scheduler(sim, now),
            76..=81 => self.cut_store(now),
            82..=85 => self.revoke(sim, self.any_scheduler()),
            86..=92 => self.hold_launches(sim, now),
            93..=96 => self.stop_executor(sim),
            _ => self.stop_scheduler(sim, self.any_scheduler()),
        }
    }

    /// Everything that is wrong ends now.
    pub(crate) fn end_all(&mut self, sim: &mut Sim<'_>) {
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(sim, end);
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, end: End) {
        self.world.note(format_args!("over {end:?}"));
        match end {
            End::Bounce(host) => {
                self.struck.remove(&host);
                sim.bounce(host);
            }
            End::Repair(a, b) => {
                sim.repair(a.as_str(), b.as_str());
                self.troubled.remove(&(a, b));
            }
            End::Release(a, b) => {
                sim.release(a.as_str(), b.as_str());
                self.troubled.remove(&(a, b));
            }
            End::Overtake(_) if self.world.is_calm() => {}
            End::Overtake(index) => self.overtake(sim, index),
            End::StoreBack(index) => {
                self.struck.remove(&scheduler(index));
                self.cut_off(index, false);
            }
        }
    }

    fn any_scheduler(&self) -> usize {
        usize::try_from(self.world.between(0, self.size.schedulers as u64 - 1)).expect("few")
    }

    fn any_executor(&self) -> usize {
        usize::try_from(self.world.between(0, self.size.executors as u64 - 1)).expect("few")
    }

    fn crash_scheduler(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let host = scheduler(self.any_scheduler());
        self.crash(sim, now, "scheduler-crashed", host, (50, 3000));
    }

    fn crash_executor(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let host = executor(self.any_executor());
        // Back at once, or after it was declared lost.
        let down = if self.world.odds(500) { (20, 500) } else { (2000, 5000) };
        self.crash(sim, now, "executor-crashed", host, down);
    }

    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration, kind: &'static str, host: String, down: (u64, u64)) {
        if !self.struck.insert(host.clone()) {
            return;
        }
        self.world.fault(kind, &host);
        sim.crash(host.as_str());
        let until = now + self.world.millis(down.0, down.1);
        self.keeps_away(&host, now, until);
        self.ends.push((until, End::Bounce(host)));
    }

    /// A pair of hosts that talk to each other: two schedulers, or one and an executor.
    fn any_pair(&self) -> (String, String) {
        let one = self.any_scheduler();
        if self.world.odds(200) && self.size.schedulers > 1 {
            let other = (one + 1) % self.size.schedulers;
            return (scheduler(one.min(other)), scheduler(one.max(other)));
        }
        (scheduler(one), executor(self.any_executor()))
    }

    /// What is sent is gone, in both directions or in one. Connections do not survive it.
    fn cut_pair(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (a, b) = self.any_pair();
        let lasts = self.world.millis(100, 6000);
        match self.world.between(0, 2) {
            0 => self.partition(sim, now + lasts, "partition", (a, b)),
            1 => self.partition(sim, now + lasts, "partition-to", (a, b)),
            _ => self.partition(sim, now + lasts, "partition-from", (a, b)),
        }
    }

    fn partition(&mut self, sim: &mut Sim<'_>, until: Duration, kind: &'static str, (a, b): (String, String)) {
        if !self.troubled.insert((a.clone(), b.clone())) {
            return;
        }
        self.world.fault(kind, format_args!("{a} {b}"));
        self.keeps_away(&a, sim.elapsed(), until);
        self.keeps_away(&b, sim.elapsed(), until);
        match kind {
            "partition-to" => sim.partition_oneway(a.as_str(), b.as_str()),
            "partition-from" => sim.partition_oneway(b.as_str(), a.as_str()),
            _ => sim.partition(a.as_str(), b.as_str()),
        }
        self.ends.push((until, End::Repair(a, b)));
    }

    /// What is sent arrives, but later.
    fn hold_pair(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let pair = self.any_pair();
        let lasts = self.world.millis(50, 4000);
        self.hold(sim, now + lasts, "held", pair);
    }

    fn hold(&mut self, sim: &mut Sim<'_>, until: Duration, kind: &'static str, (a, b): (String, String)) {
        if !self.troubled.insert((a.clone(), b.clone())) {
            return;
        }
        self.world.fault(kind, format_args!("{a} {b}"));
        self.keeps_away(&a, sim.elapsed(), until);
        self.keeps_away(&b, sim.elapsed(), until);
        sim.hold(a.as_str(), b.as_str());
        self.ends.push((until, End::Release(a, b)));
    }

    /// Whatever strikes a host may keep executors from schedulers: itself, if it is one, else any.
    fn keeps_away(&self, host: &str, from: Duration, until: Duration) {
        let one = (0..self.size.executors).find(|index| host == executor(*index));
        self.world.record.away(one, from, until);
    }

    /// What a scheduler sends to some executors waits on the way; meanwhile it loses its jobs to a peer, which asks the
    /// executors; then it arrives.
    fn hold_launches(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let index = self.any_scheduler();
        self.world.fault("launches-overtaken", scheduler(index));
        let until = now + self.world.millis(1500, 4500);
        for other in 0..self.size.executors {
            if self.world.odds(700) {
                self.hold(sim, until, "held", (scheduler(index), executor(other)));
            }
        }
        self.ends.push((now + self.world.millis(50, 800), End::Overtake(index)));
    }

    fn overtake(&mut self, sim: &mut Sim<'_>, index: usize) {
        match self.world.between(0, 2) {
            0 => self.revoke(sim, index),
            1 => self.stop_scheduler(sim, index),
            _ => self.crash(sim, sim.elapsed(), "scheduler-crashed", scheduler(index), (50, 3000)),
        }
    }

    fn pairs_of_scheduler(&self, index: usize) -> Vec<(String, String)> {
        let others = (0..self.size.schedulers).filter(|other| *other != index);
        let peers = others.map(|other| (scheduler(index.min(other)), scheduler(index.max(other))));
        peers.chain((0..self.size.executors).map(|other| (scheduler(index), executor(other)))).collect()
    }

    /// It reaches the store, and nobody else.
    fn isolate_scheduler(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let index = self.any_scheduler();
        let until = now + self.world.millis(500, 5000);
        self.world.fault("scheduler-isolated", scheduler(index));
        for pair in self.pairs_of_scheduler(index) {
            self.partition(sim, until, "partition", pair);
        }
    }

    /// No scheduler reaches it, for less or more than it takes to be declared lost.
    fn isolate_executor(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let index = self.any_executor();
        let until = now + self.world.millis(500, 7000);
        self.world.fault("executor-isolated", executor(index));
        for other in 0..self.size.schedulers {
            self.partition(sim, until, "partition", (scheduler(other), executor(index)));
        }
    }

    /// As SIGSTOP and SIGCONT would: nothing goes in or out for some TTLs, then all of it at once.
    fn stall_scheduler(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let index = self.any_scheduler();
        let until = now + self.world.millis(300, 4500);
        if !self.struck.insert(scheduler(index)) {
            return;
        }
        self.world.fault("scheduler-stalled", scheduler(index));
        for pair in self.pairs_of_scheduler(index) {
            self.hold(sim, until, "held", pair);
        }
        self.cut_off(index, true);
        self.ends.push((until, End::StoreBack(index)));
    }

    /// It reaches everybody but the store.
    fn cut_store(&mut self, now: Duration) {
        let index = self.any_scheduler();
        if !self.struck.insert(scheduler(index)) {
            return;
        }
        self.world.fault("store-cut-off", scheduler(index));
        self.cut_off(index, true);
        let until = now + self.world.millis(200, 4000);
        self.keeps_away(&scheduler(index), now, until);
        self.ends.push((until, End::StoreBack(index)));
    }

    fn cut_off(&self, index: usize, cut: bool) {
        let link = &self.world.store_links[index];
        link.cut.store(cut, Ordering::Relaxed);
        for session in link.sessions.lock().expect("nothing panics while holding it").iter() {
            session.cut_off(cut);
        }
    }

    /// The store ends a session; its holder learns of it at its next renewal.
    fn revoke(&self, sim: &Sim<'_>, index: usize) {
        let sessions = self.world.store_links[index].sessions.lock().expect("nothing panics while holding it");
        if let Some(session) = sessions.last() {
            self.world.fault("session-revoked", scheduler(index));
            self.world.record.away(None, sim.elapsed(), sim.elapsed());
            self.world.memory.revoke(session.id());
        }
    }

    fn stop_scheduler(&self, sim: &Sim<'_>, index: usize) {
        if !self.struck.contains(&scheduler(index)) {
            self.world.fault("scheduler-stopped", scheduler(index));
            self.world.record.away(None, sim.elapsed(), sim.elapsed());
            self.stops[index].send_modify(|count| *count += 1);
        }
    }

    /// It ends in good order, and is soon started again.
    fn stop_executor(&self, sim: &Sim<'_>) {
        let index = self.any_executor();
        if self.struck.contains(&executor(index)) {
            return;
        }
        let how = if self.world.odds(500) { Stop::AtOnce } else { Stop::Drained(self.world.millis(100, 3000)) };
        self.world.fault("executor-stopped", format_args!("{} {how:?}", executor(index)));
        // For as long as it takes to drain, to stop and to start.
        let until = sim.elapsed() + Duration::from_secs(10);
        self.world.record.away(Some(index), sim.elapsed(), until);
        self.executor_stops[index].send_replace(how);
    }
}
