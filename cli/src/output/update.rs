//! An update: the stable JSON shape, and how it is shown to people.

use std::io;

use muster_client::v1;
use serde::Serialize;

use super::time::rfc3339;
use super::{Cell, Detail, Page};

/// The answer to `update`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Update {
    pub(crate) namespace: String,
    pub(crate) token: String,
    /// open, committed or abandoned.
    pub(crate) state: &'static str,
    pub(crate) groups: u64,
    pub(crate) jobs: u64,
    /// Of a committed one: how many jobs a scheduler has by now.
    pub(crate) jobs_owned: u64,
    pub(crate) opened_at: Option<String>,
    /// An open one is abandoned then.
    pub(crate) expires_at: Option<String>,
    pub(crate) committed_at: Option<String>,
}

impl From<v1::UpdateView> for Update {
    fn from(view: v1::UpdateView) -> Self {
        let state = match view.state() {
            v1::UpdateState::Open => "open",
            v1::UpdateState::Committed => "committed",
            v1::UpdateState::Abandoned => "abandoned",
            v1::UpdateState::Unspecified => "unknown",
        };
        Self {
            namespace: view.namespace,
            token: view.token,
            state,
            groups: view.groups,
            jobs: view.jobs,
            jobs_owned: view.jobs_owned,
            opened_at: rfc3339(view.opened_at_ms),
            expires_at: rfc3339(view.expires_at_ms).filter(|_| state == "open"),
            committed_at: rfc3339(view.committed_at_ms),
        }
    }
}

impl Detail for Update {
    fn name(&self) -> String {
        self.token.clone()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        page.facts(vec![
            ("Update", Cell::new(&self.token)),
            ("Namespace", Cell::new(&self.namespace)),
            ("State", Cell::new(self.state)),
            ("Groups", Cell::new(self.groups.to_string())),
            ("Jobs", Cell::new(self.jobs.to_string())),
        ])
    }
}
