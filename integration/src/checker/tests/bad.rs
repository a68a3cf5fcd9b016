//! A good history, damaged in every way that a rule is for: each is caught by that rule, and by no other unless the
//! damage breaks it too.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_graph::execution::{ExecutorRef, FailureClass, TaskState};
use muster_graph::ids::{JobId, TaskId};
use muster_proto::storage::{ExecutorRecord, GroupCancelRecord, GroupSums, IdempotencyRecord, JobHead, OwnerRecord};
use muster_state::codec::{self, Bucket, Commit, Epoch};
use muster_state::{Keyspace, keys};

use super::super::{Cancelled, Change, Evidence, Outages, Rule, Submitted, check};
use super::edit::{append, change, edit, edit_everywhere, edit_states, edit_task, places, puts, puts_of, read};
use super::good::{FAILS_ONCE, Good, good};
use crate::journal::Line;

/// A way of damaging.
struct Damage {
    name: &'static str,
    expected: &'static [Rule],
    make: fn(&Good, &mut Evidence),
}

const fn damage(name: &'static str, expected: &'static [Rule], make: fn(&Good, &mut Evidence)) -> Damage {
    Damage { name, expected, make }
}

/// The revision (its place) that gave the large job to its second owner.
fn takeover(good: &Good, evidence: &Evidence) -> usize {
    puts(evidence, Keyspace::JobOwners, good.large)[1].0
}

/// A delta in the middle that neither folds nor comes with a head.
fn plain_delta(good: &Good, evidence: &Evidence) -> (usize, usize) {
    let all = puts(evidence, Keyspace::JobDeltas, good.large);
    let plain = |place: &&(usize, usize)| evidence.writes[place.0].changes.len() == 1;
    *all[all.len() / 4..].iter().find(plain).expect("most commits are a delta alone")
}

fn lines(evidence: &mut Evidence) -> impl Iterator<Item = &mut Line> {
    evidence.executors.values_mut().flatten()
}

fn last_head(evidence: &Evidence, job: JobId) -> (usize, usize) {
    *puts(evidence, Keyspace::CompletedJobs, job).last().expect("it was successful")
}

const FAILED_ONCE: TaskId =
    TaskId { stage: muster_graph::ids::StageIndex(0), index: muster_graph::ids::TaskIndex(FAILS_ONCE) };

fn lost_instead_of_failed(good: &Good, evidence: &mut Evidence) {
    edit_everywhere(evidence, good.large, FAILED_ONCE, |task| {
        task.spent.swap(FailureClass::Failed as usize, FailureClass::ExecutorLost as usize);
    });
}

/// Has the job's last revision say that an output lies on the other executor, whose name is the answer.
fn move_output(good: &Good, evidence: &mut Evidence) -> String {
    let mut to = String::new();
    edit_states(evidence, last_head(evidence, good.small), |states| {
        let on = std::cell::Cell::new(ExecutorRef(0));
        assert!(edit_task(states, TaskId::new(0, 1), |task| {
            let TaskState::Successful(accepted) = &mut task.state else { panic!("it is over") };
            accepted.on = ExecutorRef(1 - accepted.on.0);
            on.set(accepted.on);
        }));
        let known = states.executors.iter().find(|(executor, _)| *executor == on.get());
        to.clone_from(&known.expect("a whole has all of them").1.id);
    });
    to
}

