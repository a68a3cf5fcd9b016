//! Each reason why a task may not run, brought about, and what is said of it.

mod held;
mod job;
mod nested;
mod room;
mod waits;

use muster_graph::ids::StageIndex;
use muster_proto::v1::ReasonKind as Kind;

use super::*;
use crate::engine::explain::Question;

const GIB: u64 = 1 << 30;

impl Bench {
    /// An explanation, of which every stage must account for each of its tasks that is not over.
    fn explain(&self, id: JobId, question: Question) -> v1::Explanation {
        let job = self.engine.job(id).expect("the job is here");
        let told = self.engine.explain(job, &Question { limit: 100, ..question }, self.now);
        for stage in &told.stages {
            let counts = stage.counts.unwrap();
            let explained: u32 = stage.reasons.iter().map(|reason| reason.tasks).sum();
            let open = counts.pending + counts.assigned + counts.running;
            assert_eq!(explained, open, "{} of {:?}", stage.stage, stage.reasons);
        }
        told
    }

    fn stage(&self, id: JobId, stage: u32) -> Vec<v1::Reason> {
        let mut told = self.explain(id, Question { stage: Some(StageIndex(stage)), ..Question::default() });
        told.stages.remove(0).reasons
    }

    fn only(&self, id: JobId, stage: u32) -> v1::Reason {
        let mut reasons = self.stage(id, stage);
        assert_eq!(reasons.len(), 1, "{reasons:#?}");
        reasons.remove(0)
    }

    fn task(&self, id: JobId, stage: u32, index: u32) -> v1::Reason {
        let question = Question { stage: Some(StageIndex(stage)), index: Some(index), ..Question::default() };
        let mut told = self.explain(id, question);
        assert_eq!(told.tasks.len(), 1);
        told.tasks.remove(0).reasons.remove(0)
    }

    fn of_job(&self, id: JobId) -> Vec<v1::Reason> {
        self.explain(id, Question::default()).reasons
    }

    fn register_offering(&mut self, id: &str, total: Resources) {
        let home = self.identity.session.0.clone();
        let record = self.engine.executor(id).map_or(1, |known| known.record + 1);
        let held = Some(Vec::new());
        let registration = Registration { total, home_here: true, held, ..registration(key(id, 1), 1, home, record) };
        self.input(Input::Registered(registration));
    }

    async fn ends(&mut self, id: JobId, by: &str, (stage, index, attempt): (u32, u32, u32), outcome: v1::Outcome) {
        drop(self.finish(&key(by, 1), &[ended(1, (id, stage, index, attempt), outcome)]));
        self.commit_all().await;
    }
}

fn kinds(reasons: &[v1::Reason]) -> Vec<(Kind, u32)> {
    reasons.iter().map(|reason| (reason.kind(), reason.tasks)).collect()
}

#[track_caller]
fn says(lines: &[String], part: &str) {
    assert!(lines.iter().any(|line| line.contains(part)), "{part:?} is not in {lines:#?}");
}

fn sized(cores: u32, gib: u64) -> Resources {
    Resources { cpu_milli: cores * 1000, memory_bytes: gib * GIB, ..Resources::default() }
}

fn wanting(resources: Resources, tasks: u32) -> JobSpec {
    let mut spec = spec(&[("a", tasks, &[])]);
    spec.stages[0].resources = resources;
    spec
}
