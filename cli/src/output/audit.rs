//! What a recount has found: the stable JSON shape, and how it is shown to people.

use std::io;

use jiff::Timestamp;
use muster_client::v1;
use serde::Serialize;

use super::{Cell, Detail, Page, Row, Tone};

/// The answer to `admin audit`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Audit {
    /// Of the store, as of which groups were recounted.
    pub(crate) revision: u64,
    pub(crate) jobs: u64,
    pub(crate) groups: u64,
    /// The first thousand.
    pub(crate) findings: Vec<Finding>,
    pub(crate) findings_total: u64,
    /// Groups and jobs that were put right.
    pub(crate) repaired: u64,
}

/// A number that is not what it should be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    pub(crate) namespace: String,
    /// The path of the group that shows it; `/` is the root. None: it is a job.
    pub(crate) group: Option<String>,
    pub(crate) job: Option<String>,
    /// Which number.
    pub(crate) what: String,
    pub(crate) shown: u64,
    /// What it should be.
    pub(crate) counted: u64,
}

impl From<v1::AuditResponse> for Audit {
    fn from(answer: v1::AuditResponse) -> Self {
        Self {
            revision: answer.revision,
            jobs: answer.jobs,
            groups: answer.groups,
            findings: answer.findings.into_iter().map(Finding::from).collect(),
            findings_total: answer.findings_total,
            repaired: answer.repaired,
        }
    }
}

impl From<v1::AuditFinding> for Finding {
    fn from(finding: v1::AuditFinding) -> Self {
        let job = Some(finding.job_id).filter(|id| !id.is_empty());
        let path = if finding.group.is_empty() { "/".to_owned() } else { finding.group };
        Self {
            namespace: finding.namespace,
            group: job.is_none().then_some(path),
            job,
            what: finding.what,
            shown: finding.shown,
            counted: finding.counted,
        }
    }
}

impl Row for Finding {
    fn name(&self) -> String {
        self.job.clone().or_else(|| self.group.clone()).unwrap_or_default()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "GROUP OR JOB", "NUMBER", "SHOWN", "COUNTED"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.namespace),
            Cell::new(self.name()),
            Cell::new(&self.what),
            Cell::number(self.shown.to_string()),
            Cell::number(self.counted.to_string()),
        ]
    }
}

impl Detail for Audit {
    fn name(&self) -> String {
        self.findings_total.to_string()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let wrong = match self.findings_total {
            0 => Cell::toned("none".to_owned(), Tone::Good),
            some => Cell::toned(some.to_string(), Tone::Bad),
        };
        page.facts(vec![
            ("Jobs", Cell::new(self.jobs.to_string())),
            ("Groups", Cell::new(self.groups.to_string())),
            ("As of revision", Cell::new(self.revision.to_string())),
            ("Wrong numbers", wrong),
            ("Repaired", Cell::new(self.repaired.to_string())),
        ])?;
        if self.findings.is_empty() {
            return Ok(());
        }
        page.headline("Wrong numbers")?;
        page.table(&self.findings)
    }
}
