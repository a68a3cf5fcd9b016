//! Whole devices: each task is told which ones are its own, and no two tasks that run have one in common, however they end.

use muster_executor::DeviceNames;
use muster_proto::v1::{self, AttemptRef, Outcome};

use crate::fake::Scheduler;
use crate::launcher::Launcher;
use crate::world::{Place, World, assert_outcome, eventually, group, job, script};

/// Takes a lock on each of its devices, which the kernel gives back with its last process, and fails with 9 if somebody
/// has it. Then it leaves a note of what it has, and does what follows.
const LOCKS: &str = r#"
fd=3
for device in $(echo "$MUSTER_RESOURCE_gpu" | tr , ' '); do
    eval "exec $fd> $LOCKS/$device"
    flock -n $fd || exit 9
    fd=$((fd + 1))
done
echo "$MUSTER_RESOURCE_gpu" > has
"#;

fn cards(names: &[&str]) -> DeviceNames {
    [("gpu".to_owned(), names.iter().map(|name| (*name).to_owned()).collect())].into()
}

/// One task that needs so many devices, and runs that after [`LOCKS`].
fn using(scheduler: &Scheduler, locks: &std::path::Path, gpu: u32, then: &str) -> v1::LaunchGroup {
    let mut work = script(&format!("{LOCKS}{then}"));
    work.env.insert("LOCKS".to_owned(), locks.display().to_string());
    let mut group = group(scheduler, job(), &scheduler.put_blob(&work), 0..1);
    let named = [("gpu".to_owned(), gpu)].into();
    group.resources = Some(v1::Resources { cpu_milli: 10, named, ..v1::Resources::default() });
    group
}

/// What a task said that it has, once it runs.
async fn has(place: &Place, attempt: &AttemptRef) -> String {
    let note = place.work(attempt).await.join("has");
    let read = || std::fs::read_to_string(&note).unwrap_or_default();
    eventually("the task runs", || read().ends_with('\n')).await;
    read().trim().to_owned()
}

async fn go_on(place: &Place, attempt: &AttemptRef) {
    std::fs::write(place.work(attempt).await.join("go"), "").unwrap();
}

const UNTIL_TOLD: &str = "until [ -e go ]; do sleep 0.02; done";

