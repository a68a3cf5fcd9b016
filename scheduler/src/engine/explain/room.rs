//! Why ready tasks find no room, and what would give them some: the rehearsed placement, and the same with a task that wants
//! less.

use std::collections::BTreeMap;

use muster_graph::ids::{Millis, StageIndex};
use muster_graph::plan::Plan;
use muster_graph::spec::{Placing, Resources};
use muster_proto::v1;
use v1::ReasonKind as Kind;

use super::order::Rehearsal;
use super::standing::{Reluctance, Standing, remedy, told};
use super::words::{LISTED_MAX, Thing, count_of, in_a_line, listed, reason, wants};
use crate::engine::{Engine, Executor, Job};
use crate::fairness::WHOLE;
use crate::placement::{self, Demand, Offer};

impl Engine {
    /// Why so many ready tasks of a stage are not assigned; so many of the stage are before them.
    pub(super) fn no_room(
        &self,
        job: &Job,
        stage: StageIndex,
        (tasks, in_stage): (u32, u32),
        rehearsal: &Rehearsal,
        now: Millis,
    ) -> v1::Reason {
        if let Some(given) = rehearsal.given.get(&stage).filter(|given| **given > in_stage) {
            let text = format!("nothing is in the way: the next placement gives {given} of its stage to executors");
            return reason(Kind::Starting, tasks, text);
        }
        let mut why = rehearsal.told_once(stage, || self.room(job.graph.plan(), stage, rehearsal, now));
        why.tasks = tasks;
        if matches!(why.kind(), Kind::NoRoom | Kind::Unavailable) {
            self.in_line(job, stage, in_stage, rehearsal, &mut why);
        }
        why
    }

    /// What room there is for tasks of the stage.
    fn room(&self, plan: &Plan, stage: StageIndex, rehearsal: &Rehearsal, now: Millis) -> v1::Reason {
        let (wanted, placing) = (&plan.stages[stage.0 as usize].resources, plan.placing(stage));
        let mut by_standing: BTreeMap<Standing, Vec<&Executor>> = BTreeMap::new();
        for executor in self.executors().filter(|executor| executor.key.incarnation > 0) {
            let standing = Standing::of(executor, (wanted, placing), rehearsal.left.get(&executor.key.id));
            by_standing.entry(standing).or_default().push(executor);
        }
        let in_touch = by_standing.range(..Standing::TooSmall);
        let large: Vec<&Executor> = in_touch.flat_map(|(_, some)| some).copied().collect();
        let small = by_standing.get(&Standing::TooSmall).map_or(0, Vec::len);
        let mut why = match self.nowhere(plan, stage) {
            Some(text) if small == 0 => {
                let with_labels = if by_standing.contains_key(&Standing::Barred) { " --label KEY=VALUE" } else { "" };
                let remedies = vec![format!("an executor that offers it: `muster executor{with_labels}`")];
                v1::Reason { remedies, ..reason(Kind::NoExecutor, 0, text) }
            }
            Some(text) => self.too_large((wanted, placing), reason(Kind::TooLarge, 0, text)),
            None => {
                let open = by_standing.range(..Standing::Closed(Reluctance::Refused)).map(|(_, some)| some.len());
                let (kind, text) = in_words(open.sum(), large.len(), small);
                v1::Reason {
                    executors: listed(large.iter().map(|executor| executor.key.id.as_str())),
                    evidence: kept(&large, rehearsal).into_iter().collect(),
                    remedies: self.smaller_now((wanted, placing), rehearsal),
                    ..reason(kind, 0, text)
                }
            }
        };
        for (standing, some) in &by_standing {
            why.evidence.extend(told(*standing, some, wanted, now));
            why.remedies.extend(remedy(*standing, some));
        }
        why
    }

    /// Who is before the tasks.
    fn in_line(&self, job: &Job, stage: StageIndex, in_stage: u32, rehearsal: &Rehearsal, why: &mut v1::Reason) {
        let line = &rehearsal.line;
        let own = rehearsal.in_job.get(&stage).copied().unwrap_or(0).saturating_add(in_stage);
        let before = line.tasks().saturating_add(own);
        let peers = self.schedulers_sharing() - 1;
        if peers > 0 {
            let peers = count_of(peers, "other scheduler gives", "other schedulers give");
            why.evidence
                .push(format!("{peers} tasks to the same executors, in turn with this one; its line is its own"));
        }
        let others = u32::try_from(line.namespaces.len()).unwrap_or(u32::MAX);
        match (before, others) {
            (0, 0) => why.text.push_str("; it is first in line"),
            (0, _) => why.text.push_str("; it is first in its namespace's line"),
            _ => why.text.push_str(&format!("; {} before it in line", count_of(before, "task is", "tasks are"))),
        }
        if others > 0 {
            let name = &job.namespace;
            let goes = count_of(others, "other namespace goes", "other namespaces go");
            why.text.push_str(&format!(", and {goes} first"));
            let share = self.share_of(name);
            let weight = self.queues.rules(name).weight();
            why.evidence.push(format!(
                "namespace {name} has {share} of the cluster, with a weight of {weight}; who goes first has less for its weight"
            ));
        }
        why.evidence.extend(line.told());
        if own > 0 {
            why.evidence.push(format!("before it: {} of its own job", count_of(own, "task", "tasks")));
        }
    }

    /// A namespace's share of the cluster, in words.
    fn share_of(&self, namespace: &str) -> String {
        let share = self.queues.everywhere(namespace).in_use.dominant_share(&self.cluster_total());
        format!("{:.1} %", share as f64 * 100.0 / WHOLE as f64)
    }

