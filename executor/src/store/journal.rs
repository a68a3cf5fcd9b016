//! The executor's own record of what it ran: one line of JSON for each beginning of its own life, for each start and each
//! end of an attempt, and for each fence that is higher than all before it.
//!
//! It serves a checker, which compares it with the store's history after the fact; nothing here ever reads it. Lines
//! are written in groups by one thread, without a flush: they survive the end of the process, not of the machine.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::faults;

/// Lines that may wait for the disk.
const QUEUE_LEN: usize = 4096;
/// At this size the file is set aside and a new one begun; the one set aside before is dropped.
const ROTATE_BYTES: u64 = 256 << 20;

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) event: &'static str,
    /// Microseconds of the boot-time clock, which all processes of the machine share.
    pub(crate) boot_us: u64,
    pub(crate) incarnation: u64,
    pub(crate) job: String,
    pub(crate) stage: u32,
    pub(crate) index: u32,
    pub(crate) attempt: u32,
    pub(crate) epoch: u64,
    pub(crate) token: u64,
    /// Of a start: when its admission began, before the fence was compared. A fence is noted after it took effect, so one
    /// that was noted earlier than this was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admitted_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
}

/// The handle.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    lines: mpsc::Sender<Line>,
    /// In a simulation there is no thread: each line is written where it is noted.
    inline: Option<Arc<Mutex<Writer>>>,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let (lines, receiver) = mpsc::channel(QUEUE_LEN);
        let length = file.metadata()?.len();
        let writer = Writer { path: path.to_owned(), file: BufWriter::new(file), length };
        if faults::is_set("one-thread") {
            return Ok(Self { lines, inline: Some(Arc::new(Mutex::new(writer))) });
        }
        std::thread::Builder::new().name("muster-journal".to_owned()).spawn(move || writer.run(receiver))?;
        Ok(Self { lines, inline: None })
    }

    /// Waits only for room in the queue.
    pub(crate) async fn note(&self, line: Line) {
        if let Some(writer) = &self.inline {
            writer.lock().expect("no holder of this lock panics").write(vec![line]);
            return;
        }
        // The writer ends with the process; a record that cannot be kept must not stop the work.
        let _ = self.lines.send(line).await;
    }
}

#[derive(Debug)]
struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    length: u64,
}

impl Writer {
    fn run(mut self, mut lines: mpsc::Receiver<Line>) {
        let mut batch = Vec::new();
        while lines.blocking_recv_many(&mut batch, QUEUE_LEN) > 0 {
            self.write(std::mem::take(&mut batch));
        }
    }

    fn write(&mut self, lines: Vec<Line>) {
        let written = lines.into_iter().try_for_each(|line| {
            let mut text = serde_json::to_vec(&line).map_err(std::io::Error::other)?;
            text.push(b'\n');
            self.length += text.len() as u64;
            self.file.write_all(&text)
        });
        if let Err(error) = written.and_then(|()| self.file.flush()) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the journal");
        }
        if self.length >= ROTATE_BYTES {
            let rotated = std::fs::rename(&self.path, self.path.with_extension("1.jsonl"))
                .and_then(|()| File::options().create(true).append(true).open(&self.path));
            match rotated {
                Ok(next) => {
                    self.file = BufWriter::new(next);
                    self.length = 0;
                }
                Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot begin a new journal"),
            }
        }
    }
}
