//! What an executor shows of itself, as Prometheus reads it. docs/metrics.md explains every line; a test compares.
//! Nothing decides by it.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use muster_proto::{convert, v1};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// One label and its value.
type Label = [(&'static str, String); 1];

/// See the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    attempts: Family<Label, Gauge>,
    outbox: Gauge,
    silence: Gauge<f64, AtomicU64>,
    launches_refused: Family<Label, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let attempts = Family::<Label, Gauge>::default();
        let (outbox, silence) = (Gauge::default(), Gauge::<f64, AtomicU64>::default());
        let launches_refused = Family::<Label, Counter>::default();
        // There from the start, so that their first rise is seen as one.
        for reason in convert::refusal_reasons() {
            drop(launches_refused.get_or_create(&[("reason", convert::refusal_name(reason))]));
        }
        let mut registry = Registry::with_prefix("muster_executor");
        registry.register("attempts", "Attempts held, by state", attempts.clone());
        registry.register("outbox_results", "Results on disk that no scheduler has settled yet", outbox.clone());
        registry.register_with_unit(
            "scheduler_silence",
            "Since any scheduler was last heard of",
            Unit::Seconds,
            silence.clone(),
        );
        registry.register("launches_refused", "Launches that were refused here, by reason", launches_refused.clone());
        Self { registry, attempts, outbox, silence, launches_refused }
    }

    pub(crate) fn refused(&self, refused: &[v1::Refusal]) {
        for refusal in refused {
            let reason = convert::refusal_name(refusal.reason());
            self.launches_refused.get_or_create(&[("reason", reason)]).inc();
        }
    }

    /// All of it, in OpenMetrics' text form.
    pub(crate) fn text(&self, attempts: [(&'static str, usize); 3], outbox: usize, silence: Duration) -> String {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in attempts {
            self.attempts.get_or_create(&[("state", state.to_owned())]).set(whole(count));
        }
        self.outbox.set(whole(outbox));
        self.silence.set(silence.as_secs_f64());
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));

    #[test]
    fn every_metric_is_explained_and_every_explained_one_exists() {
        let metrics = Metrics::new();
        let refusal = |reason: v1::RefusalReason| v1::Refusal { reason: reason.into(), ..v1::Refusal::default() };
        metrics.refused(&[refusal(v1::RefusalReason::DoesNotFit), refusal(v1::RefusalReason::DoesNotFit)]);
        let states = [("waiting", 1), ("running", 2), ("finished", 3)];
        let text = metrics.text(states, 3, Duration::from_millis(250));
        let shown: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
            .collect();
        let section = PAGE.split("\n## Executors\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        let explained: Vec<&str> =
            section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(shown, explained, "docs/metrics.md explains each metric, in the order in which they are shown");
        for line in [
            "muster_executor_attempts{state=\"running\"} 2",
            "muster_executor_outbox_results 3",
            "muster_executor_scheduler_silence_seconds 0.25",
            "muster_executor_launches_refused_total{reason=\"does_not_fit\"} 2",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
        }
    }
}
