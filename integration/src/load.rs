//! A mixed load: small jobs one after another for as long as a fault lasts, beside one job with a shuffle, one of slow
//! tasks, one whose tasks fail at first, one that fails for good, and one whose tasks run until all faults are over. Every submit has a key of its own, is repeated
//! until it is acknowledged, and every few are submitted twice. At the end everything that was acknowledged must be over,
//! as its spec says, with the result that it must have.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_client::{Client, JobId};
use muster_proto::v1;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::checker::Submitted;
use crate::recorder;
use crate::world::World;

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Tasks of the shuffle's first stage.
    pub maps: u32,
    /// And of its second.
    pub reducers: u32,
    /// Clients that submit small jobs, each one after another.
    pub small_at_once: u32,
    /// Slow tasks, of about a second each.
    pub slow: u32,
    /// How long everything may take after the fault is over.
    pub patience: Duration,
}

impl Size {
    /// The long form in a soak (`MUSTER_SOAK=1`), and a short one otherwise.
    #[must_use]
    pub fn of_environment() -> Self {
        if crate::is_soak() {
            Self { maps: 20_000, reducers: 4, small_at_once: 8, slow: 40, patience: Duration::from_secs(900) }
        } else {
            Self { maps: 120, reducers: 4, small_at_once: 3, slow: 6, patience: Duration::from_secs(150) }
        }
    }
}

/// What became of everything.
#[derive(Debug, Default)]
pub struct Tally {
    /// Every submit that was acknowledged, repetitions too.
    pub acknowledged: Vec<Submitted>,
    /// Jobs that are over.
    pub finished: u32,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    acknowledged: Mutex<Vec<Submitted>>,
    finished: AtomicU32,
    stop: CancellationToken,
}

/// See the module.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
    patience: Duration,
    /// The job with the shuffle.
    pub shuffle: JobId,
    /// The job whose tasks run all the time, so that every fault finds something to strike.
    pub held: JobId,
}

/// Tasks of [`Load::held`].
pub const HELD_TASKS: usize = 8;
/// The stage of these, and the gate that they wait for.
pub const HELD: &str = "held";

/// Before all others and as small as theirs, so that these jobs tell of progress beside thousands of tasks that fill every
/// executor to the brim.
const SMALL: &str = "
name: small
priority: 1
stages:
  one: {tasks: 2, resources: {cpu: 0.1}, run: 'echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/n'}
  two: {inputs: {one: all}, resources: {cpu: 0.1}, run: 'cat $MUSTER_INPUT_DIR/one/*/n > /dev/null'}
";
const SLOW: &str = "{name: slow, tasks: TASKS, resources: {cpu: 0.1}, run: 'eval \"$NOTE\"; sleep 1'}";
const HELD_JOB: &str = "
name: held
stages:
  held: {tasks: TASKS, resources: {cpu: 0.1}, run: 'eval \"$NOTE\"; gate=held; eval \"$WAIT\"; echo 1 > $MUSTER_OUTPUT_DIR/n'}
  all: {inputs: {held: all}, run: 'cat $MUSTER_INPUT_DIR/held/*/n > $MUSTER_OUTPUT_DIR/n'}
