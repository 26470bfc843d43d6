use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use kube::client::Body;
use kube::config::AuthInfo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tower::{BoxError, Service};

/// How requests reach an API server.
///
/// The in-process way is a service that hands the request to the server together with the caller's identity; it
/// is written where both are known.
pub struct Transport(kube::Client);

/// An API server to be reached over TLS.
#[derive(Clone, Debug)]
pub struct Server {
    /// Such as `https://10.0.0.1:6443`.
    pub url: String,
    /// The authorities that the server's certificate must come from, PEM.
    pub ca_pem: String,
    /// As whom to speak.
    pub identity: Identity,
}

/// As whom to speak to an API server.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Identity {
    Anonymous,
    Token(String),
    /// A client certificate and its private key, PEM.
    Certificate {
        certificate: String,
        key: String,
    },
}

impl std::fmt::Debug for Identity {
    /// Secrets do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Token(_) => "Token",
            Self::Certificate { .. } => "Certificate",
        })
    }
}

/// A transport that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The URL cannot be read.
    #[error("cannot read the server's URL {url:?}: {source}")]
    Url {
        /// The text.
        url: String,
        /// Why.
        source: http::uri::InvalidUri,
    },
    /// The authorities cannot be read.
    #[error("cannot read the server's certificate authority: {0}")]
    Authority(rustls_pki_types::pem::Error),
    /// Credentials that do not fit together.
    #[error("cannot set up the connection to {url}: {source}")]
    Client {
        /// The server.
        url: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl Transport {
    /// Through any service, such as an API server in this process.
    ///
    /// Must be called within a Tokio runtime: a task hands the requests over.
    pub fn service<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(kube::Client::new(service, "default"))
    }

    /// Over TLS.
    pub fn tls(server: &Server) -> Result<Self, TransportError> {
        // Whoever was first has installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url =
            server.url.parse().map_err(|source| TransportError::Url { url: server.url.clone(), source })?;
        let authorities: Result<Vec<Vec<u8>>, _> = CertificateDer::pem_slice_iter(server.ca_pem.as_bytes())
            .map(|certificate| certificate.map(|c| c.to_vec()))
            .collect();
        let mut config = kube::Config::new(url);
        config.root_cert = Some(authorities.map_err(TransportError::Authority)?);
        config.disable_compression = true;
        config.auth_info = match &server.identity {
            Identity::Anonymous => AuthInfo::default(),
            Identity::Token(token) => AuthInfo { token: Some(token.clone().into()), ..Default::default() },
            Identity::Certificate { certificate, key } => AuthInfo {
                client_certificate_data: Some(STANDARD.encode(certificate)),
                client_key_data: Some(STANDARD.encode(key).into()),
                ..Default::default()
            },
        };
        let client = kube::Client::try_from(config)
            .map_err(|source| TransportError::Client { url: server.url.clone(), source: Box::new(source) })?;
        Ok(Self(client))
    }

    /// The client over this transport.
    pub fn client(self) -> kube::Client {
        self.0
    }
}
