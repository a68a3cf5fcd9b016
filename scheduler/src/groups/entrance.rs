//! What a job's group adds to the transaction that accepts it.

use bytes::Bytes;
use muster_graph::ids::JobId;
use muster_proto::storage::JobHead;
use muster_state::{Entry, Error, Guard, Key, Op, Txn, keys};

use super::cancels::GroupCancels;
use super::changes;

/// The group must be there, and nothing around it cancelled that is not known of; then it counts the job.
pub(crate) struct Entrance<'a> {
    id: JobId,
    head: &'a JobHead,
    uncancelled: Guard,
    /// None: the root, which is always there.
    group: Option<Key>,
}

impl<'a> Entrance<'a> {
    pub(crate) fn of(id: JobId, head: &'a JobHead, known: &GroupCancels) -> Self {
        let group = (!head.group.is_empty()).then(|| keys::group(&head.namespace, &head.group));
        Self { id, head, uncancelled: known.guard(&head.namespace), group }
    }

    /// And what tells, of a refused transaction, whether the group was to blame.
    pub(crate) fn add_to(&self, txn: &mut Txn) -> Result<(), Error> {
        txn.guards.push(self.uncancelled.clone());
        txn.ops.push(changes::submitted(self.id, self.head)?);
        txn.read_on_failure.push(keys::group_cancels_head(&self.head.namespace));
        if let Some(key) = &self.group {
            let member = keys::group_member(&self.head.namespace, &self.head.group, self.id);
            txn.guards.push(Guard::Present(key.clone()));
            txn.ops.push(Op::Put { key: member, value: Bytes::new(), session: None });
            txn.read_on_failure.push(key.clone());
        }
        Ok(())
    }

    /// Takes its part of what was read.
    pub(crate) fn is_open(&self, read: &mut impl Iterator<Item = Option<Entry>>) -> bool {
        let newest = read.next().flatten().map(|entry| entry.mod_revision);
        let uncancelled = match &self.uncancelled {
            Guard::AtRevision(_, expected) => newest == Some(*expected),
            _ => newest.is_none(),
        };
        let is_there = self.group.is_none() || read.next().flatten().is_some();
        uncancelled && is_there
    }
}
