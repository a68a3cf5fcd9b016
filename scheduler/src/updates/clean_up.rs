//! What updates leave: what abandoned ones have staged, and the records of those that are over. The janitor's work, a bounded piece at a time.

use muster_graph::ids::{JobId, Millis};
use muster_proto::storage::{GroupRecord, UpdatePart};
use muster_proto::v1;
use muster_state::{Error, Guard, Key, Keyspace, Op, Scan, StateBackend, Txn, codec, keys};

use super::{UPDATE_LIVES, Update, abandoning, all};
use crate::groups::changes;
use crate::load::send_until_known;

/// Parts deleted at a time: each is one transaction.
const PARTS: usize = 100;

/// Of every update something, if there is something to do. `held` holds as long as its caller may.
pub(crate) async fn clean_up(state: &dyn StateBackend, held: &Guard, now: Millis) -> Result<(), Error> {
    let (updates, _) = all(state, None).await?;
    for update in updates {
        let record = &update.record;
        match record.state() {
            v1::UpdateState::Open if record.expires_at_ms <= now => {
                tracing::info!(namespace = update.namespace, token = update.token, "an update has expired");
                send_until_known(state, abandoning(&update, vec![held.clone()])?).await?;
            }
            v1::UpdateState::Abandoned => delete_some(state, held, &update).await?,
            // Whoever asks for the same once more has an answer until then.
            v1::UpdateState::Committed
                if record.taken_up && record.committed_at_ms.saturating_add(UPDATE_LIVES) <= now =>
            {
                delete_some(state, held, &update).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Its record goes last.
async fn delete_some(state: &dyn StateBackend, held: &Guard, update: &Update) -> Result<(), Error> {
    let prefix = keys::update_parts(&update.namespace, &update.token);
    let page = state.scan(Keyspace::Updates, Scan { prefix, limit: PARTS, ..Scan::default() }).await?;
    let guards = |key: &Key, revision| vec![held.clone(), Guard::AtRevision(key.clone(), revision)];
    let is_last = page.next.is_none();
    for entry in page.entries {
        let key = Key::new(Keyspace::Updates, entry.name);
        let part: UpdatePart = codec::decode(&key, &entry.value)?;
        let mut ops = vec![Op::Delete(key.clone())];
        // The parts tell the keeper of the groups what it has not added up yet.
        if update.record.state() == v1::UpdateState::Committed
            && is_to_be_counted(state, &update.namespace, &part).await?
        {
            return Ok(());
        }
        if update.record.state() == v1::UpdateState::Abandoned {
            ops.extend(staged(state, &update.namespace, &part).await?);
        }
        let txn = Txn { guards: guards(&key, entry.mod_revision), ops, ..Txn::default() };
        send_until_known(state, txn).await?;
    }
    if is_last {
        let txn = Txn {
            guards: guards(&update.key(), update.revision),
            ops: vec![Op::Delete(update.key())],
            ..Txn::default()
        };
        send_until_known(state, txn).await?;
    }
    Ok(())
}

async fn is_to_be_counted(state: &dyn StateBackend, namespace: &str, part: &UpdatePart) -> Result<bool, Error> {
    let jobs = part.jobs.iter().filter_map(|job| job.job_id.parse().ok());
    let stagings: Vec<Key> = jobs.map(|job| changes::staging(namespace, job)).collect();
    Ok(state.get_many(&stagings).await?.1.iter().any(Option::is_some))
}

/// What a part has put into the store beside itself. Blobs are left, as those of submits that were refused.
async fn staged(state: &dyn StateBackend, namespace: &str, part: &UpdatePart) -> Result<Vec<Op>, Error> {
    let mut ops = Vec::new();
    for job in &part.jobs {
        let Ok(id) = job.job_id.parse::<JobId>() else { continue };
        ops.push(Op::Delete(keys::staged_job(id)));
        ops.push(Op::Delete(changes::staging(namespace, id)));
        if !job.group.is_empty() {
            ops.push(Op::Delete(keys::group_member(namespace, &job.group, id)));
        }
    }
    let groups: Vec<Key> = part.groups.iter().map(|path| keys::group(namespace, path)).collect();
    let (_, records) = state.get_many(&groups).await?;
    for (key, entry) in groups.into_iter().zip(records) {
        let Some(entry) = entry else { continue };
        let record: GroupRecord = codec::decode(&key, &entry.value)?;
        ops.push(Op::Delete(keys::group_id(namespace, &record.id)));
        ops.push(Op::Delete(key));
    }
    Ok(ops)
}
