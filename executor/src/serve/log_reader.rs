//! Reads an attempt's stdout and stderr, to their present end or, following, until the attempt is over.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use muster_proto::v1::{self, LogChunk, Stream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;
use tonic::Status;

use crate::control::Control;
use crate::core::Core;
use crate::keys::AttemptKey;
use crate::supervisor::TRUNCATED_SUFFIX;

/// Data in one message.
const CHUNK_BYTES: usize = 64 << 10;
/// How often a followed log is looked at: seldom enough to cost nothing, often enough to seem live.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Chunks = mpsc::Sender<Result<LogChunk, Status>>;

/// A log to be read.
pub(super) struct LogReader {
    logs: Vec<Log>,
    follow: Option<Arc<Control>>,
}

struct Log {
    stream: Stream,
    path: PathBuf,
    offset: u64,
    told_truncated: bool,
}

/// Finds the log.
pub(super) fn open(core: &Core, key: AttemptKey, request: &v1::ReadLogRequest) -> Result<LogReader, Status> {
    let control = core.table.control(key);
    let room = core.layout.attempt(key);
    // An attempt that printed nothing left nothing; what is not known of at all is something else.
    if control.is_none() && !room.path().exists() && !core.layout.job(key.job).exists() {
        return Err(Status::not_found(format!("this executor has no log of {key}: its job's files were removed")));
    }
    let log = |stream, path| Log { stream, path, offset: request.offset, told_truncated: false };
    let (stdout, stderr) = (log(Stream::Stdout, room.stdout()), log(Stream::Stderr, room.stderr()));
    let logs = match request.stream() {
        Stream::Stdout => vec![stdout],
        Stream::Stderr => vec![stderr],
        Stream::Unspecified => vec![stdout, stderr],
    };
    Ok(LogReader { logs, follow: control.filter(|_| request.follow) })
}

impl LogReader {
    /// Sends what is there, and following, what comes.
    pub(super) async fn run(mut self, chunks: Chunks) {
        loop {
            // Asked before reading: what was written until the end is then read in this round.
            let last = self.follow.as_ref().is_none_or(|control| control.over.is_cancelled());
            for log in &mut self.logs {
                match log.read(&chunks).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        let _ = chunks.send(Err(Status::internal(format!("cannot read the log: {error}")))).await;
                        return;
                    }
                }
            }
            let Some(control) = self.follow.as_ref().filter(|_| !last) else { return };
            tokio::select! {
                biased;
                () = chunks.closed() => return,
                () = control.over.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

impl Log {
    /// Sends what is new. False when nobody reads any more.
    async fn read(&mut self, chunks: &Chunks) -> std::io::Result<bool> {
        let mut file = match File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        file.seek(std::io::SeekFrom::Start(self.offset)).await?;
        loop {
            let mut data = BytesMut::with_capacity(CHUNK_BYTES);
            let length = file.read_buf(&mut data).await?;
            let truncated = length == 0 && !self.told_truncated && self.is_truncated().await;
            if length == 0 && !truncated {
                return Ok(true);
            }
            self.told_truncated |= truncated;
            let chunk = LogChunk { stream: self.stream as i32, offset: self.offset, data: data.freeze(), truncated };
            self.offset += length as u64;
            if chunks.send(Ok(chunk)).await.is_err() {
                return Ok(false);
            }
        }
    }

    async fn is_truncated(&self) -> bool {
        let mut mark = self.path.clone().into_os_string();
        mark.push(TRUNCATED_SUFFIX);
        tokio::fs::try_exists(mark).await.unwrap_or(false)
    }
}
