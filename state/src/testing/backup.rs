//! Backups of one etcd: made while it runs, and put in the place of its data.

use std::io;
use std::path::Path;
use std::process::Command;

use super::Etcd;

impl Etcd {
    /// Saves everything into a file.
    pub fn back_up(&self, file: &Path) -> io::Result<()> {
        let endpoint = format!("--endpoints={}", self.endpoint());
        etcdctl(&[&endpoint, "snapshot", "save", &file.display().to_string()])
    }

    /// Stops it, forgets what it has, and starts it again with what a backup holds, on the same ports.
    pub async fn restore(&mut self, file: &Path) -> io::Result<()> {
        self.stop()?;
        let data = self.directory().join("data");
        std::fs::remove_dir_all(&data)?;
        let (file, data) = (file.display().to_string(), format!("--data-dir={}", data.display()));
        let mut arguments = vec!["snapshot", "restore", &file, &data];
        let same = ["--name=", "--initial-cluster=", "--initial-advertise-peer-urls="];
        arguments.extend(self.arguments().iter().map(String::as_str).filter(|a| same.iter().any(|s| a.starts_with(s))));
        etcdctl(&arguments)?;
        self.restart().await
    }
}

fn etcdctl(arguments: &[&str]) -> io::Result<()> {
    let ran = Command::new("etcdctl")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("ETCDCTL_API", "3")
        .output()
        .map_err(|error| io::Error::other(format!("etcdctl (Debian: etcd-client) cannot be started: {error}")))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("etcdctl {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr))))
}
