use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::body::Outgoing;
use crate::error::{Code, RpcError};
use crate::frame::{Frames, frame};
use crate::stream::{Guard, Stream};

/// Where a service is.
#[derive(Clone)]
pub enum Target {
    /// At a host's port, with or without TLS.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Whom to trust and who to be.
        tls: Option<Arc<ClientConfig>>,
    },
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp { host, port, tls } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
            Target::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A connection that carries no calls; see [`Channel::open`].
pub struct Connection {
    sender: SendRequest<Outgoing>,
    guard: Guard,
}

impl Connection {
    /// Resolves when the connection ends.
    pub async fn ended(mut self) {
        // As long as somebody may send, it is kept.
        let _sender = self.sender;
        // Nothing is ever sent; the other end is dropped with the connection.
        let _ = self.guard.ended.changed().await;
    }
}

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// Servers written in Go take pings as an attack that come more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_LIMIT: Duration = Duration::from_secs(4);

/// A connection to one server, made when it is needed and made anew when it has broken.
pub struct Channel {
    target: Target,
    name: String,
    /// Sent with every call.
    headers: &'static [(&'static str, &'static str)],
    open: Mutex<Option<(SendRequest<Outgoing>, Guard)>>,
    /// One connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

impl Channel {
    /// A channel that nothing has been sent through yet.
    pub fn new(target: Target) -> Self {
        let name = target.to_string();
        Self { target, name, headers: &[], open: Mutex::default(), connecting: tokio::sync::Mutex::default() }
    }

    /// The same with headers that every call shall have.
    pub fn with_headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    /// Where it leads.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops the connection; calls under way fail, and the next one connects anew.
    pub fn hang_up(&self) {
        self.open.lock().take();
    }

