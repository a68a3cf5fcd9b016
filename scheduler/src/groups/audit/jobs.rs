//! Finished jobs: whether what their heads say of their tasks is what the tasks' states say.

use muster_proto::storage::JobHead;
use muster_proto::v1;
use muster_state::{Entry, Error, Guard, Key, Keyspace, Op, Revision, Scan, Txn, TxnOutcome, codec, keys};

use super::Audit;
use crate::load::{self, LoadError, send_until_known};

impl Audit<'_> {
    /// Each by itself, as of the revision at which its head was read.
    pub(super) async fn jobs(&mut self) -> Result<(), Error> {
        for keyspace in [Keyspace::CompletedJobs, Keyspace::FailedJobs] {
            let mut scan = Scan::default();
            loop {
                let page = self.state.scan(keyspace, scan.clone()).await?;
                for entry in page.entries {
                    self.job(keyspace, entry, page.revision).await?;
                }
                let Some(after) = page.next else { break };
                // Each page as of its own revision: jobs have nothing to do with each other.
                scan.after = Some(after);
                tokio::time::sleep(self.pace).await;
            }
        }
        Ok(())
    }

    async fn job(&mut self, keyspace: Keyspace, entry: Entry, at: Revision) -> Result<(), Error> {
        let key = Key::new(keyspace, entry.name);
        let mut head: JobHead = codec::decode(&key, &entry.value)?;
        let Ok(id) = key.name.parse() else { return Ok(()) };
        if head.plan.is_none() {
            return Ok(());
        }
        let graph = match load::graph(self.state, id, &head, at).await {
            Ok((graph, ..)) => graph,
            Err(LoadError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::error!(job = key.name, %error, "a finished job's states cannot be read; they are not counted");
                return Ok(());
            }
        };
        let truth = v1::Counts::from(graph.counts());
        let shown = head.tasks.unwrap_or_default();
        let numbers = |counts: v1::Counts| {
            [
                ("tasks.pending", counts.pending),
                ("tasks.assigned", counts.assigned),
                ("tasks.running", counts.running),
                ("tasks.successful", counts.successful),
                ("tasks.failed", counts.failed),
                ("tasks.cancelled", counts.cancelled),
            ]
        };
        if truth == shown {
            return Ok(());
        }
        for ((what, shown), (_, counted)) in numbers(shown).into_iter().zip(numbers(truth)) {
            if shown != counted {
                self.found(v1::AuditFinding {
                    namespace: head.namespace.clone(),
                    job_id: key.name.clone(),
                    what: what.to_owned(),
                    shown: shown.into(),
                    counted: counted.into(),
                    ..v1::AuditFinding::default()
                });
            }
        }
        if !self.repair {
            return Ok(());
        }
        head.tasks = Some(truth);
        let epoch = Guard::AtRevision(keys::epoch(), self.shared.presence().identity.epoch_revision);
        let guards = vec![epoch, Guard::AtRevision(key.clone(), entry.mod_revision)];
        let ops = vec![Op::Put { key, value: codec::encode(&head)?, session: None }];
        // Refused: it is active again, or repaired by an earlier sending.
        if let TxnOutcome::Committed(_) = send_until_known(self.state, Txn { guards, ops, ..Txn::default() }).await? {
            self.report.repaired += 1;
        }
        Ok(())
    }
}
