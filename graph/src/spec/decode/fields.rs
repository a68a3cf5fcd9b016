//! A map with fixed keys, opened with its table.

use super::Decoder;
use crate::spec::finding::{Segment, shown};
use crate::spec::keys::{JOB, JOB_ALONE, Key, STAGE};
use crate::spec::node::{Entry, Node, Value};
use crate::spec::suggest::nearest;

/// Keys of other tools that mean the same, or nearly.
const FAMILIAR: &[(&str, &str)] = &[
    ("affinity", "placement"),
    ("arguments", "with"),
    ("args", "run"),
    ("array", "tasks"),
    ("batch", "group"),
    ("cmd", "run"),
    ("command", "run"),
    ("condition", "when"),
    ("constraints", "placement"),
    ("count", "tasks"),
    ("cpus", "cpu"),
    ("dependencies", "inputs"),
    ("depends", "inputs"),
    ("depends_on", "inputs"),
    ("dependsOn", "inputs"),
    ("environment", "env"),
    ("exec", "run"),
    ("file", "lines"),
    ("foreach", "for_each"),
    ("if", "when"),
    ("interpreter", "shell"),
    ("jobs", "stages"),
    ("parameters", "with"),
    ("subjob", "job"),
    ("template", "job"),
    ("workflow", "job"),
    ("mem", "memory"),
    ("needs", "inputs"),
    ("node_selector", "placement"),
    ("nodeSelector", "placement"),
    ("max_retries", "retries"),
    ("parallelism", "tasks"),
    ("queue", "namespace"),
    ("ram", "memory"),
    ("preferred", "prefer"),
    ("preferences", "prefer"),
    ("replicas", "tasks"),
    ("required", "require"),
    ("requires", "require"),
    ("retry", "retries"),
    ("script", "run"),
    ("strategy", "policy"),
    ("steps", "stages"),
    ("tenant", "namespace"),
    ("vars", "env"),
];

/// What YAML 1.1 knew for taking over the entries of another map. It may bring any key along.
const MERGE_KEY: &str = "<<";

/// The known entries of a map. Each known key must be asked for: see [`crate::spec::keys`].
pub(super) struct Fields<'n> {
    known: Vec<Known<'n>>,
    /// Known keys that an unknown one was probably meant to be.
    meant: Vec<&'static str>,
}

struct Known<'n> {
    name: &'static str,
    entry: Option<&'n Entry>,
    is_asked_for: bool,
}

impl<'n> Fields<'n> {
    pub(super) fn get(&mut self, name: &'static str) -> Option<&'n Entry> {
        let known = self.known.iter_mut().find(|known| known.name == name);
        debug_assert!(known.is_some(), "the table of keys lacks `{name}`");
        let known = known?;
        known.is_asked_for = true;
        known.entry
    }

    /// Whether the key is missing, and no unknown key looks as if it was meant.
    pub(super) fn is_plainly_missing(&self, name: &str) -> bool {
        !self.meant.contains(&name) && self.known.iter().all(|known| known.name != name || known.entry.is_none())
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) && !std::thread::panicking() {
            let forgotten = self.known.iter().find(|known| !known.is_asked_for);
            assert!(forgotten.is_none(), "the decoder never asks for `{}`", forgotten.map_or("", |known| known.name));
        }
    }
}

impl Decoder {
    /// Opens a map with fixed keys; reports keys that are unknown or given twice.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        tables: &[&'static [Key]],
        expected: &str,
        help: &str,
    ) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.mismatch(node, expected, help);
            return None;
        };
        let mut known: Vec<Known<'n>> = Vec::new();
        for key in tables.iter().copied().flatten() {
            if known.iter().all(|other| other.name != key.name) {
                known.push(Known { name: key.name, entry: None, is_asked_for: false });
            }
        }
        let mut meant = Vec::new();
        for entry in entries {
            match known.iter_mut().find(|known| *known.name == *entry.key) {
                Some(Known { entry: Some(first), .. }) => self.given_twice(entry, first.key_span),
                Some(place) => place.entry = Some(entry),
                None => {
                    let names: Vec<&'static str> = known.iter().map(|known| known.name).collect();
                    meant.extend(self.unknown_key(entry, &names));
                    if &*entry.key == MERGE_KEY {
                        meant.extend(names);
                    }
                }
            }
        }
        // The misspelt key says it all: that the right one is missing need not be said as well.
        for name in &meant {
            if known.iter().any(|known| known.name == *name && known.entry.is_none()) {
                let mut path = self.path.clone();
                path.tail.push(Segment::key(name));
                self.findings.silence(path);
            }
        }
        Some(Fields { known, meant })
    }

    /// Reports it, and answers what was probably meant.
    fn unknown_key(&mut self, entry: &Entry, known: &[&'static str]) -> Option<&'static str> {
        let key = &*entry.key;
        if self.findings.is_full() {
            // Only counted from here on: no time goes into what nobody will read.
            self.wrong(entry.key_span, "unknown key", "delete it");
            return None;
        }
        let likely = known
            .iter()
            .copied()
            .find(|name| FAMILIAR.contains(&(key, name)))
            .or_else(|| nearest(key, known.iter().copied()));
        let is_key_of = |table: &[Key]| table.iter().any(|other| other.name == key);
        let mut message = format!("unknown key `{}`", shown(key));
        let help = if key == MERGE_KEY {
            "merge keys are not supported: repeat the keys, or use an alias for the whole value".to_owned()
        } else if is_key_of(JOB_ALONE) && known.contains(&"stages") {
            message = format!("`{key}` never counts in a job that is a stage of another");
            "delete it, or say it at the top level, for the whole job".to_owned()
        } else if is_key_of(STAGE) && known.contains(&"stages") {
            message = format!("`{key}` is a stage's key, not the job's");
            "move it into one of `stages`".to_owned()
        } else if (is_key_of(JOB) || is_key_of(JOB_ALONE)) && known.contains(&"run") {
            message = format!("`{key}` is the job's key, not a stage's");
            "move it to the top level".to_owned()
        } else if likely == Some("inputs") && FAMILIAR.contains(&(key, "inputs")) {
            "did you mean `inputs`, to read the output of other stages, or `after`, only to wait for them?".to_owned()
        } else if let Some(likely) = likely {
            format!("did you mean `{likely}`?")
        } else {
            format!("delete it; the keys that can stand here are {}", known.join(", "))
        };
        self.within(Segment::Key(key.to_owned().into()), |decoder| {
            decoder.wrong(entry.key_span, message, help);
        });
        likely
    }
}
