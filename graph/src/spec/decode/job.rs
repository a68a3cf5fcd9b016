//! The top level.

use super::fields::Fields;
use super::{Decoded, Decoder, Deferred, Shape, Site};
use crate::groups::GroupPath;
use crate::ids::JobId;
use crate::spec::after::{AfterJob, AwaitedEnd, NotAfterJob};
use crate::spec::draft::ForEach;
use crate::spec::finding::{FieldPath, Findings, Segment};
use crate::spec::keys::{JOB, JOB_ALONE, STAGE};
use crate::spec::model::{JobSpec, LostAfter, Outputs, StageSpec};
use crate::spec::node::{Kind, Node, Value};

/// What the only stage of a job without `stages` is called.
pub(super) const ONLY_STAGE: &str = "main";
/// Where a job that names none belongs.
const DEFAULT_NAMESPACE: &str = "default";

const INNER_HELP: &str = "write the job's stages below it, for example {stages: {clean: {run: ./clean.sh}}}";
const JOB_HELP: &str = "the smallest spec is a `name` and a `run`, for example: {name: hello, run: echo hello}";

/// One stage, read.
pub(super) struct ReadStage {
    pub(super) spec: StageSpec,
    pub(super) is_sized: bool,
    pub(super) for_each: Option<ForEach>,
    /// If the stage is a job that stands in it: what is known of that, and its stages whose items come from files.
    pub(super) inner: Option<(Shape, Deferred)>,
}

impl Decoder {
    /// A job; `is_inner`: one that stands in a stage.
    pub(super) fn job(mut self, root: &Node, is_inner: bool) -> Decoded {
        let mut decoded = Decoded {
            spec: JobSpec {
                name: String::new(),
                namespace: DEFAULT_NAMESPACE.to_owned(),
                group: String::new(),
                after_jobs: Vec::new(),
                labels: Default::default(),
                priority: 0,
                env: Default::default(),
                timeout: None,
                lost_after: None,
                max_running: None,
                placement: Default::default(),
                takes: Vec::new(),
                outputs: Outputs::None,
                stages: Vec::new(),
            },
            shape: Shape::default(),
            deferred: Vec::new(),
            findings: Findings::default(),
        };
        if is_inner {
            if let Some(mut fields) = self.fields(root, &[JOB], "a map with the job's keys", INNER_HELP) {
                self.every_jobs_fields(&mut fields, &mut decoded);
                self.missing_stages(&fields, "add `stages`; none at all are written stages: {}");
            }
        } else {
            self.job_fields(root, &mut decoded);
        }
        decoded.findings = self.findings;
        decoded
    }

    fn job_fields(&mut self, root: &Node, decoded: &mut Decoded) {
        let is_single = root.get("stages").is_none() && STAGE.iter().any(|key| is_only_a_stages(root, key.name));
        let tables: &[_] = if is_single { &[JOB_ALONE, JOB, STAGE] } else { &[JOB_ALONE, JOB] };
        let Some(mut fields) = self.fields(root, tables, "a map with the job's keys", JOB_HELP) else { return };
        let spec = &mut decoded.spec;
        match fields.get("name") {
            Some(entry) => {
                if let Some(name) = self.field(Some(entry), "name", Self::text) {
                    spec.name = name;
                }
            }
            None if fields.is_plainly_missing("name") => {
                self.missing("name", "the job has no name", "add `name`, for example name: nightly-report");
            }
            None => {}
        }
        if let Some(namespace) = self.field(fields.get("namespace"), "namespace", Self::text) {
            spec.namespace = namespace;
        }
        if let Some(group) = self.field(fields.get("group"), "group", Self::text) {
            // What is no path stays as it was written: the rules say so.
            spec.group = group.parse::<GroupPath>().map_or(group, |path| path.as_str().to_owned());
        }
        spec.after_jobs = self.field(fields.get("after_jobs"), "after_jobs", Self::after_jobs).unwrap_or_default();
        let labels = |decoder: &mut Self, node: &Node| decoder.texts(node, "write for example {team: search}");
        spec.labels = self.field(fields.get("labels"), "labels", labels).unwrap_or_default();
        let priority =
            |decoder: &mut Self, node: &Node| decoder.whole(node, "a whole number", i32::MIN.into(), i32::MAX.into());
        spec.priority = self.field(fields.get("priority"), "priority", priority).unwrap_or_default();
        spec.timeout = self.field(fields.get("timeout"), "timeout", Self::duration);
        spec.lost_after = self.field(fields.get("lost_after"), "lost_after", Self::lost_after);
        let max_running = |decoder: &mut Self, node: &Node| decoder.whole(node, "a whole number", 1, u32::MAX.into());
        spec.max_running = self.field(fields.get("max_running"), "max_running", max_running);
        // They were read before anything else.
        fields.get("params");
        if is_single {
            self.path = FieldPath::stage(0, []);
            let stage = self.stage_fields(&mut fields, ONLY_STAGE.to_owned(), true);
            self.path = FieldPath::default();
            decoded.add(Site::Top, stage);
        }
        self.every_jobs_fields(&mut fields, decoded);
        if !is_single {
            self.missing_stages(&fields, "add `run` for a job of one stage, or `stages` for more");
        }
    }

