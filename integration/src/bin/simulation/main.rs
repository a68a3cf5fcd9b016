//! One seed of the simulated cluster: several schedulers, executors and users over one store, with faults far denser than
//! in life. Runs it to its end, judges it, and prints one line of JSON.
//!
//! A process runs one seed, so that nothing (counters, hashes, clocks) is left over from another one. The standard
//! library's clocks and chance are the simulation's (mad-turmoil replaces them below it); threads there are none (the
//! failpoint `one-thread`), so the same seed gives the same trace.

mod hosts;
mod inputs;
mod judge;
mod load;
mod nemesis;
mod store;
mod tasks;
mod wire;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use muster_executor::Mode;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};

use hosts::{ExecutorHost, Size, Stop};
use nemesis::Nemesis;
use world::World;

/// How much time passes in one step of all hosts.
const TICK: Duration = Duration::from_millis(10);
/// After the last fault, everything must be over within this: broken connections are noticed after 10 s, sessions and
/// executors are lost after some more, and then the work itself has to be done.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!("usage: simulation SEED [told]   (MUSTER_LOG and FAILPOINTS as usual)");
        return ExitCode::FAILURE;
    };
    let told = std::env::args().nth(2).is_some_and(|word| word == "told");
    if let Ok(filter) = std::env::var("MUSTER_LOG") {
        // Each hash map of a thread changes the order of those made after it: on this one, logs would change the trace.
        let log =
            || tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
        std::thread::spawn(log).join().expect("the log can be set up");
    }
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let clocks = mad_turmoil::time::SimClocksGuard::init();
    let _points = fail::FailScenario::setup();
    fail::cfg("one-thread", "return").expect("it is a well-formed action");
    // Below /dev/shm a flush costs nothing; what is simulated there is the end of a process, not of a machine.
    let folder = tempfile::Builder::new()
        .prefix("muster-simulation-")
        .tempdir_in(if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() })
        .expect("a temporary folder can be made");
    let (late, late_writes) = mpsc::unbounded_channel();
    let mut dice = StdRng::seed_from_u64(seed);
    let mut roll = |low: usize, high: usize| rand::RngExt::random_range(&mut dice, low..=high);
    let size = Size { schedulers: roll(2, 3), executors: roll(2, 4), clients: roll(1, 2) };
    let world = Arc::new(World::new(seed, size.schedulers, folder.path().to_owned(), told, late));
    let panicked = Arc::clone(&world);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        panicked.complain(format_args!("a panic: {info}"));
        usual(info);
    }));

    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(std::time::SystemTime::UNIX_EPOCH)
        .simulation_duration(hosts::END_OF_TIME)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(15))
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    let late_writes = std::cell::RefCell::new(Some(late_writes));
    let store_world = Arc::clone(&world);
    sim.host("store", move || {
        let late_writes = late_writes.borrow_mut().take().expect("the store's host never crashes");
        hosts::run_store(Arc::clone(&store_world), late_writes)
    });
    let stops: Vec<watch::Sender<u32>> = (0..size.schedulers).map(|_| watch::Sender::new(0)).collect();
    for (index, stop) in stops.iter().enumerate() {
        let (world, stop) = (Arc::clone(&world), stop.subscribe());
        sim.host(hosts::scheduler(index), move || hosts::run_scheduler(Arc::clone(&world), index, stop.clone()));
    }
    let executor_stops: Vec<watch::Sender<Stop>> =
        (0..size.executors).map(|_| watch::Sender::new(Stop::default())).collect();
    for (index, stop) in executor_stops.iter().enumerate() {
        let about = ExecutorHost {
            index,
            mode: if roll(0, 1) == 0 { Mode::Push } else { Mode::Pull },
            slots: u32::try_from(roll(1, 4)).expect("few"),
            backlog: if roll(0, 2) == 0 { 4 } else { 0 },
            schedulers: size.schedulers,
        };
        world.note(format_args!("{about:?}"));
        let (world, stop) = (Arc::clone(&world), stop.subscribe());
        sim.host(hosts::executor(index), move || hosts::run_executor(Arc::clone(&world), about.clone(), stop.clone()));
    }
    for index in 0..size.clients {
        let jobs = roll(2, 6);
        sim.client(hosts::client(index), load::run_client(Arc::clone(&world), index, size.schedulers, jobs));
    }

    let calm_at = Duration::from_millis(roll(6000, 14_000) as u64);
    let mut nemesis = Nemesis::new(Arc::clone(&world), size, stops, executor_stops);
    loop {
        match sim.step() {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => {
                world.complain(format_args!("a host ended: {error}"));
                break;
            }
        }
        let elapsed = sim.elapsed();
        world.set_elapsed(elapsed);
        if elapsed >= calm_at && !world.is_calm() {
            world.calm_down();
            nemesis.end_all(&mut sim);
        }
        nemesis.act(&mut sim);
        if elapsed > calm_at + PROGRESS_WITHIN {
            world.complain(format_args!("not everything was over {PROGRESS_WITHIN:?} after the last fault"));
            sim.client("reader", load::tell_unfinished(Arc::clone(&world), size.schedulers));
            let until = elapsed + Duration::from_secs(10);
            while sim.elapsed() < until && !matches!(sim.step(), Ok(true) | Err(_)) {}
            break;
        }
    }
    let elapsed = sim.elapsed();
    let statistics = judge::judge(&world, size, elapsed);
    let (trace, events) = world.trace();
    let complaints = world.complaints();
    let report = serde_json::json!({
        "seed": seed,
        "trace": trace,
        "events": events,
        "simulated_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        "calm_at_ms": u64::try_from(calm_at.as_millis()).unwrap_or(u64::MAX),
        "faults": world.faults(),
        "revisions": statistics.revisions,
        "jobs": statistics.jobs,
        "takeovers": statistics.takeovers.len(),
        "starts": statistics.starts,
        "run_more_than_once": statistics.run_more_than_once,
        "wrong": complaints,
    });
    println!("{report}");
    // Hosts are not taken down: their end is nobody's concern, and has no clock any more.
    drop(clocks);
    drop(folder);
    std::process::exit(i32::from(!complaints.is_empty()))
}
