//! TLS settings of the cluster's own servers and clients: PEM in, `rustls` configurations out.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::KeyPairPem;

/// TLS credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// PEM that cannot be read.
    #[error("cannot read the {what}: {source}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// Credentials that do not fit together.
    #[error("cannot use the TLS credentials: {0}")]
    Credentials(Box<dyn std::error::Error + Send + Sync>),
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Credentials(Box::new(error))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(ca: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(ca.map_err(|source| TlsError::Pem { what: "authority", source })?).map_err(unusable)?;
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(pair: &KeyPairPem) -> Result<Identity, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect();
    let chain = chain.map_err(|source| TlsError::Pem { what: "certificate", source })?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    Ok((chain, key.map_err(|source| TlsError::Pem { what: "key", source })?))
}

/// A server that shows `pair` and knows the clients whose certificates come from `client_ca` (PEM). Clients without
/// a certificate are let in: who they are is for tokens to say.
pub fn server_tls(pair: &KeyPairPem, client_ca: &str) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    let (chain, key) = identity(pair)?;
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)
}

/// A client that shows `pair` and trusts the servers whose certificates come from `ca` (PEM), and no others.
pub fn client_tls(pair: &KeyPairPem, ca: &str) -> Result<ClientConfig, TlsError> {
    let (chain, key) = identity(pair)?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)
}