    /// The fields that jobs in stages have as well.
    fn every_jobs_fields(&mut self, fields: &mut Fields<'_>, decoded: &mut Decoded) {
        let spec = &mut decoded.spec;
        spec.env = self.field(fields.get("env"), "env", Self::env).unwrap_or_default();
        spec.placement = self.field(fields.get("placement"), "placement", Self::placement).unwrap_or_default();
        let takes = |decoder: &mut Self, node: &Node| decoder.words(node, "write for example [raw]");
        spec.takes = self.field(fields.get("takes"), "takes", takes).unwrap_or_default();
        spec.outputs = self.field(fields.get("outputs"), "outputs", Self::outputs).unwrap_or_default();
        if let Some(stages) = fields.get("stages") {
            self.within(Segment::key("stages"), |decoder| decoder.stages(&stages.value, decoded));
        }
    }

    fn missing_stages(&mut self, fields: &Fields<'_>, help: &str) {
        if fields.is_plainly_missing("stages") {
            self.missing("stages", "there is nothing to run", help);
        }
    }

    fn outputs(&mut self, node: &Node) -> Option<Outputs> {
        const HELP: &str = "write the name of a stage, or a map such as {report: join, model: train}";
        if !matches!(node.value, Value::Map(_)) {
            return self.text(node).map(Outputs::Of);
        }
        self.texts(node, HELP).map(Outputs::Named)
    }

    fn after_jobs(&mut self, node: &Node) -> Option<Vec<AfterJob>> {
        const HELP: &str = "write ids of jobs, each with :failure or :any behind it if not its success is waited for";
        let nobody = || AfterJob { job: JobId(0), end: AwaitedEnd::Any };
        self.list(node, "a list of jobs", HELP, nobody, |decoder, item| {
            let text = decoder.text(item)?;
            let after = text.parse().map_err(|error: NotAfterJob| decoder.wrong(item.span, error.to_string(), HELP));
            after.ok()
        })
    }

    fn lost_after(&mut self, node: &Node) -> Option<LostAfter> {
        match &node.value {
            Value::Scalar(Kind::Text, text) if &**text == "never" => Some(LostAfter::Never),
            _ => self.duration(node).map(LostAfter::Time),
        }
    }

    fn stages(&mut self, node: &Node, decoded: &mut Decoded) {
        const HELP: &str = "write a map of names to stages, or a list of stages that have a `name`";
        match &node.value {
            Value::Map(_) => {
                let entries = self.entries(node, "the stages as a map", HELP).unwrap_or_default();
                for (position, entry) in entries {
                    let stage = self.at_stage(decoded.spec.stages.len(), |decoder| {
                        decoder.stage(&entry.value, Some(entry.key.to_string()))
                    });
                    decoded.add(Site::Entry(position), stage);
                }
            }
            Value::List(items) => {
                for (position, item) in items.iter().enumerate() {
                    let stage = self.at_stage(decoded.spec.stages.len(), |decoder| decoder.stage(item, None));
                    decoded.add(Site::Item(position), stage);
                }
            }
            Value::Scalar(..) => self.mismatch(node, "stages as a map or a list", HELP),
        }
    }

    fn at_stage<T>(&mut self, index: usize, act: impl FnOnce(&mut Self) -> T) -> T {
        let outside = std::mem::replace(&mut self.path, FieldPath::stage(index, []));
        let result = act(self);
        self.path = outside;
        result
    }
}

/// Whether the top level has that key, and it can only be a stage's.
fn is_only_a_stages(root: &Node, key: &str) -> bool {
    JOB_ALONE.iter().chain(JOB).all(|other| other.name != key) && root.get(key).is_some()
}

impl Decoded {
    fn add(&mut self, site: Site, stage: ReadStage) {
        let place = self.spec.stages.len();
        if let Some(for_each) = stage.for_each {
            self.deferred.push((vec![place], for_each));
        }
        if let Some((shape, deferred)) = stage.inner {
            let seen_from_here = |(way, for_each)| (std::iter::once(place).chain(way).collect(), for_each);
            self.deferred.extend(deferred.into_iter().map(seen_from_here));
            self.shape.inner.insert(place, shape);
        }
        self.shape.sites.push(site);
        self.shape.sized.push(stage.is_sized);
        self.spec.stages.push(stage.spec);
    }
}
