//! `muster explain`: what it asks, and how it ends.

use muster_client::v1;

use crate::harness::{JOB, World};

fn question(stage: &str, index: Option<u32>, tasks: bool, limit: u32, page_token: &str) -> v1::ExplainRequest {
    let (stage, page_token) = (stage.to_owned(), page_token.to_owned());
    v1::ExplainRequest { job_id: JOB.to_string(), stage, index, tasks, limit, page_token }
}

fn answer(tasks: &[u32], next_page_token: &str) -> v1::Explanation {
    let why = |text: &str| vec![v1::Reason { tasks: 1, text: text.to_owned(), ..Default::default() }];
    let task =
        |&index: &u32| v1::TaskExplanation { stage: "s".to_owned(), index, reasons: why("so"), ..Default::default() };
    v1::Explanation {
        job_id: JOB.to_string(),
        stages: vec![v1::StageExplanation { stage: "s".to_owned(), reasons: why("thus"), ..Default::default() }],
        tasks: tasks.iter().map(task).collect(),
        next_page_token: next_page_token.to_owned(),
        ..Default::default()
    }
}

#[test]
fn a_stages_tasks_are_fetched_page_by_page_and_the_stage_is_told_once() {
    let world = World::new();
    world.cluster.state().explanations = vec![
        (question("s", None, true, 3, ""), answer(&[0, 1], "2")),
        (question("s", None, true, 1, "2"), answer(&[2], "3")),
    ];
    let said = world.say(&["explain", &format!("{JOB}/s"), "--tasks", "--limit", "3"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.out.matches("thus").count(), 1, "{}", said.out);
    for task in ["s/0", "s/1", "s/2"] {
        assert!(said.out.contains(task), "{}", said.out);
    }
    assert!(said.err.contains("more than 3 tasks: raise --limit"), "{}", said.err);
}

#[test]
fn a_job_a_stage_and_a_task_are_asked_about_as_they_are_named() {
    let world = World::new();
    world.cluster.state().explanations = vec![
        (question("", None, false, 100, ""), answer(&[], "")),
        (question("s", None, false, 0, ""), answer(&[], "")),
        (question("s", Some(7), false, 0, ""), answer(&[7], "")),
    ];
    for reference in ["", "/s", "/s/7"] {
        let said = world.say(&["explain", &format!("{JOB}{reference}")]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{reference}");
    }
    let said = world.say(&["explain", &format!("{JOB}/s/7"), "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["tasks"][0]["index"], &told["more"]), (&7.into(), &false.into()));
}

#[test]
fn what_is_not_there_and_what_is_not_said_end_with_their_own_codes() {
    let world = World::new();
    assert_eq!(world.say(&["explain", &JOB.to_string()]).code, Some(4));
    let said = world.say(&["explain", &JOB.to_string(), "--tasks"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("say of which stage"), "{}", said.err);
}
