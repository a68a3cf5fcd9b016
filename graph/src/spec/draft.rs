//! A spec that was read, whose items may still be in files.
//!
//! Reading is pure, so files come in through [`Files`], which a shell implements.

use std::io;

use super::check::{Sizes, examine};
use super::decode::{Decoded, Shape, Site};
use super::finding::{FieldPath, Finding, Findings, Point, Segment, push_key, shown};
use super::limits::{PROBLEMS_MAX, TASKS_PER_STAGE_MAX};
use super::model::{JobSpec, Nested, Source as JobSource, StageSpec, Tasks, Work};
use super::node::{Lines, Node, Span, Value};
use super::problem::{Problem, Problems};
use super::substitute::Sites;

/// Where the items of a stage come from, if not from the spec itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForEach {
    /// The lines of this file.
    Lines(String),
    /// The paths that this pattern matches.
    Glob(String),
}

/// The files around a spec. Relative names are relative to the spec's own file.
pub trait Files {
    /// The lines of a file, without their ends. An implementation should give up on a file of more than
    /// [`ITEMS_BYTES_MAX`](super::limits::ITEMS_BYTES_MAX) bytes, with an error that says so.
    ///
    /// # Errors
    /// The file cannot be read, or is too large. The text of the error is shown to the user.
    fn lines(&self, path: &str) -> io::Result<Vec<String>>;

    /// The paths that a pattern matches, in any order.
    ///
    /// # Errors
    /// The pattern is not one, or a directory cannot be read. The text of the error is shown to the user.
    fn glob(&self, pattern: &str) -> io::Result<Vec<String>>;
}

/// No files at all: for specs that must stand on their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn lines(&self, _path: &str) -> io::Result<Vec<String>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "files are not read here"))
    }

    fn glob(&self, _pattern: &str) -> io::Result<Vec<String>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "files are not read here"))
    }
}

/// A spec without problems so far. What is left: items from files, and the rules about sizes that depend on them.
#[derive(Debug)]
pub struct Draft {
    decoded: Decoded,
    source: Source,
}

/// The text and its tree: what places come from.
#[derive(Debug)]
struct Source {
    text: String,
    root: Node,
}

impl Draft {
    /// Decodes a tree and runs the rules.
    ///
    /// `known` is what was found before, `sites` where values of parameters came in.
    pub(super) fn new(text: &str, root: Node, sites: &Sites, known: Findings) -> Result<Self, Problems> {
        let mut decoded = super::decode::decode(&root);
        let mut findings = std::mem::take(&mut decoded.findings);
        findings.extend_unless_covered(decoded.examine());
        let mut findings = sites.judge(findings, &root, &decoded);
        findings.extend(known);
        if !findings.is_empty() {
            return Err(place(text, Some(&root), Some(&decoded), findings));
        }
        // Without deferred items nothing can go wrong any more, and so no place is needed.
        let source = if decoded.deferred.is_empty() {
            Source { text: String::new(), root: Node { value: Value::List(Vec::new()), span: Span::new(0, 0) } }
        } else {
            Source { text: text.to_owned(), root }
        };
        Ok(Self { decoded, source })
    }

    /// Where items still have to come from, with the names of the stages.
    pub fn deferred(&self) -> impl Iterator<Item = (&str, &ForEach)> {
        self.decoded.deferred.iter().map(|(way, source)| (stage_at(&self.decoded.spec, way).name.as_str(), source))
    }

