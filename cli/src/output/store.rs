//! The store and what is done to it: the stable JSON shapes, and how they are shown to people.

use std::io;

use jiff::Timestamp;
use muster_client::v1;
use serde::Serialize;

use super::time::{age, rfc3339};
use super::{Cell, Detail, Page, Row, Tone};
use crate::quantity::bytes_for_people;

/// The cluster's store.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Store {
    /// Why nothing at all is done now.
    pub(crate) safe_mode: Option<String>,
    /// Why nothing new is accepted now.
    pub(crate) read_mostly: Option<String>,
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    /// The oldest revision that can still be read, as the janitor wrote.
    pub(crate) compacted_to: Option<u64>,
    pub(crate) quota_bytes: Option<u64>,
    /// The scheduler that looks after it, as it wrote last, and when that was.
    pub(crate) janitor: Option<String>,
    pub(crate) janitor_at: Option<String>,
    #[serde(skip)]
    pub(crate) janitor_at_ms: u64,
    pub(crate) members: Vec<StoreMember>,
}

/// A member of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StoreMember {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) size_bytes: u64,
    pub(crate) in_use_bytes: u64,
    pub(crate) leader: bool,
    /// no-space, corrupt.
    pub(crate) alarms: Vec<String>,
    pub(crate) unreachable: Option<String>,
}

/// The answer to `admin recover`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Recovered {
    pub(crate) epoch: u64,
    /// Why it was necessary.
    pub(crate) safe_mode: Option<String>,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn positive(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

impl From<v1::StoreView> for Store {
    fn from(view: v1::StoreView) -> Self {
        Self {
            safe_mode: some(view.safe_mode),
            read_mostly: some(view.read_mostly),
            epoch: view.epoch,
            revision: view.revision,
            compacted_to: positive(view.compacted_to),
            quota_bytes: positive(view.quota_bytes),
            janitor: some(view.janitor),
            janitor_at: rfc3339(view.janitor_at_ms),
            janitor_at_ms: view.janitor_at_ms,
            members: view.members.into_iter().map(StoreMember::from).collect(),
        }
    }
}

impl From<v1::StoreMember> for StoreMember {
    fn from(member: v1::StoreMember) -> Self {
        Self {
            name: member.name,
            version: some(member.version),
            size_bytes: member.size_bytes,
            in_use_bytes: member.in_use_bytes,
            leader: member.leader,
            alarms: member.alarms,
            unreachable: some(member.unreachable),
        }
    }
}

impl From<v1::RecoverResponse> for Recovered {
    fn from(answer: v1::RecoverResponse) -> Self {
        Self { epoch: answer.epoch, safe_mode: some(answer.safe_mode) }
    }
}

impl Row for StoreMember {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["MEMBER", "VERSION", "SIZE", "IN USE", "LEADER", "ALARMS"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        let alarms = match &self.unreachable {
            Some(why) => format!("unreachable: {why}"),
            None => self.alarms.join(","),
        };
        vec![
            Cell::new(&self.name),
            Cell::optional(self.version.as_deref().unwrap_or_default()),
            Cell::number(bytes_for_people(self.size_bytes)),
            Cell::number(bytes_for_people(self.in_use_bytes)),
            Cell::new(if self.leader { "yes" } else { "no" }),
            if alarms.is_empty() { Cell::optional("") } else { Cell::toned(alarms, Tone::Bad) },
        ]
    }
}

impl Detail for Store {
    fn name(&self) -> String {
        self.epoch.to_string()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let mode = match (&self.safe_mode, &self.read_mostly) {
            (Some(why), _) => Cell::toned(format!("safe mode: {why}"), Tone::Bad),
            (None, Some(why)) => Cell::toned(format!("read-mostly: {why}"), Tone::Bad),
            (None, None) => Cell::toned("normal".to_owned(), Tone::Good),
        };
        let quota = self.quota_bytes.map_or_else(|| "none".to_owned(), bytes_for_people);
        let janitor = match &self.janitor {
            Some(janitor) => format!("{janitor}, {} ago", age(self.janitor_at_ms, page.now())),
            None => String::new(),
        };
        page.facts(vec![
            ("Mode", mode),
            ("Epoch", Cell::new(self.epoch.to_string())),
            ("Revision", Cell::new(self.revision.to_string())),
            ("Quota", Cell::new(quota)),
            ("Compacted by", Cell::optional(&janitor)),
        ])?;
        page.headline("Members")?;
        page.table(&self.members)
    }
}

impl Detail for Recovered {
    fn name(&self) -> String {
        self.epoch.to_string()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        page.facts(vec![("Epoch", Cell::new(self.epoch.to_string()))])
    }
}
