//! Ready jobs, in a queue for each namespace, and whose turn it is.
//!
//! Inside a namespace the order is age, and a point of priority is worth an hour of it. Among namespaces the next is the one that
//! has least of the cluster for its weight ([`crate::fairness`]), with what its jobs have at all schedulers; of those that have equally little, the one that was
//! given something longest ago, so that a task that needs everything finds its time. What a namespace cannot use now, since
//! nothing of it fits, goes to the next one: no executor stands idle for the sake of a share.
//!
//! **Invariant:** what is known of peers decides who goes first, and how far limits are used up; never whether a job gets on at all
//! when nobody else wants anything and no limit is reached.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use muster_graph::ids::{JobId, Millis};
use muster_graph::spec::Resources;

use super::Engine;
use crate::fairness::{Amount, Rules, Use, WEIGHT_DEFAULT, WHOLE};

/// A job's place in its namespace's queue: it is as old as it is, and older by [`POINT_MS`] for each point of its priority.
///
/// Jobs grow old at one pace, so who is before whom does not change with time, and nothing has to be sorted anew.
pub(super) type Place = (i128, JobId);

/// What a point of priority is worth in waiting: a stream of jobs of a higher priority does not keep others waiting for ever.
pub(super) const POINT_MS: i128 = 3_600_000;

/// A namespace that has the turn goes on until it is so much ahead of the next one, so that large free clusters are given out in
/// some hundred steps.
const STEP: u64 = WHOLE / 256;
/// So long a scheduler has the odd part of a limit that cannot be divided among those that have jobs of the namespace.
const ODD_PART_MS: Millis = 5_000;

/// A namespace with jobs here.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeSet<Place>,
    ours: Use,
    /// Which of all grants here its last one was.
    served: u64,
}

/// What is known of a namespace from others.
#[derive(Debug, Default)]
struct Elsewhere {
    /// All peers together.
    sum: Use,
    /// The sessions that have jobs of it.
    sessions: BTreeSet<String>,
    /// How many of these have tasks of it that could run.
    wanting: u32,
}

/// What a namespace is given in thought.
#[derive(Debug, Default)]
pub(super) struct Thought {
    amount: Amount,
    tasks: u32,
}

impl Thought {
    pub(super) fn add(&mut self, need: &Resources, count: u32) {
        self.amount.add(need, count);
        self.tasks = self.tasks.saturating_add(count);
    }
}

/// How much more of a namespace may run here.
#[derive(Debug)]
pub(super) struct Limit {
    /// In the whole cluster: the limits, and what is used up.
    whole: (Rules, Use),
    part: Option<Part>,
}

/// As long as others have jobs of the namespace, each scheduler goes by a part of its limits that nobody else uses: what others say of
/// theirs is of a moment ago.
#[derive(Debug)]
struct Part {
    rules: Rules,
    used: Use,
    /// It is this scheduler's turn for what cannot be divided.
    has_turn: bool,
    /// The other schedulers that go by a part.
    sharers: u32,
}

impl Limit {
    /// How many more tasks with this need.
    pub(super) fn leaves(&self, need: &Resources) -> u32 {
        let whole = self.whole.0.leaves(&self.whole.1, need);
        let Some(part) = &self.part else { return whole };
        // A task that is larger than any part waits for the turn to use all of it.
        if part.has_turn && part.rules.leaves(&Use::default(), need) == 0 {
            return whole;
        }
        whole.min(part.rules.leaves(&part.used, need))
    }

    /// The limits in the whole cluster, and what is used up.
    pub(super) fn whole(&self) -> (&Rules, &Use) {
        (&self.whole.0, &self.whole.1)
    }

    /// How many other schedulers have jobs of the namespace, if there are some.
    pub(super) fn sharers(&self) -> Option<u32> {
        self.part.as_ref().map(|part| part.sharers)
    }