    /// Fills in the items that come from files, and checks what depends on them. Paths that a glob matches are sorted;
    /// of lines, empty ones are left out.
    ///
    /// # Errors
    /// All problems: files that cannot be read, patterns that match nothing, sizes that do not fit.
    pub fn resolve(mut self, files: &dyn Files) -> Result<JobSpec, Problems> {
        if self.decoded.deferred.is_empty() {
            return Ok(self.decoded.spec);
        }
        let mut findings = Findings::default();
        for (way, source) in std::mem::take(&mut self.decoded.deferred) {
            match read_items(&source, files) {
                Ok(items) => self.decoded.size(&way, items),
                Err((message, help)) => {
                    let key = match source {
                        ForEach::Lines(_) => "lines",
                        ForEach::Glob(_) => "glob",
                    };
                    let path = self.decoded.path(&way, vec![Segment::key("for_each"), Segment::key(key)]);
                    findings.push(Finding { path, point: Point::Value, span: None, first: None, message, help });
                }
            }
        }
        findings.extend_unless_covered(self.decoded.examine());
        if findings.is_empty() {
            return Ok(self.decoded.spec);
        }
        Err(place(&self.source.text, Some(&self.source.root), Some(&self.decoded), findings))
    }
}

/// Items from files, or message and help.
pub(super) fn read_items(source: &ForEach, files: &dyn Files) -> Result<Vec<String>, (String, String)> {
    let items = match source {
        ForEach::Lines(path) => {
            let lines = files.lines(path).map_err(|error| {
                let help = "the path is relative to the spec's file; make sure that the file is there and readable";
                (format!("`{}` cannot be read: {error}", shown(path)), help.to_owned())
            })?;
            let ended = lines.into_iter().map(|mut line| {
                line.truncate(line.trim_end_matches(['\r', '\n']).len());
                line
            });
            ended.filter(|line| !line.is_empty()).collect()
        }
        ForEach::Glob(pattern) => {
            let mut paths = files.glob(pattern).map_err(|error| {
                let help = "the pattern is relative to the spec's file; * ? [abc] and ** can stand in it";
                (format!("`{}` cannot be looked up: {error}", shown(pattern)), help.to_owned())
            })?;
            if paths.is_empty() {
                let help = "the pattern is relative to the spec's file; mend it, or write for_each: [] for no task";
                return Err((format!("`{}` matches nothing", shown(pattern)), help.to_owned()));
            }
            paths.sort_unstable();
            paths
        }
    };
    if items.len() as u64 > TASKS_PER_STAGE_MAX {
        return Err((
            format!("it gives {} items, and a stage has at most {TASKS_PER_STAGE_MAX} tasks", items.len()),
            "let a task work on several of them, or split the job".to_owned(),
        ));
    }
    Ok(items)
}

/// A stage by its place and those of the stages around it, which are jobs.
fn stage_at<'s>(spec: &'s JobSpec, way: &[usize]) -> &'s StageSpec {
    let stage = &spec.stages[way[0]];
    match (&stage.work, &way[1..]) {
        (Work::Job(Nested { source: JobSource::Inline(inner), .. }), rest @ [_, ..]) => stage_at(inner, rest),
        _ => stage,
    }
}

impl Decoded {
    fn examine(&self) -> Findings {
        examine(&self.spec, &Sizes::Known(&self.shape))
    }

    /// Gives a stage its items.
    fn size(&mut self, way: &[usize], items: Vec<String>) {
        let (mut spec, mut shape) = (&mut self.spec, &mut self.shape);
        for &place in &way[..way.len() - 1] {
            let (Work::Job(Nested { source: JobSource::Inline(inner), .. }), Some(deeper)) =
                (&mut spec.stages[place].work, shape.inner.get_mut(&place))
            else {
                return;
            };
            (spec, shape) = (inner, deeper);
        }
        let place = way[way.len() - 1];
        spec.stages[place].tasks = Tasks::Items(items);
        shape.sized[place] = true;
    }

    /// The path of a stage's field.
    fn path(&self, way: &[usize], tail: Vec<Segment>) -> FieldPath {
        fn path(spec: &JobSpec, shape: Option<&Shape>, way: &[usize], tail: Vec<Segment>) -> FieldPath {
            match (&spec.stages[way[0]].work, &way[1..]) {
                (Work::Job(Nested { source: JobSource::Inline(inner), .. }), rest @ [_, ..]) => {
                    let shape = shape.and_then(|shape| shape.inner.get(&way[0]));
                    let base = FieldPath::stage(way[0], [Segment::key("job")]);
                    Shape::lift(&base, inner, shape, path(inner, shape, rest, tail), Point::Value).0
                }
                _ => FieldPath::stage(way[0], tail),
            }
        }
        path(&self.spec, Some(&self.shape), way, tail)
    }
}

