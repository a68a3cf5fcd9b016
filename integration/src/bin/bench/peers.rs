//! HyperQueue and Dask, as PyPI has them. `scripts/bench-tools.sh` installs them; `scripts/bench-peers.py` drives them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::rows::Notes;
use crate::scale::Scale;

/// Runs one of them. What it prints is one line of JSON: the figures by their names.
pub(crate) fn run(peer: &str, scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    let tools = std::env::var_os("MUSTER_TOOLS")
        .map_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache/muster/tools"), PathBuf::from);
    std::fs::create_dir_all(logs)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bench-peers.py");
    let data = tempfile::tempdir()?;
    let output = Command::new(tools.join("bench-python/bin/python"))
        .arg(script)
        .args([peer, &scale.peer_tasks.to_string()])
        .current_dir(data.path())
        .stderr(std::fs::File::create(logs.join(format!("{peer}.log")))?)
        .output()
        .context("scripts/bench-tools.sh installs the peers")?;
    anyhow::ensure!(output.status.success(), "{peer}: {}; see its log in {}", output.status, logs.display());
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().context("it prints its figures")?;
    let figures: std::collections::BTreeMap<String, f64> = serde_json::from_str(line)?;
    for (name, figure) in figures {
        notes.set(&format!("{peer}.{name}"), figure);
    }
    Ok(())
}
