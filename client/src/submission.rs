//! Submitting: the idempotency key, and a large job in small messages.

use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_proto::v1::stage_spec::Tasks;
use prost::Message as _;

use crate::call::Repeat;
use crate::client::{Client, jobs};
use crate::error::Error;

/// Items are sent in messages of about this size. Small enough that a scheduler's limit on messages (4 MiB, gRPC's
/// default) is never near, large enough that the overhead of a message does not matter.
const ITEMS_MESSAGE_BYTES: usize = 256 << 10;
/// The first message carries everything but the items and cannot be split.
const HEADER_BYTES_MAX: usize = muster_proto::MESSAGE_BYTES_MAX;
/// Jobs up to this size are sent in one message, items included.
const WHOLE_BYTES_MAX: usize = 512 << 10;

/// A job that a cluster has accepted: it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// The key that it was submitted with.
    pub idempotency_key: String,
    /// Whether an earlier submit with this key, by somebody else or in another run, made the job.
    pub existed: bool,
}

/// A fresh key that nobody else has.
#[must_use]
pub fn idempotency_key() -> String {
    format!("auto-{:032x}", rand::random::<u128>())
}

impl Client {
    /// Submits a job. Answers when it is committed.
    ///
    /// Without a key of the caller's a fresh one is made, so that a try whose outcome is not known can be repeated and
    /// still makes one job. With a key of the caller's the same holds over separate runs of the caller, for as long as
    /// the cluster remembers keys (7 days).
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when the key was used with another job; [`Error::InvalidArgument`] when the job is
    /// wrong; [`Error::Unknown`], with the key, when the deadline came and a try may have landed; and what any call
    /// can meet.
    pub async fn submit(&self, spec: v1::JobSpec, idempotency_key: Option<String>) -> Result<Submitted, Error> {
        let made_here = idempotency_key.is_none();
        let key = idempotency_key.unwrap_or_else(self::idempotency_key);
        let messages = messages(spec, &key)?;
        let patience = self.options().call_timeout;
        let sent = self
            .call("submit", Repeat::Idempotent, patience, async |channel| {
                let stream = futures::stream::iter(messages.clone());
                Ok(jobs(channel).submit(stream).await?.into_inner())
            })
            .await;
        submitted(sent, key, made_here)
    }
}

/// What a submit's answer says.
pub(crate) fn submitted(
    sent: Result<v1::SubmitResponse, Error>,
    key: String,
    made_here: bool,
) -> Result<Submitted, Error> {
    let answer = sent.map_err(|error| match error {
        Error::Unknown { call, why, .. } => Error::Unknown { call, why, idempotency_key: Some(key.clone()) },
        other => other,
    })?;
    let job = answer
        .job_id
        .parse()
        .map_err(|error| Error::Internal(format!("the submit was answered with something else than an id: {error}")))?;
    // Nobody else can have used a key made here: that the job existed means that an earlier try had landed.
    Ok(Submitted { job, idempotency_key: key, existed: answer.existed && !made_here })
}

/// The messages of a submit: the header, then items where the job is too large for one message.
fn messages(mut spec: v1::JobSpec, key: &str) -> Result<Vec<v1::SubmitRequest>, Error> {
    let whole = spec.encoded_len() <= WHOLE_BYTES_MAX;
    let mut chunks = Vec::new();
    if !whole {
        for (stage, spec) in spec.stages.iter_mut().enumerate() {
            if let Some(Tasks::Items(items)) = &mut spec.tasks {
                let stage = u32::try_from(stage).expect("a spec that is checked has fewer stages");
                chunks.extend(split(stage, std::mem::take(&mut items.values)));
            }
        }
    }
    let size = spec.encoded_len();
    if size > HEADER_BYTES_MAX {
        return Err(Error::InvalidArgument(format!(
            "the job without its items is {size} bytes, more than HEADER_BYTES_MAX = {HEADER_BYTES_MAX}; \
             move long scripts into files, or split the job"
        )));
    }
    let header = v1::SubmitHeader { spec: Some(spec), idempotency_key: key.to_owned() };
    let mut messages = vec![v1::SubmitRequest { part: Some(v1::submit_request::Part::Header(header)) }];
    messages.extend(
        chunks.into_iter().map(|items| v1::SubmitRequest { part: Some(v1::submit_request::Part::Items(items)) }),
    );
    Ok(messages)
}

/// A stage's items in messages of about [`ITEMS_MESSAGE_BYTES`]; a single larger item gets one of its own.
fn split(stage: u32, values: Vec<String>) -> Vec<v1::StageItems> {
    let mut chunks = Vec::new();
    let mut chunk = v1::StageItems { stage, values: Vec::new() };
    let mut size = 0;
    for value in values {
        if size > 0 && size + value.len() > ITEMS_MESSAGE_BYTES {
            chunks.push(std::mem::replace(&mut chunk, v1::StageItems { stage, values: Vec::new() }));
            size = 0;
        }
        // Tag and length take a few bytes; counting them keeps a million empty items from making one message.
        size += value.len() + 4;
        chunk.values.push(value);
    }
    if !chunk.values.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(items: usize, bytes: usize) -> v1::StageSpec {
        let values = (0..items).map(|i| format!("{i}-{}", "x".repeat(bytes))).collect();
        v1::StageSpec { tasks: Some(Tasks::Items(v1::Items { values })), ..Default::default() }
    }

    fn reassemble(messages: Vec<v1::SubmitRequest>) -> v1::JobSpec {
        let mut messages = messages.into_iter().map(|message| message.part.expect("a part"));
        let Some(v1::submit_request::Part::Header(header)) = messages.next() else { panic!("the header is first") };
        let mut spec = header.spec.expect("a spec");
        for part in messages {
            let v1::submit_request::Part::Items(more) = part else { panic!("one header only") };
            match &mut spec.stages[more.stage as usize].tasks {
                Some(Tasks::Items(items)) => items.values.extend(more.values),
                other => panic!("items for {other:?}"),
            }
        }
        spec
    }

    #[test]
    fn a_small_job_is_one_message() {
        let spec = v1::JobSpec { stages: vec![stage(1000, 10)], ..Default::default() };
        let sent = messages(spec.clone(), "k").expect("small");
        assert_eq!(sent.len(), 1);
        assert_eq!(reassemble(sent), spec);
    }

    #[test]
    fn a_large_job_goes_in_bounded_messages_and_arrives_whole() {
        let count = v1::StageSpec { tasks: Some(Tasks::Count(7)), ..Default::default() };
        let stages = vec![stage(200_000, 14), count, stage(3, ITEMS_MESSAGE_BYTES + 1), stage(400_000, 0)];
        let spec = v1::JobSpec { stages, ..Default::default() };
        let sent = messages(spec.clone(), "k").expect("the header is small");
        assert!(sent.len() > 10);
        for message in &sent {
            assert!(message.encoded_len() <= 2 * ITEMS_MESSAGE_BYTES, "{}", message.encoded_len());
        }
        assert_eq!(reassemble(sent), spec);
    }

    #[test]
    fn a_header_over_the_limit_is_refused_by_name() {
        let name = "x".repeat(HEADER_BYTES_MAX);
        let error = messages(v1::JobSpec { name, ..Default::default() }, "k").expect_err("too large");
        assert!(error.to_string().contains("HEADER_BYTES_MAX"), "{error}");
    }

    #[test]
    fn keys_made_here_differ() {
        assert_ne!(idempotency_key(), idempotency_key());
    }
}
