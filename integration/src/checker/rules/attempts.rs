//! What the history says of each attempt: whom it was given to, and how it ended there. Other rules compare that with the
//! executors' records.

use std::collections::{BTreeMap, HashMap};

use muster_graph::execution::{FailureClass, TaskPhase};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, TaskId};
use muster_state::Revision;

use crate::checker::job::Move;

/// One attempt.
pub(in crate::checker) type AttemptName = (JobId, TaskId, Attempt);

/// Given to an executor.
#[derive(Debug, Clone)]
pub(in crate::checker) struct Given {
    pub(in crate::checker) revision: Revision,
    pub(in crate::checker) at_us: u64,
    pub(in crate::checker) on: ExecutorKey,
}

/// Its task went on without a result of it.
#[derive(Debug, Clone)]
pub(in crate::checker) struct GivenUp {
    pub(in crate::checker) revision: Revision,
    /// Classes that were charged.
    pub(in crate::checker) classes: Vec<FailureClass>,
}

/// What is known of an attempt.
#[derive(Debug, Clone, Default)]
pub(in crate::checker) struct Past {
    /// Whom it was given to; more than one life of one executor if it was adopted after a restart.
    pub(in crate::checker) given: Vec<Given>,
    pub(in crate::checker) accepted: Option<Given>,
    pub(in crate::checker) given_up: Option<GivenUp>,
}

/// All attempts.
#[derive(Debug, Default)]
pub(in crate::checker) struct Attempts {
    pub(in crate::checker) of: HashMap<AttemptName, Past>,
    /// The last attempt of each task.
    pub(in crate::checker) last: BTreeMap<(JobId, TaskId), Attempt>,
}

fn is_live(phase: TaskPhase) -> bool {
    matches!(phase, TaskPhase::Assigned | TaskPhase::Running)
}

impl Attempts {
    /// Takes a job's moves in.
    pub(in crate::checker) fn after(&mut self, job: JobId, moves: &[Move], revision: Revision, at_us: u64) {
        for moved in moves {
            let (was, is) = (moved.from.state.phase(), moved.to.state.phase());
            let given = |on: &ExecutorKey| Given { revision, at_us, on: on.clone() };
            let same = moved.from.attempt == moved.to.attempt;
            if is_live(was) && !(same && (is_live(is) || is == TaskPhase::Successful)) {
                let classes = FailureClass::ALL.into_iter().zip(moved.from.spent.into_iter().zip(moved.to.spent));
                let classes = classes.filter(|(_, (was, is))| is > was).map(|(class, _)| class).collect();
                let past = self.of.entry((job, moved.task, moved.from.attempt)).or_default();
                past.given_up.get_or_insert(GivenUp { revision, classes });
            }
            self.last.insert((job, moved.task), moved.to.attempt);
            let Some(on) = &moved.to_on else { continue };
            let past = self.of.entry((job, moved.task, moved.to.attempt)).or_default();
            if is_live(is) {
                if past.given.last().is_none_or(|last| last.on != *on) {
                    past.given.push(given(on));
                }
            } else if is == TaskPhase::Successful {
                past.accepted.get_or_insert(given(on));
            }
        }
    }
}