    /// Whatever tasks need, there may be no more of them.
    pub(super) fn is_reached(&self) -> bool {
        let nothing = Resources { cpu_milli: 0, memory_bytes: 0, named: BTreeMap::new() };
        self.leaves(&nothing) == 0
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_namespace: BTreeMap<Arc<str>, Queue>,
    elsewhere: BTreeMap<String, Elsewhere>,
    rules: BTreeMap<String, Rules>,
    /// Jobs with ready tasks.
    ready: usize,
    grants: u64,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// The name, shared.
    pub(super) fn name(&self, namespace: &str) -> Arc<str> {
        self.by_namespace.get_key_value(namespace).map_or_else(|| namespace.into(), |(name, _)| Arc::clone(name))
    }

    pub(super) fn enter(&mut self, namespace: &Arc<str>, place: Place) {
        let queue = self.by_namespace.entry(Arc::clone(namespace)).or_default();
        self.ready += usize::from(queue.ready.insert(place));
    }

    pub(super) fn leave(&mut self, namespace: &str, place: Place) {
        if let Some(queue) = self.by_namespace.get_mut(namespace) {
            self.ready -= usize::from(queue.ready.remove(&place));
        }
    }

    /// What a job has and wants is not any more what it was.
    pub(super) fn changed(&mut self, namespace: &Arc<str>, was: &Use, is: &Use) {
        let queue = self.by_namespace.entry(Arc::clone(namespace)).or_default();
        queue.ours.join(is);
        queue.ours.leave(was);
        if queue.ours.jobs == 0 && queue.ready.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }

    /// It was given something.
    pub(super) fn served(&mut self, namespace: &str) {
        self.grants += 1;
        if let Some(queue) = self.by_namespace.get_mut(namespace) {
            queue.served = self.grants;
        }
    }

    /// What peers say that theirs have and want.
    pub(super) fn set_elsewhere(&mut self, peers: BTreeMap<String, BTreeMap<String, Use>>) {
        self.elsewhere.clear();
        for (session, namespaces) in peers {
            for (namespace, told) in namespaces {
                let known = self.elsewhere.entry(namespace).or_default();
                known.sum.join(&told);
                known.wanting += u32::from(told.ready > 0);
                known.sessions.insert(session.clone());
            }
        }
    }

    pub(super) fn set_rules(&mut self, rules: BTreeMap<String, Rules>) {
        self.rules = rules;
    }

    pub(super) fn rules(&self, namespace: &str) -> Rules {
        self.rules.get(namespace).cloned().unwrap_or_default()
    }

    /// What this scheduler's jobs have and want, by namespace.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&Arc<str>, &Use)> {
        self.by_namespace.iter().map(|(name, queue)| (name, &queue.ours))
    }

    /// What a namespace has and wants in the whole cluster, as far as this scheduler knows.
    pub(super) fn everywhere(&self, namespace: &str) -> Use {
        let mut all = self.by_namespace.get(namespace).map(|queue| queue.ours.clone()).unwrap_or_default();
        if let Some(elsewhere) = self.elsewhere.get(namespace) {
            all.join(&elsewhere.sum);
        }
        all
    }

    /// Namespaces that somebody has jobs of, or that have rules.
    pub(super) fn known(&self) -> BTreeSet<&str> {
        let ours = self.by_namespace.keys().map(|name| &**name);
        ours.chain(self.elsewhere.keys().map(String::as_str)).chain(self.rules.keys().map(String::as_str)).collect()
    }

    /// What of a namespace's limits is left for this scheduler; `session`: its own. `None`: there are none.
    pub(super) fn limit(&self, namespace: &str, thought: &Thought, session: &str, now: Millis) -> Option<Limit> {
        let rules = self.rules.get(namespace).filter(|rules| rules.limits())?;
        let with_thought = |mut known: Use| {
            known.in_use.join(&thought.amount);
            known.running = known.running.saturating_add(thought.tasks);
            known
        };
        let whole = (rules.clone(), with_thought(self.everywhere(namespace)));
        let sharers = self.elsewhere.get(namespace).filter(|known| !known.sessions.is_empty());
        let part = sharers.map(|elsewhere| {
            let of = u32::try_from(elsewhere.sessions.len()).unwrap_or(u32::MAX).saturating_add(1);
            let before =
                elsewhere.sessions.range::<str, _>((Bound::Unbounded, Bound::Excluded(session))).count() as u64;
            let turn = u32::try_from((before + now / ODD_PART_MS) % u64::from(of)).unwrap_or(0);
            let ours = self.by_namespace.get(namespace).map(|queue| queue.ours.clone()).unwrap_or_default();
            Part { rules: rules.part(turn, of), used: with_thought(ours), has_turn: turn == 0, sharers: of - 1 }
        });
        Some(Limit { whole, part })
    }

    /// How much this scheduler's tasks count at executors beside those of peers, in thousandths: each namespace's weight is divided
    /// among the schedulers where tasks of it could run.
    pub(super) fn weight(&self) -> u32 {
        let weights = self.with_ready().map(|name| {
            let weight = u64::from(self.rules.get(&**name).map_or(WEIGHT_DEFAULT, Rules::weight));
            let others = self.elsewhere.get(&**name).map_or(0, |elsewhere| elsewhere.wanting);
            weight * 1000 / u64::from(WEIGHT_DEFAULT) / (u64::from(others) + 1)
        });
        u32::try_from(weights.sum::<u64>()).unwrap_or(u32::MAX).max(1)
    }

