//! `muster logs`

use std::io::{self, Write};

use clap::Args;
use muster_client::v1::TaskView;
use muster_client::{Client, Error, JobId, LogRequest, LogStream, TaskFilter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::reference::Reference;

/// Tasks that can be followed at once: each holds two streams open.
const FOLLOWED_MAX: usize = 64;
/// Tasks whose logs are shown in one go; nobody reads more.
const SHOWN_MAX: usize = 1000;
/// Lines on their way to the screen. Followers wait when it is full, and so does the cluster.
const LINES_IN_FLIGHT: usize = 256;
/// A line is cut here, so that a task that writes no line ends costs no memory.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Show what tasks wrote: standard output on standard output, standard error on standard error
///
/// For several tasks each log gets a heading; while following, each line does.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The job, stage or task
    #[arg(value_name = "ID[/STAGE[/TASK]]")]
    reference: Reference,
    /// Go on until the tasks are over
    #[arg(short, long)]
    follow: bool,
    /// Of this attempt, counted from 1 [default: the newest]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only standard error
    #[arg(long)]
    stderr: bool,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let Reference { job, stage, index } = self.reference.clone();
        let streams = match (self.stdout, self.stderr) {
            (true, _) => vec![LogStream::Stdout],
            (_, true) => vec![LogStream::Stderr],
            (false, false) => vec![LogStream::Stdout, LogStream::Stderr],
        };
        let limit = if self.follow { FOLLOWED_MAX } else { SHOWN_MAX };
        let filter = TaskFilter { stage, index, states: Vec::new() };
        let (tasks, more) = client.tasks(job, &filter, limit).await?;
        if more {
            let message = format!("{} has more than {limit} tasks, too many for one look", self.reference);
            return Err(Failure::usage(message).help("name a stage or a task: ID/STAGE or ID/STAGE/TASK"));
        }
        if tasks.is_empty() {
            return Err(Failure::new(Exit::NotFound, format!("there is no task {}", self.reference))
                .help("`muster job ID --tasks` lists the tasks"));
        }
        let source = Source { client, job, attempt: self.attempt, follow: self.follow };
        if self.follow && (tasks.len() > 1 || streams.len() > 1) {
            source.follow_all(&tasks, &streams).await?;
        } else {
            source.show_all(&tasks, &streams).await?;
        }
        Ok(Exit::Success)
    }
}

/// Where logs come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) job: JobId,
    pub(crate) attempt: Option<u32>,
    pub(crate) follow: bool,
}

impl Source {
    pub(crate) fn request(&self, task: &TaskView, stream: LogStream) -> LogRequest {
        let attempt = self.attempt.or_else(|| (task.attempt > 0).then_some(task.attempt));
        let (stage, index) = (task.stage.clone(), task.index);
        LogRequest { job: self.job, stage, index, attempt, stream, follow: self.follow, offset: 0 }
    }

    /// One log after the other.
    async fn show_all(&self, tasks: &[TaskView], streams: &[LogStream]) -> Result<(), Failure> {
        let several = tasks.len() > 1;
        for task in tasks {
            // Of several tasks some may not have begun; of the one that was named it is worth an error.
            if several && task.attempt == 0 {
                continue;
            }
            for &stream in streams {
                let heading = several.then(|| format!("==> {}/{} {} <==", task.stage, task.index, stream_name(stream)));
                self.copy(task, stream, heading).await?;
            }
        }
        Ok(())
    }

    /// Copies one log. The heading is left out when there is nothing under it.
    async fn copy(&self, task: &TaskView, stream: LogStream, mut heading: Option<String>) -> Result<(), Failure> {
        let mut log = self.client.read_log(self.request(task, stream));
        let mut truncated = false;
        while let Some(chunk) = log.next().await? {
            truncated |= chunk.truncated;
            let mut out = writer(stream);
            if let Some(heading) = heading.take() {
                writeln!(out, "{heading}")?;
            }
            out.write_all(&chunk.data)?;
            out.flush()?;
        }
        if truncated {
            writeln!(io::stderr().lock(), "(the task wrote more than is kept; the rest was dropped)")?;
        }
        Ok(())
    }