#[tokio::test(flavor = "multi_thread")]
async fn each_task_has_devices_of_its_own_for_as_long_as_it_runs() {
    let mut world = World::with(|options| {
        options.devices = cards(&["0", "1", "3"]);
        options.resources.named.insert("example.com/seat".to_owned(), 5);
    })
    .await;
    let locks = tempfile::tempdir().unwrap();
    let total =
        world.scheduler.until("it registers", |state| state.seen.registrations.last().map(|r| r.total.clone())).await;
    assert_eq!(total.unwrap().named["gpu"], 3, "what schedulers count");

    let launch = |gpu, then| using(&world.scheduler, locks.path(), gpu, then);
    let (one, two, waits) = (launch(1, UNTIL_TOLD), launch(2, UNTIL_TOLD), launch(2, UNTIL_TOLD));
    let one = world.launcher.launch_all(one).await.remove(0);
    let two = world.launcher.launch_all(two).await.remove(0);
    let waits = world.launcher.launch_all(waits).await.remove(0);
    assert_eq!((has(&world.place, &one).await, has(&world.place, &two).await), ("0".to_owned(), "1,3".to_owned()));
    go_on(&world.place, &one).await;
    assert_outcome(&world.scheduler.result(&one).await, Outcome::Succeeded);
    assert!(world.place.runs_in(&waits).is_none(), "one is free, and it needs two");
    go_on(&world.place, &two).await;
    assert_outcome(&world.scheduler.result(&two).await, Outcome::Succeeded);
    assert_eq!(has(&world.place, &waits).await, "0,1");
    go_on(&world.place, &waits).await;
    assert_outcome(&world.scheduler.result(&waits).await, Outcome::Succeeded);

    let mut counted = group(&world.scheduler, job(), "", 0..1);
    counted.spec_digest =
        world.scheduler.put_blob(&script("echo $MUSTER_RESOURCE_example_com_seat-$MUSTER_RESOURCE_gpu"));
    let named = [("example.com/seat".to_owned(), 2)].into();
    counted.resources = Some(v1::Resources { cpu_milli: 10, named, ..v1::Resources::default() });
    let counted = world.launcher.launch_all(counted).await.remove(0);
    assert_outcome(&world.scheduler.result(&counted).await, Outcome::Succeeded);
    assert_eq!(std::fs::read_to_string(world.place.room(&counted).join("stdout")).unwrap(), "2-\n");
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_not_given_on_before_the_task_that_is_killed_is_gone() {
    let mut world = World::with(|options| options.devices = cards(&["only"])).await;
    let locks = tempfile::tempdir().unwrap();
    // It does not heed SIGTERM, and neither does what it left behind: that has the lock, too.
    let stubborn = format!("trap '' TERM; (trap '' TERM; sleep 1000) & {UNTIL_TOLD}; exit 0");
    let stubborn = using(&world.scheduler, locks.path(), 1, &stubborn);
    let next = using(&world.scheduler, locks.path(), 1, "exit 0");
    let stubborn = world.launcher.launch_all(stubborn).await.remove(0);
    let next = world.launcher.launch_all(next).await.remove(0);
    assert_eq!(has(&world.place, &stubborn).await, "only");
    world.launcher.cancel(std::slice::from_ref(&stubborn), 10).await.unwrap();
    assert_outcome(&world.scheduler.result(&stubborn).await, Outcome::Cancelled);
    assert_outcome(&world.scheduler.result(&next).await, Outcome::Succeeded);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_an_earlier_life_are_free_only_once_its_tasks_are_gone() {
    let (place, scheduler, locks) = (Place::new(), Scheduler::start().await, tempfile::tempdir().unwrap());
    let mut options = place.options(&scheduler);
    options.devices = cards(&["a", "b"]);
    let first = muster_executor::Executor::start(options.clone()).await.unwrap();
    let mut launcher = Launcher::new(&first).await;
    let stubborn = "trap '' TERM; (trap '' TERM; sleep 1000) & while :; do sleep 0.05; done";
    let both = launcher.launch_all(using(&scheduler, locks.path(), 2, stubborn)).await.remove(0);
    assert_eq!(has(&place, &both).await, "a,b");
    // As when its process is killed: the supervisor notices, and ends the tasks with a grace.
    first.kill().await;
    drop(first);
    let mut second = None;
    while second.is_none() {
        match muster_executor::Executor::start(options.clone()).await {
            Ok(handle) => second = Some(handle),
            Err(muster_executor::Error::DataDirInUse(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
    let second = second.unwrap();
    let mut launcher = Launcher::new(&second).await;
    let again = launcher.launch_all(using(&scheduler, locks.path(), 2, "exit 0")).await.remove(0);
    assert_outcome(&scheduler.result(&again).await, Outcome::Succeeded);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_cannot_be_told_apart_are_refused_with_a_remedy() {
    let (place, scheduler) = (Place::new(), Scheduler::start().await);
    let refused = async |change: fn(&mut muster_executor::Options)| {
        let mut options = place.options(&scheduler);
        options.devices = cards(&["0"]);
        change(&mut options);
        muster_executor::Executor::start(options).await.expect_err("refused").to_string()
    };
    let twice = refused(|options| options.devices = cards(&["0", "0"])).await;
    assert!(twice.contains("device 0 of gpu is given twice; name each once"), "{twice}");
    let both = refused(|options| options.resources.named.extend([("gpu".to_owned(), 1)])).await;
    assert!(both.contains("keep one of the two"), "{both}");
    let cpu = refused(|options| drop(options.devices.insert("cpu".to_owned(), vec!["0".to_owned()]))).await;
    assert!(cpu.contains("'cpu' cannot name a resource made of devices"), "{cpu}");
}
