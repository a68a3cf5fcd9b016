//! Why adding up ended.

use muster_state::Error;

/// See the module.
pub(super) enum End {
    Superseded,
    /// A record that has to do with groups of this namespace.
    Unreadable(String, Error),
    Store(Error),
}

impl End {
    /// An end that a record has brought about is that record's namespace's.
    pub(super) fn of(self, namespace: &str) -> Self {
        match self {
            Self::Store(error @ (Error::Record { .. } | Error::Fatal(_))) => {
                Self::Unreadable(namespace.to_owned(), error)
            }
            other => other,
        }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
