//! Definitions in every form.

use muster_client::v1;

use super::{NOW_MS, details, lists};
use crate::output::definition::{Defined, Definition, DefinitionAtLength};

fn view() -> v1::DefinitionView {
    let spec =
        r#"{"name":"etl","params":{"shards":{"type":"int","default":8,"help":"parts of the day"},"day":"text"},"#;
    v1::DefinitionView {
        namespace: "default".to_owned(),
        name: "etl".to_owned(),
        revision: 2,
        latest: 3,
        defined_at_ms: NOW_MS - 3_600_000,
        text: Some(v1::DefinitionText {
            spec: format!(r#"{spec}"stages":{{"clean":{{"job":"clean"}}}}}}"#),
            text: "name: etl\nparams:\n  shards: {default: 8, help: parts of the day}\n  day: text\nstages:\n  clean: {job: clean}\n"
                .to_owned(),
            format: "yaml".to_owned(),
        }),
        uses: vec![
            v1::DefinitionUse { name: "clean".to_owned(), revision: 0 },
            v1::DefinitionUse { name: "load".to_owned(), revision: 4 },
        ],
        used_by: vec!["nightly".to_owned()],
    }
}

pub(super) fn defined() -> Defined {
    let (namespace, name) = ("default".to_owned(), "etl".to_owned());
    Defined::from(v1::Defined { namespace, name, revision: 2, unchanged: false })
}

pub(super) fn definition() -> Definition {
    Definition::from(v1::DefinitionView { text: None, used_by: Vec::new(), ..view() })
}

pub(super) fn at_length() -> DefinitionAtLength {
    DefinitionAtLength::from(view())
}

#[test]
fn definitions() {
    insta::assert_snapshot!(lists(&[definition()]));
}

#[test]
fn a_definition_at_length() {
    insta::assert_snapshot!(details(&at_length()));
}

#[test]
fn what_was_defined() {
    let same = Defined::from(v1::Defined {
        namespace: "default".to_owned(),
        name: "b".to_owned(),
        revision: 7,
        unchanged: true,
    });
    insta::assert_snapshot!(lists(&[defined(), same]));
}
