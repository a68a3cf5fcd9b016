//! What is needed of an executor that leaves, who is to have it, and when a job goes by that.

use std::collections::BTreeSet;

use muster_graph::execution::TaskState;
use muster_graph::ids::{StageIndex, TaskId};
use muster_proto::v1;

use super::*;

/// Two outputs on `a` that a second stage is still to read.
async fn read_later() -> (Bench, JobId) {
    let mut bench = Bench::new().await;
    bench.register(key("a", 1), 2);
    let id = bench.submit(1, spec(&[("made", 2, &[]), ("read", 1, &[("made", InputKind::All)])])).await;
    bench.commit_all().await;
    let ends = [0, 1].map(|index| ended(u64::from(index) + 1, (id, 0, index, 1), v1::Outcome::Succeeded));
    let _settled = bench.finish(&key("a", 1), &ends);
    bench.commit_all().await;
    (bench, id)
}

fn heirs(answer: &v1::OutputsNeededResponse) -> Vec<(&str, usize)> {
    answer.hand_over.iter().map(|to| (to.executor_id.as_str(), to.outputs.len())).collect()
}

fn moved(sequence: u64, id: JobId, index: u32, to: &ExecutorKey) -> v1::AttemptStatus {
    let to = v1::OutputMoved { executor_id: to.id.clone(), incarnation: to.incarnation };
    v1::AttemptStatus {
        sequence,
        attempt: Some(v1::AttemptRef { job_id: id.to_string(), stage: 0, index, attempt: 1 }),
        what: Some(v1::attempt_status::What::Moved(to)),
    }
}

impl Bench {
    fn lies_on(&self, id: JobId, index: u32) -> String {
        let graph = &self.engine.job(id).unwrap().graph;
        let TaskState::Successful(accepted) = graph.task(TaskId::new(0, index)).unwrap().state else { panic!() };
        graph.executor(accepted.on).unwrap().id.clone()
    }
}

#[tokio::test]
async fn outputs_are_for_those_that_stay_and_have_not_failed_to_take_them() {
    let (mut bench, id) = read_later().await;
    let needed = |bench: &Bench, avoid: &[&str]| {
        let avoid: BTreeSet<String> = avoid.iter().map(|id| (*id).to_owned()).collect();
        bench.engine.outputs_needed_of("a", &avoid)
    };
    let alone = needed(&bench, &[]);
    assert_eq!((alone.job_ids.clone(), heirs(&alone)), (vec![id.to_string()], vec![]), "nobody else is there");
    bench.register(key("b", 1), 2);
    let home = bench.identity.session.0.clone();
    bench.input(Input::Registered(Registration {
        draining: true,
        home_here: true,
        held: Some(Vec::new()),
        ..registration(key("c", 1), 2, home, 1)
    }));
    let answer = needed(&bench, &[]);
    assert_eq!(heirs(&answer), [("b", 2)], "one that leaves, too, takes nothing");
    let first = &answer.hand_over[0].outputs[0];
    assert_eq!(first.output, Some(v1::Output { bytes: 1, checksum: 1, files: 1 }));
    assert_eq!(heirs(&needed(&bench, &["b"])), []);
    assert_eq!(bench.engine.outputs_needed_of("b", &BTreeSet::new()), v1::OutputsNeededResponse::default());
}

#[tokio::test]
async fn an_output_lies_elsewhere_when_that_is_committed_and_its_heir_is_there() {
    let (mut bench, id) = read_later().await;
    bench.register(key("b", 2), 2);
    let revision = |bench: &Bench| bench.engine.inputs_revision(bench.engine.job(id).unwrap(), StageIndex(1));
    let before = revision(&bench);
    // One that is not known, and a life that is over.
    let answer = bench.finish(&key("a", 1), &[moved(1, id, 0, &key("x", 1)), moved(2, id, 1, &key("b", 1))]);
    assert_eq!(answer.await.unwrap().settled, [0u64; 0]);
    assert_eq!((bench.lies_on(id, 0), revision(&bench)), ("a".to_owned(), before));

    let mut answer = bench.finish(&key("a", 1), &[moved(1, id, 0, &key("b", 2))]);
    assert!(answer.try_recv().is_err(), "it is not committed yet");
    bench.commit_all().await;
    assert_eq!(answer.await.unwrap().settled, [1]);
    assert_eq!((bench.lies_on(id, 0), bench.lies_on(id, 1)), ("b".to_owned(), "a".to_owned()));
    assert_ne!(revision(&bench), before, "who starts from now on asks again");
    let stays = bench.engine.stage_inputs(id, StageIndex(1), before, v1::InputsPage::default());
    let places = stays.expect("it is owned here").expect("who asked before may go on").upstreams.remove(0).locations;
    assert_eq!(places.iter().map(|place| place.executor_id.as_str()).collect::<Vec<_>>(), ["b", "a"]);
}

#[tokio::test]
async fn inputs_that_are_not_there_are_told_as_such() {
    let mut bench = Bench::new().await;
    bench.register(key("a", 1), 1);
    let id = bench.submit(1, spec(&[("made", 2, &[]), ("read", 2, &[("made", InputKind::Each)])])).await;
    bench.commit_all().await;
    let mut nothing = ended(1, (id, 0, 0, 1), v1::Outcome::Succeeded);
    let Some(v1::attempt_status::What::Finished(end)) = &mut nothing.what else { panic!("it is an end") };
    end.output = Some(v1::Output::default());
    let _settled = bench.finish(&key("a", 1), &[nothing]);
    bench.commit_all().await;
    let _settled = bench.finish(&key("a", 1), &[ended(2, (id, 0, 1, 1), v1::Outcome::Succeeded)]);
    bench.commit_all().await;
    let place = |bench: &Bench, index| {
        let place = bench.engine.location(bench.engine.job(id).unwrap(), TaskId::new(0, index)).unwrap();
        (place.executor_id, place.output.map_or(0, |output| output.files))
    };
    assert_eq!(place(&bench, 0), (String::new(), 0), "it left nothing: there is nothing to be fetched");
    assert_eq!(place(&bench, 1), ("a".to_owned(), 1));
    bench.engine.apply(id, muster_graph::execution::Event::OutputLost { task: TaskId::new(0, 1), attempt: 1 }, 5);
    assert_eq!(place(&bench, 1), (String::new(), 1), "it is being made again: nobody has it, and it is no empty one");
}
