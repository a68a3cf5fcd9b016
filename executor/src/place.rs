//! What an attempt has on disk: a workspace to run in, inputs, and what it leaves, which moves to its own directory.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use muster_proto::v1::{self, Outcome};

use crate::attempt::finished;
use crate::blocking;
use crate::core::Core;
use crate::keys::AttemptKey;
use crate::output::publish::{self, Unpublishable};
use crate::store::layout::Room;
use crate::store::workspaces::Workspace;

/// A workspace, with this script in it. Most short tasks find one that is ready, without a visit to the blocking threads, each of
/// which costs them dearly.
pub(crate) async fn take(core: &Arc<Core>, key: AttemptKey, script: Option<&str>) -> Result<Workspace, String> {
    // By it is seen that something of the job ran here, even if it left nothing.
    let job = core.layout.job(key.job);
    let spare = match core.workspaces.spare() {
        Some(spare) if job.exists() && script.is_none_or(|text| spare.has_script(text)) => return Ok(spare),
        other => other,
    };
    let (core, script) = (Arc::clone(core), script.map(str::to_owned));
    let ready = blocking::run(move || -> io::Result<Workspace> {
        fs::create_dir_all(job)?;
        let workspace = spare.map_or_else(|| core.workspaces.make(), Ok)?;
        if let Some(text) = script {
            workspace.write_script(&text)?;
        }
        Ok(workspace)
    });
    match ready.await {
        Ok(Ok(workspace)) => Ok(workspace),
        Ok(Err(error)) => Err(format!("cannot make the task's directory: {error}")),
        Err(stopped) => Err(stopped.to_string()),
    }
}

/// How an attempt is gone.
pub(crate) struct Gone {
    pub(crate) workspace: Workspace,
    pub(crate) had_inputs: bool,
    /// Nothing of it can still be writing.
    pub(crate) for_certain: bool,
    pub(crate) result: v1::AttemptFinished,
}

/// Publishes the output of an attempt that succeeded, keeps what one that failed had, and gives the workspace back.
pub(crate) async fn leave(core: &Arc<Core>, key: AttemptKey, gone: Gone) -> v1::AttemptFinished {
    let Gone { mut workspace, had_inputs, for_certain, mut result } = gone;
    let outcome = result.outcome();
    if for_certain && !had_inputs && workspace.is_untouched() {
        core.workspaces.give_back(workspace);
        if outcome == Outcome::Succeeded {
            result.output = Some(v1::Output::default());
        }
        return result;
    }
    let (core, room, exit) = (Arc::clone(core), core.layout.attempt(key), result.exit);
    let left = blocking::run(move || {
        let published = match outcome {
            Outcome::Succeeded => publish::publish(&workspace.output(), &room).map(Some),
            _ => Ok(None),
        };
        let keep =
            published.is_err() || !matches!(outcome, Outcome::Succeeded | Outcome::Cancelled | Outcome::GivenBack);
        if keep && let Err(error) = keep_failed(&workspace, &room) {
            tracing::warn!(attempt = %key, %error, "cannot keep the files of a failed attempt");
        }
        if had_inputs {
            remove_inputs(&room);
        }
        match workspace.clear() {
            Ok(()) if for_certain => core.workspaces.give_back(workspace),
            Ok(()) => workspace.remove(),
            Err(error) => {
                tracing::warn!(attempt = %key, %error, "cannot clear what a task left in its directory");
                workspace.remove();
            }
        }
        published
    });
    let mut failed = match left.await {
        Ok(Ok(output)) => {
            result.output = output;
            return result;
        }
        Ok(Err(problem @ Unpublishable::Task(_))) => finished(Outcome::Failed, problem.to_string()),
        Ok(Err(problem @ Unpublishable::Machine(_))) => finished(Outcome::ExecutorLost, problem.to_string()),
        Err(stopped) => finished(Outcome::ExecutorLost, stopped.to_string()),
    };
    failed.exit = exit;
    failed
}

/// Of an attempt that never ran, inputs are all that may be there. What cannot be removed now goes with the job.
pub(crate) async fn remove_what_was_brought(core: &Core, key: AttemptKey) {
    let room = core.layout.attempt(key);
    let _ = blocking::run(move || remove_inputs(&room)).await;
}

fn remove_inputs(room: &Room) {
    let _ = fs::remove_dir_all(room.input());
    // Of an attempt that left nothing, nothing is left.
    let _ = fs::remove_dir(room.path());
}

fn keep_failed(workspace: &Workspace, room: &Room) -> io::Result<()> {
    let keep = |from: &Path, to: &Path| match fs::remove_dir(from) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            fs::create_dir_all(room.path())?;
            fs::rename(from, to)
        }
        _ => Ok(()),
    };
    keep(&workspace.work(), &room.work())?;
    keep(&workspace.output(), &room.output())
}
