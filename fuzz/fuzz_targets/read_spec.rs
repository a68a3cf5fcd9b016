//! The reader of specs, on any bytes and in any format.
//!
//! The first byte chooses the format, the rest is the text. Beyond "no panic": what reads passes the rules, what
//! passes the rules compiles, and every problem has a help and a place inside the text.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use muster_graph::plan::Plan;
use muster_graph::spec::{Files, Format, check, read};

/// Files whose content follows from their names, so that a run can be repeated.
struct Invented;

impl Files for Invented {
    fn lines(&self, path: &str) -> std::io::Result<Vec<String>> {
        Ok(path.split('/').map(str::to_owned).collect())
    }

    fn glob(&self, pattern: &str) -> std::io::Result<Vec<String>> {
        Ok(pattern.split('*').map(str::to_owned).collect())
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&first, text)) = data.split_first() else { return Corpus::Reject };
    let Ok(text) = std::str::from_utf8(text) else { return Corpus::Reject };
    let format = match first {
        b'y' => Format::Yaml,
        b't' => Format::Toml,
        b'j' => Format::Json,
        _ => return Corpus::Reject,
    };
    match read(text, format).and_then(|draft| draft.resolve(&Invented)) {
        Ok(spec) => {
            assert!(check(&spec).is_empty(), "what was read breaks a rule");
            assert!(Plan::compile(&spec, |_| String::new()).is_ok(), "what passes the rules does not compile");
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a problem");
            for problem in &problems {
                assert!(!problem.message.is_empty() && !problem.help.is_empty(), "{problem:?}");
                if let Some(place) = problem.place {
                    assert!(text.get(place.offset..place.offset + place.len).is_some(), "{problem:?}");
                }
            }
        }
    }
    Corpus::Keep
});