    /// What of the wants is too much, and how much would do.
    fn too_large(&self, (wanted, placing): (&Resources, Placing<'_>), mut why: v1::Reason) -> v1::Reason {
        let admits = |executor: &&Executor| executor.is_reachable() && placing.admits(&executor.labels);
        let offered: Vec<&Resources> = self.executors().filter(admits).map(|executor| &executor.total).collect();
        for thing in Thing::all(wanted) {
            let most = offered.iter().map(|total| thing.of(total)).max().unwrap_or(0);
            if most < thing.of(wanted) {
                let want = thing.amount(thing.of(wanted), true);
                let offer = if most == 0 { "none".to_owned() } else { thing.amount(most, false) };
                why.evidence.push(format!("it wants {want}; the largest executor offers {offer}"));
            }
        }
        let smaller = relaxed(wanted, &offered);
        if smaller.is_empty() {
            why.evidence.push(
                "no executor is large enough for all of it at once, even if one of its wants were less".to_owned(),
            );
            why.remedies.extend(nearest(wanted, &offered));
        }
        for (less, variant) in smaller {
            let count = offered.iter().filter(|total| placement::fits(&variant, total) > 0).count();
            why.remedies.push(format!("fits on {} if {less}", executors(count)));
        }
        why.remedies.push(format!("an executor with {} or more", wants(wanted)));
        why
    }

    /// What would start at once if it wanted less, as the same solver says.
    fn smaller_now(&self, (wanted, placing): (&Resources, Placing<'_>), rehearsal: &Rehearsal) -> Vec<String> {
        let admitted = |id: &str| self.executor(id).is_some_and(|executor| placing.admits(&executor.labels));
        let open = rehearsal.left.iter().filter(|(id, _)| admitted(id));
        let open: Vec<&Offer> = open.filter_map(|(_, offer)| offer.as_ref().ok()).collect();
        let free: Vec<&Resources> = open.iter().map(|offer| &offer.free).collect();
        let starts = |variant: &Resources| {
            let mut offers: Vec<Offer> = open.iter().map(|offer| (*offer).clone()).collect();
            let one = Demand { resources: variant, count: 1, work: None, ranks: None, policy: placing.policy() };
            !placement::solve(&[one], &mut offers).is_empty()
        };
        let starting = relaxed(wanted, &free).into_iter().filter(|(_, variant)| starts(variant));
        starting.map(|(less, _)| format!("one would start now if {less}")).collect()
    }
}

/// Executors that are kept from being filled up because a larger task waits for room there.
fn kept(large: &[&Executor], rehearsal: &Rehearsal) -> Option<String> {
    let ids = large.iter().map(|executor| executor.key.id.as_str());
    let others: Vec<&str> = ids.clone().filter(|id| rehearsal.owed.contains(*id)).collect();
    if !others.is_empty() {
        let names = in_a_line(others.into_iter());
        return Some(format!("{names}: a task before it waits for room there, so none after that is sent ahead"));
    }
    if !rehearsal.is_followed {
        return None;
    }
    let own: Vec<&str> = ids.filter(|id| matches!(rehearsal.left.get(*id), Some(Ok(offer)) if offer.is_owed)).collect();
    let names = in_a_line(own.iter().copied());
    (!own.is_empty()).then(|| format!("{names}: no task after it is sent ahead to wait there, until it has found room"))
}

/// So many executors are large enough, of which so many are busy, and so many are too small.
fn in_words(busy: usize, large: usize, small: usize) -> (Kind, String) {
    let total = large + small;
    if busy > 0 && busy < large {
        let (busy, closed) = (count_of(number(busy), "is", "are"), count_of(number(large - busy), "takes", "take"));
        let text =
            format!("no room: of {large} executors that are large enough {busy} busy, and {closed} no tasks now");
        return (Kind::NoRoom, text);
    }
    let which = match (large, small) {
        (1, 0) => "the only executor".to_owned(),
        (1, _) => format!("the one of {total} executors that is large enough"),
        (_, 0) => format!("all {total} executors"),
        _ => format!("the {large} of {total} executors that are large enough"),
    };
    match (busy, large) {
        (0, 1) => (Kind::Unavailable, format!("{which} takes no tasks now")),
        (0, _) => (Kind::Unavailable, format!("{which} take no tasks now")),
        (_, 1) => (Kind::NoRoom, format!("no room: {which} is busy")),
        _ => (Kind::NoRoom, format!("no room: {which} are busy")),
    }
}

fn executors(count: usize) -> String {
    count_of(number(count), "executor", "executors")
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The most that a task could want of one thing, with all else as it is, for there to be something that has it; with what it
/// would want then.
fn relaxed(wanted: &Resources, offered: &[&Resources]) -> Vec<(String, Resources)> {
    let relax = |thing: Thing<'_>| {
        let without = thing.set(wanted, 0);
        let enough = offered.iter().filter(|offered| placement::fits(&without, offered) > 0);
        let most = enough.map(|offered| thing.of(offered)).max()?;
        (0 < most && most < thing.of(wanted)).then(|| (thing.at_most(most), thing.set(wanted, most)))
    };
    Thing::all(wanted).filter_map(relax).take(LISTED_MAX).collect()
}

/// What would have to be less, all together, for a task to fit where least is missing.
fn nearest(wanted: &Resources, offered: &[&Resources]) -> Option<String> {
    let short = |total: &Resources| Thing::all(wanted).filter(|thing| thing.of(total) < thing.of(wanted)).count();
    let has_some = offered.iter().filter(|total| Thing::all(wanted).all(|thing| thing.of(total) > 0));
    let nearest = has_some.min_by_key(|total| short(total))?;
    let less = Thing::all(wanted).filter(|thing| thing.of(nearest) < thing.of(wanted));
    let less: Vec<String> = less.map(|thing| thing.at_most(thing.of(nearest))).collect();
    Some(format!("fits on an executor if {}", less.join(" and ")))
}