    /// The end of one log, at most `bytes` of it, for a report about a failed task.
    pub(crate) async fn tail(&self, task: &TaskView, stream: LogStream, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut log = self.client.read_log(self.request(task, stream));
        let mut tail = Vec::new();
        while let Some(chunk) = log.next().await? {
            tail.extend_from_slice(&chunk.data);
            if tail.len() > 2 * bytes {
                tail.drain(..tail.len() - bytes);
            }
        }
        if tail.len() > bytes {
            tail.drain(..tail.len() - bytes);
            // Begin with a whole line, if there is one.
            if let Some(end) = tail.iter().position(|&byte| byte == b'\n') {
                tail.drain(..=end);
            }
        }
        Ok(tail)
    }

    /// Many logs at once, line by line, each line saying whose it is.
    async fn follow_all(&self, tasks: &[TaskView], streams: &[LogStream]) -> Result<(), Failure> {
        let several = tasks.len() > 1;
        let (sender, mut lines) = mpsc::channel::<(LogStream, Vec<u8>)>(LINES_IN_FLIGHT);
        let mut followers = JoinSet::new();
        for task in tasks {
            for &stream in streams {
                let prefix = if several { format!("{}/{}| ", task.stage, task.index) } else { String::new() };
                let follower = self.clone().follow_lines(task.clone(), stream, prefix, sender.clone());
                followers.spawn(follower);
            }
        }
        drop(sender);
        while let Some((stream, line)) = lines.recv().await {
            let mut out = writer(stream);
            out.write_all(&line)?;
            out.flush()?;
        }
        while let Some(ended) = followers.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                // It never started, as one of several: the job's state says why.
                Ok(Err(Error::NotFound(_))) if several => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(panic) => return Err(Failure::internal(format!("following a log ended early: {panic}"))),
            }
        }
        Ok(())
    }

    async fn follow_lines(
        self,
        task: TaskView,
        stream: LogStream,
        prefix: String,
        sender: mpsc::Sender<(LogStream, Vec<u8>)>,
    ) -> Result<(), Error> {
        let mut log = self.client.read_log(self.request(&task, stream));
        let mut lines = Lines { prefix: prefix.into_bytes(), rest: Vec::new() };
        loop {
            let chunk = log.next().await?;
            let ready = match &chunk {
                Some(chunk) => lines.add(&chunk.data),
                None => lines.end(),
            };
            // A closed channel: the screen is gone, which its own error says.
            if (!ready.is_empty() && sender.send((stream, ready)).await.is_err()) || chunk.is_none() {
                return Ok(());
            }
        }
    }
}

/// Cuts bytes into lines with a prefix.
#[derive(Debug)]
struct Lines {
    prefix: Vec<u8>,
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are whole now. Without a prefix there is nothing to put before them, so bytes go through as
    /// they come.
    fn add(&mut self, data: &[u8]) -> Vec<u8> {
        if self.prefix.is_empty() {
            return data.to_vec();
        }
        let mut ready = Vec::new();
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.rest.len() >= LINE_BYTES_MAX {
                ready.extend(self.take());
            }
        }
        ready
    }

    /// What is left at the end.
    fn end(&mut self) -> Vec<u8> {
        if self.rest.is_empty() { Vec::new() } else { self.take() }
    }

    fn take(&mut self) -> Vec<u8> {
        let mut line = self.prefix.clone();
        line.append(&mut self.rest);
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        line
    }
}

fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

fn writer(stream: LogStream) -> Box<dyn Write> {
    match stream {
        LogStream::Stdout => Box::new(io::stdout().lock()),
        LogStream::Stderr => Box::new(io::stderr().lock()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_its_prefix_however_the_bytes_are_cut() {
        let mut lines = Lines { prefix: b"a/0| ".to_vec(), rest: Vec::new() };
        let mut all = Vec::new();
        for piece in ["one\ntw", "o", "\nthr", "ee"] {
            all.extend(lines.add(piece.as_bytes()));
        }
        all.extend(lines.end());
        assert_eq!(String::from_utf8(all).unwrap(), "a/0| one\na/0| two\na/0| three\n");
        assert!(lines.end().is_empty());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines { prefix: b"> ".to_vec(), rest: Vec::new() };
        let ready = lines.add(&vec![b'x'; LINE_BYTES_MAX]);
        assert_eq!(ready.len(), LINE_BYTES_MAX + 3);
        assert!(lines.rest.is_empty());
    }
}
