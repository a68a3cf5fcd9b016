//! What executor and supervisor say to each other: frames of a length and a bincode payload.
//!
//! Both are the same binary, so there are no versions to agree on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest frame. Linux takes at most about 2 MiB of arguments and environment.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;

/// From the executor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// First, once.
    Hello {
        /// To be locked before anything is started.
        lock: PathBuf,
        /// Marks the processes of this executor's tasks, in their environment.
        mark: String,
        /// Where a task with a memory limit gets a cgroup of its own.
        cgroup: Option<super::super::runtime::cgroup::Home>,
    },
    /// Start a process.
    Start(Box<Start>),
    /// Signal the process group of a run.
    Signal { run: u64, signal: Signal },
}

/// The signals that are sent to tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Signal {
    Terminate,
    Kill,
}

/// A process to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) run: u64,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: PathBuf,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
    pub(crate) log_cap_bytes: u64,
    /// 0: no limit.
    pub(crate) memory_bytes: u64,
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The lock is held; orders are carried out from now on.
    Ready,
    /// A process runs.
    Started { run: u64, pid: u32, at_ms: u64 },
    /// No process was started; nothing else follows for this run.
    NotStarted { run: u64, message: String },
    /// The process and its whole group are gone.
    Ended { run: u64, how: HowEnded, out_of_memory: bool },
}

/// What the kernel says of the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HowEnded {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Appends a frame.
pub(crate) fn put<T: Serialize>(buffer: &mut Vec<u8>, message: &T) {
    let at = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    bincode::serialize_into(&mut *buffer, message).expect("these types can be serialized into memory");
    let length = u32::try_from(buffer.len() - at - 4).expect("frames are small");
    buffer[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Takes whole frames from the front of a buffer.
pub(crate) fn take<T: for<'a> Deserialize<'a>>(buffer: &mut Vec<u8>) -> std::io::Result<Vec<T>> {
    let mut messages = Vec::new();
    let mut at = 0;
    while let Some(head) = buffer.get(at..at + 4) {
        let length = u32::from_le_bytes(head.try_into().expect("four bytes")) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(std::io::Error::other(format!("a frame of {length} bytes; at most {FRAME_BYTES_MAX} may be")));
        }
        let Some(payload) = buffer.get(at + 4..at + 4 + length) else { break };
        messages.push(bincode::deserialize(payload).map_err(std::io::Error::other)?);
        at += 4 + length;
    }
    buffer.drain(..at);
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let reports = [
            Report::Ready,
            Report::NotStarted { run: 1, message: "no such program".to_owned() },
            Report::Ended { run: 2, how: HowEnded::Signal(9), out_of_memory: false },
        ];
        let mut whole = Vec::new();
        reports.iter().for_each(|report| put(&mut whole, report));
        for cut in 1..whole.len() {
            let mut buffer = Vec::new();
            let mut seen: Vec<Report> = Vec::new();
            for piece in whole.chunks(cut) {
                buffer.extend_from_slice(piece);
                seen.extend(take(&mut buffer).unwrap());
            }
            assert_eq!(seen, reports);
        }
        let mut huge = u32::MAX.to_le_bytes().to_vec();
        assert!(take::<Report>(&mut huge).is_err());
    }
}
