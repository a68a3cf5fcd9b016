//! The simulated network, as Muster's parts use it. What goes over it is part of the trace.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use muster_proto::network::{Connection, Listener, Pending, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::world::{World, name_of};

/// See the module.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) host: String,
}

impl Transport for Wire {
    fn listen(&self, at: SocketAddr) -> Pending<Listener> {
        let (world, host) = (Arc::clone(&self.world), self.host.clone());
        Box::pin(async move {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, at.port())).await?;
            let address = SocketAddr::new(turmoil::lookup(host.as_str()), at.port());
            let incoming = futures::stream::unfold(listener, move |listener| {
                let (world, host) = (Arc::clone(&world), host.clone());
                async move {
                    let accepted = listener.accept().await.map(|(stream, from)| {
                        Connection::Other(Box::new(Traced::new(world, stream, &name_of(from.ip()), &host)))
                    });
                    Some((accepted, listener))
                }
            });
            Ok(Listener::new(address, incoming))
        })
    }

    fn connect(&self, to: String) -> Pending<Connection> {
        let (world, host) = (Arc::clone(&self.world), self.host.clone());
        Box::pin(async move {
            let connected = TcpStream::connect(to.as_str()).await;
            world.note(format_args!("connect {host} {to} {}", connected.is_ok()));
            let stream = connected?;
            let peer = name_of(stream.peer_addr()?.ip());
            Ok(Connection::Other(Box::new(Traced::new(world, stream, &peer, &host))))
        })
    }
}

/// A stream whose arriving bytes are noted.
struct Traced {
    world: Arc<World>,
    stream: TcpStream,
    way: String,
}

impl Traced {
    fn new(world: Arc<World>, stream: TcpStream, from: &str, to: &str) -> Self {
        Self { world, stream, way: format!("{from}>{to}") }
    }
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            let bytes = &buf.filled()[before..];
            let hash = blake3::hash(bytes).to_hex();
            self.world.note(format_args!("read {} {} {}", self.way, bytes.len(), &hash[..8]));
        }
        read
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
