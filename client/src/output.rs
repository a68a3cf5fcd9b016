//! What a task left behind, brought to this machine.
//!
//! Invariants: a directory appears under its final name only when it is whole and verified, by one rename; and nothing
//! that a scheduler or an executor sends can write outside of it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_proto::v1::output_chunk::Part;
use tokio::fs;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::time::Instant;
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::call::{Repeat, Verdict, judge};
use crate::checksum::{Checksum, EXECUTE_BITS, LINK_BITS, TYPE_BITS};
use crate::client::{Client, jobs};
use crate::error::Error;

/// What a downloaded file's mode is, but for the execute bits, which come with it; the umask goes on top.
const MODE_GIVEN: u32 = 0o666;
/// A link's target is a path, and Linux ends those at 4096 bytes (PATH_MAX).
const LINK_BYTES_MAX: u64 = 4096;

/// A piece of an output, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputPart {
    /// A file begins. Its path is relative and has no `..`.
    File {
        /// Below the output's directory.
        path: PathBuf,
        /// How many bytes follow.
        bytes: u64,
        /// Execute bits.
        mode: u32,
    },
    /// Some bytes of the file.
    Data(Bytes),
    /// A symbolic link. Wherever it is followed to, it stays inside the output.
    Link {
        /// Below the output's directory.
        path: PathBuf,
        /// Relative to the link's own directory.
        target: PathBuf,
    },
}

/// A stream of an output's files, checked as it is read. Made by [`Client::read_output`].
///
/// It does not resume: whoever has written part of it somewhere begins anew, as [`Client::download`] does.
#[derive(Debug)]
pub struct OutputReader {
    stream: Streaming<v1::OutputChunk>,
    /// Bytes of the present entry still to come.
    missing: u64,
    /// The link that is being read, and its target so far.
    link: Option<(PathBuf, Vec<u8>)>,
    checksum: Checksum,
    finished: bool,
}

impl OutputReader {
    /// The next piece; `None` at the end, once everything announced has arrived and the checksum is right.
    ///
    /// # Errors
    /// [`Error::DataLoss`] when the stream contradicts itself, names an unsafe path, or broke off.
    pub async fn next(&mut self) -> Result<Option<OutputPart>, Error> {
        self.step().await.map_err(|broken| match broken {
            Broken::Final(error) => error,
            Broken::Again(why) => Error::DataLoss(format!("the output's stream broke off: {why}")),
        })
    }

