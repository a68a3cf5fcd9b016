//! How the parts of a cluster reach each other: TCP, or whatever a simulation puts in its place.
//!
//! Invariant: [`Network::Tcp`] is what tonic does by itself. The other variant exists so that whole clusters can run in
//! one process over a network whose delays and faults come from a seed.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Uri};

/// A way to listen and to connect.
#[derive(Debug, Clone, Default)]
pub enum Network {
    /// TCP, without delay of small packets.
    #[default]
    Tcp,
    /// Another one.
    Other(Arc<dyn Transport>),
}

/// A future of a [`Transport`].
pub type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// A network other than TCP.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Opens a port; port 0 takes a free one.
    fn listen(&self, at: SocketAddr) -> Pending<Listener>;
    /// Connects to `host:port`.
    fn connect(&self, to: String) -> Pending<Connection>;
}

/// An open port.
pub struct Listener {
    /// Where it is.
    pub address: SocketAddr,
    incoming: Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>,
}

impl Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listener {
    /// A port of another network, with the connections that come to it.
    pub fn new(address: SocketAddr, incoming: impl Stream<Item = io::Result<Connection>> + Send + 'static) -> Self {
        Self { address, incoming: Box::pin(incoming) }
    }

    /// The connections that come, for tonic's server.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        self.incoming
    }
}

impl Network {
    /// Opens a port; port 0 takes a free one.
    ///
    /// # Errors
    /// What the system says.
    pub async fn listen(&self, at: SocketAddr) -> io::Result<Listener> {
        match self {
            Self::Tcp => {
                let listener = TcpListener::bind(at).await?;
                let address = listener.local_addr()?;
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                Ok(Listener::new(address, incoming.map(|stream| stream.map(Connection::Tcp))))
            }
            Self::Other(transport) => transport.listen(at).await,
        }
    }

    /// A channel that connects when it is first used, and again when it broke.
    #[must_use]
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        match self {
            Self::Tcp => endpoint.connect_lazy(),
            Self::Other(transport) => endpoint.connect_with_connector_lazy(connector(transport)),
        }
    }

    /// A channel that is connected.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        match self {
            Self::Tcp => endpoint.connect().await,
            Self::Other(transport) => endpoint.connect_with_connector(connector(transport)).await,
        }
    }
}

/// What tonic needs for connecting.
fn connector(
    transport: &Arc<dyn Transport>,
) -> impl tower::Service<Uri, Response = TokioIo<Connection>, Error = io::Error, Future: Send> + Send + use<> {
    let transport = Arc::clone(transport);
    tower::service_fn(move |uri: Uri| {
        let transport = Arc::clone(&transport);
        async move {
            let to = uri.authority().map(ToString::to_string).unwrap_or_default();
            transport.connect(to).await.map(TokioIo::new)
        }
    })
}

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A connection.
pub enum Connection {
    /// Of TCP.
    Tcp(TcpStream),
    /// Of another network.
    Other(Box<dyn Duplex>),
}

impl Connection {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Other(stream) => Pin::new(stream),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
