//! Metrics over HTTP, as Prometheus reads them, and what the system says of a process.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A scrape that takes longer is none.
const DEADLINE: Duration = Duration::from_secs(10);
/// The unit of processor time in /proc, which Linux fixes for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// The metrics at an address.
pub(crate) async fn text(address: &str) -> anyhow::Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        // Of 1.0, so that the answer comes in one piece and ends with the connection.
        stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, asked).await.context("no metrics in time")??;
    anyhow::ensure!(answer.contains(" 200 "), "no metrics at {address}: {answer}");
    Ok(answer)
}

/// The sum over all series of a name; None if there are none.
pub(crate) fn sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.split_whitespace().last()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Seconds of processor time that a process has taken so far.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may contain anything, the third field follows; user and system time are the 14th and 15th.
    let fields = stat.rsplit(") ").next().context("it has a name")?.split(' ');
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// The most memory that a process has had, in bytes.
pub(crate) fn peak_rss(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("it has memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
