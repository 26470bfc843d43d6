//! The API over TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::{ClientAuthority, KeyPairPem, TlsError};
use base::Drain;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::peer::Peer;
use crate::respond::{Body, BoxError};
use crate::state::ApiServer;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Readied TLS credentials.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: ClientAuthority,
}

impl Tls {
    /// From the server's certificate and key and the authority (PEM) that client certificates must come from.
    pub fn new(pair: &KeyPairPem, client_ca: &str) -> Result<Self, TlsError> {
        let mut config = auth::open_server_tls(pair, client_ca)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), clients: ClientAuthority::new(client_ca)? })
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
            let clients = tls.clients.clone();
            drain.spawn(async move { server.connection(stream, from, acceptor, clients, until).await });
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        from: SocketAddr,
        acceptor: TlsAcceptor,
        clients: ClientAuthority,
        drain: Drain,
    ) {
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let proxies = self.0.config.access.front_proxy.as_ref().map(|proxy| &proxy.authority);
        let peer = Arc::new(Peer::of(Some(from.ip().to_canonical()), chain, &clients, proxies));
        let service =
            service_fn(move |request: Request<Incoming>| answer(self.clone(), peer.clone(), request));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .max_concurrent_streams(250)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            // A broken connection is the client's affair.
            _ = connection.as_mut() => {}
            () = drain.started() => {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(HANDSHAKE, connection).await;
            }
        }
    }
}

/// Boxed, because the compiler cannot see through the futures of all verbs at once.
fn answer(
    server: ApiServer,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    let mut request = request.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
    request.extensions_mut().insert(peer);
    async move { Ok(server.handle(request, None).await) }.boxed()
}