";
const FLAKY: &str = "
name: flaky
tasks: 4
retries: {failed: 3, backoff: 300ms}
run: '[ -e \"$GATES/flaky-$MUSTER_TASK_INDEX\" ] || { : > \"$GATES/flaky-$MUSTER_TASK_INDEX\"; exit 3; }'
";
const FAILING: &str = "{name: failing, tasks: 3, run: 'exit 3'}";
/// Task i sends i to reducer (i mod reducers); all of them together are a sum that is known. It is made when all faults are
/// over: what was made before may have gone with an executor that is dead for good.
const SHUFFLE: &str = r#"
name: shuffle
stages:
  map:
    tasks: MAPS
    resources: {cpu: 0.1}
    run: |
      part=0
      while [ $part -lt $MUSTER_SHUFFLE_PARTS ]; do : > $MUSTER_OUTPUT_DIR/$part; part=$((part + 1)); done
      echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/$((MUSTER_TASK_INDEX % MUSTER_SHUFFLE_PARTS))
  reduce:
    tasks: REDUCERS
    inputs: {map: shuffle}
    run: |
      find -L "$MUSTER_INPUT_DIR/map" -type f -name "$MUSTER_TASK_INDEX" -exec cat {} + > all
      awk '{ s += $1 } END { print s + 0 }' all > $MUSTER_OUTPUT_DIR/n
  sum:
    inputs: {reduce: all}
    resources: {cpu: 0.1}
    run: |
      gate=held; eval "$WAIT"
      cat $MUSTER_INPUT_DIR/reduce/*/n | awk '{ s += $1 } END { print s }' > $MUSTER_OUTPUT_DIR/n
"#;

impl Load {
    /// Begins; answers when the long jobs have been acknowledged.
    pub async fn start(client: &Client, world: &World, size: Size) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            acknowledged: Mutex::default(),
            finished: AtomicU32::new(0),
            stop: CancellationToken::new(),
        });
        let mut workers = JoinSet::new();
        let shuffle = SHUFFLE.replace("MAPS", &size.maps.to_string()).replace("REDUCERS", &size.reducers.to_string());
        let slow = SLOW.replace("TASKS", &size.slow.to_string());
        let held = HELD_JOB.replace("TASKS", &HELD_TASKS.to_string());
        // First those that are to run, then what keeps the cluster busy.
        let long = [(held.as_str(), true), (&shuffle, true), (&slow, true), (FLAKY, true), (FAILING, false)];
        let mut jobs = Vec::new();
        for (yaml, succeeds) in long {
            let spec = world.job(yaml);
            let key = format!("long-{}", spec.name);
            let job = shared.submit(spec, &key).await;
            jobs.push(job);
            let shared = Arc::clone(&shared);
            workers.spawn(async move { shared.over(job, succeeds).await });
        }
        for worker in 0..size.small_at_once {
            let (shared, spec) = (Arc::clone(&shared), world.job(SMALL));
            workers.spawn(async move {
                for number in 0_u32.. {
                    if shared.stop.is_cancelled() {
                        break;
                    }
                    let key = format!("small-{worker}-{number}");
                    let job = shared.submit(spec.clone(), &key).await;
                    if number % 3 == 0 {
                        let again = shared.submit(spec.clone(), &key).await;
                        assert_eq!(again, job, "one key, one job");
                    }
                    shared.over(job, true).await;
                }
            });
        }
        Self { shared, workers, patience: size.patience, held: jobs[0], shuffle: jobs[1] }
    }

    /// Jobs that are over so far.
    #[must_use]
    pub fn finished(&self) -> u32 {
        self.shared.finished.load(Ordering::Relaxed)
    }

    /// Waits until so many more jobs are over than now: the cluster makes progress.
    pub async fn progress(&self, jobs: u32) {
        let wanted = self.finished() + jobs;
        crate::eventually(&format!("{jobs} more jobs are over"), self.patience.as_secs(), || async {
            (self.finished() >= wanted).then_some(())
        })
        .await;
    }

    /// Submits no more small jobs, and waits until all are over, as they must be.
    ///
    /// # Panics
    /// When something is not over in time, or otherwise than it must be, or with another result.
    pub async fn finish(mut self, world: &World, size: Size) -> Tally {
        self.shared.stop.cancel();
        world.open(HELD);
        let all = async {
            while let Some(worker) = self.workers.join_next().await {
                worker.expect("every acknowledged job ends as it must");
            }
        };
        if tokio::time::timeout(self.patience, all).await.is_err() {
            let mut open = Vec::new();
            let all = self.shared.acknowledged.lock().expect("no holder panics").clone();
            for acknowledged in all {
                match self.shared.client.get_job(acknowledged.job).await {
                    Ok(view) if muster_client::is_finished(&view) => {}
                    other => open.push(format!("{}: {other:?}", acknowledged.key)),
                }
            }
            panic!("not over within {:?}:\n{}", self.patience, open.join("\n"));
        }
        let sum = world.output(&self.shared.client, self.shuffle, "sum", "n").await;
        let expected = u64::from(size.maps) * u64::from(size.maps - 1) / 2;
        assert_eq!(sum.trim(), expected.to_string(), "each map task counts once");
        let held = world.output(&self.shared.client, self.held, "all", "n").await;
        assert_eq!(held.lines().count(), HELD_TASKS, "each held task counts once");
        let acknowledged = std::mem::take(&mut *self.shared.acknowledged.lock().expect("no holder panics"));
        Tally { acknowledged, finished: self.shared.finished.load(Ordering::Relaxed) }
    }
}

impl Shared {
    /// Until it is acknowledged.
    async fn submit(&self, spec: v1::JobSpec, key: &str) -> JobId {
        loop {
            match self.client.submit(spec.clone(), Some(key.to_owned())).await {
                Ok(submitted) => {
                    let acknowledged = Submitted {
                        job: submitted.job,
                        namespace: spec.namespace,
                        key: key.to_owned(),
                        spec: spec.name,
                        at_us: recorder::boot_us(),
                    };
                    self.acknowledged.lock().expect("no holder panics").push(acknowledged);
                    return submitted.job;
                }
                Err(
                    error @ (muster_client::Error::Unknown { .. }
                    | muster_client::Error::Unavailable { .. }
                    | muster_client::Error::Refused { .. }),
                ) => {
                    tracing::info!(%error, key, "submitting again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => panic!("submit of {key}: {error}"),
            }
        }
    }

    async fn over(&self, job: JobId, succeeds: bool) {
        let view = loop {
            match self.client.wait(job).await {
                Ok(view) => break view,
                Err(error @ (muster_client::Error::Unavailable { .. } | muster_client::Error::Refused { .. })) => {
                    tracing::info!(%error, %job, "watching again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => panic!("watching {job}: {error}"),
            }
        };
        let expected = if succeeds { v1::JobState::Successful } else { v1::JobState::Failed };
        assert_eq!(view.state(), expected, "{view:?}");
        self.finished.fetch_add(1, Ordering::Relaxed);
    }
}
