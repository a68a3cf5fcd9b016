//! Why tasks are not running, and what would make them run, in the user's terms.
//!
//! **Invariant:** nothing here decides, and nothing here knows rules of its own. What a task waits for inside its job is
//! the graph's word (`waits`); who gets what of which executor is [`crate::placement`]'s, asked again with the problem that
//! placing has just stated, and with that problem changed by what might help (`order`, `room`); what became of an assignment is in
//! the executors' accounts (`held`).
//!
//! **Invariant:** the engine is not held up. Counts are those that are kept anyway; tasks are looked at a page at a time; the
//! order is walked once for an answer, as for one placement; names that are listed are cut to a few.
//!
//! A reason that is new to placement (labels, devices, shares) belongs where placement learns of it: a [`standing::Standing`] of an
//! executor if it is between task and executor, a line of [`order::Line`] if it is about the order.

mod held;
mod limits;
mod nowhere;
mod order;
mod room;
mod standing;
mod waits;
mod words;

use std::cell::OnceCell;

use muster_graph::execution::{ExecutionGraph, ExecutorRef, TaskState};
use muster_graph::ids::{JobId, Millis, StageIndex, TaskId};
use muster_proto::{storage, v1};

use self::held::Held;
use self::order::Rehearsal;
use self::words::{count_of, reason, time};
use super::losses::is_ending;
use super::{Engine, Job, after, view};

/// Stages in one answer: executors are looked at for each of them.
pub(crate) const STAGES_MAX: usize = 100;
/// Tasks in one answer.
pub(crate) const TASKS_MAX: usize = 1_000;
/// Tasks looked at for one answer; of a large stage most may be over.
const TASKS_LOOKED_AT: u32 = 16_384;

/// What is to be explained.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Question {
    /// `None`: the job and all of its stages that are not over.
    pub(crate) stage: Option<StageIndex>,
    /// One task of the stage.
    pub(crate) index: Option<u32>,
    /// Each task of the stage that is not over.
    pub(crate) tasks: bool,
    /// Stages or tasks, at most.
    pub(crate) limit: usize,
    /// The stage or task to go on from.
    pub(crate) from: u32,
}

/// A job, and who is there to advance it.
struct Subject<'a> {
    graph: &'a ExecutionGraph,
    now: Millis,
    /// `None`: the job is in no scheduler's memory.
    owner: Option<Owner<'a>>,
    /// Why nothing of the job is placed, whatever is ready and whoever has room.
    stands_still: Option<v1::Reason>,
}

struct Owner<'a> {
    engine: &'a Engine,
    job: &'a Job,
    /// `None`: nothing of the job is ready.
    rehearsal: Option<Rehearsal>,
    /// The accounts of its executors, once they were looked at.
    held: OnceCell<Held<'a>>,
}

impl Engine {
    /// Explains a job that is owned here.
    #[must_use]
    pub(crate) fn explain(&self, job: &Job, question: &Question, now: Millis) -> v1::Explanation {
        let stands_still = stands_still(job);
        // An order in which the job has no place is not asked about it.
        let rehearsal = if stands_still.is_none() { self.rehearse(job, now) } else { None };
        let owner = Some(Owner { engine: self, job, rehearsal, held: OnceCell::new() });
        let subject = Subject { graph: &job.graph, now, owner, stands_still };
        let mut explanation = subject.answer(job.id, &job.head, question);
        explanation.owner.clone_from(&self.identity.address);
        let concerning = self.concerning(job, now);
        explanation.reasons.extend(subject.stands_still.iter().cloned().chain(concerning));
        if job.graph.is_over() {
            // Its end is on its way to the store; it may not be told of before it is there.
            explanation.state = v1::JobState::Running.into();
            explanation.reasons.push(reason(v1::ReasonKind::Committing, 0, "its end is being committed"));
        }
        explanation
    }
}

/// Explains a job that is over, or that nobody may advance, for the reason given.
#[must_use]
pub(crate) fn stored(
    id: JobId,
    head: &storage::JobHead,
    graph: &ExecutionGraph,
    question: &Question,
    why: Option<v1::Reason>,
    now: Millis,
) -> v1::Explanation {
    let subject = Subject { graph, now, owner: None, stands_still: why };
    let mut explanation = subject.answer(id, head, question);
    explanation.reasons.extend(subject.stands_still);
    explanation
}

/// A job that is not planned yet, or of which only the head can be read.
#[must_use]
pub(crate) fn unplanned(id: JobId, head: &storage::JobHead, why: v1::Reason) -> v1::Explanation {
    v1::Explanation {
        job_id: id.to_string(),
        name: head.name.clone(),
        namespace: head.namespace.clone(),
        state: head.state,
        counts: head.tasks,
        message: head.message.clone(),
        reasons: vec![why],
        ..Default::default()
    }
}

/// A reason that does not come from the engine.
#[must_use]
pub(crate) fn reason_of_all(kind: v1::ReasonKind, text: String, remedy: &str) -> v1::Reason {
    v1::Reason { remedies: vec![remedy.to_owned()], ..reason(kind, 0, text) }
}