    async fn step(&mut self) -> Result<Option<OutputPart>, Broken> {
        while !self.finished {
            let message = self.stream.message().await.map_err(|status| match judge(&status) {
                Verdict::Final(error) => Broken::Final(error),
                Verdict::NotSent(why) | Verdict::Lost(why) | Verdict::Refused { message: why, .. } => {
                    Broken::Again(why)
                }
            })?;
            let Some(chunk) = message else { return Err(Broken::Again("it ended without its end mark".to_owned())) };
            if let Some(part) = self.take(chunk)? {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    /// What a message means; `None`: nothing yet, or the end.
    fn take(&mut self, chunk: v1::OutputChunk) -> Result<Option<OutputPart>, Broken> {
        match chunk.part {
            Some(Part::Data(data)) => {
                let missing = self.missing.checked_sub(data.len() as u64);
                self.missing = missing.ok_or_else(|| loss("an entry of the output is longer than announced"))?;
                self.checksum.data(&data);
                let Some((path, mut target)) = self.link.take() else { return Ok(Some(OutputPart::Data(data))) };
                target.extend_from_slice(&data);
                if self.missing > 0 {
                    self.link = Some((path, target));
                    return Ok(None);
                }
                let target = PathBuf::from(OsString::from_vec(target));
                if !stays_inside(&path, &target) {
                    let link = path.display();
                    return Err(loss(format!("the output has a link that leads out of it: {link} -> {target:?}")));
                }
                Ok(Some(OutputPart::Link { path, target }))
            }
            _ if self.missing > 0 => Err(loss(format!("an entry of the output lacks its last {} bytes", self.missing))),
            Some(Part::File(start)) => {
                let named = || loss(format!("the output names a file outside of itself: {:?}", start.path));
                let path = safe_path(&start.path).ok_or_else(named)?;
                self.checksum.entry(&start.path, start.mode, start.bytes);
                self.missing = start.bytes;
                if start.mode & TYPE_BITS != LINK_BITS {
                    return Ok(Some(OutputPart::File { path, bytes: start.bytes, mode: start.mode & EXECUTE_BITS }));
                }
                if start.bytes == 0 || start.bytes > LINK_BYTES_MAX {
                    return Err(loss(format!("the link {} has a target of {} bytes", path.display(), start.bytes)));
                }
                self.link = Some((path, Vec::new()));
                Ok(None)
            }
            Some(Part::End(end)) => {
                self.finished = true;
                let sum = std::mem::take(&mut self.checksum).sum();
                if sum != end.checksum {
                    return Err(loss(format!("the output's checksum is {sum:016x} and not {:016x}", end.checksum)));
                }
                Ok(None)
            }
            None => Err(loss("the output has a part of a kind that this client does not know")),
        }
    }
}

/// Why a stream of an output ended early.
enum Broken {
    /// For good.
    Final(Error),
    /// Another try may get through.
    Again(String),
}

fn loss(why: impl Into<String>) -> Broken {
    Broken::Final(Error::DataLoss(why.into()))
}

/// Whether a link at `path` to `target` stays inside. Steps upwards are allowed only at the target's beginning, where
/// they are counted from the link's own, real directory: further on they would start from wherever another link leads.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let depth = path.components().count() - 1;
    let upwards = target.components().take_while(|step| *step == Component::ParentDir).count();
    let downwards = target.components().skip(upwards).all(|step| matches!(step, Component::Normal(_)));
    downwards && upwards <= depth && !target.as_os_str().as_bytes().contains(&0)
}

/// The path, if every step of it leads downwards.
fn safe_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let downwards = path.components().all(|step| matches!(step, Component::Normal(_)));
    (downwards && !text.is_empty() && !text.contains('\0') && !text.ends_with('/')).then(|| path.to_owned())
}

/// What a download brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Download {
    /// How many files.
    pub files: u64,
    /// How many bytes in them.
    pub bytes: u64,
}

impl Client {
    /// Opens the output of one task.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the task has none (yet), and what any call can meet.
    pub async fn read_output(&self, job: JobId, stage: &str, index: u32) -> Result<OutputReader, Error> {
        let patience = self.options().call_timeout;
        let stream = self
            .call("read", Repeat::Read, patience, async |channel| {
                let request = v1::ReadOutputRequest { job_id: job.to_string(), stage: stage.to_owned(), index };
                Ok(jobs(channel).read_output(request).await?.into_inner())
            })
            .await?;
        Ok(OutputReader { stream, missing: 0, link: None, checksum: Checksum::default(), finished: false })
    }

