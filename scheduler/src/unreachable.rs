//! Push executors that ask to be registered, and that this scheduler cannot reach where they say that they are.
//!
//! An executor that is heard and cannot be sent anything would keep what was assigned to it for ever. So its address is tried
//! before it is registered; one that is refused has no home here, looks for one elsewhere, and if no scheduler reaches it, it is lost in time
//! like any other that has none. What is kept here is only for people: such an executor may have no record at all.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use muster_graph::ids::ExecutorKey;
use muster_proto::v1;
use tokio::time::Instant;

use crate::shared::Shared;
use crate::ways;

/// An address where nobody answers within this is not reached; executors wait for longer than this to be registered.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// However short the cluster's `lost_after` is: a connection and an answer take their time.
const ANSWER_WITHIN_MIN: Duration = Duration::from_millis(300);
/// Tries of an executor within the time after which it is lost, with room.
const TRIES_PER_LIMIT: u32 = 8;
/// Executors kept in mind: those beyond are refused all the same.
const KNOWN_MAX: usize = 1024;
/// An executor tries again every few seconds; one that does not has gone, or has a home.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// An executor that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) incarnation: u64,
    pub(crate) address: String,
    /// In words for an operator.
    pub(crate) why: String,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unreachable {
    /// By the executor's id. Locked to look, or to change one.
    known: Mutex<BTreeMap<String, Refused>>,
}

impl Unreachable {
    /// Keeps a refusal in mind. True: it is news.
    fn note(&self, executor: &ExecutorKey, address: &str, why: &str, now: Instant) -> bool {
        let mut known = self.known.lock().expect("no code panics while holding it");
        known.retain(|_, refused| now - refused.at < FORGET_AFTER);
        let is_news = known.get(&executor.id).is_none_or(|before| before.why != why);
        if known.len() < KNOWN_MAX || known.contains_key(&executor.id) {
            let (incarnation, address, why) = (executor.incarnation, address.to_owned(), why.to_owned());
            known.insert(executor.id.clone(), Refused { incarnation, address, why, at: now });
        }
        is_news
    }

    /// It can be reached.
    fn forget(&self, id: &str) {
        self.known.lock().expect("no code panics while holding it").remove(id);
    }

    /// Those that were refused just lately.
    pub(crate) fn list(&self, now: Instant) -> Vec<(String, Refused)> {
        let known = self.known.lock().expect("no code panics while holding it");
        let lately = known.iter().filter(|(_, refused)| now - refused.at < FORGET_AFTER);
        lately.map(|(id, refused)| (id.clone(), refused.clone())).collect()
    }
}

/// Whether the executor answers at its address; the error is for its operator.
pub(crate) async fn check(shared: &Shared, executor: &ExecutorKey, address: &str) -> Result<(), String> {
    let Err(why) = answers(shared, executor, address).await else {
        shared.unreachable.forget(&executor.id);
        return Ok(());
    };
    let why = format!(
        "no connection to executor {} at {address}: {why}; schedulers must reach it there: check --advertise, and firewalls",
        executor.id
    );
    shared.metrics.registrations_refused.inc();
    if shared.unreachable.note(executor, address, &why, Instant::now()) {
        tracing::warn!(
            executor = executor.id,
            incarnation = executor.incarnation,
            address,
            why,
            "registration refused"
        );
    }
    Err(why)
}

async fn answers(shared: &Shared, executor: &ExecutorKey, address: &str) -> Result<(), String> {
    let within = ANSWER_WITHIN.min(shared.options.lost_after / TRIES_PER_LIMIT).max(ANSWER_WITHIN_MIN);
    // A connection of its own: one that was made before says nothing about the next.
    let mut client =
        ways::straight(&shared.options.network, address).map_err(|error| format!("not an address: {error}"))?;
    let request = v1::AskJobsRequest { jobs: Vec::new(), executor_incarnation: executor.incarnation };
    let answer = match tokio::time::timeout(within, client.ask_jobs(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(status.message().to_owned()),
        Err(_) => return Err(format!("no answer within {} ms", within.as_millis())),
    };
    // One of an older version does not say who it is.
    if !answer.executor_id.is_empty()
        && (&answer.executor_id, answer.incarnation) != (&executor.id, executor.incarnation)
    {
        return Err(format!("executor {} (incarnation {}) answers there", answer.executor_id, answer.incarnation));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_news_once_and_is_forgotten_when_nobody_tries_any_more() {
        let (unreachable, now) = (Unreachable::default(), Instant::now());
        let executor = ExecutorKey { id: "e".to_owned(), incarnation: 3 };
        assert!(unreachable.note(&executor, "a:1", "refused", now));
        assert!(!unreachable.note(&executor, "a:1", "refused", now), "said once");
        assert!(unreachable.note(&executor, "a:1", "no answer", now), "another reason");
        let listed = unreachable.list(now);
        assert_eq!((listed[0].0.as_str(), listed[0].1.why.as_str()), ("e", "no answer"));
        assert!(unreachable.list(now + FORGET_AFTER).is_empty());
    }
}
