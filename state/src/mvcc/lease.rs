//! Leases: how long a session lives without a renewal, and which keys go with it.

use std::time::Duration;

use bytes::Bytes;

use super::{Core, Held, Lease};
use crate::{Error, Guard, Key, Keyspace, Op, SessionId, Txn, TxnOutcome};

impl Core {
    /// Grants a lease and writes the session's key with it. An id is used once, so that nobody who saw the session
    /// lost can meet it alive again.
    pub(crate) fn open_session(
        &mut self,
        id: &SessionId,
        ttl: Duration,
        value: Bytes,
        now: Duration,
    ) -> Result<(), Error> {
        let key = Key::new(Keyspace::Schedulers, id.0.clone());
        if self.used.contains(id) || !self.holds(&Guard::Absent(key.clone())) {
            return Err(session_in_use(id));
        }
        self.leases.insert(id.clone(), Lease { expires_at: now + ttl, ttl, keys: Held::new() });
        self.used.insert(id.clone());
        let ops = vec![Op::Put { key, value, session: Some(id.clone()) }];
        let outcome = self.apply(Txn { ops, ..Txn::default() })?;
        debug_assert!(matches!(outcome, TxnOutcome::Committed(_)), "there is no guard that could fail");
        Ok(())
    }

    /// Gives the lease another TTL, false if there is none any more.
    pub(crate) fn renew(&mut self, id: &SessionId, now: Duration) -> bool {
        match self.leases.get_mut(id) {
            Some(lease) if lease.expires_at > now => {
                lease.expires_at = now + lease.ttl;
                true
            }
            _ => false,
        }
    }

    /// When the lease ends unless it is renewed; `None`: it has ended.
    pub(crate) fn expires_at(&self, id: &SessionId) -> Option<Duration> {
        self.leases.get(id).map(|lease| lease.expires_at)
    }

    /// Ends a session: all its keys go at one revision, in the order of their full names.
    pub(crate) fn end_session(&mut self, id: &SessionId) {
        if let Some(lease) = self.leases.remove(id) {
            self.delete_held(lease.keys);
        }
    }

    /// Whether [`Self::expire`] has something to do.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.leases.values().any(|lease| lease.expires_at <= now)
    }

    /// Ends every session whose time is up; false if there was none.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        let due: Vec<SessionId> =
            self.leases.iter().filter(|(_, lease)| lease.expires_at <= now).map(|(id, _)| id.clone()).collect();
        for id in &due {
            self.end_session(id);
        }
        !due.is_empty()
    }

    pub(super) fn delete_held(&mut self, keys: Held) {
        let mut written = Vec::with_capacity(keys.len());
        for (_, name, keyspace) in keys {
            self.write(keyspace, &name, None, None, &mut written);
        }
        self.seal(written);
    }
}

/// What every store answers to a session id that is, or was, in use.
pub(crate) fn session_in_use(id: &SessionId) -> Error {
    Error::Fatal(format!("session id '{}' is or was in use: a session needs a fresh id", id.0))
}
