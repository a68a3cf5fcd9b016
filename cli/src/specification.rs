//! Spec files: reading one, the files that it names, and showing what is wrong with it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode};
use muster_graph::spec::limits::{ITEMS_BYTES_MAX, SPEC_BYTES_MAX};
use muster_graph::spec::{self, Arguments, Files, Format, JobSpec, Problem, Problems, Template};
use muster_proto::v1;

use crate::failure::Failure;

/// What a bundle of definitions begins with, and no spec does.
pub(crate) const BUNDLE_BEGIN: &str = "{\"muster_bundle\":";
/// Columns of a rendered problem.
const REPORT_WIDTH: usize = 100;

/// A spec file's text, and where it came from.
#[derive(Debug)]
pub(crate) struct SpecFile {
    /// As the user named it.
    name: String,
    text: String,
    format: Format,
    /// What names in the spec are relative to.
    folder: PathBuf,
}

impl SpecFile {
    /// Reads a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let standard_input = path == Path::new("-");
        let name = if standard_input { "standard input".to_owned() } else { path.display().to_string() };
        let unreadable = |error: io::Error| {
            Failure::usage(format!("{name} cannot be read: {error}")).help("name a spec file, or - for standard input")
        };
        let limit = SPEC_BYTES_MAX as u64 + 1;
        let mut bytes = Vec::new();
        let folder;
        let format;
        if standard_input {
            io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
            folder = PathBuf::from(".");
            // JSON is YAML; TOML has to come in a file that says so.
            format = Format::Yaml;
        } else {
            format = Format::of_path(path).ok_or_else(|| {
                Failure::usage(format!("{name} has no ending that tells its format"))
                    .help("name it .yaml, .toml or .json; `muster schema` describes what is in it")
            })?;
            File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
            folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            Failure::usage(format!("{name} is not text: byte {} is no UTF-8", error.utf8_error().valid_up_to()))
        })?;
        Ok(Self { name, text, format, folder })
    }

    /// A document of a text with many.
    pub(crate) fn part_of(name: String, text: String, folder: PathBuf) -> Self {
        // JSON is YAML.
        Self { name, text, format: Format::Yaml, folder }
    }

    /// The spec with these values for its parameters, and with the items that come from files.
    fn read(&self, arguments: &Arguments) -> Result<JobSpec, Problems> {
        Template::read(&self.text, self.format)?.draft(arguments)?.resolve(&Folder(&self.folder))
    }

    /// The same as far as it is known without values for its parameters, and whether that is all of it.
    pub(crate) fn sketch(&self) -> Result<(JobSpec, bool), Problems> {
        let template = Template::read(&self.text, self.format)?;
        let spec = template.sketch()?.resolve(&Folder(&self.folder))?;
        Ok((spec, template.params().have_defaults()))
    }

    /// What a cluster keeps of it, and its namespace.
    pub(crate) fn definition(&self, color: bool) -> Result<(String, v1::DefinitionText), Failure> {
        let read = || {
            let template = Template::read(&self.text, self.format)?;
            let namespace = template.sketch()?.resolve(&Folder(&self.folder))?.namespace;
            Ok((namespace, template.canonical(&Folder(&self.folder))?))
        };
        let (namespace, spec) = read().map_err(|problems| self.failure(&problems, color))?;
        Ok((
            namespace,
            v1::DefinitionText { spec, text: self.text.clone(), format: format_name(self.format).to_owned() },
        ))
    }

    /// Its text, if it is a bundle of definitions.
    pub(crate) fn bundle(&self) -> Option<&str> {
        // Bundles are written by `muster export`.
        let is_one = self.format == Format::Json || self.name == "standard input";
        (is_one && self.text.trim_start().starts_with(BUNDLE_BEGIN)).then_some(&self.text)
    }

    /// All problems, each with the place in the text.
    pub(crate) fn render(&self, problems: &Problems, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(REPORT_WIDTH).with_links(false);
        let source = NamedSource::new(&self.name, self.text.clone());
        let mut text = String::new();
        for problem in problems {
            let report = Report { problem, source: &source };
            handler.render_report(&mut text, &report).expect("writing to a string cannot fail");
        }
        text
    }

    fn failure(&self, problems: &Problems, color: bool) -> Failure {
        let count = problems.0.len();
        let text = format!("{} has {count} problem{}\n{}", self.name, plural(count), self.render(problems, color));
        Failure::usage(text.trim_end())
    }

    /// Reads the spec for a command that needs a good one, with variables for every task set or replaced.
    pub(crate) fn read_with(
        &self,
        arguments: &Arguments,
        env: Vec<(String, String)>,
        color: bool,
    ) -> Result<JobSpec, Failure> {
        let mut spec = self.read(arguments).map_err(|problems| self.failure(&problems, color))?;
        spec.env.extend(env);
        // What came by flags has no place in the text, but the rules are the same.
        let problems = spec::check(&spec);
        if problems.is_empty() { Ok(spec) } else { Err(Failure::usage(Problems(problems).to_string())) }
    }

    /// As the user named it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What a format is called on the wire.
