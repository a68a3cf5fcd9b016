//! Executors' records: the one place where they are written.
//!
//! **Invariant:** each write compares the epoch under which the record was read. A loss that was decided before the store
//! was restored from a backup does not land in what was restored: there the executor may be at home.

use muster_proto::storage::ExecutorRecord;
use muster_state::{Entry, Error, Guard, Op, Revision, StateBackend, Txn, TxnOutcome, codec, keys};

use crate::load::send_until_known;

/// An executor's state, as stored.
pub(crate) mod executor_state {
    pub(crate) const READY: &str = "ready";
    pub(crate) const DRAINING: &str = "draining";
    /// Its home does not hear of it any more; nobody else may have to.
    pub(crate) const DISCONNECTED: &str = "disconnected";
    pub(crate) const LOST: &str = "lost";
    pub(crate) const STOPPED: &str = "stopped";
}

/// What the store said of an executor, and in which of its lives.
pub(crate) struct Reading {
    id: String,
    epoch: Revision,
    found: Option<(Entry, ExecutorRecord)>,
}

impl Reading {
    /// The record with its revision.
    pub(crate) fn record(&self) -> Option<(&ExecutorRecord, Revision)> {
        self.found.as_ref().map(|(entry, record)| (record, entry.mod_revision))
    }

    /// The record as it is stored.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        self.found.as_ref().map(|(entry, _)| entry)
    }

    /// Writes the record, if it is still as it was read, in the same epoch, and these guards hold. `None`: it is not; look
    /// again.
    pub(crate) async fn write(
        &self,
        state: &dyn StateBackend,
        record: &ExecutorRecord,
        mut guards: Vec<Guard>,
    ) -> Result<Option<Revision>, Error> {
        let key = keys::executor(&self.id);
        guards.push(Guard::AtRevision(keys::epoch(), self.epoch));
        guards.push(match &self.found {
            Some((entry, _)) => Guard::AtRevision(key.clone(), entry.mod_revision),
            None => Guard::Absent(key.clone()),
        });
        let txn = Txn {
            guards,
            ops: vec![Op::Put { key, value: codec::encode(record)?, session: None }],
            read_on_failure: vec![keys::epoch()],
        };
        match send_until_known(state, txn).await? {
            TxnOutcome::Committed(revision) => Ok(Some(revision)),
            TxnOutcome::Refused { read, .. } => match read.into_iter().flatten().next() {
                Some(epoch) if epoch.mod_revision == self.epoch => Ok(None),
                _ => Err(Error::Unavailable("the store has begun a new epoch, or is in doubt; try again".to_owned())),
            },
        }
    }
}

/// Reads an executor's record. `epoch` is the revision of the epoch's record that the caller goes by.
pub(crate) async fn read(state: &dyn StateBackend, epoch: Revision, id: &str) -> Result<Reading, Error> {
    let key = keys::executor(id);
    let found = match state.get(&key).await? {
        Some(entry) => {
            let record = codec::decode(&key, &entry.value)?;
            Some((entry, record))
        }
        None => None,
    };
    Ok(Reading { id: id.to_owned(), epoch, found })
}

#[cfg(test)]
mod tests {
    use muster_state::Memory;
    use muster_state::codec::Epoch;

    use super::*;

    fn record(state: &str) -> ExecutorRecord {
        ExecutorRecord { executor_id: "e".to_owned(), incarnation: 1, state: state.to_owned(), ..Default::default() }
    }

    async fn begin_epoch(store: &Memory, number: u64) -> Revision {
        store.put(keys::epoch(), codec::encode(&Epoch(number)).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_decided_in_an_earlier_epoch_is_not_written_in_the_next_one() {
        let store = Memory::new();
        let first = begin_epoch(&store, 1).await;
        let unknown = read(&store, first, "e").await.unwrap();
        unknown.write(&store, &record(executor_state::READY), Vec::new()).await.unwrap().unwrap();
        let late = read(&store, first, "e").await.unwrap();
        let second = begin_epoch(&store, 2).await;
        let refused = late.write(&store, &record(executor_state::LOST), Vec::new()).await.unwrap_err();
        assert!(refused.to_string().contains("epoch"), "{refused}");
        let now = read(&store, second, "e").await.unwrap();
        assert_eq!(now.record().unwrap().0.state, executor_state::READY);
        assert!(now.write(&store, &record(executor_state::LOST), Vec::new()).await.unwrap().is_some());
        // In the same epoch, somebody else was faster.
        assert_eq!(now.write(&store, &record(executor_state::READY), Vec::new()).await.unwrap(), None);
    }
}
