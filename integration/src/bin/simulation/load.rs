//! The users of the simulated cluster: they submit jobs, crash and submit again, cancel some, and wait for the end.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use muster_client::{Client, Error, JobId, TaskFilter};
use muster_integration::checker::{Cancelled, Submitted};
use muster_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use crate::hosts::{client, network, scheduler};
use crate::inputs;
use crate::judge::micros;
use crate::tasks::GRACE;
use crate::world::{World, address, now};

/// Between two tries of a user whose call failed.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A namespace for which rules are set now and then.
const LIMITED: &str = "limited";
/// Groups of each namespace; the inner one is cancelled now and then.
const GROUPS: [&str; 2] = ["outer", "outer/inner"];

/// What one user wants.
#[derive(Debug, Clone)]
struct Wish {
    key: String,
    spec: v1::JobSpec,
    submit_after: Duration,
    cancel_group_after: Option<Duration>,
    cancel_after: Option<Duration>,
}

/// Everything that the users of one host do. Ends when all of their jobs are over.
pub(crate) async fn run_client(world: Arc<World>, index: usize, schedulers: usize, jobs: usize) -> turmoil::Result {
    make_groups(&world, index, schedulers).await;
    let wishes: Vec<Wish> = (0..jobs).map(|job| wish(&world, index, job)).collect();
    join_all(wishes.into_iter().map(|wish| follow(&world, index, schedulers, wish))).await;
    Ok(())
}

fn wish(world: &World, client: usize, job: usize) -> Wish {
    Wish {
        key: format!("key-{client}-{job}"),
        spec: spec(world, &format!("job-{client}-{job}")),
        submit_after: world.millis(0, 9000),
        cancel_group_after: world.odds(150).then(|| world.millis(0, 1500)),
        cancel_after: world.odds(150).then(|| world.millis(0, 3000)),
    }
}

/// A job of some small stages, each reading some of those before it.
fn spec(world: &World, name: &str) -> v1::JobSpec {
    let stages = world.between(1, 4);
    let width = u32::try_from(world.between(1, 8)).expect("small");
    let stages = (0..stages)
        .map(|stage| {
            let mut inputs = Vec::new();
            let mut after = Vec::new();
            if stage > 0 {
                let before = format!("s{}", world.between(0, stage - 1));
                match world.between(0, 3) {
                    0 => after.push(before),
                    1 => inputs.push((before, v1::InputKind::All)),
                    2 => inputs.push((before, v1::InputKind::Each)),
                    _ => inputs.push((before, v1::InputKind::Shuffle)),
                }
            }
            let when = match world.between(0, 11) {
                0 if stage > 0 => v1::When::Always,
                1 if stage > 0 => v1::When::OnFailure,
                _ => v1::When::OnSuccess,
            };
            let retries = u32::try_from(world.between(0, 4)).expect("small");
            let expected = inputs.first().map(|(_, kind)| {
                let kind = kind.as_str_name().trim_start_matches("INPUT_KIND_").to_lowercase();
                // What failed left nothing, and may have been read all the same.
                let kind = if when == v1::When::OnSuccess { kind } else { "whatever".to_owned() };
                (inputs::EXPECTED.to_owned(), format!("{kind} {width}"))
            });
            v1::StageSpec {
                env: expected.into_iter().collect(),
                name: format!("s{stage}"),
                work: Some(v1::stage_spec::Work::Process(v1::Process {
                    run: Some(v1::process::Run::Argv(v1::Argv { args: vec!["/bin/true".to_owned()] })),
                })),
                tasks: Some(v1::stage_spec::Tasks::Count(width)),
                inputs: inputs
                    .into_iter()
                    .map(|(stage, kind)| v1::Input { stage, kind: kind.into(), ..v1::Input::default() })
                    .collect(),
                after,
                when: when.into(),
                resources: Some(v1::Resources { cpu_milli: 1000, ..Default::default() }),
                retries: Some(v1::Retries {
                    failed: Some(retries),
                    out_of_memory: Some(retries),
                    backoff_ms: world.between(1, 300),
                    ..Default::default()
                }),
                timeout_ms: if world.odds(150) { 1500 } else { 0 },
                grace_ms: u64::try_from(GRACE.as_millis()).expect("short"),
                stop_after: world.odds(300).then(v1::StopAfter::default),
                ..Default::default()
            }
        })
        .collect();
    let stages = nested(world, stages);
    let disconnect = match world.between(0, 9) {
        0..=2 => v1::Disconnect { lost_after_ms: world.between(1000, 4000), wait: false },
        3 => v1::Disconnect { lost_after_ms: 0, wait: true },
        _ => v1::Disconnect::default(),
    };
    v1::JobSpec {
        name: name.to_owned(),
        namespace: if world.odds(300) { LIMITED } else { "default" }.to_owned(),
        group: match world.between(0, 3) {
            0 => GROUPS[0].to_owned(),
            1 => GROUPS[1].to_owned(),
            _ => String::new(),
        },
        max_running: world.odds(150).then(|| u32::try_from(world.between(1, 4)).expect("small")),
        stages,
        disconnect: Some(disconnect),
        // With so much in it a job takes the packed layout.
        env: if world.odds(400) { [("LARGE".to_owned(), "x".repeat(20_000))].into() } else { Default::default() },
        ..Default::default()
    }
}

