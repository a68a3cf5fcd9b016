//! A network that is far away: connections through it take longer by a fixed time, and are no narrower. Bytes are passed
//! on in order, each half a round trip after it came; how many are under way is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces under way in one direction: at 64 KiB each, far more than anybody sends within a round trip here.
const UNDER_WAY: usize = 256;
/// Bytes that are taken at once.
const PIECE: usize = 64 << 10;

/// A port that leads to another one. It closes when dropped.
#[derive(Debug)]
pub(crate) struct Delay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Delay {
    /// Opens a port to `target` that adds `round_trip` to each round trip.
    pub(crate) async fn start(target: String, round_trip: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            // Ends when the port is closed; each connection ends with its ends.
            while let Ok((near, _)) = listener.accept().await {
                let target = target.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    for side in [&near, &far] {
                        // Without it the figures would be of Nagle's algorithm; they show it then.
                        let _ = side.set_nodelay(true);
                    }
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::spawn(pass(near_in, far_out, round_trip / 2));
                    tokio::spawn(pass(far_in, near_out, round_trip / 2));
                });
            }
        });
        Ok(Self { address, accepting })
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, after: Duration) {
    let (pieces, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    tokio::spawn(async move {
        while let Some((due, piece)) = arriving.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if pieces.send((Instant::now() + after, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}
