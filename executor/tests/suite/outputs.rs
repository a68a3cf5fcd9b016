//! Outputs, inputs, and reading both and logs from outside.

use std::os::unix::fs::PermissionsExt as _;

use muster_executor::Handle;
use muster_proto::v1::data_client::DataClient;
use muster_proto::v1::output_chunk::Part;
use muster_proto::v1::{self, AttemptRef, InputKind, Outcome};
use tonic::{Code, Status, Streaming};

use crate::fake::Scheduler;
use crate::launcher::Launcher;
use crate::world::{Place, World, argv, assert_outcome, group, job, script};

pub(crate) async fn open_log(
    handle: &Handle,
    attempt: &AttemptRef,
    stream: v1::Stream,
    follow: bool,
    offset: u64,
) -> Result<Streaming<v1::LogChunk>, Status> {
    let mut client = DataClient::connect(format!("http://{}", handle.address())).await.unwrap();
    let request = v1::ReadLogRequest { attempt: Some(attempt.clone()), stream: stream as i32, follow, offset };
    Ok(client.read_log(request).await?.into_inner())
}

pub(crate) async fn read_log(
    handle: &Handle,
    attempt: &AttemptRef,
    stream: v1::Stream,
    follow: bool,
    offset: u64,
) -> Result<Vec<v1::LogChunk>, Status> {
    let mut log = open_log(handle, attempt, stream, follow, offset).await?;
    let mut chunks = Vec::new();
    while let Some(chunk) = log.message().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// All files, and the checksum at the end.
pub(crate) async fn fetch(
    handle: &Handle,
    attempt: &AttemptRef,
    part: Option<u32>,
) -> Result<(Vec<(String, Vec<u8>)>, u64), Status> {
    let mut client = DataClient::connect(format!("http://{}", handle.address())).await.unwrap();
    let request = v1::FetchOutputRequest { attempt: Some(attempt.clone()), part };
    let mut stream = client.fetch_output(request).await?.into_inner();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    while let Some(chunk) = stream.message().await? {
        match chunk.part.unwrap() {
            Part::File(start) => files.push((start.path, Vec::new())),
            Part::Data(data) => files.last_mut().unwrap().1.extend_from_slice(&data),
            Part::End(end) => return Ok((files, end.checksum)),
        }
    }
    panic!("the stream has no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_published_whole_and_only_of_successes() {
    let mut world = World::new().await;
    let text = "cd $MUSTER_OUTPUT_DIR; mkdir -p d/e; printf hello > d/x; printf 1 > 1; printf 11 > 11; \
                ln -s d/x link; printf '#!' > d/e/run; chmod 755 d/e/run; exit $CODE";
    let mut work = script(text);
    work.env.insert("CODE".to_owned(), "0".to_owned());
    let (attempt, finished) = world.run(&work).await;
    assert_outcome(&finished, Outcome::Succeeded);
    let output = finished.output.unwrap();
    assert_eq!((output.files, output.bytes), (5, 5 + 1 + 2 + 3 + 2));
    let (files, checksum) = fetch(&world.handle, &attempt, None).await.unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["1", "11", "d/e/run", "d/x", "link"]);
    assert_eq!((files[3].1.as_slice(), files[4].1.as_slice()), (&b"hello"[..], &b"d/x"[..]));
    assert_eq!(checksum, output.checksum);
    let (files, part) = fetch(&world.handle, &attempt, Some(1)).await.unwrap();
    assert_eq!(files, [("1".to_owned(), b"1".to_vec())]);
    assert_ne!(part, checksum);
    assert_eq!(fetch(&world.handle, &attempt, Some(7)).await.unwrap(), (vec![], 0), "no data for that part");
    let published = world.place.room(&attempt).join("published");
    assert_eq!(std::fs::metadata(published.join("d/x")).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(std::fs::metadata(published.join("d/e/run")).unwrap().permissions().mode() & 0o777, 0o555);

    // The same again is the same; a failure shows nothing.
    let (_, again) = world.run(&work).await;
    assert_eq!(again.output.unwrap().checksum, output.checksum);
    work.env.insert("CODE".to_owned(), "1".to_owned());
    let (failed, finished) = world.run(&work).await;
    assert_outcome(&finished, Outcome::Failed);
    assert_eq!(finished.output, None);
    assert_eq!(fetch(&world.handle, &failed, None).await.unwrap_err().code(), Code::NotFound);

    // What is damaged is told as lost.
    std::fs::remove_file(published.join("d/x")).unwrap();
    assert_eq!(fetch(&world.handle, &attempt, None).await.unwrap_err().code(), Code::DataLoss);
    world.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_cannot_be_passed_on_fail_their_task_with_a_remedy() {
    let mut world = World::new().await;
    for (text, word) in [
        ("ln -s /etc/passwd $MUSTER_OUTPUT_DIR/secret", "out of the output"),
        ("mkdir $MUSTER_OUTPUT_DIR/d; ln -s ../../x $MUSTER_OUTPUT_DIR/d/l", "out of the output"),
        ("mkfifo $MUSTER_OUTPUT_DIR/pipe", "neither a file"),
    ] {
        let (_, finished) = world.run(&script(text)).await;
        assert_outcome(&finished, Outcome::Failed);
        assert!(finished.message.contains(word), "{}", finished.message);
    }
    world.handle.stop().await;
}

/// Stage 1 reads what two tasks of stage 0 on two executors left, as `kind`.
struct Upstream {
    scheduler: Scheduler,
    places: [Place; 2],
    handles: [Handle; 2],
    locations: Vec<v1::Location>,
    job: muster_graph::ids::JobId,
}

impl Upstream {
    async fn new() -> Self {
        let scheduler = Scheduler::start().await;
        let places = [Place::new(), Place::new()];
        let handles = [places[0].executor(&scheduler).await, places[1].executor(&scheduler).await];
        let digest = scheduler.put_blob(&script(
            "cd $MUSTER_OUTPUT_DIR; echo zero-$MUSTER_TASK_INDEX > 0; mkdir 1; echo one-$MUSTER_TASK_INDEX > 1/x",
        ));
        let job = job();
        let mut locations = Vec::new();
        for (index, handle) in (0..).zip(&handles) {
            let launch = group(&scheduler, job, &digest, index..index + 1);
            let attempt = Launcher::new(handle).await.launch_all(launch).await.remove(0);
            let finished = scheduler.result(&attempt).await;
            assert_outcome(&finished, Outcome::Succeeded);
            locations.push(v1::Location {
                index,
                attempt: 1,
                executor_id: handle.executor_id().to_owned(),
                address: handle.address().to_string(),
                output: finished.output,
            });
        }
        // A third one left nothing.
        let output = Some(v1::Output::default());
        locations.push(v1::Location { index: 2, attempt: 1, output, ..locations[0].clone() });
        Self { scheduler, places, handles, locations, job }
    }

    fn inputs(&self, revision: u64, kind: InputKind) {
        let upstream = v1::UpstreamOutputs {
            stage_name: "ma/p ü".to_owned(),
            stage: 0,
            kind: kind as i32,
            locations: self.locations.clone(),
            below: Vec::new(),
        };
        self.scheduler.with(|state| state.inputs.insert((1, revision), Ok(vec![upstream])));
    }

    /// Runs task `index` of stage 1 on the first executor.
    async fn read(&self, text: &str, index: u32, revision: u64) -> (AttemptRef, v1::AttemptFinished) {
        let digest = self.scheduler.put_blob(&script(text));
        let mut launch = group(&self.scheduler, self.job, &digest, index..index + 1);
        (launch.stage, launch.inputs_revision) = (1, revision);
        launch.attempts[0].attempt = u32::try_from(revision).unwrap();
        let attempt = Launcher::new(&self.handles[0]).await.launch_all(launch).await.remove(0);
        let finished = self.scheduler.result(&attempt).await;
        (attempt, finished)
    }

    async fn stop(&self) {
        for handle in &self.handles {
            handle.stop().await;
        }
    }
}

const READ_ALL: &str =
    "cd $MUSTER_INPUT_DIR/ma%2Fp%20%C3%BC; ls | tr '\\n' ' '; find -L . -type f | sort | xargs cat; test -L 0";

#[tokio::test(flavor = "multi_thread")]
async fn inputs_come_from_other_executors_and_local_ones_are_linked() {
    let upstream = Upstream::new().await;
    upstream.inputs(1, InputKind::All);
    let (attempt, finished) = upstream.read(READ_ALL, 0, 1).await;
    assert_outcome(&finished, Outcome::Succeeded);
    let stdout =
        |attempt: &AttemptRef| std::fs::read_to_string(upstream.places[0].room(attempt).join("stdout")).unwrap();
    assert_eq!(stdout(&attempt), "0 1 2 zero-0\none-0\nzero-1\none-1\n");

    upstream.inputs(2, InputKind::Shuffle);
    let text = "cd $MUSTER_INPUT_DIR/*; cat */$MUSTER_TASK_INDEX/x; find -L . -type f | wc -l";
    let (attempt, finished) = upstream.read(text, 1, 2).await;
    assert_outcome(&finished, Outcome::Succeeded);
    assert_eq!(stdout(&attempt).split_whitespace().collect::<Vec<_>>(), ["one-0", "one-1", "2"]);
    let (attempt, finished) = upstream.read("cd $MUSTER_INPUT_DIR/*; cat */$MUSTER_TASK_INDEX", 0, 2).await;
    assert_outcome(&finished, Outcome::Succeeded);
    assert_eq!(stdout(&attempt), "zero-0\nzero-1\n");

    // `each` comes with the launch.
    let digest = upstream.scheduler.put_blob(&script("cat $MUSTER_INPUT_DIR/up/1/0"));
    let mut launch = group(&upstream.scheduler, upstream.job, &digest, 1..2);
    launch.stage = 2;
    launch.attempts[0].each = vec![v1::EachInput {
        stage_name: "up".to_owned(),
        location: Some(upstream.locations[1].clone()),
        ..v1::EachInput::default()
    }];
    let attempt = Launcher::new(&upstream.handles[0]).await.launch_all(launch).await.remove(0);
    assert_outcome(&upstream.scheduler.result(&attempt).await, Outcome::Succeeded);
    assert_eq!(stdout(&attempt), "zero-1\n");
    upstream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_inputs_are_told_apart_from_unreachable_ones() {
    let upstream = Upstream::new().await;
    upstream.inputs(1, InputKind::All);
    let executor_id = |index: u32| upstream.locations[index as usize].executor_id.clone();
    let lost = |index, gone| v1::LostOutput { stage: 0, index, attempt: 1, gone, executor_id: executor_id(index) };
    let first = AttemptRef { job_id: upstream.job.to_string(), stage: 0, index: 0, attempt: 1 };
    let second = AttemptRef { index: 1, ..first.clone() };

    // Corrupt there, gone here: both are told at once.
    let remote = upstream.places[1].room(&second).join("published/0");
    std::fs::remove_file(&remote).unwrap();
    std::fs::write(&remote, "zero-X\n").unwrap();
    std::fs::remove_file(upstream.places[0].room(&first).join("manifest")).unwrap();
    let (_, finished) = upstream.read(READ_ALL, 0, 1).await;
    assert_outcome(&finished, Outcome::InputUnreadable);
    assert_eq!(finished.unreadable, [lost(0, true), lost(1, true)], "{}", finished.message);
    assert!(finished.started_at_ms == 0 && finished.message.contains("stage 0"), "{}", finished.message);

    // Unknown there.
    std::fs::remove_dir_all(upstream.places[1].path().join("jobs").join(&second.job_id)).unwrap();
    upstream.inputs(2, InputKind::Shuffle);
    let (_, finished) = upstream.read(READ_ALL, 0, 2).await;
    assert_eq!(finished.unreadable, [lost(0, true), lost(1, true)], "{}", finished.message);

    // Out of reach is not gone.
    upstream.handles[1].stop().await;
    upstream.inputs(3, InputKind::All);
    let (_, finished) = upstream.read(READ_ALL, 0, 3).await;
    assert_outcome(&finished, Outcome::InputUnreadable);
    assert_eq!(finished.unreadable, [lost(0, true), lost(1, false)], "{}", finished.message);

    // Moved on: the scheduler knows what to do.
    let (_, finished) = upstream.read(READ_ALL, 0, 99).await;
    assert_outcome(&finished, Outcome::InputUnreadable);
    assert!(finished.message.contains("moved on"), "{}", finished.message);
    upstream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_without_an_input_that_is_being_made_again() {
    let mut upstream = Upstream::new().await;
    let nobody = v1::Location { executor_id: String::new(), address: String::new(), ..upstream.locations[1].clone() };
    upstream.locations[1] = nobody;
    upstream.inputs(1, InputKind::All);
    let (_, finished) = upstream.read(READ_ALL, 0, 1).await;
    assert_outcome(&finished, Outcome::InputUnreadable);
    let lost: Vec<_> = finished.unreadable.iter().map(|lost| (lost.index, lost.gone)).collect();
    assert_eq!((lost, finished.started_at_ms), (vec![(1, true)], 0), "{}", finished.message);
    upstream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_do_not_hold_are_asked_for_again() {
    let mut upstream = Upstream::new().await;
    upstream.locations[1].attempt = 9;
    upstream.inputs(1, InputKind::All);
    let (_, finished) = upstream.read(READ_ALL, 0, 1).await;
    assert_outcome(&finished, Outcome::InputUnreadable);
    // Another owner, for instance, may tell it under the same number.
    upstream.locations[1].attempt = 1;
    upstream.inputs(1, InputKind::All);
    let (_, finished) = upstream.read(READ_ALL, 1, 1).await;
    assert_outcome(&finished, Outcome::Succeeded);
    upstream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_jobs_leave_nothing() {
    let mut world = World::new().await;
    let (attempt, finished) = world.run(&script("echo x > $MUSTER_OUTPUT_DIR/x; echo log")).await;
    assert_outcome(&finished, Outcome::Succeeded);
    let files = world.place.path().join("jobs").join(&attempt.job_id);
    assert!(files.exists());
    let request = v1::ForgetJobsRequest { job_ids: vec![attempt.job_id.clone()] };
    world.launcher.client.forget_jobs(request).await.unwrap();
    crate::world::eventually("the files are gone", || !files.exists()).await;
    assert_eq!(fetch(&world.handle, &attempt, None).await.unwrap_err().code(), Code::NotFound);
    let log = read_log(&world.handle, &attempt, v1::Stream::Stdout, false, 0).await;
    assert_eq!(log.unwrap_err().code(), Code::NotFound);

    // What leaves nothing leaves no directories either.
    let (attempt, _) = world.run(&argv(&["true"])).await;
    assert!(!world.place.room(&attempt).exists());
    world.handle.stop().await;
}
