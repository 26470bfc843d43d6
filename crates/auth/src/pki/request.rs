//! Asking an authority for a certificate, and looking at the one it gives.

use base::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::name_of;

/// A new key and the request that shows it, both as PEM.
#[derive(Clone)]
pub struct KeyAndRequest {
    /// The private key.
    pub key: String,
    /// The request (PKCS #10).
    pub request: String,
}

impl std::fmt::Debug for KeyAndRequest {
    /// Secrets do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyAndRequest").field("request", &self.request).finish_non_exhaustive()
    }
}

impl KeyAndRequest {
    /// For a subject, and for the names and addresses that a server answers to.
    ///
    /// # Errors
    /// When the library that makes keys refuses.
    pub fn new(common_name: &str, organization: &str, names: &[String]) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, organization);
        subject.push(DnType::CommonName, common_name);
        params.distinguished_name = subject;
        params.subject_alt_names = names.iter().filter_map(|name| name_of(name)).collect();
        let key = KeyPair::generate()?;
        let request = params.serialize_request(&key)?.pem()?;
        Ok(Self { key: key.serialize_pem(), request })
    }
}

/// From when until when the first certificate of a PEM text is good.
pub fn certificate_span(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let der = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let validity = certificate.validity();
    let at = |seconds| Timestamp::from_second(seconds).ok();
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

#[cfg(test)]
mod tests {
    use base::SystemClock;

    use super::*;
    use crate::pki::SigningOrder;
    use crate::{Pki, user_of_certificate};

    #[test]
    fn what_is_asked_for_is_signed() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), &SystemClock).unwrap();
        let names = ["n1".to_owned(), "10.0.0.1".to_owned()];
        let asked = KeyAndRequest::new("system:node:n1", "system:nodes", &names).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(asked.request.as_bytes()).unwrap();
        let now = 1_700_000_000;
        let order = SigningOrder {
            request: &block.contents,
            usages: &["server auth".to_owned()],
            not_before: now,
            not_after: now + 60,
        };
        let pem = pki.sign(&order).unwrap();
        let (from, to) = certificate_span(&pem).unwrap();
        assert_eq!((from.as_second(), to.as_second()), (now, now + 60));
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(user_of_certificate(&der).unwrap().name, "system:node:n1");
        assert!(!format!("{asked:?}").contains("PRIVATE"));
        assert_eq!(certificate_span("rubbish"), None);
    }
}
