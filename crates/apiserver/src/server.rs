//! The API over TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::{ClientAuthority, KeyPairPem, TlsError};
use base::Drain;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response, Version, header};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use types::Status;

use crate::metrics::{Instead, MetricsPage};
use crate::peer::Peer;
use crate::respond::{self, Body, BoxError, guarded};
use crate::state::ApiServer;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Limits of a connection. Upstream's, where it has them (`apiserver/pkg/server/secure_serving.go`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long a connection without a request stays open, and how long the head of a request may take.
    pub(crate) idle: Duration,
    /// How often a quiet HTTP/2 client is asked whether it is still there.
    pub(crate) ping: Duration,
    /// How long it may take to say so.
    pub(crate) pong: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { idle: seconds(90), ping: seconds(30), pong: seconds(15) }
    }
}

/// The headers of one request together: room for many groups and long tokens.
const MOST_HEADER_BYTES: u32 = 256 * 1024;

/// Readied TLS credentials.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: ClientAuthority,
    pub(crate) limits: Limits,
    /// Nothing is served but this and how the server is.
    page: Option<Instead>,
}

impl Tls {
    /// From the server's certificate and key and the authority (PEM) that client certificates must come from.
    pub fn new(pair: &KeyPairPem, client_ca: &str) -> Result<Self, TlsError> {
        let mut config = auth::open_server_tls(pair, client_ca)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let clients = ClientAuthority::new(client_ca)?;
        Ok(Self { config: Arc::new(config), clients, limits: Limits::default(), page: None })
    }

    /// For a port where nothing is served but `/metrics`, which is this page, and how the server is: where those look who
    /// know a component as a process of its own. Who may look is asked as on the other port.
    pub fn telling_only(&self, page: MetricsPage) -> Self {
        Self { page: Some(Instead(page)), ..self.clone() }
    }
}

impl ApiServer {
    /// Accepts connections until `drain` starts, then lets requests finish.
    pub async fn serve(self, listener: TcpListener, tls: Tls, drain: Drain) {
        let acceptor = TlsAcceptor::from(tls.config);
        loop {
            let (stream, from) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    // Out of file descriptors, most likely: others must go first.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = drain.started() => return,
            };
            let (server, acceptor, until) = (self.clone(), acceptor.clone(), drain.clone());
            let (clients, limits, page) = (tls.clients.clone(), tls.limits, tls.page.clone());
            drain.spawn(async move {
                server.connection(stream, from, acceptor, (clients, limits, page), until).await;
            });
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        from: SocketAddr,
        acceptor: TlsAcceptor,
        (clients, limits, page): (ClientAuthority, Limits, Option<Instead>),
        drain: Drain,
    ) {
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
        let tls = stream.get_ref().1;
        let chain = tls.peer_certificates().unwrap_or_default();
        let proxies = self.0.config.access.front_proxy.as_ref().map(|proxy| &proxy.authority);
        let peer = Arc::new(Peer::of(Some(from.ip().to_canonical()), chain, &clients, proxies));
        let second = tls.alpn_protocol() == Some(b"h2".as_slice());
        let busy = Arc::new(watch::Sender::new(0));
        let counted = busy.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let busy = Busy::begin(counted.clone());
            answer(self.clone(), peer.clone(), request, busy, page.clone())
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.ping)
            .keep_alive_timeout(limits.pong)
            .max_header_list_size(MOST_HEADER_BYTES)
            .max_concurrent_streams(250)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024);
        // What was agreed on holds: a client that says nothing cannot keep the connection undecided.
        let builder = if second { builder.http2_only() } else { builder.http1_only() };
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            // A broken connection is the client's affair.
            _ = connection.as_mut() => return,
            () = drain.started() => {}
            () = idle(busy.subscribe(), limits.idle) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(HANDSHAKE, connection).await;
    }
}

/// A request that a connection is busy with, until its response is through.
struct Busy(Arc<watch::Sender<usize>>);

impl Busy {
    fn begin(count: Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Resolves when a connection has had no request for so long.
async fn idle(mut busy: watch::Receiver<usize>, most: Duration) {
    loop {
        // The sender lives as long as the connection.
        let _ = busy.wait_for(|n| *n == 0).await;
        if tokio::time::timeout(most, busy.changed()).await.is_err() {
            return;
        }
    }
}

/// Boxed, because the compiler cannot see through the futures of all verbs at once.
fn answer(
    server: ApiServer,
    peer: Arc<Peer>,
    request: Request<Incoming>,
    busy: Busy,
    page: Option<Instead>,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    let mut request = request.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
    request.extensions_mut().insert(peer);
    if let Some(page) = page {
        if !matches!(request.uri().path(), "/metrics" | "/healthz" | "/livez" | "/readyz") {
            let absent = respond::status(&Status::no_such_resource());
            return async move { Ok(absent) }.boxed();
        }
        request.extensions_mut().insert(page);
    }
    // In HTTP/1.1 the library leaves the body out by itself.
    let head_alone = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
    async move {
        let mut response = server.handle(request, None).await;
        if head_alone {
            if let Some(size) = response.body().size_hint().exact() {
                response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(size.into());
            }
            return Ok(response.map(|_| respond::empty()));
        }
        if response.body().is_end_stream() {
            return Ok(response);
        }
        Ok(response.map(|body| guarded(body, busy)))
    }
    .boxed()
}