/// Why a job that is owned here has no place in the order.
fn stands_still(job: &Job) -> Option<v1::Reason> {
    if let Some(successor) = &job.leaving {
        let text = format!("the job is on its way to the scheduler at {}", successor.record.address);
        return Some(reason(v1::ReasonKind::Moving, 0, text));
    }
    if let Some(first) = job.after.first() {
        let listed = job.after.iter().take(words::LISTED_MAX);
        let named: Vec<String> =
            listed.map(|after| format!("the {} of job {}", after::in_words(after.end), after.job)).collect();
        let more = job.after.len() - named.len();
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let text = format!("the job waits for {}{more}", named.join(", "));
        let remedies = vec![format!("`muster explain {}` says why that one is not over", first.job)];
        return Some(v1::Reason { remedies, ..reason(v1::ReasonKind::AfterJob, 0, text) });
    }
    let text = "more of the job waits to be committed than may: the store does not keep up";
    job.is_full().then(|| reason(v1::ReasonKind::StoreSilent, 0, text))
}

impl Engine {
    /// What concerns a job as a whole.
    fn concerning(&self, job: &Job, now: Millis) -> Vec<v1::Reason> {
        let mut reasons = Vec::new();
        if is_ending(job) {
            let record = job.graph.job();
            let (kind, mut text) = match &record.cancel {
                Some(words) if words.is_empty() => (v1::ReasonKind::CancelRequested, "the job is cancelled".to_owned()),
                Some(words) => (v1::ReasonKind::CancelRequested, format!("the job is cancelled: {words}")),
                None => (v1::ReasonKind::TimeUp, "the job's time is up".to_owned()),
            };
            text.push_str("; only tasks of `always` stages are started");
            let held = job.graph.counts().held();
            if held > 0 {
                text.push_str(&format!(", and {} still to end", count_of(held, "task is", "tasks are")));
            }
            reasons.push(reason(kind, 0, text));
        }
        for executor in self.executors.values() {
            let id = &executor.key.id;
            if executor.ask.contains_key(&job.id) && executor.is_reachable() {
                let text = format!("{id} has not said yet what it has of the job since it came to this scheduler");
                reasons.push(v1::Reason { executors: vec![id.clone()], ..reason(v1::ReasonKind::Asking, 0, text) });
            }
            let held = if executor.is_reachable() { 0 } else { executor.held_of(job.id) };
            if held > 0 {
                reasons.push(self.away(executor, job, held, now));
            }
            if reasons.len() >= words::LISTED_MAX {
                break;
            }
        }
        reasons
    }
}

