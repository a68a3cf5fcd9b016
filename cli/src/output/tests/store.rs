//! The store and what is done to it.

use super::*;
use crate::output::audit::Audit;
use crate::output::store::Recovered;
use crate::output::update::Update;

pub(super) fn full_store() -> v1::StoreView {
    v1::StoreView {
        epoch: 1,
        revision: 48_213,
        quota_bytes: 2 << 30,
        read_mostly: "the store's quota is used up (alarm NOSPACE of http://etcd-1:2379)".to_owned(),
        members: vec![v1::StoreMember {
            name: "http://etcd-1:2379".to_owned(),
            version: "3.5.16".to_owned(),
            size_bytes: 2 << 30,
            in_use_bytes: 300 << 20,
            leader: true,
            alarms: vec!["no-space".to_owned()],
            ..Default::default()
        }],
        janitor: "node-1".to_owned(),
        janitor_at_ms: NOW_MS - 5_000,
        compacted_to: 41_007,
        ..Default::default()
    }
}

pub(super) fn recovered() -> Recovered {
    let why = "the store is older than what executor node-1 has seen (revision 700 < 900)";
    Recovered::from(v1::RecoverResponse { epoch: 2, safe_mode: why.to_owned() })
}

pub(super) fn audit() -> Audit {
    let finding = v1::AuditFinding {
        namespace: "default".to_owned(),
        group: "nightly".to_owned(),
        what: "failed".to_owned(),
        shown: 2,
        counted: 3,
        ..Default::default()
    };
    let findings = vec![finding];
    let answer =
        v1::AuditResponse { revision: 48_213, jobs: 1_200, groups: 14, findings, findings_total: 1, repaired: 1 };
    Audit::from(answer)
}

pub(super) fn update() -> Update {
    Update::from(v1::UpdateView {
        namespace: "default".to_owned(),
        token: "sweep-7".to_owned(),
        state: v1::UpdateState::Committed.into(),
        opened_at_ms: NOW_MS - 60_000,
        expires_at_ms: NOW_MS + 86_340_000,
        committed_at_ms: NOW_MS - 5_000,
        groups: 40,
        jobs: 100_000,
        jobs_owned: 20_000,
    })
}

#[test]
fn the_store_and_what_is_done_to_it() {
    let away = v1::StoreMember {
        name: "http://etcd-2:2379".to_owned(),
        unreachable: "no answer within 2s".to_owned(),
        ..Default::default()
    };
    let mut view = full_store();
    view.members.push(away);
    let mut text = details(&Store::from(view));
    text.push_str(&details(&recovered()));
    text.push_str(&details(&audit()));
    text.push_str(&details(&update()));
    insta::assert_snapshot!(text);
}