#[rustfmt::skip]
const DAMAGES: &[Damage] = &[
    damage("a submit was acknowledged and never stored", &[Rule::Acknowledged], |_, evidence| {
        let submit = Submitted { job: JobId(77), ..evidence.clients.submitted[0].clone() };
        evidence.clients.submitted.push(Submitted { key: String::new(), ..submit });
    }),
    damage("a submit was acknowledged before it was stored", &[Rule::Acknowledged], |_, evidence| {
        evidence.scenario.exact_times = true;
        evidence.clients.submitted[0].at_us = 0;
    }),
    damage("a key was acknowledged for two jobs", &[Rule::OneJobPerKey], |good, evidence| {
        let submit = Submitted { job: good.other, ..evidence.clients.submitted[0].clone() };
        evidence.clients.submitted.push(submit);
    }),
    damage("two jobs have one key", &[Rule::OneJobPerKey], |good, evidence| {
        let place = puts(evidence, Keyspace::ActiveJobs, good.other)[0];
        edit::<JobHead>(evidence, place, |head| head.idempotency_key = "small".to_owned());
        let name = keys::idempotency("default", "small").name;
        let with = evidence.writes[place.0].changes.iter_mut().find(|change| change.keyspace == Keyspace::Idempotency);
        with.expect("it came with its key").name = name;
    }),
    damage("a key came to mean another job", &[Rule::OneJobPerKey], |good, evidence| {
        let record = IdempotencyRecord { job_id: good.other.to_string(), ..Default::default() };
        append(evidence, vec![Change::put(keys::idempotency("default", "small"), codec::encode(&record).unwrap())]);
    }),
    damage("a job came without its key", &[Rule::OneJobPerKey], |good, evidence| {
        let (write, _) = puts(evidence, Keyspace::ActiveJobs, good.small)[0];
        evidence.writes[write].changes.retain(|change| change.keyspace != Keyspace::Idempotency);
    }),
    damage("a job vanished at its end", &[Rule::JobKept, Rule::GroupCounts], |good, evidence| {
        let (write, place) = last_head(evidence, good.small);
        evidence.writes[write].changes.remove(place);
    }),
    damage("a finished job was deleted", &[Rule::JobKept], |good, evidence| {
        append(evidence, vec![Change::deleted(keys::completed_job(good.small))]);
    }),
    damage("a job is active and completed", &[Rule::JobKept], |good, evidence| {
        let (write, _) = last_head(evidence, good.small);
        evidence.writes[write].changes.retain(|change| change.keyspace != Keyspace::ActiveJobs);
    }),
    damage("an accepted result was replaced", &[Rule::AcceptedOnce], |good, evidence| {
        edit_states(evidence, last_head(evidence, good.small), |states| {
            assert!(edit_task(states, TaskId::new(0, 1), |task| {
                let TaskState::Successful(accepted) = &mut task.state else { panic!("it is over") };
                accepted.output.checksum ^= 1;
            }));
        });
    }),
    damage("a second attempt was accepted", &[Rule::AcceptedOnce, Rule::AcceptedStarted], |good, evidence| {
        edit_states(evidence, last_head(evidence, good.small), |states| {
            assert!(edit_task(states, TaskId::new(0, 1), |task| task.attempt = 2));
        });
    }),
    damage("another executor's result was accepted", &[Rule::AcceptedAssigned, Rule::AcceptedStarted], |good, evidence| {
        let flip = |states: &mut muster_graph::execution::Delta| {
            edit_task(states, TaskId::new(0, 1), |task| {
                if let TaskState::Successful(accepted) = &mut task.state {
                    accepted.on = ExecutorRef(1 - accepted.on.0);
                }
            });
        };
        for place in puts(evidence, Keyspace::ActiveJobs, good.small).into_iter().skip(1) {
            edit_states(evidence, place, flip);
        }
        edit_states(evidence, last_head(evidence, good.small), flip);
    }),
    damage("an output moved to an executor that never took it", &[Rule::MovedKept], |good, evidence| {
        move_output(good, evidence);
    }),
    damage("an output changed when it moved", &[Rule::AcceptedOnce], |good, evidence| {
        move_output(good, evidence);
        edit_states(evidence, last_head(evidence, good.small), |states| {
            edit_task(states, TaskId::new(0, 1), |task| task.spent[0] += 1);
        });
    }),
    damage("what was accepted was never started", &[Rule::AcceptedStarted], |good, evidence| {
        let job = good.small.to_string();
        for lines in evidence.executors.values_mut() {
            lines.retain(|line| line.job != job || line.event != "start" || line.stage != 1);
        }
    }),
    damage("an attempt was used again", &[Rule::AttemptsRise, Rule::StartedOnce], |good, evidence| {
        edit_everywhere(evidence, good.large, FAILED_ONCE, |task| task.attempt = task.attempt.min(1));
        let job = good.large.to_string();
        for line in lines(evidence).filter(|line| line.job == job && line.index == FAILS_ONCE) {
            line.attempt = line.attempt.min(1);
        }
    }),
    damage("an attempt's number fell", &[Rule::AttemptsRise, Rule::AcceptedStarted, Rule::Folding], |good, evidence| {
        edit_states(evidence, last_head(evidence, good.small), |states| {
            assert!(edit_task(states, TaskId::new(0, 1), |task| task.attempt = 0));
        });
    }),
    damage("an owner was replaced while its session lives", &[Rule::OwnerClaimed], |good, evidence| {
        let owner: OwnerRecord = read(evidence, puts(evidence, Keyspace::JobOwners, good.large)[0]);
        for write in &mut evidence.writes {
            write.changes.retain(|change| change.name != owner.session_id || change.value.is_some());
        }
        evidence.writes.retain(|write| !write.changes.is_empty());
    }),
    damage("a job was claimed for a session that is gone", &[Rule::OwnerClaimed], |good, evidence| {
        let place = puts(evidence, Keyspace::JobOwners, good.large)[1];
        edit::<OwnerRecord>(evidence, place, |owner| owner.session_id = "never heard of".to_owned());
    }),
    damage("an owner went before the end", &[Rule::OwnerClaimed, Rule::Token], |good, evidence| {
        let (write, _) = plain_delta(good, evidence);
        evidence.writes[write].changes.push(Change::deleted(keys::owner(good.large)));
    }),
    damage("a superseded owner committed", &[Rule::Token], |good, evidence| {
        let token = evidence.writes[puts(evidence, Keyspace::JobOwners, good.large)[0].0].revision;
        let taken = takeover(good, evidence);
        let mut deltas = puts(evidence, Keyspace::JobDeltas, good.large);
        deltas.retain(|(write, _)| *write > taken);
        edit::<Commit>(evidence, deltas[1], |commit| commit.token = token);
    }),
    damage("a superseded owner wrote a head", &[Rule::Token], |good, evidence| {
        edit::<JobHead>(evidence, last_head(evidence, good.small), |head| head.token -= 1);
    }),
    damage("a commit is missing", &[Rule::Sequence], |good, evidence| {
        let (write, _) = plain_delta(good, evidence);
        evidence.writes.remove(write);
    }),
    damage("a commit landed twice", &[Rule::Sequence], |good, evidence| {
        let deltas = puts(evidence, Keyspace::JobDeltas, good.large);
        let again = change(evidence, deltas[deltas.len() - 3]).clone();
        evidence.writes[deltas[deltas.len() - 1].0].changes.push(again);
    }),
    damage("two commits have one id", &[Rule::Sequence], |good, evidence| {
        let id = read::<Commit>(evidence, puts(evidence, Keyspace::JobDeltas, good.large)[0]).id;
        edit::<Commit>(evidence, plain_delta(good, evidence), |commit| commit.id = id);
    }),
    damage("a small job's head went back", &[Rule::Sequence], |good, evidence| {
        edit::<JobHead>(evidence, last_head(evidence, good.small), |head| head.sequence -= 1);
    }),
    damage("the epoch changed", &[Rule::Epoch], |_, evidence| {
        append(evidence, vec![Change::put(keys::epoch(), codec::encode(&Epoch(9)).unwrap())]);
    }),
    damage("an attempt was started that nobody was given", &[Rule::StartAssigned], |_, evidence| {
        let line = lines(evidence).find(|line| line.event == "start").expect("many").clone();
        evidence.executors.values_mut().next().expect("two").push(Line { attempt: 9, ..line });
    }),
    damage("an attempt was started in another life", &[Rule::StartAssigned, Rule::AcceptedStarted], |_, evidence| {
        lines(evidence).find(|line| line.event == "start").expect("many").incarnation += 1;
    }),
    damage("an attempt was started for an owner that never was", &[Rule::StartAssigned], |_, evidence| {
        lines(evidence).find(|line| line.event == "start").expect("many").token += 100_000;
    }),
    damage("an attempt was started before its commit", &[Rule::StartAssigned], |_, evidence| {
        evidence.scenario.exact_times = true;
        lines(evidence).find(|line| line.event == "start").expect("many").boot_us = 1;
    }),
    damage("an attempt was started twice", &[Rule::StartedOnce], |_, evidence| {
        let lines = evidence.executors.values_mut().next().expect("two");
        let line = lines.iter().find(|line| line.event == "start").expect("many").clone();
        lines.push(line);
    }),
    damage("a superseded owner's launch was admitted", &[Rule::Fence], |good, evidence| {
        let job = good.large.to_string();
        for lines in evidence.executors.values_mut() {
            let fences: Vec<Line> =
                lines.iter().filter(|line| line.event == "fence" && line.job == job).cloned().collect();
            let [first, .., newest] = fences.as_slice() else { continue };
            let start = lines.iter_mut().rfind(|line| line.event == "start" && line.token == first.token);
            start.expect("the first owner launched").admitted_us = newest.boot_us + 1;
            return;
        }
        panic!("somebody heard of both owners");
    }),
    damage("a task was assigned after the cancel", &[Rule::Cancelled], |good, evidence| {
        let mut heads = puts(evidence, Keyspace::ActiveJobs, good.small).split_off(1);
        heads.push(last_head(evidence, good.small));
        for place in heads {
            edit_states(evidence, place, |states| {
                states.job.as_mut().expect("a snapshot").cancel = Some("enough".to_owned());
            });
        }
    }),
    damage("a cancel was acknowledged and forgotten", &[Rule::Cancelled], |good, evidence| {
        let taken = takeover(good, evidence);
        evidence.writes.truncate(taken);
        evidence.executors.clear();
        evidence.clients.cancelled.push(Cancelled { job: good.large, at_us: 0 });
    }),
    damage("a task was assigned after the cancel of a group around its job", &[Rule::GroupCancelled], |good, evidence| {
        let (accepted, _) = puts(evidence, Keyspace::JobOwners, good.large)[0];
        let key = keys::group_cancel("default", "");
        let value = codec::encode(&GroupCancelRecord::default()).unwrap();
        let mark = Change { keyspace: key.keyspace, name: key.name, value: Some(value) };
        evidence.writes[accepted].changes.push(mark);
    }),
    damage("the cancel of a group was acknowledged and is not there", &[Rule::GroupCancelled], |_, evidence| {
        evidence.clients.groups_cancelled.push(("default".to_owned(), "a".to_owned()));
    }),
    damage("a takeover came late", &[Rule::Takeover], |good, evidence| {
        evidence.scenario.takeover_within = Some(Duration::from_secs(10));
        let taken = takeover(good, evidence);
        for write in &mut evidence.writes[taken..] {
            write.at_us += 20_000_000;
        }
    }),
    damage("nobody took a job over", &[Rule::Takeover], |good, evidence| {
        evidence.scenario.takeover_within = Some(Duration::from_secs(10));
        evidence.scenario.ended_at_us = u64::MAX;
        let taken = takeover(good, evidence);
        evidence.writes.truncate(taken);
        evidence.executors.clear();
    }),
    damage("running work was given up", &[Rule::RunningKept], |good, evidence| {
        lost_instead_of_failed(good, evidence);
        let job = good.large.to_string();
        for lines in evidence.executors.values_mut() {
            lines.retain(|line| line.event != "end" || line.job != job || line.index != FAILS_ONCE);
        }
    }),
    damage("a result was thrown away", &[Rule::RunningKept], |good, evidence| {
        lost_instead_of_failed(good, evidence);
        let job = good.large.to_string();
        let of_task = |line: &&mut Line| line.event == "end" && line.job == job && line.index == FAILS_ONCE;
        lines(evidence).filter(of_task).for_each(|line| line.outcome = Some("OUTCOME_SUCCEEDED".to_owned()));
    }),
    damage("an executor was declared lost that was there", &[Rule::LossDeclared], |_, evidence| {
        evidence.scenario.outages = Some(Outages { times: Vec::new(), lost_after: Duration::from_secs(3) });
        let lost = ExecutorRecord {
            executor_id: "e1".to_owned(), incarnation: 1, state: "lost".to_owned(), ..Default::default()
        };
        append(evidence, vec![Change::put(keys::executor("e1"), codec::encode(&lost).unwrap())]);
    }),
    damage("a count is wrong", &[Rule::Counts, Rule::GroupCounts], |good, evidence| {
        edit::<JobHead>(evidence, last_head(evidence, good.large), |head| {
            head.tasks.as_mut().expect("it counts").successful -= 1;
        });
    }),
    damage("a small job's count is wrong", &[Rule::Counts], |good, evidence| {
        edit::<JobHead>(evidence, puts(evidence, Keyspace::ActiveJobs, good.small)[1], |head| {
            head.tasks.as_mut().expect("it counts").pending += 1;
        });
    }),
    damage("a group counts one job too many", &[Rule::GroupCounts], |_, evidence| {
        let sums = puts_of(evidence, &keys::group_sums("default", ""));
        edit::<GroupSums>(evidence, sums[sums.len() / 2], |sums| sums.submitted += 1);
    }),
    damage("a completion was seen twice", &[Rule::GroupCounts], |_, evidence| {
        let sums = puts_of(evidence, &keys::group_sums("default", ""));
        edit::<GroupSums>(evidence, sums[sums.len() - 1], |sums| sums.completions += 1);
    }),
    damage("a bucket is not what the deltas say", &[Rule::Folding], |good, evidence| {
        let buckets = puts(evidence, Keyspace::JobStages, good.large);
        let of_tasks = buckets.into_iter().find(|place| change(evidence, *place).name.contains("/t/"));
        edit::<Bucket>(evidence, of_tasks.expect("tasks were folded"), |bucket| {
            assert!(edit_task(&mut bucket.delta, FAILED_ONCE, |task| task.attempt += 1));
        });
    }),
    damage("deltas were deleted that no bucket holds", &[Rule::Folding], |good, evidence| {
        let dropped = places(evidence, Keyspace::JobDeltas, good.large);
        let (write, _) = *dropped.iter().find(|place| change(evidence, **place).value.is_none()).expect("folded ones go");
        evidence.writes[write].changes.retain(|change| change.keyspace != Keyspace::JobStages);
    }),
    damage("a record is damaged", &[Rule::Readable], |good, evidence| {
        let (write, place) = plain_delta(good, evidence);
        evidence.writes[write].changes[place].value = Some(bytes::Bytes::from_static(b"rubbish"));
    }),
    damage("revisions are out of order", &[Rule::Readable], |_, evidence| {
        let revision = evidence.writes[0].revision;
        append(evidence, Vec::new());
        evidence.writes.last_mut().expect("just now").revision = revision;
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_kind_of_bad_history_is_caught_by_its_rule() {
    let good = good().await;
    check(&good.evidence).assert_clean();
    let mut wrong = Vec::new();
    let mut caught = BTreeSet::new();
    for Damage { name, expected, make } in DAMAGES {
        let mut evidence = good.evidence.clone();
        make(&good, &mut evidence);
        let verdict = check(&evidence);
        let expected: BTreeSet<Rule> = expected.iter().copied().collect();
        if verdict.rules() != expected {
            wrong.push(format!("{name}: expected {expected:?}\n{verdict}"));
        }
        caught.extend(verdict.rules());
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), DAMAGES.len(), wrong.join("\n\n"));
    assert_eq!(caught.len(), Rule::ALL.len(), "every rule was broken once: {caught:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_only_looks_bad_passes() {
    let good = good().await;
    // Given away by its living owner.
    let mut evidence = good.evidence.clone();
    let owners = puts(&evidence, Keyspace::JobOwners, good.large);
    let owner: OwnerRecord = read(&evidence, owners[0]);
    for write in &mut evidence.writes {
        write.changes.retain(|change| change.name != owner.session_id || change.value.is_some());
    }
    let taken = puts(&evidence, Keyspace::JobOwners, good.large)[1];
    edit::<OwnerRecord>(&mut evidence, taken, |record| record.handed_over_by.clone_from(&owner.session_id));
    check(&evidence).assert_clean();
    // Lost, as its executor says.
    let mut evidence = good.evidence.clone();
    lost_instead_of_failed(&good, &mut evidence);
    check(&evidence).assert_clean();
    // Handed over, as the executor says that has it now.
    let mut evidence = good.evidence.clone();
    let to = move_output(&good, &mut evidence);
    let end = evidence.executors.values().flatten();
    let mut keep = end.clone().find(|line| line.event == "end" && line.job == good.small.to_string()).unwrap().clone();
    (keep.event, keep.stage, keep.index, keep.attempt) = ("keep".to_owned(), 0, 1, 1);
    evidence.executors.get_mut(&to).unwrap().push(keep);
    check(&evidence).assert_clean();
    // Admitted before the newer owner was heard of, and started after that.
    let mut evidence = good.evidence.clone();
    for lines in evidence.executors.values_mut() {
        let latest = lines.iter().map(|line| line.boot_us).max().expect("it has lines");
        lines.iter_mut().filter(|line| line.event == "start").for_each(|line| line.boot_us += latest);
    }
    check(&evidence).assert_clean();
}
