//! Calls to servers that the configuration names: identity providers, webhooks of a kubeconfig.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

/// The most that is read of an answer.
const MOST_BYTES: usize = 8 * 1024 * 1024;
const MOST_IDLE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);
/// How long upstream leaves a server alone after the first failure.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A server that cannot be called as configured.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// A field that is missing or makes no sense.
    #[error("{0}")]
    Config(String),
    /// A file that the configuration names.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Keys and certificates that cannot be used.
    #[error("cannot use the TLS credentials: {0}")]
    Tls(String),
}

/// A call that came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{method} {url:?}: {why}")]
    Connect { method: Method, url: String, why: String },
    #[error("{method} {url:?}: context deadline exceeded")]
    Timeout { method: Method, url: String },
    #[error("the server at {url:?} answered {code}")]
    Status { url: String, code: StatusCode },
    #[error("the answer of {url:?} is no JSON: {why}")]
    Json { url: String, why: String },
}

/// A server, and how it is trusted and told who is calling.
#[derive(Clone)]
pub struct Remote {
    url: String,
    /// None for a server that is called without TLS.
    tls: Option<Arc<ClientConfig>>,
    server_name: Option<String>,
    bearer: Option<HeaderValue>,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

fn tls_error(error: impl std::fmt::Display) -> RemoteError {
    RemoteError::Tls(error.to_string())
}

/// How a server is trusted, and who is calling; everything as PEM.
#[derive(Clone, Debug, Default)]
pub struct RemoteTls {
    /// The authorities of its certificate; without, the public ones.
    pub authority: String,
    /// The caller's certificate and key.
    pub identity: Option<(String, String)>,
    /// The name that its certificate must have, if not the URL's.
    pub server_name: Option<String>,
}

impl Remote {
    /// A server by its URL; one without TLS needs none of what is said about it.
    pub fn reached_by(url: &str, tls: &RemoteTls) -> Result<Self, RemoteError> {
        let remote = Self::with_identity(url, &tls.authority, tls.identity.clone())?;
        Ok(Self { server_name: tls.server_name.clone(), ..remote })
    }

    /// The JSON that the server answers to one POST, or why there is none.
    pub async fn post_once(&self, body: &Value, timeout: Duration) -> Result<Value, String> {
        let answer = self.call(Method::POST, Bytes::from(body.to_string()), timeout).await;
        answer.map_err(|error| error.to_string())
    }

    /// A server by its URL, whose certificate comes from `authority` (PEM), or from a public one.
    pub fn new(url: &str, authority: &str) -> Result<Self, RemoteError> {
        let remote = Self::with_identity(url, authority, None)?;
        match remote.tls {
            Some(_) => Ok(remote),
            None => Err(RemoteError::Config(format!("url {url:?} is no https URL"))),
        }
    }

