//! Outputs that an executor which leaves gives to one that stays.

use std::time::Duration;

use muster_executor::Handle;
use muster_proto::v1::data_client::DataClient;
use muster_proto::v1::executor_client::ExecutorClient;
use muster_proto::v1::{self, AttemptRef, Outcome};
use tonic::Code;

use crate::fake::{DEADLINE, Scheduler, key};
use crate::launcher::Launcher;
use crate::outputs::{fetch, read_log};
use crate::world::{Place, assert_outcome, eventually, group, job, script};

/// Two executors; the first has made two outputs.
struct Leaving {
    scheduler: Scheduler,
    places: [Place; 2],
    leaves: Handle,
    stays: Handle,
    attempts: Vec<AttemptRef>,
    outputs: Vec<Option<v1::Output>>,
}

impl Leaving {
    async fn new(pull: bool) -> Self {
        let scheduler = Scheduler::start().await;
        let places = [Place::new(), Place::new()];
        let leaves = places[0].executor(&scheduler).await;
        let stays = if pull { places[1].puller(&scheduler).await } else { places[1].executor(&scheduler).await };
        let digest = scheduler.put_blob(&script(
            "echo out-$MUSTER_TASK_INDEX; test $MUSTER_TASK_INDEX = 0 || echo err >&2; cd $MUSTER_OUTPUT_DIR; mkdir d; \
             echo made-$MUSTER_TASK_INDEX > d/x; ln -s d/x link",
        ));
        let launch = group(&scheduler, job(), &digest, 0..2);
        let attempts = Launcher::new(&leaves).await.launch_all(launch).await;
        let mut outputs = Vec::new();
        for attempt in &attempts {
            let finished = scheduler.result(attempt).await;
            assert_outcome(&finished, Outcome::Succeeded);
            outputs.push(finished.output);
        }
        scheduler.with(|state| state.needed = vec![attempts[0].job_id.clone()]);
        Self { scheduler, places, leaves, stays, attempts, outputs }
    }

    /// One of them is to be had by an executor at an address.
    fn to(&self, index: usize, executor_id: &str, address: &str) -> v1::HandOver {
        let attempt = Some(AttemptRef { job_id: String::new(), ..self.attempts[index].clone() });
        v1::HandOver {
            executor_id: executor_id.to_owned(),
            address: address.to_owned(),
            job_id: self.attempts[index].job_id.clone(),
            outputs: vec![v1::KeptOutput { attempt, output: self.outputs[index], ..v1::KeptOutput::default() }],
        }
    }

    fn to_who_stays(&self, index: usize) -> v1::HandOver {
        self.to(index, self.stays.executor_id(), &self.stays.address().to_string())
    }

    async fn drain(&self, executor: &Handle) {
        let mut client = ExecutorClient::connect(format!("http://{}", executor.address())).await.unwrap();
        client.stop_executor(v1::StopExecutorRequest { drain: true, ..Default::default() }).await.unwrap();
    }

