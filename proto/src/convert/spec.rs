//! Specs.

use std::time::Duration;

use muster_graph::groups::{GroupPath, GroupPathError};
use muster_graph::ids::NotAJobId;
use muster_graph::spec;

use super::nested::{self, outputs, to_outputs};
use super::{Invalid, placement, to_placement};
use crate::v1;

fn millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn duration(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

impl From<&spec::JobSpec> for v1::JobSpec {
    fn from(job: &spec::JobSpec) -> Self {
        Self {
            name: job.name.clone(),
            namespace: job.namespace.clone(),
            group: job.group.clone(),
            after_jobs: job.after_jobs.iter().map(v1::AfterJob::from).collect(),
            labels: job.labels.clone(),
            priority: job.priority,
            env: job.env.clone(),
            timeout_ms: millis(job.timeout),
            disconnect: job.lost_after.map(|limit| match limit {
                spec::LostAfter::Time(time) => v1::Disconnect { lost_after_ms: millis(Some(time)), wait: false },
                spec::LostAfter::Never => v1::Disconnect { lost_after_ms: 0, wait: true },
            }),
            stages: job.stages.iter().map(v1::StageSpec::from).collect(),
            placement: to_placement(&job.placement),
            max_running: job.max_running,
            takes: job.takes.clone(),
            outputs: to_outputs(&job.outputs),
        }
    }
}

impl From<&spec::StageSpec> for v1::StageSpec {
    fn from(stage: &spec::StageSpec) -> Self {
        Self {
            name: stage.name.clone(),
            work: Some(match &stage.work {
                spec::Work::Process(run) => v1::stage_spec::Work::Process(run.into()),
                spec::Work::Job(nested) => v1::stage_spec::Work::Job(nested.into()),
                spec::Work::Gate(gate) => v1::stage_spec::Work::Gate(v1::Gate::from(*gate).into()),
            }),
            tasks: Some(match &stage.tasks {
                spec::Tasks::Count(n) => v1::stage_spec::Tasks::Count(*n),
                spec::Tasks::Items(values) => v1::stage_spec::Tasks::Items(v1::Items { values: values.clone() }),
            }),
            inputs: stage
                .inputs
                .iter()
                .map(|input| v1::Input {
                    stage: input.stage.clone(),
                    kind: v1::InputKind::from(input.kind).into(),
                    seen_as: input.seen_as.clone(),
                })
                .collect(),
            after: stage.after.clone(),
            when: v1::When::from(stage.when).into(),
            env: stage.env.clone(),
            resources: Some((&stage.resources).into()),
            retries: Some((&stage.retries).into()),
            timeout_ms: millis(stage.timeout),
            grace_ms: millis(Some(stage.grace)),
            nondeterministic: !stage.deterministic,
            stop_after: Some(v1::StopAfter { failures: stage.stop_after }),
            placement: to_placement(&stage.placement),
        }
    }
}

impl From<&spec::Run> for v1::Process {
    fn from(run: &spec::Run) -> Self {
        let run = match run {
            spec::Run::Argv(args) => v1::process::Run::Argv(v1::Argv { args: args.clone() }),
            spec::Run::Script { text, shell } => {
                v1::process::Run::Script(v1::Script { text: text.clone(), shell: shell.clone() })
            }
        };
        Self { run: Some(run) }
    }
}

impl From<spec::InputKind> for v1::InputKind {
    fn from(kind: spec::InputKind) -> Self {
        match kind {
            spec::InputKind::All => Self::All,
            spec::InputKind::Each => Self::Each,
            spec::InputKind::Shuffle => Self::Shuffle,
        }
    }
}

impl From<spec::When> for v1::When {
    fn from(when: spec::When) -> Self {
        match when {
            spec::When::OnSuccess => Self::OnSuccess,
            spec::When::OnFailure => Self::OnFailure,
            spec::When::Always => Self::Always,
        }
    }
}

impl From<&spec::Resources> for v1::Resources {
    fn from(resources: &spec::Resources) -> Self {
        Self { cpu_milli: resources.cpu_milli, memory_bytes: resources.memory_bytes, named: resources.named.clone() }
    }
}

impl From<&v1::Resources> for spec::Resources {
    fn from(resources: &v1::Resources) -> Self {
        Self { cpu_milli: resources.cpu_milli, memory_bytes: resources.memory_bytes, named: resources.named.clone() }
    }
}

impl From<&spec::Retries> for v1::Retries {
    fn from(retries: &spec::Retries) -> Self {
        Self {
            failed: Some(retries.failed.into()),
            timed_out: Some(retries.timed_out.into()),
            out_of_memory: Some(retries.out_of_memory.into()),
            executor_lost: Some(retries.executor_lost.into()),
            launch_refused: Some(retries.launch_refused.into()),
            input_unreadable: Some(retries.input_unreadable.into()),
            backoff_ms: millis(Some(retries.backoff)),
            backoff_max_ms: millis(Some(retries.backoff_max)),
        }
    }
}

/// Budgets above 255 mean the same as 255.
fn budget(given: Option<u32>, default: u8) -> u8 {
    given.map_or(default, |n| u8::try_from(n).unwrap_or(u8::MAX))
}

impl From<&v1::Retries> for spec::Retries {
    fn from(retries: &v1::Retries) -> Self {
        let default = Self::default();
        Self {
            failed: budget(retries.failed, default.failed),
            timed_out: budget(retries.timed_out, default.timed_out),
            out_of_memory: budget(retries.out_of_memory, default.out_of_memory),
            executor_lost: budget(retries.executor_lost, default.executor_lost),
            launch_refused: budget(retries.launch_refused, default.launch_refused),
            input_unreadable: budget(retries.input_unreadable, default.input_unreadable),
            backoff: duration(retries.backoff_ms).unwrap_or(default.backoff),
            backoff_max: duration(retries.backoff_max_ms).unwrap_or(default.backoff_max),
        }
    }
}

/// Of one task, when a stage does not say: one core.
const DEFAULT_CPU_MILLI: u32 = 1000;
/// Between SIGTERM and SIGKILL, when a stage does not say.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

fn lost_after(wire: v1::Disconnect) -> Result<Option<spec::LostAfter>, Invalid> {
    match (wire.wait, duration(wire.lost_after_ms)) {
        (true, None) => Ok(Some(spec::LostAfter::Never)),
        (true, Some(_)) => {
            Err(Invalid::new("disconnect", "wait and lost_after_ms exclude each other; give one of them"))
        }
        (false, time) => Ok(time.map(spec::LostAfter::Time)),
    }
}

/// The path of a group, as it is stored.
fn group(path: &str) -> Result<String, Invalid> {
    let path: GroupPath = path.parse().map_err(|error: GroupPathError| Invalid::new("group", error.to_string()))?;
    Ok(path.as_str().to_owned())
}

impl From<&spec::AfterJob> for v1::AfterJob {
    fn from(after: &spec::AfterJob) -> Self {
        let end = match after.end {
            spec::AwaitedEnd::Success => v1::AwaitedEnd::Success,
            spec::AwaitedEnd::Failure => v1::AwaitedEnd::Failure,
            spec::AwaitedEnd::Any => v1::AwaitedEnd::Any,
        };
        Self { job_id: after.job.to_string(), end: end.into() }
    }
}

/// Jobs that are waited for, as they stand in a field.
///
/// # Errors
/// One of them is none, or an end is unknown to this version.
pub fn after_jobs(jobs: Vec<v1::AfterJob>, field: &str) -> Result<Vec<spec::AfterJob>, Invalid> {
    let read = |(place, after): (usize, v1::AfterJob)| {
        let wrong = |part: &str, why: String| Invalid::new(format!("{field}[{place}].{part}"), why);
        let end = match v1::AwaitedEnd::try_from(after.end) {
            Ok(v1::AwaitedEnd::Unspecified | v1::AwaitedEnd::Success) => spec::AwaitedEnd::Success,
            Ok(v1::AwaitedEnd::Failure) => spec::AwaitedEnd::Failure,
            Ok(v1::AwaitedEnd::Any) => spec::AwaitedEnd::Any,
            Err(_) => return Err(wrong("end", format!("{} is unknown to this version", after.end))),
        };
        let job = after.job_id.parse().map_err(|error: NotAJobId| wrong("job_id", error.to_string()))?;
        Ok(spec::AfterJob { job, end })
    };
    jobs.into_iter().enumerate().map(read).collect()
}

impl TryFrom<v1::JobSpec> for spec::JobSpec {
    type Error = Invalid;

    fn try_from(job: v1::JobSpec) -> Result<Self, Invalid> {
        Ok(Self {
            name: job.name,
            namespace: if job.namespace.is_empty() { "default".to_owned() } else { job.namespace },
            group: group(&job.group)?,
            after_jobs: after_jobs(job.after_jobs, "after_jobs")?,
            labels: job.labels,
            priority: job.priority,
            env: job.env,
            timeout: duration(job.timeout_ms),
            lost_after: job.disconnect.map(lost_after).transpose()?.flatten(),
            stages: job
                .stages
                .into_iter()
                .enumerate()
                .map(|(place, stage)| stage_spec(stage, &format!("stages[{place}]")))
                .collect::<Result<_, _>>()?,
            placement: placement(job.placement, "placement")?,
            max_running: job.max_running,
            takes: job.takes,
            outputs: outputs(job.outputs),
        })
    }
}

fn run(process: v1::Process, at: &str) -> Result<spec::Run, Invalid> {
    Ok(match process.run {
        Some(v1::process::Run::Argv(argv)) => spec::Run::Argv(argv.args),
        Some(v1::process::Run::Script(script)) => spec::Run::Script {
            text: script.text,
            shell: if script.shell.is_empty() { vec!["/bin/sh".to_owned(), "-e".to_owned()] } else { script.shell },
        },
        None => return Err(Invalid::new(format!("{at}.work.process.run"), "missing: give argv or script")),
    })
}

fn stage_spec(stage: v1::StageSpec, at: &str) -> Result<spec::StageSpec, Invalid> {
    let work = match stage.work {
        Some(v1::stage_spec::Work::Process(process)) => spec::Work::Process(run(process, at)?),
        Some(v1::stage_spec::Work::Job(job)) => spec::Work::Job(nested::nested(job, &format!("{at}.work.job"))?),
        Some(v1::stage_spec::Work::Gate(gate)) => match nested::gate(gate, &format!("{at}.work"))? {
            Some(gate) => spec::Work::Gate(gate),
            None => return Err(Invalid::new(format!("{at}.work.gate"), "missing: begin or end")),
        },
        None => return Err(Invalid::new(format!("{at}.work"), "missing: say what a task runs (process)")),
    };
    let inputs = stage
        .inputs
        .into_iter()
        .enumerate()
        .map(|(place, input)| {
            let kind = match v1::InputKind::try_from(input.kind) {
                Ok(v1::InputKind::All | v1::InputKind::Unspecified) => spec::InputKind::All,
                Ok(v1::InputKind::Each) => spec::InputKind::Each,
                Ok(v1::InputKind::Shuffle) => spec::InputKind::Shuffle,
                Err(_) => {
                    let message = format!("{} is unknown to this version: give all, each or shuffle", input.kind);
                    return Err(Invalid::new(format!("{at}.inputs[{place}].kind"), message));
                }
            };
            Ok(spec::Input { stage: input.stage, kind, seen_as: input.seen_as })
        })
        .collect::<Result<_, _>>()?;
    let when = match v1::When::try_from(stage.when) {
        Ok(v1::When::OnSuccess | v1::When::Unspecified) => spec::When::OnSuccess,
        Ok(v1::When::OnFailure) => spec::When::OnFailure,
        Ok(v1::When::Always) => spec::When::Always,
        Err(_) => return Err(Invalid::new(format!("{at}.when"), "unknown to this version of the scheduler")),
    };
    Ok(spec::StageSpec {
        name: stage.name,
        tasks: match stage.tasks {
            None if !matches!(work, spec::Work::Process(_)) => spec::Tasks::Count(0),
            Some(v1::stage_spec::Tasks::Count(n)) => spec::Tasks::Count(n),
            Some(v1::stage_spec::Tasks::Items(items)) => spec::Tasks::Items(items.values),
            None => spec::Tasks::Count(1),
        },
        work,
        inputs,
        after: stage.after,
        when,
        env: stage.env,
        resources: stage.resources.as_ref().map_or(
            spec::Resources { cpu_milli: DEFAULT_CPU_MILLI, ..spec::Resources::default() },
            spec::Resources::from,
        ),
        retries: stage.retries.as_ref().map_or_else(spec::Retries::default, spec::Retries::from),
        timeout: duration(stage.timeout_ms),
        grace: duration(stage.grace_ms).unwrap_or(DEFAULT_GRACE),
        deterministic: !stage.nondeterministic,
        stop_after: stage.stop_after.map_or(Some(1), |s| s.failures),
        placement: placement(stage.placement, &format!("{at}.placement"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_group_comes_in_as_it_is_stored_and_one_that_is_no_path_is_refused() {
        let read = |group: &str| {
            let wire = v1::JobSpec { name: "x".to_owned(), group: group.to_owned(), ..Default::default() };
            spec::JobSpec::try_from(wire)
        };
        for (given, stored) in [("", ""), ("/", ""), ("nightly/2026", "nightly/2026"), ("/nightly", "nightly")] {
            let job = read(given).expect("it is a path");
            assert_eq!(job.group, stored);
            assert_eq!(spec::JobSpec::try_from(v1::JobSpec::from(&job)), Ok(job));
        }
        let invalid = read("nightly//2026").expect_err("a name is empty");
        assert_eq!(invalid.field, "group");
        let invalid = read("1/2/3/4/5/6").expect_err("it is too deep");
        assert!(invalid.to_string().contains("GROUP_DEPTH_MAX"), "{invalid}");
    }
}