fn format_name(format: Format) -> &'static str {
    match format {
        Format::Yaml => "yaml",
        Format::Toml => "toml",
        Format::Json => "json",
    }
}

/// An `s` where there are several.
pub(crate) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// A problem, in the terms of the library that draws it.
#[derive(Debug)]
struct Report<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<String>,
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.problem.field.is_empty() {
            write!(f, "{}: ", self.problem.field)?;
        }
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'b>(&'b self) -> Option<Box<dyn std::fmt::Display + 'b>> {
        (!self.problem.help.is_empty()).then(|| Box::new(&self.problem.help) as Box<dyn std::fmt::Display + 'b>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.problem.place.map(|_| self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.problem.place?;
        Some(Box::new(std::iter::once(LabeledSpan::new(None, place.offset, place.len))))
    }
}

/// The files around a spec.
#[derive(Debug)]
struct Folder<'a>(&'a Path);

impl Files for Folder<'_> {
    fn lines(&self, path: &str) -> io::Result<Vec<String>> {
        let file = File::open(self.0.join(path))?;
        // One byte more than is allowed, so that too much is noticed and not cut off.
        let mut reader = BufReader::new(file.take(ITEMS_BYTES_MAX as u64 + 1));
        let mut lines = Vec::new();
        let mut size = 0;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            size += line.len();
            if size > ITEMS_BYTES_MAX {
                let why = format!(
                    "it is larger than {} MiB, which is all that a job's items may have",
                    ITEMS_BYTES_MAX >> 20
                );
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            lines.push(std::mem::take(&mut line));
        }
        Ok(lines)
    }

    /// Paths come back as the pattern was written: relative to the spec's folder, or absolute.
    fn glob(&self, pattern: &str) -> io::Result<Vec<String>> {
        let wrong = |error: glob::PatternError| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
        let folder = self.0.to_str().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the spec's folder has a name that is not UTF-8")
        })?;
        let absolute = Path::new(pattern).is_absolute();
        let full = if absolute { pattern.to_owned() } else { format!("{}/{pattern}", glob::Pattern::escape(folder)) };
        let mut found = Vec::new();
        for entry in glob::glob(&full).map_err(wrong)? {
            let path = entry.map_err(|error| io::Error::new(error.error().kind(), error.to_string()))?;
            let path = if absolute { &path } else { path.strip_prefix(self.0).unwrap_or(&path) };
            let text = path.to_str().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is not UTF-8", path.display()))
            })?;
            found.push(text.to_owned());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_from_the_specs_own_folder() {
        let root = tempfile::tempdir().unwrap();
        // A name that a pattern would misunderstand.
        let folder = root.path().join("odd [name]");
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::write(folder.join("data/b.txt"), "").unwrap();
        std::fs::write(folder.join("data/a.txt"), "").unwrap();
        std::fs::write(folder.join("items"), "one\r\ntwo\n\nthree").unwrap();
        let files = Folder(&folder);
        assert_eq!(files.glob("data/*.txt").unwrap(), ["data/a.txt", "data/b.txt"]);
        assert_eq!(files.glob("nothing/*").unwrap(), [""; 0]);
        assert!(files.glob("a/**b").is_err());
        assert_eq!(files.lines("items").unwrap().concat(), "one\r\ntwo\n\nthree");
        assert_eq!(files.lines("missing").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_of_items_over_the_limit_is_refused_and_not_cut_off() {
        let root = tempfile::tempdir().unwrap();
        let file = File::create(root.path().join("items")).unwrap();
        file.set_len(ITEMS_BYTES_MAX as u64 + 1).unwrap();
        assert_eq!(Folder(root.path()).lines("items").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_file_without_a_telling_name_is_refused_before_it_is_read() {
        let failure = SpecFile::open(Path::new("no-such-job")).unwrap_err();
        assert!(failure.message.contains("format"), "{}", failure.message);
        let failure = SpecFile::open(Path::new("no-such-job.yaml")).unwrap_err();
        assert!(failure.message.contains("cannot be read"), "{}", failure.message);
    }
}