    pub(super) fn is_ready(&self, namespace: &str, place: Place) -> bool {
        self.by_namespace.get(namespace).is_some_and(|queue| queue.ready.contains(&place))
    }

    /// Whether somebody comes after it.
    pub(super) fn is_followed(&self, namespace: &str, place: Place) -> bool {
        let is_last = self.by_namespace.get(namespace).is_none_or(|queue| queue.ready.last() == Some(&place));
        !is_last || self.with_ready().any(|other| &**other != namespace)
    }

    /// The jobs of a namespace with ready tasks that come after this one, in their order.
    pub(super) fn ready_after(&self, namespace: &str, after: Option<Place>) -> impl Iterator<Item = &Place> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_namespace.get(namespace).into_iter().flat_map(move |queue| queue.ready.range((from, Bound::Unbounded)))
    }

    /// The namespaces with ready jobs.
    pub(super) fn with_ready(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_namespace.iter().filter(|(_, queue)| !queue.ready.is_empty()).map(|(name, _)| name)
    }

    /// Whose turn it is of these, each with what was given to it in thought, and how far it may go before another one's turn comes:
    /// a share for its weight, or as far as it likes if it is the only one.
    pub(super) fn next<'a>(
        &self,
        of: impl Iterator<Item = (&'a Arc<str>, &'a Thought)>,
        total: &Amount,
    ) -> Option<(&'a Arc<str>, Option<u64>)> {
        let rank = |(name, thought): (&'a Arc<str>, &Thought)| {
            let served = self.by_namespace.get(name).map_or(0, |queue| queue.served);
            (self.share(name, thought, total), served, name)
        };
        let mut ranked: Vec<_> = of.map(rank).collect();
        ranked.sort_unstable();
        let (share, _, name) = ranked.first()?;
        let far = ranked.get(1).map(|(second, ..)| second.saturating_sub(*share).saturating_add(STEP));
        Some((name, far))
    }

    /// A namespace's share of the cluster, for its weight, with what is given to it in thought.
    fn share(&self, namespace: &str, thought: &Thought, total: &Amount) -> u64 {
        let ours = self.by_namespace.get(namespace).map(|queue| &queue.ours.in_use);
        let theirs = self.elsewhere.get(namespace).map(|elsewhere| &elsewhere.sum.in_use);
        let mut sum = thought.amount.clone();
        ours.into_iter().chain(theirs).for_each(|part| sum.join(part));
        let share = sum.dominant_share(total);
        self.rules.get(namespace).map_or(share, |rules| rules.weighted(share))
    }

    /// What one task adds to its namespace's share, for its weight.
    pub(super) fn step(&self, namespace: &str, need: &Resources, total: &Amount) -> u64 {
        let mut one = Amount::default();
        one.add(need, 1);
        let share = one.dominant_share(total);
        self.rules.get(namespace).map_or(share, |rules| rules.weighted(share)).max(1)
    }
}

impl Engine {
    /// What this scheduler's jobs have and want, by namespace.
    #[must_use]
    pub fn usage(&self) -> BTreeMap<String, Use> {
        let told =
            |(name, ours): (&Arc<str>, &Use)| (name.to_string(), Use { ready: self.ready_in(name), ..ours.clone() });
        self.queues.ours().map(told).collect()
    }

    /// Tasks of a namespace that could run, of this scheduler's jobs.
    fn ready_in(&self, namespace: &str) -> u32 {
        let jobs = self.queues.ready_after(namespace, None).map(|(_, id)| &self.jobs[id]);
        jobs.flat_map(|job| job.graph.ready()).map(|ready| ready.count).fold(0, u32::saturating_add)
    }

    /// What namespaces have and want in the whole cluster, and their shares of it; see [`crate::fairness`].
    #[must_use]
    pub fn namespaces(&self) -> Vec<(String, Use, u64)> {
        let total = self.cluster_total();
        let namespaces = self.queues.known().into_iter().map(|name| (name.to_owned(), self.queues.everywhere(name)));
        let with_share = namespaces.map(|(name, mut known)| {
            let share = known.in_use.dominant_share(&total);
            known.ready = known.ready.saturating_add(self.ready_in(&name));
            (name, known, share)
        });
        with_share.collect()
    }

    /// If a namespace may not have so many jobs more: how many it has and may have.
    #[must_use]
    pub fn quota_reached(&self, namespace: &str, more: u64) -> Option<(u32, u32)> {
        let most = self.queues.rules(namespace).max_jobs?;
        let jobs = self.queues.everywhere(namespace).jobs;
        (u64::from(jobs).saturating_add(more) > u64::from(most)).then_some((jobs, most))
    }
}