    async fn is_kept(&self, index: usize) {
        let attempt = &self.attempts[index];
        let (files, checksum) = fetch(&self.stays, attempt, None).await.unwrap();
        assert_eq!(files[0], ("d/x".to_owned(), format!("made-{index}\n").into_bytes()));
        assert_eq!((files.len(), Some(checksum)), (2, self.outputs[index].map(|output| output.checksum)));
        let log = read_log(&self.stays, attempt, v1::Stream::Unspecified, false, 0).await.unwrap();
        let text: Vec<u8> = log.iter().flat_map(|chunk| chunk.data.clone()).collect();
        let printed = if index == 0 { "out-0\n" } else { "out-1\nerr\n" };
        assert_eq!(String::from_utf8(text).unwrap(), printed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_logs_go_to_who_stays_and_then_the_executor_leaves() {
    for pull in [false, true] {
        let world = Leaving::new(pull).await;
        // Nobody is at the address of one heir: that output stays until another one is found.
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let plan = vec![world.to_who_stays(0), world.to(1, "nobody", &nowhere)];
        world.scheduler.with(|state| state.hand_over = plan);
        world.drain(&world.leaves).await;
        let moved = |index: usize| (key(&world.attempts[index]), world.stays.executor_id().to_owned());
        let first = moved(0);
        world.scheduler.until("one has moved", |state| state.seen.moved.contains(&first).then_some(())).await;
        world.is_kept(0).await;
        assert!(tokio::time::timeout(Duration::from_millis(300), world.leaves.finished()).await.is_err());

        world.scheduler.with(|state| state.hand_over = vec![world.to_who_stays(1)]);
        tokio::time::timeout(DEADLINE, world.leaves.finished()).await.expect("it has nothing left that is needed");
        assert_eq!(world.scheduler.with(|state| state.seen.moved.clone()), [moved(0), moved(1)]);
        assert_eq!(world.scheduler.with(|state| state.seen.stopped.len()), 1);
        world.is_kept(1).await;
        world.stays.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_at_once_hands_over_what_others_take_and_does_not_wait_for_the_rest() {
    let world = Leaving::new(false).await;
    // One of them is damaged.
    let damaged = world.places[0].room(&world.attempts[1]).join("published/d/x");
    std::fs::remove_file(&damaged).unwrap();
    std::fs::write(&damaged, "other!\n").unwrap();
    world.scheduler.with(|state| state.hand_over = vec![world.to_who_stays(0), world.to_who_stays(1)]);
    tokio::time::timeout(DEADLINE, world.leaves.stop()).await.expect("it stops");
    let moved = (key(&world.attempts[0]), world.stays.executor_id().to_owned());
    assert_eq!(world.scheduler.with(|state| state.seen.moved.clone()), [moved]);
    world.is_kept(0).await;
    assert_eq!(fetch(&world.stays, &world.attempts[1], None).await.unwrap_err().code(), Code::NotFound);
    world.stays.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_kept_once_and_only_by_who_is_meant_and_stays() {
    let world = Leaving::new(false).await;
    let mut heir = DataClient::connect(format!("http://{}", world.stays.address())).await.unwrap();
    let request = |executor_id: &str| v1::KeepOutputsRequest {
        executor_id: executor_id.to_owned(),
        from_address: world.leaves.address().to_string(),
        job_id: world.attempts[0].job_id.clone(),
        outputs: world.to_who_stays(0).outputs,
    };
    let wrong = heir.keep_outputs(request("another")).await.unwrap_err();
    assert_eq!((wrong.code(), wrong.message().contains("executor_id")), (Code::FailedPrecondition, true), "{wrong}");
    let bad = v1::KeepOutputsRequest { job_id: "../x".to_owned(), ..request(world.stays.executor_id()) };
    assert_eq!(heir.keep_outputs(bad).await.unwrap_err().code(), Code::InvalidArgument);

    let there = world.places[1].room(&world.attempts[0]).join("published/d/x");
    let mut written = None;
    for _ in 0..2 {
        let mut answers = heir.keep_outputs(request(world.stays.executor_id())).await.unwrap().into_inner();
        let mut kept = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            assert_eq!((answer.incarnation, answer.problem.as_str()), (1, ""));
            kept.extend(answer.kept);
        }
        assert_eq!((kept.len(), kept[0].index, kept[0].attempt), (1, 0, 1));
        let now = std::fs::metadata(&there).unwrap().modified().unwrap();
        assert_eq!(*written.get_or_insert(now), now, "what is there is not fetched again");
    }

    world.drain(&world.stays).await;
    eventually("it takes nothing new", || world.scheduler.with(|state| state.seen.registrations.len() > 2)).await;
    let refused = heir.keep_outputs(request(world.stays.executor_id())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    world.leaves.stop().await;
    world.stays.stop().await;
}
