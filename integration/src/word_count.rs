//! The word count of the examples over generated text, with what a plain pipeline makes of the same text.

use std::path::Path;
use std::process::Command;

use muster_graph::spec::{Format, NoFiles};
use muster_proto::v1;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/wordcount.yaml");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/wordcount-reference.sh");
const FILES: u32 = 300;
const WORDS_PER_FILE: u32 = 60;

/// Writes some hundreds of small files below `folder`. The same at every call.
///
/// # Panics
/// When they cannot be written.
pub fn write_text(folder: &Path) {
    let mut state = 7_u32;
    let mut next = |below: u32| {
        // Numerical Recipes' generator; its upper bits are good enough for text.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for file in 0..FILES {
        let folder = folder.join(format!("part-{}", file % 7));
        std::fs::create_dir_all(&folder).expect("the test's folder can be written");
        let mut text = String::new();
        for _ in 0..WORDS_PER_FILE {
            // Small numbers are frequent, so that there is a top.
            let range = next(400) + 1;
            let word = next(range);
            for digit in word.to_string().bytes() {
                text.push(char::from(b'a' + digit - b'0'));
            }
            text.push(if next(9) == 0 { '\n' } else { ' ' });
        }
        std::fs::write(folder.join(format!("file {file}.txt")), text).expect("the test's folder can be written");
    }
}

/// The example, over the text in `folder`, with so many tasks in its first stage.
///
/// # Panics
/// When the example is wrong.
#[must_use]
pub fn job(folder: &Path, map_tasks: u32) -> v1::JobSpec {
    let text = std::fs::read_to_string(EXAMPLE).expect("the example is there");
    let spec = muster_graph::spec::read(&text, Format::Yaml)
        .and_then(|draft| draft.resolve(&NoFiles))
        .unwrap_or_else(|problems| panic!("{problems}"));
    let mut spec = v1::JobSpec::from(&spec);
    spec.env.insert("TEXT_DIR".to_owned(), folder.display().to_string());
    let map = spec.stages.iter_mut().find(|stage| stage.name == "map").expect("the example has a stage `map`");
    map.tasks = Some(v1::stage_spec::Tasks::Count(map_tasks));
    spec
}

/// What the plain pipeline computes.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn expected(folder: &Path) -> String {
    let answer = Command::new(REFERENCE).arg(folder).output().expect("the pipeline can be started");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8(answer.stdout).expect("words and numbers");
    assert_eq!(text.lines().count(), 21, "twenty words and a sum: {text}");
    text
}
