//! Views of something that changes, from a stream that is opened again, at another scheduler, whenever it breaks off.
//!
//! Invariant: no view is told twice in a row. A new stream begins with the present, which may be what was told last.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::call::{Verdict, judge};
use crate::client::Client;
use crate::error::Error;

/// What is followed, without the call that opens a stream of it.
#[derive(Debug)]
pub(crate) struct Resumed<V> {
    client: Client,
    stream: Option<Streaming<V>>,
    /// The last view told.
    last: Option<V>,
    backoff: Backoff,
    /// Since when nothing has come in for want of a stream; the patience for one counts from here.
    broken_since: Option<Instant>,
}

impl<V: Clone + PartialEq> Resumed<V> {
    pub(crate) fn new(client: Client) -> Self {
        let backoff = Backoff::new(client.options().backoff, client.options().backoff_max);
        Self { client, stream: None, last: None, backoff, broken_since: None }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The last view told.
    pub(crate) fn last(&self) -> Option<&V> {
        self.last.as_ref()
    }

    /// The next view that differs from the last one; `None`: there is no stream, or it broke off, and a new one has to be opened.
    ///
    /// Cancel-safe: dropping the future loses no view.
    pub(crate) async fn next(&mut self) -> Result<Option<V>, Error> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let broken = loop {
            match stream.message().await {
                Ok(Some(view)) => {
                    self.broken_since = None;
                    self.backoff.reset();
                    if self.last.as_ref() != Some(&view) {
                        self.last = Some(view.clone());
                        return Ok(Some(view));
                    }
                }
                Ok(None) => break "the scheduler ended the watch".to_owned(),
                Err(status) => match judge(&status) {
                    Verdict::Final(error) => return Err(error),
                    Verdict::NotSent(why) | Verdict::Lost(why) | Verdict::Refused { message: why, .. } => break why,
                },
            }
        };
        tracing::debug!(why = broken, "a watch broke off; subscribing again");
        self.stream = None;
        let address = self.client.targets().current();
        self.client.targets().skip(&address);
        tokio::time::sleep(self.backoff.next()).await;
        Ok(None)
    }

    /// How much longer a new stream may be looked for.
    pub(crate) fn patience(&mut self) -> Duration {
        let waited = self.broken_since.get_or_insert_with(Instant::now).elapsed();
        self.client.options().stream_timeout.saturating_sub(waited)
    }

    pub(crate) fn opened(&mut self, stream: Streaming<V>) {
        self.stream = Some(stream);
    }
}
