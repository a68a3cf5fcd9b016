//! The machine that was measured on: figures without it say nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::quantiles::Times;

/// Writes for the figure of the disk.
const FSYNCS: usize = 200;

/// What it has.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Machine {
    /// The processors' name.
    pub(crate) cpu: String,
    /// How many programs see.
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) etcd: String,
    /// Of the folder of temporary files, where stores and executors have their data.
    pub(crate) file_system: String,
    /// A small append and its fdatasync there.
    pub(crate) fdatasync_p50_ms: f64,
    /// Processes that wanted to run, over the minute before: more than a few mean that others work on the machine.
    pub(crate) load_before: f64,
    pub(crate) commit: String,
}

impl Machine {
    pub(crate) fn look(folder: &Path) -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let kib: f64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        let temporary = std::env::temp_dir().display().to_string();
        Ok(Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            etcd: said("etcd", &["--version"]).replace("Version: ", ""),
            file_system: said("stat", &["-f", "-c", "%T", &temporary]),
            fdatasync_p50_ms: fdatasync(folder)?,
            load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            commit: said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short=12", "HEAD"]),
        })
    }
}

/// The first line that a program prints; empty where there is none.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn fdatasync(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..FSYNCS {
        let started = Instant::now();
        file.write_all(&[0; 256])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(Times::of(times).quantile_ms(0.5))
}
