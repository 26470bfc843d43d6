use std::net::IpAddr;

use auth::{ClientAuthority, User};
use rustls_pki_types::CertificateDer;

/// What a connection tells of whoever is at its other end.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Where it comes from.
    pub(crate) address: Option<IpAddr>,
    /// The user of a client certificate, or `Err` if there is one that lets nobody in.
    pub(crate) certificate: Option<Result<User, ()>>,
    /// The common name of a front proxy's certificate.
    pub(crate) proxy: Option<String>,
    /// The second at which the certificate ends.
    pub(crate) ends: i64,
}

impl Peer {
    /// Looks at a chain of certificates, which was shown with the key that goes with it.
    pub(crate) fn of(
        address: Option<IpAddr>,
        chain: &[CertificateDer<'_>],
        clients: &ClientAuthority,
        proxies: Option<&ClientAuthority>,
    ) -> Self {
        let Some(first) = chain.first() else { return Self { address, ..Self::default() } };
        let known = clients.knows(chain);
        let certificate = match auth::certificate_user(first) {
            Ok(Some(user)) if known => Some(Ok(user)),
            // It names nobody, which is no fault.
            Ok(None) if known => None,
            _ => Some(Err(())),
        };
        let (ends, name) = auth::certificate_end(first).unwrap_or_default();
        let proxy = proxies.is_some_and(|proxies| proxies.knows(chain)).then_some(name);
        Self { address, certificate, proxy, ends }
    }
}
