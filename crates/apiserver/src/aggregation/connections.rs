use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ProxyIdentity, trust};
use crate::respond::{self, Body};

/// How many connections to one server wait for their next use.
const MOST_IDLE: usize = 32;
/// How many TLS settings are kept. There are as many as APIServices.
const MOST_SETTINGS: usize = 256;

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Everybody's.
    Anything,
    /// Those of a bundle: PEM in base64. An empty one stands for the public ones.
    Authorities(Arc<str>),
}

/// Where a server is, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) address: String,
    /// The name in its certificate.
    pub(super) name: String,
    pub(super) trust: Trust,
}

/// A server that could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachError {
    #[error("dial tcp {address}: connect: {why}")]
    Dial { address: String, why: String },
    #[error("{0}")]
    Settings(String),
    #[error("{0}")]
    Tls(String),
    #[error("{}", lost(.0))]
    Http(#[from] hyper::Error),
}

fn lost(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "EOF".into();
    }
    error.to_string()
}

/// Connections to extension servers.
pub(crate) struct Connections {
    pub(super) identity: Option<ProxyIdentity>,
    idle: Mutex<HashMap<Place, Vec<SendRequest<Body>>>>,
    settings: Mutex<HashMap<Trust, Arc<ClientConfig>>>,
}

impl Connections {
    pub(super) fn new(identity: Option<ProxyIdentity>) -> Self {
        Self { identity, idle: Mutex::default(), settings: Mutex::default() }
    }

    /// Sends a request, over a connection that waits for one if there is any. `cluster` is the cluster's own authority.
    ///
    /// A connection that has waited may have ended meanwhile. What was not sent is sent again, and so is what changes
    /// nothing (Go's `net/http`, `Transport`, does the same); a new connection has the last word.
    pub(super) async fn send(
        &self,
        place: &Place,
        cluster: &str,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), ReachError> {
        while let Some(mut sender) = self.take(place) {
            if sender.ready().await.is_err() {
                continue;
            }
            let again = repeatable(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut refused) => match refused.take_message().or(again) {
                    Some(unsent) => request = unsent,
                    None => return Err(refused.into_error().into()),
                },
            }
        }
        let mut sender = self.open(place, cluster).await?;
        let response = sender.send_request(request).await?;
        Ok((response, sender))
    }

    /// Sends a request over a connection of its own, which may become something else than HTTP.
    pub(super) async fn send_alone(
        &self,
        place: &Place,
        cluster: &str,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), ReachError> {
        let mut sender = self.open(place, cluster).await?;
        let response = sender.send_request(request).await?;
        Ok((response, sender))
    }

    fn take(&self, place: &Place) -> Option<SendRequest<Body>> {
        self.idle.lock().get_mut(place)?.pop()
    }

    /// Keeps a connection for its next use.
    pub(super) fn keep(&self, place: Place, sender: SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        idle.retain(|_, waiting| {
            waiting.retain(|sender| !sender.is_closed());
            !waiting.is_empty()
        });
        let waiting = idle.entry(place).or_default();
        if waiting.len() < MOST_IDLE {
            waiting.push(sender);
        }
    }

    async fn open(&self, place: &Place, cluster: &str) -> Result<SendRequest<Body>, ReachError> {
        connect(self.settings(&place.trust, cluster)?, place.clone()).await
    }

    fn settings(&self, trust: &Trust, cluster: &str) -> Result<Arc<ClientConfig>, ReachError> {
        if let Some(settings) = self.settings.lock().get(trust) {
            return Ok(settings.clone());
        }
        let identity = self.identity.as_ref().map(|identity| &identity.pair);
        let made = Arc::new(trust::settings(trust, cluster, identity).map_err(ReachError::Settings)?);
        let mut settings = self.settings.lock();
        if settings.len() >= MOST_SETTINGS {
            settings.clear();
        }
        settings.insert(trust.clone(), made.clone());
        Ok(made)
    }
}

/// A new connection. Boxed, because the compiler cannot see through its future from the outside.
fn connect(
    settings: Arc<ClientConfig>,
    place: Place,
) -> BoxFuture<'static, Result<SendRequest<Body>, ReachError>> {
    async move {
        let stream = TcpStream::connect(&place.address).await.map_err(|e| ReachError::Dial {
            address: place.address.clone(),
            why: match e.kind() {
                io::ErrorKind::ConnectionRefused => "connection refused".into(),
                _ => e.to_string(),
            },
        })?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(place.name).map_err(|e| ReachError::Tls(e.to_string()))?;
        let stream = TlsConnector::from(settings).connect(name, stream).await;
        let stream = stream.map_err(|e| ReachError::Tls(trust::explain(&e)))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is dropped or the other side has had enough.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
    .boxed()
}

/// The same request once more, if it may be sent twice.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !harmless || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(respond::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}