/// Findings become problems: sorted by place, with the fields' full paths.
pub(super) fn place(text: &str, root: Option<&Node>, decoded: Option<&Decoded>, findings: Findings) -> Problems {
    let mut lines = Lines::of(text);
    let (found, left_out) = findings.into_parts();
    let mut spanned: Vec<(Option<Span>, Finding)> = found
        .into_iter()
        .map(|finding| (finding.span.or_else(|| root.map(|root| locate(root, decoded, &finding))), finding))
        .collect();
    spanned.sort_by_key(|(span, _)| span.map(|span| span.start));
    let mut problems: Vec<Problem> = Vec::with_capacity(spanned.len());
    for (span, finding) in spanned {
        let mut help = finding.help;
        if let Some(first) = finding.first {
            help.push_str(&format!("; the first one is on line {}", lines.line(first)));
        }
        let mut path = finding.path;
        if finding.point == Point::StageName && is_keyed(decoded, &path) {
            path.tail.clear();
        }
        let field = path.render(&prefix(decoded, &path));
        problems.push(Problem { place: span.map(|span| lines.place(span)), field, message: finding.message, help });
    }
    problems.extend(more(left_out));
    Problems(problems)
}

/// Says that there are more problems than are shown.
pub(super) fn more(left_out: usize) -> Option<Problem> {
    (left_out > 0).then(|| Problem {
        place: None,
        field: String::new(),
        message: format!("there are {left_out} more problems"),
        help: format!("at most {PROBLEMS_MAX} are shown: mend these first"),
    })
}

/// Whether the stage's name is its key, and no field.
fn is_keyed(decoded: Option<&Decoded>, path: &FieldPath) -> bool {
    let site = path.stage.and_then(|stage| decoded?.shape.sites.get(stage));
    matches!(site, Some(Site::Entry(_)))
}

/// The path of a stage.
pub(super) fn stage_field(name: &str) -> String {
    let mut path = "stages".to_owned();
    push_key(&mut path, name);
    path
}

/// What a stage is called in a field's path.
fn prefix(decoded: Option<&Decoded>, path: &FieldPath) -> String {
    let (Some(decoded), Some(stage)) = (decoded, path.stage) else { return String::new() };
    let name = decoded.spec.stages.get(stage).map_or("", |stage| stage.name.as_str());
    match decoded.shape.sites.get(stage) {
        Some(Site::Top) | None => String::new(),
        Some(Site::Item(position)) if name.is_empty() => format!("stages[{position}]"),
        Some(Site::Item(_) | Site::Entry(_)) => stage_field(name),
    }
}

/// Where a field stands in the text, or what would hold it if it is not there.
pub(super) fn locate(root: &Node, decoded: Option<&Decoded>, finding: &Finding) -> Span {
    let site = finding.path.stage.and_then(|stage| decoded?.shape.sites.get(stage).copied());
    let stages = root.get("stages").map(|entry| &entry.value);
    let (base, key) = match (site, stages.map(|node| &node.value)) {
        (Some(Site::Entry(position)), Some(Value::Map(entries))) => {
            entries.get(position).map_or((root, None), |entry| (&entry.value, Some(entry.key_span)))
        }
        (Some(Site::Item(position)), Some(Value::List(items))) => {
            items.get(position).map_or((root, None), |item| (item, None))
        }
        _ => (root, None),
    };
    if finding.point == Point::StageName {
        return key.or_else(|| base.get("name").map(|entry| entry.value.span)).unwrap_or(base.span);
    }
    let (node, key, is_whole) = base.walk(key, &finding.path.tail);
    match (finding.point, is_whole) {
        // Something is missing: the key of what lacks it says more than the whole block.
        (Point::Key, _) | (_, false) => key.unwrap_or(node.span),
        (Point::Value | Point::StageName, true) => node.span,
    }
}
