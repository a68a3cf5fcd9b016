//! C1, durable accept: what was acknowledged is in the store; an idempotency key means one job, for ever; a job stays
//! until it is over, and then is where finished jobs are.
//!
//! A job comes with its owner and its key in one revision, and its head moves from one keyspace to another in one
//! revision, so that there is exactly one head of it at any time.

use std::collections::{BTreeMap, HashMap};

use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_state::{Keyspace, Revision, keys};

use super::Findings;
use crate::checker::decode::{JobStep, Step};
use crate::checker::evidence::Evidence;
use crate::checker::store::Store;
use crate::checker::verdict::Rule;

/// What has to be remembered of the past.
#[derive(Debug, Default)]
pub(in crate::checker) struct Accepted {
    /// The revision of each job's first head.
    since: BTreeMap<JobId, (Revision, u64)>,
    /// Jobs by namespace and key.
    by_key: HashMap<(String, String), JobId>,
}

impl Accepted {
    /// Looks at a revision, with the store as it was before.
    pub(in crate::checker) fn before(&mut self, step: &Step, store: &Store, findings: &mut Findings) {
        for (key, record) in &step.keys {
            let known = store.keys.get(key);
            let now = record.as_ref().map(|record| &record.job_id);
            match (known, now) {
                (Some(known), Some(now)) if known != now => {
                    let what = format!("key {key} meant job {known} and now means {now}");
                    findings.add(Rule::OneJobPerKey, known.parse().ok(), None, vec![step.revision], what);
                }
                (Some(known), None) => {
                    let active = known.parse().ok().and_then(|id: JobId| store.jobs.get(&id));
                    if active.is_some_and(|job| job.place == Some(Keyspace::ActiveJobs)) {
                        let what = format!("key {key} was forgotten while its job {known} is active");
                        findings.add(Rule::OneJobPerKey, known.parse().ok(), None, vec![step.revision], what);
                    }
                }
                _ => {}
            }
        }
        for (id, job) in &step.jobs {
            if !job.heads.is_empty() {
                self.head(*id, job, step, store, findings);
            }
        }
    }

    fn head(&mut self, id: JobId, job: &JobStep, step: &Step, store: &Store, findings: &mut Findings) {
        let before = store.jobs.get(&id).and_then(|job| job.place);
        let mut places: Vec<Keyspace> = before.into_iter().collect();
        for (keyspace, head) in &job.heads {
            places.retain(|place| place != keyspace);
            if head.is_some() {
                places.push(*keyspace);
            }
        }
        let mut wrong = |what: String| findings.of_job(Rule::JobKept, id, step.revision, what);
        let place = match places.as_slice() {
            [place] => *place,
            [] => return wrong(format!("its head was in {before:?} and is nowhere now")),
            _ => return wrong(format!("it has heads in {places:?}")),
        };
        let Some((_, head)) = job.head() else { return };
        let fits = match head.state() {
            v1::JobState::Queued | v1::JobState::Running => place == Keyspace::ActiveJobs,
            v1::JobState::Successful => place == Keyspace::CompletedJobs,
            v1::JobState::Failed | v1::JobState::Cancelled => place == Keyspace::FailedJobs,
            v1::JobState::Unspecified => false,
        };
        if !fits {
            wrong(format!("its head is in {place:?} and says {:?}", head.state()));
        }
        let legal = match (before, place) {
            (None, Keyspace::ActiveJobs) => job.opens(),
            (None, _) => false,
            (Some(from), to) if from == to => from == Keyspace::ActiveJobs,
            (Some(Keyspace::ActiveJobs), _) => true,
            (Some(Keyspace::FailedJobs), Keyspace::ActiveJobs) => job.opens(),
            _ => false,
        };
        if !legal {
            wrong(format!("its head moved from {before:?} to {place:?}, owner {:?}", job.owner));
        }
        if before.is_none() && !self.since.contains_key(&id) {
            self.since.insert(id, (step.revision, step.at_us));
            if !head.idempotency_key.is_empty() {
                let name = keys::idempotency(&head.namespace, &head.idempotency_key).name;
                let with = step.keys.iter().find(|(key, _)| *key == name).and_then(|(_, record)| record.as_ref());
                if with.is_none_or(|record| record.job_id != id.to_string()) {
                    let what = format!("it came with key '{}', whose record came with {with:?}", head.idempotency_key);
                    findings.of_job(Rule::OneJobPerKey, id, step.revision, what);
                }
                let key = (head.namespace.clone(), head.idempotency_key.clone());
                if let Some(other) = self.by_key.insert(key, id) {
                    let what = format!("job {other} has the same key '{}'", head.idempotency_key);
                    findings.of_job(Rule::OneJobPerKey, id, step.revision, what);
                }
            }
        }
    }

    /// Compares what clients were told with what was stored.
    pub(in crate::checker) fn end(&self, evidence: &Evidence, store: &Store, findings: &mut Findings) {
        let mut told: BTreeMap<(&str, &str), (&str, JobId)> = BTreeMap::new();
        for submit in &evidence.clients.submitted {
            match self.since.get(&submit.job) {
                None => findings.add(
                    Rule::Acknowledged,
                    Some(submit.job),
                    None,
                    Vec::new(),
                    format!("its submit (key '{}') was acknowledged, and it was never stored", submit.key),
                ),
                Some((revision, at_us)) if evidence.scenario.exact_times && *at_us > submit.at_us => {
                    let what = format!("acknowledged at {} us, and stored at {at_us} us", submit.at_us);
                    findings.of_job(Rule::Acknowledged, submit.job, *revision, what);
                }
                Some(_) => {}
            }
            if submit.key.is_empty() {
                continue;
            }
            let (spec, job) =
                told.entry((&submit.namespace, &submit.key)).or_insert((submit.spec.as_str(), submit.job));
            if *spec != submit.spec || *job != submit.job {
                let what = format!(
                    "key '{}' was acknowledged for job {job} with spec {spec}, and for job {} with spec {}",
                    submit.key, submit.job, submit.spec
                );
                findings.add(Rule::OneJobPerKey, Some(submit.job), None, Vec::new(), what);
            }
        }
        for (id, job) in &store.jobs {
            if self.since.contains_key(id) && job.place == Some(Keyspace::ActiveJobs) && job.head.is_none() {
                findings.add(Rule::JobKept, Some(*id), None, Vec::new(), "it has no head at the end".to_owned());
            }
        }
    }
}
