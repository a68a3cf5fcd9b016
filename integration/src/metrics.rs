//! Reads what a process counts and measures, as Prometheus does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A scrape that takes longer is none.
const DEADLINE: Duration = Duration::from_secs(10);

/// The metrics at an address, as text.
///
/// # Panics
/// When there are none.
pub async fn metrics(address: SocketAddr) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, asked).await.expect("a scrape is quick").expect("the port is open");
    let (head, text) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
    assert!(head.starts_with("HTTP/1.1 200 ") && text.ends_with("# EOF\n"), "{answer}");
    text.to_owned()
}

/// The value of one line: a name, with its labels if it has any.
///
/// # Panics
/// When there is no such line.
#[must_use]
pub fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in {text}"))
}
