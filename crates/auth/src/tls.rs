//! TLS settings of the cluster's own servers and clients: PEM in, `rustls` configurations out.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

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

/// The certificate that a server shows, which may be another one for the next client.
#[derive(Debug)]
pub struct ServingCertificate(RwLock<Arc<CertifiedKey>>);

impl ServingCertificate {
    /// Shows this one first.
    pub fn new(pair: &KeyPairPem) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(RwLock::new(certified(pair)?))))
    }

    /// From now on this one.
    pub fn show(&self, pair: &KeyPairPem) -> Result<(), TlsError> {
        *self.0.write() = certified(pair)?;
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

fn certified(pair: &KeyPairPem) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = identity(pair)?;
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(unusable)
}

/// The same as [`server_tls`] with a certificate that changes.
pub fn changing_server_tls(
    shown: Arc<ServingCertificate>,
    client_ca: &str,
) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(unusable)?;
    Ok(ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown))
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

/// A server that shows `pair` and takes note of whatever certificate a client shows, if any. Whose word it is, is
/// for [`ClientAuthority`] to say: there is more than one authority, and a bad certificate is no reason to refuse a
/// good token. `hint` (PEM) is the authority that clients are told of.
pub fn open_server_tls(pair: &KeyPairPem, hint: &str) -> Result<ServerConfig, TlsError> {
    let (chain, key) = identity(pair)?;
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(Anybody(roots(hint)?.subjects())))
        .with_single_cert(chain, key)
        .map_err(unusable)
}

/// Those whose certificates speak for clients.
#[derive(Clone, Debug)]
pub struct ClientAuthority(Arc<dyn ClientCertVerifier>);

impl ClientAuthority {
    /// From authorities as PEM.
    pub fn new(pem: &str) -> Result<Self, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider()).build();
        Ok(Self(verifier.map_err(unusable)?))
    }

    /// Whether a chain of certificates comes from here, is meant for clients and holds now.
    pub fn knows(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((first, rest)) = chain.split_first() else { return false };
        self.0.verify_client_cert(first, rest, UnixTime::now()).is_ok()
    }
}

/// Asks for certificates, and checks only that whoever shows one has its key.
#[derive(Debug)]
struct Anybody(Vec<DistinguishedName>);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