    /// Sends a message and waits for the one that answers it.
    pub async fn unary(&self, path: &str, message: &[u8], limit: Duration) -> Result<Bytes, RpcError> {
        let late = || RpcError::Timeout { target: self.name.clone(), limit };
        let begun = tokio::time::Instant::now();
        let mut sender = match tokio::time::timeout(limit, self.sender()).await {
            Ok(sender) => sender?,
            Err(_) => return Err(self.unreachable(format!("no connection within {limit:?}"))),
        };
        let left = limit.saturating_sub(begun.elapsed());
        let request = self.request(path, Outgoing::Once(Some(frame(message))), Some(left))?;
        let exchange = async {
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    let why = reason(error.error());
                    return Err(if unsent { self.unreachable(why) } else { self.broken(why) });
                }
            };
            let (head, mut body) = self.checked(response)?;
            let mut frames = Frames::default();
            let mut trailers = None;
            while let Some(piece) = body.frame().await {
                match piece.map_err(|e| self.broken(reason(&e)))?.into_data() {
                    Ok(data) => frames.push(&data),
                    Err(piece) => trailers = piece.into_trailers().ok(),
                }
            }
            status_of(&self.name, trailers.as_ref().unwrap_or(&head))?;
            let malformed =
                |why: &str| RpcError::Malformed { target: self.name.clone(), why: why.to_owned() };
            frames.next().map_err(malformed)?.ok_or_else(|| malformed("it holds no message"))
        };
        tokio::time::timeout(left, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    /// Begins a stream over a connection of its own; `first` is its first message.
    pub async fn stream(&self, path: &str, first: &[u8], limit: Duration) -> Result<Stream, RpcError> {
        let (outgoing, receiver) = mpsc::channel(16);
        // There is room in a new channel.
        let _ = outgoing.try_send(frame(first));
        let late = || RpcError::Timeout { target: self.name.clone(), limit };
        let begin = self.begin(path, Outgoing::Many(receiver), outgoing);
        tokio::time::timeout(limit, begin).await.unwrap_or_else(|_| Err(late()))
    }

    /// Asks once and hears as many answers as come, over a connection of its own. However long the first one takes: a
    /// server need not say anything before it.
    pub async fn listen(&self, path: &str, message: &[u8]) -> Result<Stream, RpcError> {
        let (outgoing, _) = mpsc::channel(1);
        self.begin(path, Outgoing::Once(Some(frame(message))), outgoing).await
    }

    async fn begin(
        &self,
        path: &str,
        body: Outgoing,
        outgoing: mpsc::Sender<Bytes>,
    ) -> Result<Stream, RpcError> {
        let (mut sender, guard) = self.connect().await?;
        let request = self.request(path, body, None)?;
        let response = sender.send_request(request).await.map_err(|e| self.broken(reason(&e)))?;
        let (head, incoming) = self.checked(response)?;
        status_of(&self.name, &head)?;
        let target = self.name.clone();
        Ok(Stream { target, outgoing, incoming, frames: Frames::default(), _connection: guard })
    }

    /// Opens a connection of its own that carries no calls: its end is the server's.
    pub async fn open(&self) -> Result<Connection, RpcError> {
        let (sender, guard) = self.connect().await?;
        Ok(Connection { sender, guard })
    }

    fn request(
        &self,
        path: &str,
        body: Outgoing,
        limit: Option<Duration>,
    ) -> Result<Request<Outgoing>, RpcError> {
        let (scheme, authority) = match &self.target {
            Target::Unix(_) => ("http", "localhost".to_owned()),
            Target::Tcp { .. } => {
                let (scheme, authority) = self.name.split_once("://").unwrap_or(("http", &self.name));
                (scheme, authority.to_owned())
            }
        };
        let mut request = Request::post(format!("{scheme}://{authority}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(limit) = limit {
            request = request.header("grpc-timeout", format!("{}m", limit.as_millis().max(1)));
        }
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        request.body(body).map_err(|e| self.unreachable(e.to_string()))
    }

    fn checked(&self, response: Response<Incoming>) -> Result<(HeaderMap, Incoming), RpcError> {
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let why = format!("HTTP {}", head.status);
            return Err(RpcError::Malformed { target: self.name.clone(), why });
        }
        Ok((head.headers, body))
    }

    fn ready(&self) -> Option<SendRequest<Outgoing>> {
        let mut open = self.open.lock();
        if open.as_ref().is_some_and(|(sender, _)| sender.is_closed()) {
            *open = None;
        }
        open.as_ref().map(|(sender, _)| sender.clone())
    }

    async fn sender(&self) -> Result<SendRequest<Outgoing>, RpcError> {
        if let Some(sender) = self.ready() {
            return Ok(sender);
        }
        let _turn = self.connecting.lock().await;
        if let Some(sender) = self.ready() {
            return Ok(sender);
        }
        let (sender, connection) = self.connect().await?;
        *self.open.lock() = Some((sender.clone(), connection));
        Ok(sender)
    }

    async fn connect(&self) -> Result<(SendRequest<Outgoing>, Guard), RpcError> {
        let connected = async {
            match &self.target {
                Target::Unix(path) => {
                    let socket =
                        UnixStream::connect(path).await.map_err(|e| self.unreachable(e.to_string()))?;
                    self.shake_hands(socket).await
                }
                Target::Tcp { host, port, tls } => {
                    let socket = TcpStream::connect((host.as_str(), *port)).await;
                    let socket = socket.map_err(|e| self.unreachable(e.to_string()))?;
                    let _ = socket.set_nodelay(true);
                    let Some(tls) = tls else { return self.shake_hands(socket).await };
                    let name = ServerName::try_from(host.clone());
                    let name = name.map_err(|e| self.unreachable(e.to_string()))?;
                    let connector = tokio_rustls::TlsConnector::from(tls.clone());
                    let socket = connector.connect(name, socket).await;
                    self.shake_hands(socket.map_err(|e| self.unreachable(e.to_string()))?).await
                }
            }
        };
        let late = || Err(self.unreachable(format!("no connection within {CONNECT:?}")));
        tokio::time::timeout(CONNECT, connected).await.unwrap_or_else(|_| late())
    }

    async fn shake_hands<S>(&self, socket: S) -> Result<(SendRequest<Outgoing>, Guard), RpcError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The end of a local process is seen without pings, and its gRPC server may take every one of them as an attack.
        let pings = matches!(self.target, Target::Tcp { .. }).then_some(PING_EVERY);
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .keep_alive_interval(pings)
            .keep_alive_timeout(PING_LIMIT)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|e| self.unreachable(reason(&e)))?;
        // Its end is seen by those who use it.
        let (end, ended) = watch::channel(());
        let task = tokio::spawn(async move {
            drop(connection.await);
            drop(end);
        });
        Ok((sender, Guard { task: task.abort_handle(), ended }))
    }

    fn unreachable(&self, why: String) -> RpcError {
        RpcError::Unreachable { target: self.name.clone(), why }
    }

    fn broken(&self, why: String) -> RpcError {
        RpcError::Broken { target: self.name.clone(), why }
    }
}

/// An error and what is behind it.
fn reason(error: &hyper::Error) -> String {
    use std::error::Error;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What the trailers (or, without a body, the headers) say came of the call. Headers that say nothing are good.
pub(crate) fn status_of(target: &str, headers: &HeaderMap) -> Result<(), RpcError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = match text("grpc-status") {
        None => Code::OK,
        Some(code) => code.parse().map_or(Code::UNKNOWN, Code),
    };
    if code == Code::OK {
        return Ok(());
    }
    let message =
        percent_decode_str(text("grpc-message").unwrap_or_default()).decode_utf8_lossy().into_owned();
    Err(RpcError::Status { target: target.to_owned(), code, message })
}
