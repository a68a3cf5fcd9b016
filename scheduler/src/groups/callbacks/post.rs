//! One try: an HTTP request on a connection of its own, and what its answer means.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use muster_graph::ids::Millis;
use muster_proto::storage::CallbackRecord;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::{CALLBACK_BYTES_MAX, CallbackSecret, DEADLINE};

/// What became of a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// The receiver wants no more of it.
    Gone,
    /// With the reason. It is tried again.
    Failed(String),
}

/// Whether this can be called; what is wrong with it, and what to do.
pub(crate) fn check(url: &str) -> Result<(), String> {
    if url.len() > CALLBACK_BYTES_MAX {
        return Err(format!("{} bytes are more than CALLBACK_BYTES_MAX = {CALLBACK_BYTES_MAX}", url.len()));
    }
    let uri: Uri = url.parse().map_err(|error| format!("'{}' is not a URL: {error}", url.escape_debug()))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("https is not supported yet: name an http URL, for instance of a proxy".to_owned()),
        _ => return Err(format!("'{url}' is not an absolute URL: write http://HOST:PORT/PATH")),
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("a URL with a user or a password is shown to everybody: leave them out, and check the signature"
                .to_owned())
        }
        Some(authority) if !authority.host().is_empty() => Ok(()),
        _ => Err(format!("'{url}' names no host: write http://HOST:PORT/PATH")),
    }
}

/// Where a URL leads, with the port. What is called is checked before; of what is not a URL all are one place.
pub(super) fn place(url: &str) -> String {
    let uri: Uri = url.parse().unwrap_or_default();
    format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80))
}

/// What is told. All tries tell the same.
pub(super) fn body(record: &CallbackRecord) -> Vec<u8> {
    let jobs = record.jobs.unwrap_or_default();
    let state = record.state().as_str_name().trim_start_matches("GROUP_STATE_").to_ascii_lowercase();
    let told = json!({
        "event": "group.completed",
        "id": record.event_id,
        "namespace": record.namespace,
        "group": record.path,
        "group_id": record.group_id,
        "completion": record.completion,
        "completed_at_ms": record.completed_at_ms,
        "state": state,
        "jobs": { "successful": jobs.successful, "failed": jobs.failed, "cancelled": jobs.cancelled },
    });
    told.to_string().into_bytes()
}

/// Tells it once.
pub(super) async fn post(record: &CallbackRecord, secret: Option<&CallbackSecret>, now: Millis) -> Outcome {
    match tokio::time::timeout(DEADLINE, exchange(record, secret, now)).await {
        Ok(Ok(status)) if status.is_success() => Outcome::Delivered,
        Ok(Ok(StatusCode::GONE)) => Outcome::Gone,
        Ok(Ok(status)) => Outcome::Failed(format!("it answered {status}")),
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Failed(format!("no answer within {DEADLINE:?}")),
    }
}

async fn exchange(record: &CallbackRecord, secret: Option<&CallbackSecret>, now: Millis) -> Result<StatusCode, String> {
    let uri: Uri = record.url.parse().map_err(|error| format!("not a URL: {error}"))?;
    let authority = uri.authority().ok_or("the URL names no host")?.as_str().to_owned();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let body = body(record);
    let timestamp = (now / 1_000).to_string();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header("muster-event-id", &record.event_id)
        .header("muster-timestamp", &timestamp);
    if let Some(secret) = secret {
        request = request.header("muster-signature", secret.sign(&timestamp, &body));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(place(&record.url)).await.map_err(|error| format!("no connection: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    // Redirects are answers like others; of the answer nothing but its status is read.
    Ok(sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_called_is_refused_with_what_to_do() {
        for url in ["http://hooks.example/muster?team=a", "http://127.0.0.1:9000", "http://[::1]:9000/x"] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for (url, said) in [
            ("https://hooks.example/", "https is not supported yet"),
            ("ftp://hooks.example/", "write http://HOST"),
            ("/relative", "write http://HOST"),
            ("hooks.example", "write http://HOST"),
            ("http://", "not a URL"),
            ("http://user:password@hooks.example/", "leave them out"),
            ("http://a b/", "not a URL"),
            (&format!("http://hooks.example/{}", "x".repeat(CALLBACK_BYTES_MAX)), "CALLBACK_BYTES_MAX"),
        ] {
            let refused = check(url).unwrap_err();
            assert!(refused.contains(said), "{url}: {refused}");
        }
    }

    #[test]
    fn callbacks_of_one_host_and_port_are_of_one_place() {
        assert_eq!(place("http://h/a"), place("http://h:80/b?c"));
        assert_ne!(place("http://h/a"), place("http://h:81/a"));
    }
}