/// Sometimes the first stages are a job in the job, whose output is that of the last of them; and then perhaps once more.
fn nested(world: &World, mut stages: Vec<v1::StageSpec>) -> Vec<v1::StageSpec> {
    if !world.odds(250) {
        return stages;
    }
    let inside = usize::try_from(world.between(1, stages.len() as u64)).expect("few");
    let outside = stages.split_off(inside);
    let hidden: Vec<String> = stages.iter().map(|stage| stage.name.clone()).collect();
    let stages = nested(world, stages);
    let outputs = stages.last().map(|last| v1::Outputs { of: Some(v1::outputs::Of::Stage(last.name.clone())) });
    let inline = v1::JobSpec { name: "inside".to_owned(), stages, outputs, ..Default::default() };
    let name = format!("job-of-{inside}");
    let job = v1::NestedJob { source: Some(v1::nested_job::Source::Inline(inline)), ..Default::default() };
    let reference =
        v1::StageSpec { name: name.clone(), work: Some(v1::stage_spec::Work::Job(job)), ..Default::default() };
    let outside = outside.into_iter().map(|mut stage| {
        let seen = stage.inputs.iter_mut().map(|input| &mut input.stage).chain(&mut stage.after);
        seen.filter(|upstream| hidden.contains(upstream)).for_each(|upstream| upstream.clone_from(&name));
        stage
    });
    std::iter::once(reference).chain(outside).collect()
}

fn has_jobs(spec: &v1::JobSpec) -> bool {
    spec.stages.iter().any(|stage| matches!(stage.work, Some(v1::stage_spec::Work::Job(_))))
}

