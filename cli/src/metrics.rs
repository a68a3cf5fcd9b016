//! `--metrics`: what a daemon counts and measures, over HTTP, for Prometheus.
//!
//! Bounded like every port: few connections at a time, one request each, and a deadline for all of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::exit::Exit;
use crate::failure::Failure;

/// Scrapes at a time; a cluster has one or two Prometheus servers.
const CONNECTIONS_MAX: usize = 16;
/// A connection from its beginning to its end. Prometheus gives up after 10 s by default.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// After an accept that failed, for instance for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// As OpenMetrics names itself.
const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// A port that is open and not served yet.
#[derive(Debug)]
pub(crate) struct Port(TcpListener);

impl Port {
    /// Opens it, if one is wanted. Before the daemon starts, so that it does not start without what was asked for.
    pub(crate) async fn open(wanted: Option<SocketAddr>, allow_remote: bool) -> Result<Option<Self>, Failure> {
        let Some(address) = wanted else { return Ok(None) };
        if !address.ip().is_loopback() && !allow_remote {
            return Err(Failure::usage(format!("--metrics {address} can be reached from other machines")).help(
                "nobody is authenticated yet: use 127.0.0.1, or allow remote calls (--allow-remote) if the network is \
                 trusted",
            ));
        }
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Failure::new(Exit::Failed, format!("metrics cannot be served on {address}: {error}"))
                .help("name another address with --metrics or MUSTER_METRICS; port 0 takes a free one")
        })?;
        Ok(Some(Self(listener)))
    }

    /// Serves what `text` answers, until the process ends.
    pub(crate) fn serve(self, text: impl Fn() -> String + Send + Sync + 'static) {
        if let Ok(address) = self.0.local_addr() {
            tracing::info!(%address, "metrics are served");
        }
        tokio::spawn(accept(self.0, Arc::new(text), CONNECTION_DEADLINE));
    }
}

type Text = Arc<dyn Fn() -> String + Send + Sync>;

async fn accept(listener: TcpListener, text: Text, deadline: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let text = Arc::clone(&text);
                tokio::spawn(async move {
                    // Whoever is too slow, or speaks something else, asks again.
                    let _ = tokio::time::timeout(deadline, converse(stream, text)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "metrics: a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, text: Text) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &text);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await
}

fn answer(method: &Method, path: &str, text: &Text) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, OPENMETRICS, text()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "there is only /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn said(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_at_their_path_and_nowhere_else() {
        let port = Port::open(Some(([127, 0, 0, 1], 0).into()), false).await.unwrap().unwrap();
        let address = port.0.local_addr().unwrap();
        port.serve(|| "muster_x 1\n# EOF\n".to_owned());
        let good = said(address, "GET /metrics").await;
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
        assert!(good.contains("application/openmetrics-text") && good.ends_with("muster_x 1\n# EOF\n"), "{good}");
        assert!(said(address, "GET /").await.starts_with("HTTP/1.1 404"), "no other path");
        assert!(said(address, "POST /metrics").await.starts_with("HTTP/1.1 405"), "no other method");
    }

    #[tokio::test]
    async fn silent_connections_take_no_more_places_than_there_are_and_are_ended() {
        let port = Port::open(Some(([127, 0, 0, 1], 0).into()), false).await.unwrap().unwrap();
        let address = port.0.local_addr().unwrap();
        tokio::spawn(accept(port.0, Arc::new(String::new), Duration::from_millis(200)));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // All places are taken: this one is answered as soon as the first ones' time is up.
        let answered = tokio::time::timeout(CONNECTION_DEADLINE, said(address, "GET /metrics")).await;
        assert!(answered.expect("the silent ones are ended").starts_with("HTTP/1.1 200"));
        let mut nothing = [0];
        assert!(matches!(silent[0].read(&mut nothing).await, Ok(0) | Err(_)), "ended");
    }

    #[tokio::test]
    async fn other_machines_need_to_be_let_in_by_name() {
        let open: SocketAddr = ([0, 0, 0, 0], 0).into();
        let refused = Port::open(Some(open), false).await.unwrap_err();
        assert!(refused.message.contains("other machines"), "{}", refused.message);
        assert!(Port::open(None, false).await.unwrap().is_none());
    }
}
