//! What can go wrong when an executor starts. What goes wrong later belongs to an attempt, and is in its result.

use std::path::PathBuf;

/// Why an executor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another executor uses the data directory.
    #[error(
        "the data directory {0} is in use by another executor: stop that one, or give this one its own data directory"
    )]
    DataDirInUse(PathBuf),
    /// Something in the data directory cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    DataDir {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// An option has a value that cannot be used.
    #[error("option {option}: {problem}")]
    BadOption {
        /// Its name.
        option: &'static str,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The supervisor process cannot be started.
    #[error("cannot start the supervisor process `{program}`: {source}")]
    Supervisor {
        /// Its argv, joined.
        program: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: names the action and the path.
    pub(crate) fn data_dir(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::DataDir { action, path, source }
    }
}
