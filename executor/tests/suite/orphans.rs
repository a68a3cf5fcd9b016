//! Nothing that a task started outlives its executor, whatever is killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use muster_proto::v1::Outcome;
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::Scheduler;
use crate::launcher::Launcher;
use crate::world::{Place, World, argv, assert_outcome, eventually, group, job, script, test_host};

/// Tries all ways out: a child in the group, one in a session of its own, one that daemonised with a double fork, and
/// one that wiped its environment as well. Each writes its process id.
const ESCAPES: &str = "
sh -c 'echo $$ > child; exec sleep 1000' &
setsid sh -c 'trap \"\" TERM; echo $$ > session; while :; do sleep 1000; done' &
( ( setsid sh -c 'echo $$ > daemon; exec sleep 1000' & ) & )
( ( env -i setsid /bin/sh -c 'echo $$ > bare; exec sleep 1000' & ) & )
trap '' TERM
echo $$ > task
while :; do sleep 1000; done
";
const NAMES: [&str; 5] = ["child", "session", "daemon", "bare", "task"];

fn pid(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn lives(pid: i32) -> bool {
    // A zombie is dead: whoever inherited it has not looked yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].starts_with(") Z"))
}

async fn escaped(work: &Path) -> Vec<i32> {
    eventually("all of them run", || NAMES.iter().all(|name| pid(&work.join(name)).is_some_and(lives))).await;
    NAMES.iter().map(|name| pid(&work.join(name)).unwrap()).collect()
}

async fn all_end(pids: &[i32]) {
    eventually("no process of the task is left", || !pids.iter().any(|pid| lives(*pid))).await;
}

/// An executor in a process of its own. Killed when dropped.
struct Host(Child);

impl Host {
    fn start(place: &Place, scheduler: &Scheduler) -> Self {
        let child = Command::new(test_host())
            .args(["executor", &scheduler.address.to_string()])
            .arg(place.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn registered(scheduler: &Scheduler, incarnation: u64) -> std::net::SocketAddr {
    scheduler
        .until("the executor registers", |state| {
            let request = state.seen.registrations.iter().find(|request| request.incarnation == incarnation)?;
            Some(request.address.parse().unwrap())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_executor_leaves_no_process() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let mut host = Host::start(&place, &scheduler);
    let address = registered(&scheduler, 1).await;
    let digest = scheduler.put_blob(&script(ESCAPES));
    let attempt = Launcher::to(address, 1).await.launch_all(group(&scheduler, job(), &digest, 0..1)).await.remove(0);
    let pids = escaped(&place.work(&attempt).await).await;
    host.0.kill().unwrap();
    host.0.wait().unwrap();
    assert!(lives(*pids.last().unwrap()), "it was the executor that was killed");
    all_end(&pids).await;

    // The next life holds nothing of it, and starts nothing before the last supervisor is gone.
    let _host = Host::start(&place, &scheduler);
    registered(&scheduler, 2).await;
    let held = scheduler.with(|state| state.seen.registrations.last().unwrap().held.len());
    assert_eq!(held, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_takes_all_its_processes_along() {
    let mut world = World::new().await;
    let gate = world.place.path().join("gate");
    let ending = format!("while [ ! -e {} ]; do sleep 0.02; done; exit 0\n", gate.display());
    let text = ESCAPES.replace("while :; do sleep 1000; done\n", &ending);
    assert!(text.contains("exit 0"));
    // Another task runs all the while: the ended one's descendants must be told apart from its.
    let other = world
        .launch_script("( ( setsid sh -c 'echo $$ > daemon; exec sleep 1000' & ) & ); echo $$ > task; sleep 1000")
        .await;
    let attempt = world.launch_script(&text).await;
    let work = world.place.work(&attempt).await;
    let pids = escaped(&work).await;
    let others = world.place.work(&other).await;
    eventually("the other one runs", || ["daemon", "task"].iter().all(|name| pid(&others.join(name)).is_some())).await;
    let others: Vec<i32> = ["daemon", "task"].iter().map(|name| pid(&others.join(name)).unwrap()).collect();
    std::fs::write(&gate, "").unwrap();
    assert_outcome(&world.scheduler.result(&attempt).await, Outcome::Succeeded);
    // All but the one that wiped its environment while another task ran: nobody can say whose it is.
    let bare = pids[3];
    all_end(&pids.iter().copied().filter(|pid| *pid != bare).collect::<Vec<_>>()).await;
    assert!(others.iter().all(|pid| lives(*pid)), "the other task is untouched");
    world.launcher.cancel(std::slice::from_ref(&other), 10).await.unwrap();
    all_end(&others).await;
    all_end(&[bare]).await;
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_supervisor_is_killed_its_tasks_end_and_a_new_one_takes_over() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let host = Host::start(&place, &scheduler);
    let address = registered(&scheduler, 1).await;
    let mut launcher = Launcher::to(address, 1).await;
    let digest = scheduler.put_blob(&script(&ESCAPES.replace("env -i ", "")));
    let attempt = launcher.launch_all(group(&scheduler, job(), &digest, 0..1)).await.remove(0);
    let pids = escaped(&place.work(&attempt).await).await;
    let supervisor = child_of(host.0.id()).expect("the executor has a supervisor");
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    let finished = scheduler.result(&attempt).await;
    assert_outcome(&finished, Outcome::ExecutorLost);
    assert!(finished.message.contains("supervisor"), "{}", finished.message);
    all_end(&pids).await;
    assert!(!lives(supervisor));
    let digest = scheduler.put_blob(&argv(&["true"]));
    let attempt = launcher.launch_all(group(&scheduler, job(), &digest, 0..1)).await.remove(0);
    assert_outcome(&scheduler.result(&attempt).await, Outcome::Succeeded);
}

fn child_of(parent: u32) -> Option<i32> {
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|process| {
        let pid: i32 = process.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let of: u32 = stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    })
}
