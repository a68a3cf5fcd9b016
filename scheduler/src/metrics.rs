//! What a scheduler shows of itself, as Prometheus reads it. docs/metrics.md explains every line; a test compares.
//!
//! **Invariant:** nothing decides by a metric, and none is read from the store: a scrape costs the cluster nothing, and
//! is answered while the store and the engine are stuck, since that is when it is wanted.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dashmap::DashMap;
use muster_graph::ids::JobId;
use muster_proto::convert;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use crate::engine::{CommitName, CommitResult, Counts};

/// One label and its value.
type Label = [(&'static str, String); 1];

fn label(name: &'static str, value: &str) -> Label {
    [(name, value.to_owned())]
}

/// From 1 ms, an etcd on good disks, to 16 s, beyond which a session has ended.
fn store_buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(0.001, 2.0, 15)
}

/// A commit that takes longer than this is worth a line in the log: users wait for it.
const SLOW_COMMIT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) transactions: Family<Label, Counter>,
    pub(crate) transaction_seconds: Histogram,
    pub(crate) takeovers: Counter,
    pub(crate) sessions_lost: Counter,
    pub(crate) registrations_refused: Counter,
    callbacks: Family<Label, Counter>,
    takeover_seconds: Histogram,
    commits: Family<Label, Counter>,
    fenced: Family<Label, Counter>,
    commit_seconds: Histogram,
    commits_in_flight: Gauge,
    jobs_owned: Gauge,
    executors: Family<Label, Gauge>,
    executors_lost: Counter,
    launches_withheld: Counter,
    launches_refused: Family<Label, Counter>,
    attempts_asked_back: Counter,
    tasks_given_up: Counter,
    executors_quarantined: Gauge,
    events_ignored: Counter,
    statuses_settled: Counter,
    session_slack: Gauge<f64, AtomicU64>,
    engine_queue: Gauge,
    /// Jobs whose takeover is committed and that the engine does not have yet.
    taken_over: DashMap<JobId, Instant>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let transactions = Family::<Label, Counter>::default();
        let transaction_seconds = Histogram::new(store_buckets());
        let (takeovers, sessions_lost, executors_lost) = (Counter::default(), Counter::default(), Counter::default());
        let registrations_refused = Counter::default();
        let takeover_seconds = Histogram::new(store_buckets());
        let (commits, fenced) = (Family::<Label, Counter>::default(), Family::<Label, Counter>::default());
        let commit_seconds = Histogram::new(store_buckets());
        let (commits_in_flight, jobs_owned, engine_queue) = (Gauge::default(), Gauge::default(), Gauge::default());
        let executors = Family::<Label, Gauge>::default();
        let (launches_withheld, launches_refused) = (Counter::default(), Family::<Label, Counter>::default());
        let (attempts_asked_back, tasks_given_up) = (Counter::default(), Counter::default());
        let executors_quarantined = Gauge::default();
        let (events_ignored, statuses_settled) = (Counter::default(), Counter::default());
        let session_slack = Gauge::<f64, AtomicU64>::default();

        // Counters that are there from the start, so that their first rise is seen as one.
        for outcome in ["committed", "refused", "unknown", "failed"] {
            drop(transactions.get_or_create(&label("outcome", outcome)));
        }
        for outcome in ["committed", "fenced", "failed"] {
            drop(commits.get_or_create(&label("outcome", outcome)));
        }
        for guard in ["owner", "epoch", "group", "record"] {
            drop(fenced.get_or_create(&label("guard", guard)));
        }

        let callbacks = Family::<Label, Counter>::default();
        for outcome in ["delivered", "failed", "given_up"] {
            drop(callbacks.get_or_create(&label("outcome", outcome)));
        }
        for reason in convert::refusal_reasons() {
            drop(launches_refused.get_or_create(&label("reason", &convert::refusal_name(reason))));
        }

        let mut registry = Registry::with_prefix("muster");
        let seconds = || Unit::Seconds;
        registry.register(
            "store_transactions",
            "Transactions sent to the store, each sending by its outcome; after an unknown one the same is sent again",
            transactions.clone(),
        );
        registry.register_with_unit(
            "store_transaction",
            "Time until the store answered one sending of a transaction",
            seconds(),
            transaction_seconds.clone(),
        );
        registry.register("takeovers", "Jobs taken over from schedulers whose session was gone", takeovers.clone());
        registry.register_with_unit(
            "takeover",
            "Time from the committed takeover of a job until it is in memory and goes on",
            seconds(),
            takeover_seconds.clone(),
        );
        registry.register("sessions_lost", "Times that this scheduler lost its session", sessions_lost.clone());
        registry.register_with_unit(
            "session_slack",
            "How long the session certainly still lives; at 0 all jobs are let go",
            seconds(),
            session_slack.clone(),
        );
        registry.register("commits", "Jobs' parts of group commits, by what became of them", commits.clone());
        registry.register(
            "writes_fenced",
            "Writes of jobs that a guard refused: the owner had moved, or a record was not as known",
            fenced.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time from the first sending of a group commit until the outcome of all its jobs was known",
            seconds(),
            commit_seconds.clone(),
        );
        registry.register("callbacks", "Tries to tell callbacks of completed groups, by outcome", callbacks.clone());
        registry.register("commits_in_flight", "Group commits in flight now", commits_in_flight.clone());
        registry.register("jobs_owned", "Jobs that this scheduler owns", jobs_owned.clone());
        registry.register("executors", "Executors known here, by how they stand to this scheduler", executors.clone());
        registry.register(
            "executors_quarantined",
            "Executors that get one attempt at a time, because all the last ones failed there and not elsewhere",
            executors_quarantined.clone(),
        );
        registry.register(
            "executors_lost",
            "Executors that are gone though nobody stopped them",
            executors_lost.clone(),
        );
        registry.register(
            "registrations_refused",
            "Registrations refused because no connection could be made to the executor",
            registrations_refused.clone(),
        );
        registry.register(
            "launches_withheld",
            "Committed launches that were not sent because their executor had moved on",
            launches_withheld.clone(),
        );
        registry.register("launches_refused", "Launches that executors refused, by reason", launches_refused.clone());
        registry.register(
            "attempts_asked_back",
            "Attempts that were sent ahead, did not begin in time, and were asked back",
            attempts_asked_back.clone(),
        );
        registry.register(
            "tasks_given_up",
            "Tasks given up because their executors went down with them",
            tasks_given_up.clone(),
        );
        registry.register(
            "events_ignored",
            "Events of jobs that changed nothing: late, repeated, or about what is not there",
            events_ignored.clone(),
        );
        registry.register(
            "statuses_settled",
            "Statuses of attempts whose effect is committed",
            statuses_settled.clone(),
        );
        registry.register("engine_queue_inputs", "Inputs that wait for the engine", engine_queue.clone());
        Self {
            registry,
            transactions,
            transaction_seconds,
            takeovers,
            sessions_lost,
            registrations_refused,
            callbacks,
            takeover_seconds,
            commits,
            fenced,
            commit_seconds,
            commits_in_flight,
            jobs_owned,
            executors,
            executors_lost,
            launches_withheld,
            launches_refused,
            attempts_asked_back,
            tasks_given_up,
            executors_quarantined,
            events_ignored,
            statuses_settled,
            session_slack,
            engine_queue,
            taken_over: DashMap::new(),
        }
    }

    /// A try to tell a callback has this outcome.
    pub(crate) fn callback(&self, outcome: &'static str) {
        self.callbacks.get_or_create(&label("outcome", outcome)).inc();
    }

    /// All of it, in OpenMetrics' text form.
    pub(crate) fn text(&self, slack: Duration, queued: usize) -> String {
        self.session_slack.set(slack.as_secs_f64());
        self.engine_queue.set(i64::try_from(queued).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }

    /// One sending of a transaction was answered.
    pub(crate) fn transaction(&self, outcome: &str, took: Duration) {
        self.transactions.get_or_create(&label("outcome", outcome)).inc();
        self.transaction_seconds.observe(took.as_secs_f64());
    }

    /// A job is this scheduler's now, and was a dead one's before.
    pub(crate) fn taken_over(&self, job: JobId) {
        self.takeovers.inc();
        self.taken_over.insert(job, Instant::now());
    }

    /// The engine has the job, or will not get it.
    pub(crate) fn arrived(&self, job: JobId, adopted: bool) {
        if let Some((_, since)) = self.taken_over.remove(&job)
            && adopted
        {
            let took = since.elapsed();
            self.takeover_seconds.observe(took.as_secs_f64());
            tracing::info!(%job, took_ms = took.as_millis(), "job adopted after takeover");
        }
    }

    pub(crate) fn commit_began(&self) {
        self.commits_in_flight.inc();
    }

    pub(crate) fn commit_ended(&self, results: &[(CommitName, CommitResult)], took: Duration) {
        self.commits_in_flight.dec();
        self.commit_seconds.observe(took.as_secs_f64());
        if took > SLOW_COMMIT {
            tracing::warn!(took_ms = took.as_millis(), jobs = results.len(), "commit was slow");
        }
        for (_, result) in results {
            let (outcome, guard) = match result {
                CommitResult::Committed(_) => ("committed", None),
                CommitResult::OwnerMoved => ("fenced", Some("owner")),
                CommitResult::EpochMoved => ("fenced", Some("epoch")),
                CommitResult::GroupCancelled(..) => ("fenced", Some("group")),
                CommitResult::Conflict(_) => ("fenced", Some("record")),
                CommitResult::Failed(_) => ("failed", None),
            };
            self.commits.get_or_create(&label("outcome", outcome)).inc();
            if let Some(guard) = guard {
                self.fenced.get_or_create(&label("guard", guard)).inc();
            }
        }
    }

    pub(crate) fn engine_counted(&self, counts: Counts) {
        let Counts {
            launches_withheld,
            launches_refused,
            attempts_asked_back,
            tasks_given_up,
            events_ignored,
            statuses_settled,
            executors_lost,
        } = counts;
        self.tasks_given_up.inc_by(tasks_given_up);
        self.attempts_asked_back.inc_by(attempts_asked_back);
        self.launches_withheld.inc_by(launches_withheld);
        self.events_ignored.inc_by(events_ignored);
        self.statuses_settled.inc_by(statuses_settled);
        self.executors_lost.inc_by(executors_lost);
        for (reason, count) in launches_refused {
            self.launches_refused.get_or_create(&label("reason", &convert::refusal_name(reason))).inc_by(count);
        }
    }

    pub(crate) fn engine_holds(&self, jobs: usize, executors: [(&'static str, i64); 4], quarantined: usize) {
        self.jobs_owned.set(i64::try_from(jobs).unwrap_or(i64::MAX));
        self.executors_quarantined.set(i64::try_from(quarantined).unwrap_or(i64::MAX));
        for (link, count) in executors {
            self.executors.get_or_create(&label("link", link)).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::RefusalReason;

    use super::*;

    const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));

    #[test]
    fn every_metric_is_explained_and_every_explained_one_exists() {
        let metrics = Metrics::new();
        metrics.engine_holds(0, [("home", 0), ("peer", 0), ("out_of_reach", 0), ("gone", 0)], 0);
        let launches_refused = [(RefusalReason::StaleFence, 1)].into();
        metrics.engine_counted(Counts { launches_refused, ..Counts::default() });
        let text = metrics.text(Duration::from_millis(1500), 7);
        let shown: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
            .collect();
        let section = PAGE.split("\n## Schedulers\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        let explained: Vec<&str> =
            section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(shown, explained, "docs/metrics.md explains each metric, in the order in which they are shown");
        assert!(text.contains("muster_session_slack_seconds 1.5\n"), "{text}");
        assert!(text.contains("muster_engine_queue_inputs 7\n"), "{text}");
        assert!(text.contains("muster_launches_refused_total{reason=\"stale_fence\"} 1\n"), "{text}");
        for reason in convert::refusal_reasons().map(convert::refusal_name) {
            assert!(text.contains(&format!("{{reason=\"{reason}\"}}")), "{reason} in {text}");
            assert!(section.contains(&format!("`{reason}`")), "docs/metrics.md explains no {reason}");
        }
        assert!(text.contains("muster_store_transactions_total{outcome=\"unknown\"} 0\n"), "{text}");
    }

    #[test]
    fn a_takeover_is_timed_until_the_job_arrives_and_only_then() {
        let metrics = Metrics::new();
        metrics.taken_over(JobId(1));
        metrics.taken_over(JobId(2));
        metrics.arrived(JobId(1), true);
        metrics.arrived(JobId(1), true);
        metrics.arrived(JobId(2), false);
        let text = metrics.text(Duration::ZERO, 0);
        assert!(text.contains("muster_takeovers_total 2\n"), "{text}");
        assert!(text.contains("muster_takeover_seconds_count 1\n"), "{text}");
        assert!(metrics.taken_over.is_empty());
    }

    #[test]
    fn fenced_commits_are_counted_by_what_refused_them() {
        let metrics = Metrics::new();
        metrics.commit_began();
        let name = |number| CommitName { job: JobId(1), number };
        let results = [
            (name(1), CommitResult::Committed(5)),
            (name(2), CommitResult::OwnerMoved),
            (name(3), CommitResult::Conflict(String::new())),
            (name(4), CommitResult::Failed(String::new())),
        ];
        metrics.commit_ended(&results, Duration::from_millis(3));
        let text = metrics.text(Duration::ZERO, 0);
        for line in [
            "muster_commits_total{outcome=\"committed\"} 1",
            "muster_commits_total{outcome=\"fenced\"} 2",
            "muster_commits_total{outcome=\"failed\"} 1",
            "muster_writes_fenced_total{guard=\"owner\"} 1",
            "muster_writes_fenced_total{guard=\"record\"} 1",
            "muster_commit_seconds_count 1",
            "muster_commits_in_flight 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
        }
    }
}