async fn connect(world: &Arc<World>, index: usize, schedulers: usize) -> Client {
    let options = muster_client::Options {
        first_contact_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_millis(500),
        try_timeout: Duration::from_millis(1500),
        call_timeout: Duration::from_secs(5),
        network: network(world, &client(index)),
        ..Default::default()
    };
    // Each life of a user knows one scheduler, and finds the others through it.
    loop {
        let known = address(&scheduler(usize::try_from(world.between(0, schedulers as u64 - 1)).expect("few")));
        if let Ok(client) = Client::connect([known], options.clone()).await {
            return client;
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Says what the cluster tells of the jobs that are not over: for reading a failed seed.
pub(crate) async fn tell_unfinished(world: Arc<World>, schedulers: usize) -> turmoil::Result {
    let cluster = connect(&world, 0, schedulers).await;
    let jobs = cluster.list_jobs(v1::ListJobsRequest::default()).await?.jobs;
    for job in jobs.iter().filter(|job| job.finished_at_ms == 0) {
        let id: JobId = job.job_id.parse()?;
        world.complain(format_args!("not over: {id} {:?} of {}", job.state(), job.owner));
        let (tasks, _) = cluster.tasks(id, &TaskFilter::default(), 100).await?;
        for task in tasks {
            let (state, attempt, on) = (task.state(), task.attempt, &task.executor);
            world.complain(format_args!(
                "  {}/{}#{attempt} {state:?} on '{on}' {}",
                task.stage, task.index, task.message
            ));
        }
    }
    Ok(())
}

/// One job, from the wish to the end.
async fn follow(world: &Arc<World>, index: usize, schedulers: usize, mut wish: Wish) {
    sleep(wish.submit_after).await;
    let mut cluster = connect(world, index, schedulers).await;
    if world.odds(150) {
        let some = |high| u32::try_from(world.between(1, high)).expect("small");
        let rules = v1::NamespaceRules {
            weight: Some(some(1000)),
            max_running: world.odds(700).then(|| some(6)),
            ..Default::default()
        };
        // With the store away nothing is set, and the next user tries.
        let is_set = cluster.set_namespace(LIMITED, rules.clone()).await.is_ok();
        world.note(format_args!("rules {rules:?} {is_set}"));
    }
    if world.odds(200) {
        wish.spec.after_jobs = awaited(world, &wish.spec.namespace);
    }
    let job = loop {
        // A user that crashes between the submit and its answer, and comes back with the same key.
        let patience = if world.strikes(300) {
            world.fault("client-crashed", &wish.key);
            world.millis(1, 60)
        } else {
            Duration::from_secs(3600)
        };
        match timeout(patience, cluster.submit(wish.spec.clone(), Some(wish.key.clone()))).await {
            Ok(Ok(submitted)) => {
                world.note(format_args!("accepted {} {}", wish.key, submitted.job));
                world.record.submitted(Submitted {
                    job: submitted.job,
                    namespace: wish.spec.namespace.clone(),
                    key: wish.key.clone(),
                    spec: wish.spec.name.clone(),
                    at_us: micros(now()),
                });
                if !wish.spec.after_jobs.is_empty() {
                    world.fault("after-jobs", &wish.key);
                }
                if has_jobs(&wish.spec) {
                    world.fault("job-in-job", &wish.key);
                }
                if !world.strikes(200) {
                    break submitted.job;
                }
                world.fault("submitted-twice", &wish.key);
            }
            Ok(Err(error @ (Error::Unavailable { .. } | Error::Unknown { .. } | Error::Refused { .. }))) => {
                world.note(format_args!("submit {} {}", wish.key, kind(&error)));
                sleep(AGAIN_AFTER).await;
            }
            // Its group was cancelled before: then it does without one.
            Ok(Err(Error::Precondition(why))) if !wish.spec.group.is_empty() => {
                world.fault("in-cancelled-group", format_args!("{} {why}", wish.key));
                wish.spec.group.clear();
            }
            Ok(Err(error)) => {
                world.complain(format_args!("submit of {}: {error}", wish.key));
                return;
            }
            Err(_) => cluster = connect(world, index, schedulers).await,
        }
    };
    if let Some(after) = wish.cancel_group_after {
        sleep(after).await;
        cancel_group(world, &cluster, &wish.spec.namespace).await;
    }
    if let Some(after) = wish.cancel_after {
        sleep(after).await;
        cancel(world, &cluster, job).await;
    }
    let view = loop {
        match cluster.get_job(job).await {
            Ok(view) if muster_client::is_finished(&view) => break view,
            Ok(_) | Err(Error::Unavailable { .. } | Error::Unknown { .. } | Error::Refused { .. }) => {}
            Err(error) => {
                world.complain(format_args!("job {job}, which was accepted: {error}"));
                return;
            }
        }
        sleep(AGAIN_AFTER).await;
    };
    world.note(format_args!("finished {} {job} {:?} {:?}", wish.key, view.state(), view.tasks));
    let counts = view.tasks.unwrap_or_default();
    if counts.pending + counts.assigned + counts.running > 0 {
        world.complain(format_args!("job {job} is over, and yet has tasks that are not: {counts:?}"));
    }
    if view.state() != v1::JobState::Cancelled {
        for after in &wish.spec.after_jobs {
            has_waited(world, &cluster, job, after).await;
        }
    }
}

/// Some of the jobs that are there already.
fn awaited(world: &World, namespace: &str) -> Vec<v1::AfterJob> {
    let known = world.record.accepted_in(namespace);
    let ends = [v1::AwaitedEnd::Success, v1::AwaitedEnd::Failure, v1::AwaitedEnd::Any, v1::AwaitedEnd::Any];
    let mut awaited = Vec::new();
    for job in known.iter().rev().take(2) {
        let end = ends[usize::try_from(world.between(0, 3)).expect("small")];
        awaited.push(v1::AfterJob { job_id: job.to_string(), end: end.into() });
    }
    awaited
}

/// A job that was not cancelled has begun, and so what it waited for has ended as it should.
async fn has_waited(world: &World, cluster: &Client, job: JobId, after: &v1::AfterJob) {
    let Ok(awaited) = after.job_id.parse() else { return };
    let state = loop {
        match cluster.get_job(awaited).await {
            Ok(view) => break view.state(),
            Err(Error::Unavailable { .. } | Error::Unknown { .. } | Error::Refused { .. }) => sleep(AGAIN_AFTER).await,
            Err(error) => return world.complain(format_args!("job {awaited}, which was waited for: {error}")),
        }
    };
    let is_met = match after.end() {
        v1::AwaitedEnd::Unspecified | v1::AwaitedEnd::Success => state == v1::JobState::Successful,
        v1::AwaitedEnd::Failure => matches!(state, v1::JobState::Failed | v1::JobState::Cancelled),
        v1::AwaitedEnd::Any => !matches!(state, v1::JobState::Queued | v1::JobState::Running),
    };
    if !is_met {
        world.complain(format_args!("job {job} has begun though {awaited}, which it waited for, is {state:?}"));
    }
}

/// Each user makes sure of them.
async fn make_groups(world: &Arc<World>, index: usize, schedulers: usize) {
    let cluster = connect(world, index, schedulers).await;
    for (namespace, path) in ["default", LIMITED].into_iter().flat_map(|one| GROUPS.map(|path| (one, path))) {
        let request =
            v1::CreateGroupRequest { namespace: namespace.to_owned(), path: path.to_owned(), ..Default::default() };
        loop {
            match cluster.create_group(request.clone()).await {
                Ok(_) => break,
                Err(Error::Unavailable { .. } | Error::Unknown { .. } | Error::Refused { .. }) => {
                    sleep(AGAIN_AFTER).await;
                }
                Err(error) => {
                    world.complain(format_args!("group {path} of {namespace}: {error}"));
                    return;
                }
            }
        }
    }
}

async fn cancel_group(world: &World, cluster: &Client, namespace: &str) {
    let path = GROUPS[1];
    loop {
        match cluster.cancel_group(namespace, path, "the users wish it").await {
            Ok(()) => {
                world.fault("group-cancelled", format_args!("{namespace} {path}"));
                world.record.group_cancelled(namespace, path);
                return;
            }
            Err(Error::Unavailable { .. } | Error::Unknown { .. } | Error::Refused { .. }) => sleep(AGAIN_AFTER).await,
            Err(error) => {
                world.complain(format_args!("cancel of group {path} of {namespace}: {error}"));
                return;
            }
        }
    }
}

async fn cancel(world: &World, cluster: &Client, job: JobId) {
    let began = Instant::now();
    loop {
        match cluster.cancel_job(job, "the user wishes it").await {
            Ok(state) => {
                world.fault("cancelled", format_args!("{job} {state:?} after {} ms", began.elapsed().as_millis()));
                world.record.cancelled(Cancelled { job, at_us: micros(now()) });
                return;
            }
            Err(Error::Precondition(why)) => {
                world.note(format_args!("cancel of {job}: {why}"));
                return;
            }
            Err(Error::Unavailable { .. } | Error::Unknown { .. } | Error::Refused { .. }) => sleep(AGAIN_AFTER).await,
            Err(error) => {
                world.complain(format_args!("cancel of {job}: {error}"));
                return;
            }
        }
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Unavailable { .. } => "unavailable",
        Error::Unknown { .. } => "unknown",
        Error::Refused { .. } => "refused",
        _ => "failed",
    }
}
