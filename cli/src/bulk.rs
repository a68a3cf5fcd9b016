//! Many jobs and groups from one text, read as it comes: at no time more of it is in memory than a few bunches.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use muster_client::v1;
use muster_graph::spec::Arguments;
use muster_graph::spec::limits::SPEC_BYTES_MAX;
use serde::Deserialize;

use crate::failure::Failure;
use crate::specification::SpecFile;

/// Documents in a bunch.
const DOCUMENTS_MAX: usize = 200;
/// And about so many bytes of text.
const BYTES_MAX: usize = 512 << 10;
/// What a document begins with that makes a group.
const GROUP: &str = "make_group";

/// Some of the documents: what is sent at once.
#[derive(Debug, Default)]
pub(crate) struct Bunch {
    pub(crate) groups: Vec<v1::StagedGroup>,
    pub(crate) jobs: Vec<v1::JobSpec>,
}

/// The documents of a text.
pub(crate) struct Documents {
    name: String,
    folder: PathBuf,
    lines: Box<dyn BufRead + Send>,
    /// Lines read.
    line: usize,
    color: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupDocument {
    make_group: Group,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    path: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    cancel_after_failures: u64,
    #[serde(default)]
    callback: String,
}

impl Documents {
    /// Of a file, or standard input for `-`.
    pub(crate) fn open(path: &Path, color: bool) -> Result<Self, Failure> {
        let of = |name: String, folder: &Path, lines: Box<dyn BufRead + Send>| Self {
            name,
            folder: folder.to_owned(),
            lines,
            line: 0,
            color,
        };
        if path == Path::new("-") {
            return Ok(of("standard input".to_owned(), Path::new("."), Box::new(BufReader::new(io::stdin()))));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| {
            Failure::usage(format!("{name} cannot be read: {error}"))
                .help("name a file of specs, or - for standard input")
        })?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(of(name, folder, Box::new(BufReader::new(file))))
    }

    /// The next bunch. `None`: that was all.
    pub(crate) fn bunch(&mut self) -> Result<Option<Bunch>, Failure> {
        let (mut bunch, mut bytes) = (Bunch::default(), 0);
        while bunch.groups.len() + bunch.jobs.len() < DOCUMENTS_MAX && bytes < BYTES_MAX {
            let Some((line, text)) = self.document()? else { break };
            bytes += text.len();
            let begin = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
            let place = format!("{}, the document from line {line}", self.name);
            if begin.trim_start_matches(['{', '"', '\'', ' ']).starts_with(GROUP) {
                let read: Result<GroupDocument, _> = serde_saphyr::from_str(&text);
                let group = read.map_err(|error| Failure::usage(format!("{place}: {error}")))?.make_group;
                let spec = v1::GroupSpec {
                    attributes: group.attributes.into_iter().collect(),
                    cancel_after_failures: group.cancel_after_failures,
                    callback: group.callback,
                };
                let path = group.path.strip_prefix('/').unwrap_or(&group.path).to_owned();
                bunch.groups.push(v1::StagedGroup { path, spec: Some(spec) });
            } else {
                let spec = SpecFile::part_of(place, text, self.folder.clone());
                bunch.jobs.push((&spec.read_with(&Arguments::new(), Vec::new(), self.color)?).into());
            }
        }
        Ok((bunch.groups.len() + bunch.jobs.len() > 0).then_some(bunch))
    }

    /// The next document, and the line where it begins: what is between two lines `---`, or a line that is one JSON object.
    fn document(&mut self) -> Result<Option<(usize, String)>, Failure> {
        let (mut text, mut begin) = (String::new(), 0);
        loop {
            let mut line = String::new();
            let unreadable = |error: io::Error| Failure::usage(format!("{} cannot be read on: {error}", self.name));
            if self.lines.read_line(&mut line).map_err(unreadable)? == 0 {
                return Ok((begin > 0).then_some((begin, text)));
            }
            self.line += 1;
            let bare = line.trim_end();
            if bare == "---" {
                if begin > 0 {
                    return Ok(Some((begin, text)));
                }
                text.clear();
                continue;
            }
            if begin == 0 && bare.starts_with('{') && bare.ends_with('}') {
                return Ok(Some((self.line, line)));
            }
            if begin == 0 && !bare.is_empty() && !bare.starts_with('#') {
                begin = self.line;
            }
            text.push_str(&line);
            if text.len() > SPEC_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "{}, the document from line {begin}: it is larger than a spec may be",
                    self.name
                ))
                .help("separate specs by lines `---`, or write each as JSON in a line of its own"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Documents {
        Documents {
            name: "many.yaml".to_owned(),
            folder: PathBuf::from("."),
            lines: Box::new(io::Cursor::new(text.to_owned())),
            line: 0,
            color: false,
        }
    }

    #[test]
    fn documents_are_yaml_between_lines_or_json_in_a_line() {
        let text = "# head\n---\nname: a\nstages: {s: {run: 'true'}}\n---\n\n---\n{\"name\":\"b\",\"stages\":{\"s\":{\"run\":\"true\"}}}\n\
                    {\"make_group\":{\"path\":\"/x\"}}\nmake_group:\n  path: x/y\n  cancel_after_failures: 3\n---\nname: c\nstages: {s: {run: 'true'}}";
        let bunch = documents(text).bunch().unwrap().unwrap();
        let names: Vec<&str> = bunch.jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let groups: Vec<(&str, u64)> = bunch
            .groups
            .iter()
            .map(|group| (group.path.as_str(), group.spec.as_ref().unwrap().cancel_after_failures))
            .collect();
        assert_eq!(groups, [("x", 0), ("x/y", 3)]);
    }

    #[test]
    fn bunches_are_bounded_and_the_same_text_is_cut_alike() {
        let text = "{\"name\":\"a\",\"stages\":{\"s\":{\"run\":\"true\"}}}\n".repeat(450);
        let cut = || {
            let mut documents = documents(&text);
            std::iter::from_fn(|| documents.bunch().unwrap()).map(|bunch| bunch.jobs.len()).collect::<Vec<_>>()
        };
        assert_eq!(cut(), [200, 200, 50]);
        assert_eq!(cut(), cut());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, said) in [
            ("name: a\nstages: {s: {run: 'true'}}\n---\nname: b\nstage: {}\n", "line 4"),
            ("make_group: {path: a, attribute: {}}\n", "line 1"),
        ] {
            let failure = documents(text).bunch().unwrap_err();
            assert!(failure.message.contains(said), "{}", failure.message);
        }
        assert!(documents("\n# nothing\n").bunch().unwrap().is_none());
    }
}