    /// Brings the output of one task into the new directory `into`, whose parents are made where they are missing.
    /// A stream that breaks off is started again, until
    /// [`Options::stream_timeout`](crate::Options::stream_timeout) is over.
    ///
    /// # Errors
    /// [`Error::File`] when `into` exists or cannot be written; [`Error::NotFound`]; [`Error::DataLoss`]; and what any
    /// call can meet. Whatever happens, `into` is there whole or not at all.
    pub async fn download(&self, job: JobId, stage: &str, index: u32, into: &Path) -> Result<Download, Error> {
        let exists = fs::symlink_metadata(into).await.is_ok();
        if exists {
            return Err(file(into)(std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "exists already; remove it or choose another directory",
            )));
        }
        let parent = into.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).await.map_err(file(parent))?;
        let name = into.file_name().unwrap_or_default().to_string_lossy();
        let partial = parent.join(format!(".{name}.partial-{:016x}", rand::random::<u64>()));
        let brought = self.download_again(job, stage, index, &partial).await;
        let settled = match brought {
            Ok(download) => fs::rename(&partial, into).await.map_err(file(into)).map(|()| download),
            Err(error) => Err(error),
        };
        if settled.is_err()
            && let Err(error) = fs::remove_dir_all(&partial).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %partial.display(), %error, "a partial download could not be removed");
        }
        settled
    }

    /// Downloads until it works, it fails for good, or the patience is over.
    async fn download_again(&self, job: JobId, stage: &str, index: u32, partial: &Path) -> Result<Download, Error> {
        let options = self.options();
        let deadline = Instant::now() + options.stream_timeout;
        let mut backoff = Backoff::new(options.backoff, options.backoff_max);
        loop {
            let why = match self.download_once(job, stage, index, partial).await {
                Ok(download) => return Ok(download),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Again(why)) => why,
            };
            tracing::debug!(%job, stage, index, why, "a download broke off; starting again");
            let pause = backoff.next();
            if Instant::now() + pause >= deadline {
                return Err(Error::DataLoss(format!("the output of {stage}/{index} could not be read: {why}")));
            }
            let address = self.targets().current();
            self.targets().skip(&address);
            tokio::time::sleep(pause).await;
            fs::remove_dir_all(partial).await.map_err(file(partial))?;
        }
    }

    async fn download_once(&self, job: JobId, stage: &str, index: u32, partial: &Path) -> Result<Download, Broken> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Broken::Final(Error::File { path, source })
        };
        fs::create_dir(partial).await.map_err(failed(partial))?;
        let mut reader = self.read_output(job, stage, index).await.map_err(Broken::Final)?;
        let mut download = Download::default();
        let mut present: Option<(PathBuf, BufWriter<fs::File>)> = None;
        // Made last: no file is ever written through one.
        let mut links = Vec::new();
        while let Some(part) = reader.step().await? {
            match part {
                OutputPart::Link { path, target } => links.push((partial.join(path), target)),
                OutputPart::File { path, bytes, mode } => {
                    if let Some((path, file)) = present.take() {
                        close(file).await.map_err(failed(&path))?;
                    }
                    let path = partial.join(path);
                    let parent = path.parent().expect("it lies below the directory");
                    fs::create_dir_all(parent).await.map_err(failed(parent))?;
                    // A new file each: the directory is ours alone, so a name that is taken was sent twice.
                    let mut creation = fs::OpenOptions::new();
                    creation.write(true).create_new(true).mode(mode | MODE_GIVEN);
                    let file = creation.open(&path).await.map_err(failed(&path))?;
                    download.files += 1;
                    download.bytes += bytes;
                    present = Some((path, BufWriter::new(file)));
                }
                OutputPart::Data(data) => {
                    let Some((path, file)) = &mut present else {
                        return Err(loss("the output begins without a file"));
                    };
                    file.write_all(&data).await.map_err(failed(path))?;
                }
            }
        }
        if let Some((path, file)) = present.take() {
            close(file).await.map_err(failed(&path))?;
        }
        for (path, target) in links {
            let parent = path.parent().expect("it lies below the directory");
            fs::create_dir_all(parent).await.map_err(failed(parent))?;
            fs::symlink(target, &path).await.map_err(failed(&path))?;
            download.files += 1;
        }
        Ok(download)
    }
}

async fn close(mut file: BufWriter<fs::File>) -> std::io::Result<()> {
    file.flush().await
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_may_lead_anywhere_but_out() {
        let inside = |path: &str, target: &str| stays_inside(Path::new(path), Path::new(target));
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d/e"), ("a", "b/c")] {
            assert!(inside(path, target), "{path} -> {target}");
        }
        for (path, target) in [("a", "../b"), ("a/b", "../../c"), ("a", "/etc"), ("a/b", "c/../../.."), ("a", "b/..")] {
            assert!(!inside(path, target), "{path} -> {target}");
        }
    }

    #[test]
    fn only_paths_that_lead_downwards_are_taken() {
        for good in ["a", "a/b/c.txt", ".hidden", "..a", "a/.b"] {
            assert_eq!(safe_path(good), Some(PathBuf::from(good)), "{good}");
        }
        for bad in ["", "/etc/passwd", "..", "../a", "a/../../b", "./a", "a/", "a\0b", "/"] {
            assert_eq!(safe_path(bad), None, "{bad:?}");
        }
    }
}
