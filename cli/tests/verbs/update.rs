//! Updates, at a real cluster: all of a file at once, once.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::embedded::{signal, up};
use crate::harness::{bare, heard, said};

#[test]
fn a_file_of_jobs_and_groups_comes_into_being_once_or_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let (child, address) = up(home.path());
    let muster = |arguments: &[&str]| {
        let mut command = bare(home.path(), arguments);
        command.env("MUSTER_SCHEDULERS", &address);
        said(command)
    };
    let done = |arguments: &[&str]| {
        let answer = muster(arguments);
        assert_eq!(answer.code, Some(0), "{arguments:?}: {}", answer.err);
        answer.out.trim().to_owned()
    };
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&done(&[arguments, &["-o", "json"]].concat())).unwrap_or_else(|error| panic!("{error}"))
    };
    let file = home.path().join("many.yaml");
    let write = |last: &str| {
        let job = |number: u32| format!("{{\"name\":\"j{number}\",\"group\":\"sweep/fine\",\"run\":\"true\"}}\n");
        let jobs: String = (0..250).map(job).collect();
        std::fs::write(
            &file,
            format!("{jobs}make_group: {{path: sweep}}\n---\nmake_group: {{path: sweep/fine}}\n---\n{last}"),
        )
        .unwrap();
        file.to_str().unwrap().to_owned()
    };

    // The last document is wrong, after much of it was staged.
    let wrong = muster(&["update", "submit", &write("name: last\nrnu: 'true'\n"), "--token", "t"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    assert!(
        wrong.err.contains("the document from line 255") && wrong.err.contains("--token t goes on"),
        "{}",
        wrong.err
    );
    assert_eq!((done(&["jobs", "-o", "name"]), done(&["groups", "-o", "name"])), (String::new(), "/".to_owned()));
    assert_eq!(json(&["update", "show", "t"])["state"], "open");

    // Mended, it goes on; and the same once more is the same.
    let path = write("name: last\nrun: 'true'\n");
    for _ in 0..2 {
        let committed = json(&["update", "submit", &path, "--token", "t"]);
        let facts = (&committed["state"], &committed["groups"], &committed["jobs"]);
        assert_eq!(facts, (&json!("committed"), &json!(2), &json!(251)));
    }
    done(&["wait", "--group", "/", "--timeout", "120s"]);
    let counts = |path: &str| json(&["group", path])["jobs"]["successful"].clone();
    assert_eq!((counts("sweep"), counts("/")), (json!(250), json!(251)));

    let other = muster(&["update", "submit", &write("name: other\nrun: 'true'\n"), "--token", "t"]);
    assert_eq!(other.code, Some(7), "{}", other.err);
    assert!(other.err.contains("other content"), "{}", other.err);
    assert_eq!(muster(&["update", "abandon", "t"]).code, Some(7));
    assert_eq!(muster(&["update", "show", "none"]).code, Some(4));
    assert_eq!(muster(&["update", "show", "a/b"]).code, Some(2));
    signal(&child, Signal::TERM);
    assert_eq!(heard(child).code, Some(0));
}