impl Subject<'_> {
    fn answer(&self, id: JobId, head: &storage::JobHead, question: &Question) -> v1::Explanation {
        let graph = self.graph;
        let mut explanation = v1::Explanation {
            job_id: id.to_string(),
            name: head.name.clone(),
            namespace: head.namespace.clone(),
            state: v1::JobState::from(graph.job().state).into(),
            counts: Some(graph.counts().into()),
            message: view::message(graph),
            ..Default::default()
        };
        match (question.stage, question.index) {
            (None, _) => self.stages(question, &mut explanation),
            (Some(stage), Some(index)) => explanation.tasks.extend(self.task(TaskId::new(stage.0, index))),
            (Some(stage), None) => {
                explanation.stages.extend(self.stage(stage));
                if question.tasks {
                    self.tasks(stage, question, &mut explanation);
                }
            }
        }
        explanation
    }

    fn stages(&self, question: &Question, explanation: &mut v1::Explanation) {
        // The borders of nested jobs wait for stages that are told of themselves.
        let is_stage = |stage: StageIndex| self.graph.plan().stages[stage.0 as usize].gate.is_none();
        let open = self.graph.stages().skip(question.from as usize);
        let open = open.filter(|(stage, record)| !record.state.is_over() && is_stage(*stage));
        for (stage, _) in open {
            if explanation.stages.len() >= question.limit.min(STAGES_MAX) {
                explanation.next_page_token = stage.0.to_string();
                return;
            }
            explanation.stages.extend(self.stage(stage));
        }
    }

    fn tasks(&self, stage: StageIndex, question: &Question, explanation: &mut v1::Explanation) {
        let end = question.from.saturating_add(TASKS_LOOKED_AT);
        for (index, task) in self.graph.tasks(stage, question.from..end) {
            let is_open = matches!(
                task.state,
                TaskState::Pending { .. } | TaskState::Assigned { .. } | TaskState::Running { .. }
            );
            if !is_open {
                continue;
            }
            if explanation.tasks.len() >= question.limit.min(TASKS_MAX) {
                explanation.next_page_token = index.0.to_string();
                return;
            }
            explanation.tasks.extend(self.task(TaskId { stage, index }));
        }
        if end < self.graph.plan().stages[stage.0 as usize].tasks {
            explanation.next_page_token = end.to_string();
        }
    }

    fn stage(&self, stage: StageIndex) -> Option<v1::StageExplanation> {
        let record = self.graph.stage(stage)?;
        let counts = view::counts_within(self.graph, stage);
        let is_stage = self.graph.plan().stages[stage.0 as usize].gate.is_none();
        let mut reasons = Vec::new();
        if record.state.is_over() {
            reasons.push(waits::stage_over(self.graph, stage));
        } else if !is_stage {
            reasons.push(waits::upstream(self.graph, stage, counts.live()));
        } else {
            if counts.pending > 0 || counts.total() == 0 {
                reasons.extend(self.pending(stage, counts.pending));
            }
            match &self.owner {
                Some(owner) => {
                    let held = owner.held.get_or_init(|| owner.engine.held(owner.job));
                    reasons.extend(held.told(stage, counts.held(), self.now));
                }
                None => reasons.extend(held::on_paper(counts)),
            }
        }
        Some(v1::StageExplanation {
            stage: self.graph.plan().stages[stage.0 as usize].name.clone(),
            state: v1::StageState::from(record.state).into(),
            counts: Some(counts.into()),
            reasons,
        })
    }

    /// Why tasks of a stage that is not over are pending.
    fn pending(&self, stage: StageIndex, pending: u32) -> Vec<v1::Reason> {
        if !self.graph.is_open(stage) {
            return vec![waits::upstream(self.graph, stage, pending)];
        }
        let mut reasons = Vec::new();
        let ready = self.graph.ready_count(stage);
        if ready > 0 {
            reasons.push(v1::Reason { index: self.graph.first_ready(stage), ..self.ready(stage, ready, 0) });
        }
        if pending > ready {
            reasons.extend(waits::not_ready(self.graph, stage, pending - ready, self.now));
        }
        reasons
    }

    /// Why tasks that may be assigned are not; so many of their own stage are before them.
    fn ready(&self, stage: StageIndex, tasks: u32, before: u32) -> v1::Reason {
        if let Some(why) = &self.stands_still {
            return v1::Reason { tasks, ..why.clone() };
        }
        let limited = |owner: &Owner<'_>| owner.engine.limited(owner.job, stage, tasks, self.now);
        if let Some(why) = self.owner.as_ref().and_then(limited) {
            return why;
        }
        match &self.owner {
            Some(Owner { engine, job, rehearsal: Some(rehearsal), .. }) => {
                engine.no_room(job, stage, (tasks, before), rehearsal, self.now)
            }
            _ => reason(v1::ReasonKind::Starting, tasks, "nothing is in the way: the next placement looks at it"),
        }
    }

    fn task(&self, id: TaskId) -> Option<v1::TaskExplanation> {
        let task = self.graph.task(id)?;
        let mut since_ms = 0;
        let why = match task.state {
            TaskState::Pending { .. } if !self.graph.is_open(id.stage) => waits::upstream(self.graph, id.stage, 1),
            TaskState::Pending { not_before } if not_before > self.now => {
                waits::backoff(self.graph, id, &task, not_before, self.now)
            }
            TaskState::Pending { .. } if !self.graph.inputs_ready(id) => waits::input(self.graph, id),
            TaskState::Pending { .. } => self.ready(id.stage, 1, self.graph.ready_before(id).unwrap_or(0)),
            TaskState::Assigned { on, at } => {
                since_ms = at;
                self.held(id, task.attempt, on)
            }
            TaskState::Running { on, started_at } => {
                since_ms = started_at;
                self.held(id, task.attempt, on)
            }
            TaskState::Successful(accepted) => {
                since_ms = accepted.started_at + u64::from(accepted.ran_ms);
                waits::successful(self.graph, &accepted)
            }
            TaskState::Failed(ended) => {
                since_ms = ended.started_at + u64::from(ended.ran_ms);
                waits::failed(self.graph, id, &task, &ended)
            }
            TaskState::Cancelled => waits::cancelled(self.graph, id.stage),
        };
        let mut reasons = vec![v1::Reason { index: Some(id.index.0), ..why }];
        if since_ms > 0 && matches!(task.state, TaskState::Running { .. } | TaskState::Assigned { .. }) {
            let for_so_long = time(self.now.saturating_sub(since_ms));
            reasons[0].since_ms = since_ms;
            reasons[0].text.push_str(&format!(", for {for_so_long}"));
        }
        Some(v1::TaskExplanation {
            stage: self.graph.plan().stages[id.stage.0 as usize].name.clone(),
            index: id.index.0,
            state: v1::TaskState::from(&task.state).into(),
            attempt: task.attempt,
            since_ms,
            reasons,
        })
    }

    fn held(&self, id: TaskId, attempt: u32, on: ExecutorRef) -> v1::Reason {
        match &self.owner {
            Some(owner) => owner.engine.held_task(owner.job, id, attempt, on, self.now),
            None => held::on_paper_at(view::executor_name(self.graph, on)),
        }
    }
}