    fn with_identity(
        url: &str,
        authority: &str,
        identity: Option<(String, String)>,
    ) -> Result<Self, RemoteError> {
        let uri: Uri = url.parse().map_err(|e| RemoteError::Config(format!("url {url:?}: {e}")))?;
        let plain = uri.scheme_str() == Some("http");
        if !(plain || uri.scheme_str() == Some("https")) || uri.host().is_none() {
            return Err(RemoteError::Config(format!("url {url:?} is no https URL")));
        }
        if plain {
            let (url, idle) = (url.to_owned(), Arc::default());
            return Ok(Self { url, tls: None, server_name: None, bearer: None, idle });
        }
        let mut roots = RootCertStore::empty();
        if authority.is_empty() {
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        }
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate.map_err(tls_error)?).map_err(tls_error)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(tls_error)?
            .with_root_certificates(roots);
        let tls = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(tls_error)?;
                builder.with_client_auth_cert(chain.map_err(tls_error)?, key).map_err(tls_error)?
            }
        };
        Ok(Self {
            url: url.to_owned(),
            tls: Some(Arc::new(tls)),
            server_name: None,
            bearer: None,
            idle: Arc::default(),
        })
    }

    /// The server of a kubeconfig's current context. Paths in it are relative to `folder`.
    pub fn of_kubeconfig(config: &Value, folder: &Path) -> Result<Self, RemoteError> {
        let named = |list: &str, name: &str| {
            let mut entries = config[list].as_array().into_iter().flatten();
            entries.find(|entry| entry["name"] == name).cloned().unwrap_or_default()
        };
        let context = config["current-context"].as_str().unwrap_or_default();
        let context = named("contexts", context)["context"].clone();
        let cluster = named("clusters", context["cluster"].as_str().unwrap_or_default())["cluster"].clone();
        let user = named("users", context["user"].as_str().unwrap_or_default())["user"].clone();
        let content = |object: &Value, field: &str| -> Result<String, RemoteError> {
            if let Some(data) = object[format!("{field}-data")].as_str() {
                let bytes = types::decode_base64(data).and_then(|b| String::from_utf8(b).ok());
                return bytes
                    .ok_or_else(|| RemoteError::Config(format!("{field}-data is not PEM in base64")));
            }
            let Some(path) = object[field].as_str() else { return Ok(String::new()) };
            let path = folder.join(path);
            std::fs::read_to_string(&path)
                .map_err(|source| RemoteError::File { path: path.display().to_string(), source })
        };
        let url = cluster["server"].as_str().ok_or_else(|| {
            RemoteError::Config("the current context names no cluster with a server".into())
        })?;
        if cluster["insecure-skip-tls-verify"] == true {
            return Err(RemoteError::Config(
                "insecure-skip-tls-verify is not supported; name the authority".into(),
            ));
        }
        let certificate = content(&user, "client-certificate")?;
        let identity = match certificate.is_empty() {
            true => None,
            false => Some((certificate, content(&user, "client-key")?)),
        };
        let mut remote = Self::with_identity(url, &content(&cluster, "certificate-authority")?, identity)?;
        remote.server_name = cluster["tls-server-name"].as_str().map(str::to_owned);
        let token = match user["token"].as_str() {
            Some(token) => token.to_owned(),
            None => content(&user, "tokenFile")?.trim().to_owned(),
        };
        if !token.is_empty() {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
            remote.bearer = Some(bearer.map_err(|_| RemoteError::Config("the token is odd".into()))?);
        }
        Ok(remote)
    }

    /// The JSON that the server answers to a POST; asks again if the server says that it could not just now, as upstream does
    /// (`apiserver/pkg/util/webhook/webhook.go`, `DefaultShouldRetry`).
    pub(crate) async fn post(
        &self,
        body: &Value,
        timeout: Duration,
        first_wait: Duration,
    ) -> Result<Value, CallError> {
        const ATTEMPTS: u32 = 5;
        let body = Bytes::from(body.to_string());
        let mut wait = first_wait;
        for _ in 1..ATTEMPTS {
            match self.call(Method::POST, body.clone(), timeout).await {
                Err(CallError::Status { code, .. }) if matches!(code.as_u16(), 429 | 500 | 504) => {}
                outcome => return outcome,
            }
            tokio::time::sleep(wait).await;
            wait = wait.mul_f64(1.5);
        }
        self.call(Method::POST, body, timeout).await
    }

    /// The JSON at the server's URL.
    pub(crate) async fn get(&self) -> Result<Value, CallError> {
        self.call(Method::GET, Bytes::new(), PATIENCE).await
    }

    /// Posts to the server, whatever it says but that it took it.
    pub(crate) async fn tell(&self, body: Bytes) -> Result<(), CallError> {
        self.ask(Method::POST, body, PATIENCE).await.map(drop)
    }

    async fn call(&self, method: Method, body: Bytes, timeout: Duration) -> Result<Value, CallError> {
        let bytes = self.ask(method, body, timeout).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| CallError::Json { url: self.url.clone(), why: e.to_string() })
    }

    async fn ask(&self, method: Method, body: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let url = || self.url.clone();
        let answer = tokio::time::timeout(timeout, self.exchange(&method, body)).await;
        let answer = answer.map_err(|_| CallError::Timeout { method: method.clone(), url: url() })?;
        let (code, bytes) = answer.map_err(|why| CallError::Connect { method, url: url(), why })?;
        if !code.is_success() {
            return Err(CallError::Status { url: url(), code });
        }
        Ok(bytes)
    }

    async fn exchange(&self, method: &Method, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        // A connection that has waited may have ended meanwhile; a new one has the last word.
        loop {
            let Some(mut sender) = self.idle.lock().pop() else { break };
            if sender.ready().await.is_ok()
                && let Ok(answer) = self.send(sender, method, body.clone()).await
            {
                return Ok(answer);
            }
        }
        let sender = self.connect().await?;
        self.send(sender, method, body).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let uri: Uri = self.url.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect(format!("{host}:{port}")).await;
        let stream = stream.map_err(|e| format!("dial tcp {host}: {e}"))?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return shake_hands(stream).await };
        let name = self.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream).await;
        shake_hands(stream.map_err(|e| format!("tls: {e}"))?).await
    }

    async fn send(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        method: &Method,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let uri: Uri = self.url.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, uri.authority().map_or("", |a| a.as_str()))
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")));
        if *method == Method::POST {
            request = request.header(header::CONTENT_TYPE, crate::respond::JSON);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (parts, body) = response.into_parts();
        let bytes = Limited::new(body, MOST_BYTES).collect().await.map_err(|e| e.to_string())?;
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE {
            idle.push(sender);
        }
        Ok((parts.status, bytes.to_bytes()))
    }
}

async fn shake_hands<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let hands = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = hands.map_err(|e| e.to_string())?;
    // It ends when the sender is dropped or the other side has had enough.
    tokio::spawn(connection);
    Ok(sender)
}
