use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use tokio::io::AsyncWrite;

use super::{Auth, PullError, PullOptions, Scheme, blocking};
use crate::content::BlobWriter;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::ImageStore;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The ways to try, the safest first.
pub(super) fn schemes(reference: &Reference, scheme: Scheme) -> Vec<ClientProtocol> {
    match scheme {
        Scheme::Https => vec![ClientProtocol::Https],
        Scheme::Http => vec![ClientProtocol::Http],
        Scheme::Auto if is_loopback(reference.registry()) => {
            vec![ClientProtocol::Https, ClientProtocol::Http]
        }
        Scheme::Auto => vec![ClientProtocol::Https],
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn auth(auth: Option<&Auth>) -> RegistryAuth {
    match auth {
        None => RegistryAuth::Anonymous,
        Some(Auth::Basic { username, password }) => RegistryAuth::Basic(username.clone(), password.clone()),
        Some(Auth::Bearer(token)) => RegistryAuth::Bearer(token.clone()),
    }
}

pub(super) fn connect(
    reference: &Reference,
    options: &PullOptions,
    protocol: ClientProtocol,
) -> Result<Client, PullError> {
    // The process needs one provider; whoever comes first sets it, and ours is the same as everybody's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let extra: Vec<Certificate> = options
        .extra_ca
        .iter()
        .map(|pem| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() })
        .collect();
    let config = |only: Vec<Certificate>| ClientConfig {
        protocol: protocol.clone(),
        accept_invalid_certificates: options.skip_tls_verify,
        tls_certs_only: only,
        extra_root_certificates: extra.clone(),
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: concat!("gantry/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config(Vec::new()))
        .or_else(|_| {
            // A machine without certificates of its own, such as a container from scratch: those of Mozilla.
            let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
            let roots =
                roots.map(|der| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() });
            Client::try_from(config(roots.chain(extra.clone()).collect()))
        })
        .map_err(|e| PullError::Client { reference: Box::new(reference.clone()), message: e.to_string() })
}

/// Fetches one blob into the content store.
pub(super) async fn download(
    store: &ImageStore,
    client: &Client,
    reference: &Reference,
    digest: Digest,
    size: u64,
) -> Result<(), PullError> {
    let failed = |e| PullError::from_content(reference, digest, e);
    let mut sink = Sink { writer: store.content().writer().map_err(failed)?, left: size, too_long: false };
    let fetched = client.pull_blob(&reference.to_oci(), digest.to_string().as_str(), &mut sink).await;
    if sink.too_long {
        return Err(PullError::Size { reference: Box::new(reference.clone()), digest, expected: size });
    }
    match fetched {
        // The disk's fault, not the registry's.
        Err(OciDistributionError::IoError(e)) => {
            return Err(failed(crate::content::io_error("write blob to", &store.content().path(&digest))(e)));
        }
        other => other.map_err(|e| PullError::from_registry(reference, "blob", e))?,
    }
    let writer = sink.writer;
    blocking(move || writer.commit(Some(digest), Some(size))).await.map_err(failed)?;
    Ok(())
}

/// Writes to the page cache, a few kilobytes at a time: short enough for an asynchronous task.
struct Sink {
    writer: BlobWriter,
    left: u64,
    too_long: bool,
}

impl AsyncWrite for Sink {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => self.left = left,
            None => {
                self.too_long = true;
                return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
            }
        }
        Poll::Ready(self.writer.write_all(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
