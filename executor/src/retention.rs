//! Cleans up after jobs: by age, and by space.
//!
//! Invariant: nothing is removed of a job that has an attempt in the table or a result in the outbox.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_graph::ids::JobId;

use crate::core::Core;

/// Between two rounds; a round reads the metadata of every file.
const EVERY: Duration = Duration::from_secs(300);

/// Runs for ever.
pub(crate) async fn keep_house(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let core = core.clone();
        let round = crate::blocking::run(move || {
            if let Err(error) = core.workspaces.remove_earlier() {
                tracing::warn!(%error, "cannot remove what tasks of an earlier life left");
            }
            let (age, bytes) = (core.options.cache_age, core.options.cache_bytes);
            clean(&core.layout.jobs(), &core.layout.blobs(), age, bytes, |job| {
                core.table.has_job(job) || core.keeping.has_job(job)
            })
        });
        match round.await {
            Ok(removed) if removed > 0 => tracing::info!(jobs = removed, "removed files of jobs"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the clean-up failed"),
        }
    }
}

/// What a job's directory is called while it is being removed.
const REMOVED: &str = "removed";

struct Kept {
    job: JobId,
    path: PathBuf,
    /// When a file in it changed last.
    touched: SystemTime,
    bytes: u64,
}

/// One round; says of how many jobs files were removed.
fn clean(jobs: &Path, blobs: &Path, age: Duration, bytes_max: u64, in_use: impl Fn(JobId) -> bool) -> usize {
    let now = SystemTime::now();
    let old = |touched: SystemTime| now.duration_since(touched).is_ok_and(|since| since > age);
    for blob in std::fs::read_dir(blobs).into_iter().flatten().flatten() {
        // A blob is fetched again when it is needed again.
        if blob.metadata().and_then(|metadata| metadata.modified()).is_ok_and(old) {
            let _ = std::fs::remove_file(blob.path());
        }
    }
    let mut kept: Vec<Kept> = std::fs::read_dir(jobs)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            if entry.path().extension().is_some_and(|extension| extension == REMOVED) {
                // An earlier round, or life, did not come to its end.
                let _ = std::fs::remove_dir_all(entry.path());
                return None;
            }
            let job = entry.file_name().to_str()?.parse().ok()?;
            let (touched, bytes) = measure(&entry.path());
            Some(Kept { job, path: entry.path(), touched, bytes })
        })
        .collect();
    kept.sort_by_key(|kept| kept.touched);
    let mut total: u64 = kept.iter().map(|kept| kept.bytes).sum();
    let mut removed = 0;
    for kept in kept {
        if !(old(kept.touched) || total > bytes_max) || in_use(kept.job) {
            continue;
        }
        // At once, or what reads it meanwhile would find a part of it.
        let going = kept.path.with_extension(REMOVED);
        match std::fs::rename(&kept.path, &going).and_then(|()| std::fs::remove_dir_all(&going)) {
            Ok(()) => {
                total -= kept.bytes;
                removed += 1;
            }
            Err(error) => tracing::warn!(path = %kept.path.display(), %error, "cannot remove a job's files"),
        }
    }
    removed
}

/// The newest change and the size of a directory with all below.
fn measure(path: &Path) -> (SystemTime, u64) {
    let Ok(metadata) = path.symlink_metadata() else { return (SystemTime::UNIX_EPOCH, 0) };
    let mut touched = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let mut bytes = metadata.len();
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let (inner_touched, inner_bytes) = measure(&entry.path());
            touched = touched.max(inner_touched);
            bytes += inner_bytes;
        }
    }
    (touched, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn job(dir: &Path, number: u64, bytes: usize, age: Duration) -> PathBuf {
        let path = dir.join("jobs").join(JobId(number).to_string());
        fs::create_dir_all(path.join("0/0/1/published")).unwrap();
        let file = path.join("0/0/1/published/x");
        fs::write(&file, vec![0; bytes]).unwrap();
        let at = SystemTime::now() - age;
        for touched in ["0/0/1/published/x", "0/0/1/published", "0/0/1", "0/0", "0", ""] {
            fs::File::open(path.join(touched)).unwrap().set_modified(at).unwrap();
        }
        path
    }

    #[test]
    fn old_jobs_go_first_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let paths: Vec<PathBuf> = (0..4)
            .map(|number| job(dir.path(), number, 1 << 20, hour * (10 - u32::try_from(number).unwrap())))
            .collect();
        let (jobs, blobs) = (dir.path().join("jobs"), dir.path().join("blobs"));
        // By age: only the oldest is over it.
        assert_eq!(clean(&jobs, &blobs, hour * 9 + hour / 2, u64::MAX, |_| false), 1);
        assert!(!paths[0].exists() && paths[1].exists());
        // By space: the oldest that is not in use.
        assert_eq!(clean(&jobs, &blobs, hour * 99, 5 << 19, |job| job == JobId(1)), 1);
        assert!(paths[1].exists() && !paths[2].exists() && paths[3].exists());
    }
}
