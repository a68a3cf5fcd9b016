//! The thread that writes: group commit.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use crate::mvcc::{Core, Shared};
use crate::{Error, Revision, SessionId, Txn, TxnOutcome};

/// Transactions of one commit. Their bytes are bounded too: each is at most 1 MiB, and they rarely are.
const BATCH_MAX: usize = 256;

/// Something to write. The time is the caller's: this thread has no runtime, and so no tokio clock.
pub(super) enum Request {
    Txn {
        txn: Txn,
        now: Duration,
        answer: oneshot::Sender<Result<TxnOutcome, Error>>,
    },
    OpenSession {
        id: SessionId,
        ttl: Duration,
        value: Bytes,
        now: Duration,
        answer: oneshot::Sender<Result<(), Error>>,
    },
    EndSession {
        id: SessionId,
        answer: oneshot::Sender<()>,
    },
    Expire {
        now: Duration,
        answer: oneshot::Sender<()>,
    },
    Compact {
        revision: Revision,
        answer: oneshot::Sender<Result<(), Error>>,
    },
}

/// An answer that waits for the disk.
enum Answer {
    Txn(oneshot::Sender<Result<TxnOutcome, Error>>, Result<TxnOutcome, Error>),
    Plain(oneshot::Sender<Result<(), Error>>, Result<(), Error>),
    Done(oneshot::Sender<()>),
}

impl Answer {
    /// A caller that went away is no error: what it asked for is done all the same.
    fn give(self) {
        match self {
            Self::Txn(to, outcome) => drop(to.send(outcome)),
            Self::Plain(to, outcome) => drop(to.send(outcome)),
            Self::Done(to) => drop(to.send(())),
        }
    }

    fn fail(self, error: &Error) {
        match self {
            Self::Txn(to, _) => drop(to.send(Err(error.clone()))),
            Self::Plain(to, _) => drop(to.send(Err(error.clone()))),
            Self::Done(to) => drop(to.send(())),
        }
    }
}

/// Runs until every sender is gone.
pub(super) fn run(shared: &Shared, mut disk: Disk, mut queue: mpsc::Receiver<Request>) {
    let mut broken: Option<Error> = None;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        if let Some(error) = &broken {
            batch.drain(..).for_each(|request| request.into_refusal().fail(error));
            continue;
        }
        let mut forgotten = Vec::new();
        let mut core = shared.core();
        let answers: Vec<Answer> = batch.drain(..).map(|request| perform(&mut core, request, &mut forgotten)).collect();
        drop(core);
        match disk.write(shared, &forgotten) {
            Ok(()) => {
                shared.publish(shared.core());
                answers.into_iter().for_each(Answer::give);
            }
            Err(failure) => {
                tracing::error!(directory = %disk.directory().display(), error = %failure, "the store cannot write any more");
                let unknown = Error::Unknown(format!("the disk failed while it was written: {failure}"));
                answers.into_iter().for_each(|answer| answer.fail(&unknown));
                broken = Some(failure);
            }
        }
    }
}

fn perform(core: &mut Core, request: Request, forgotten: &mut Vec<(Revision, u32)>) -> Answer {
    match request {
        Request::Txn { txn, now, answer } => {
            core.expire(now);
            Answer::Txn(answer, core.apply(txn))
        }
        Request::OpenSession { id, ttl, value, now, answer } => {
            core.expire(now);
            Answer::Plain(answer, core.open_session(&id, ttl, value, now))
        }
        Request::EndSession { id, answer } => {
            core.end_session(&id);
            Answer::Done(answer)
        }
        Request::Expire { now, answer } => {
            core.expire(now);
            Answer::Done(answer)
        }
        Request::Compact { revision, answer } => {
            let compacted = core.compact(revision).map(|more| forgotten.extend(more));
            Answer::Plain(answer, compacted)
        }
    }
}

impl Request {
    fn into_refusal(self) -> Answer {
        let refused = || Error::Fatal("the store cannot write any more".to_owned());
        match self {
            Self::Txn { answer, .. } => Answer::Txn(answer, Err(refused())),
            Self::OpenSession { answer, .. } | Self::Compact { answer, .. } => Answer::Plain(answer, Err(refused())),
            Self::EndSession { answer, .. } | Self::Expire { answer, .. } => Answer::Done(answer),
        }
    }
}
