use auth::{Pki, PkiError, SignError, SigningOrder, User};
use base::{SystemClock, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use x509_parser::pem::parse_x509_pem;

/// A certificate authority of a test's own.
#[derive(Debug)]
pub struct Authority {
    pki: Pki,
    _folder: tempfile::TempDir,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self, PkiError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Ok(Self { pki: Pki::open(folder.path(), &SystemClock)?, _folder: folder })
    }

    /// Signs a request (DER); gives the certificate as PEM.
    pub fn sign(
        &self,
        request: &[u8],
        usages: &[String],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<String, SignError> {
        let (not_before, not_after) = (from.as_second(), to.as_second());
        self.pki.sign(&SigningOrder { request, usages, not_before, not_after })
    }

    /// For whom a certificate (PEM) speaks.
    pub fn user(certificate: &[u8]) -> Option<User> {
        let (_, block) = parse_x509_pem(certificate).ok()?;
        auth::user_of_certificate(&block.contents)
    }
}

/// A request for a certificate, as PEM, by somebody with a new key.
pub fn certificate_request(common_name: &str, organization: &str, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("good names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate().expect("a key");
    params.serialize_request(&key).expect("a request").pem().expect("PEM")
}
