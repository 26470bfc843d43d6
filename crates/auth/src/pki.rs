mod der;
mod request;
mod sign;

pub use request::{KeyAndRequest, certificate_span};
pub use sign::{SignError, SigningOrder};

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates that cannot be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder.
    #[error("cannot {attempt} {path}: {source}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A key or certificate that cannot be understood or made.
    #[error("cannot use {path}: {source}; move it away to have a new one made")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To show who is asking.
    Client,
    /// To be asked.
    Server,
    /// Both, as a node's agent needs.
    Both,
}

/// A certificate to be had.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The file name without its ending.
    pub file: String,
    /// The subject's common name: the user.
    pub common_name: String,
    /// The subject's organization: the group; empty for none.
    pub organization: String,
    /// Names and addresses a server answers to.
    pub names: Vec<String>,
    /// What it is for.
    pub usage: Usage,
}

/// A certificate and its key, both as PEM.
#[derive(Clone, Debug)]
pub struct KeyPairPem {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// The cluster's certificate authority and what it has signed, in one folder.
///
/// Everything is made when it is missing and kept when it is there, so opening it twice changes nothing. Leaf
/// certificates are renewed when they are within 30 days of their end, or name another subject or lack a name.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    ca_pem: String,
    ca_key: KeyPair,
    now: i64,
}

const DAY: i64 = 86_400;
const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
const RENEW_WITHIN_DAYS: i64 = 30;

impl Pki {
    /// Opens the folder, making it and the authority if need be.
    pub fn open(folder: &Path, clock: &dyn Clock) -> Result<Self, PkiError> {
        Self::open_as(folder, "gantry-ca", clock)
    }

    /// The same with another name for the authority, for those who must tell several apart.
    pub fn open_as(folder: &Path, name: &str, clock: &dyn Clock) -> Result<Self, PkiError> {
        fs::create_dir_all(folder).map_err(|source| file("create folder", folder, source))?;
        let (cert_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        let now = clock.now().as_second();
        let ca_key = load_or_make_key(&key_path)?;
        let ca_pem = if cert_path.exists() {
            read(&cert_path)?
        } else {
            let mut params = params(name, "", now, CA_DAYS);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::CrlSign,
                KeyUsagePurpose::DigitalSignature,
            ];
            let pem = params.self_signed(&ca_key).map_err(|e| certificate(&cert_path, e))?.pem();
            write(&cert_path, &pem, 0o644)?;
            pem
        };
        Ok(Self { folder: folder.to_owned(), ca_pem, ca_key, now })
    }

    /// The authority's certificate as PEM.
    pub fn ca(&self) -> &str {
        &self.ca_pem
    }

    /// A certificate, kept from an earlier start or made now.
    pub fn issue(&self, request: &CertificateRequest) -> Result<KeyPairPem, PkiError> {
        let cert_path = self.folder.join(format!("{}.crt", request.file));
        let key_path = self.folder.join(format!("{}.key", request.file));
        let key = load_or_make_key(&key_path)?;
        if cert_path.exists() {
            let pem = read(&cert_path)?;
            if self.still_good(&pem, &key, request) {
                return Ok(KeyPairPem { certificate: pem, key: key.serialize_pem() });
            }
        }
        let mut params = params(&request.common_name, &request.organization, self.now, LEAF_DAYS);
        params.subject_alt_names = request.names.iter().filter_map(|n| name_of(n)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match request.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        let ca_path = self.folder.join("ca.crt");
        let issuer =
            Issuer::from_ca_cert_pem(&self.ca_pem, &self.ca_key).map_err(|e| certificate(&ca_path, e))?;
        let pem = params.signed_by(&key, &issuer).map_err(|e| certificate(&cert_path, e))?.pem();
        write(&cert_path, &pem, 0o644)?;
        Ok(KeyPairPem { certificate: pem, key: key.serialize_pem() })
    }

    /// The key that signs service account tokens: private and public PEM.
    pub fn service_account_key(&self) -> Result<(String, String), PkiError> {
        let key = load_or_make_key(&self.folder.join("sa.key"))?;
        Ok((key.serialize_pem(), key.public_key_pem()))
    }

    fn still_good(&self, pem: &str, key: &KeyPair, request: &CertificateRequest) -> bool {
        let Ok((_, block)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else { return false };
        let Ok((_, old)) = X509Certificate::from_der(&block.contents) else { return false };
        let names: Vec<String> = old
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|san| san.value.general_names.iter().map(shown).collect())
            .unwrap_or_default();
        let ends = old.validity().not_after.timestamp();
        old.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
            && self.signed_by_this_ca(&old)
            && ends - self.now > RENEW_WITHIN_DAYS * DAY
            && request.names.iter().all(|n| names.contains(n))
            && old.subject().iter_common_name().next().and_then(|n| n.as_str().ok())
                == Some(&request.common_name)
            && old.subject().iter_organization().next().and_then(|o| o.as_str().ok()).unwrap_or_default()
                == request.organization
    }

    fn signed_by_this_ca(&self, old: &X509Certificate<'_>) -> bool {
        let Ok((_, block)) = x509_parser::pem::parse_x509_pem(self.ca_pem.as_bytes()) else { return false };
        // Without a verifier compiled in, the authority's key identifier is what tells an older authority apart.
        X509Certificate::from_der(&block.contents).is_ok_and(|(_, ca)| {
            ca.subject() == old.issuer()
                && ca.public_key().subject_public_key.data.as_ref() == self.ca_key.public_key_raw()
        })
    }
}

fn params(common_name: &str, organization: &str, now: i64, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if !organization.is_empty() {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let at = |seconds| {
        time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    };
    // An hour back, for clients whose clocks are behind.
    params.not_before = at(now - 3600);
    params.not_after = at(now + days * DAY);
    params
}

fn name_of(name: &str) -> Option<SanType> {
    match name.parse::<IpAddr>() {
        Ok(ip) => Some(SanType::IpAddress(ip)),
        Err(_) => name.try_into().ok().map(SanType::DnsName),
    }
}

fn shown(name: &x509_parser::extensions::GeneralName<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).map(|b| IpAddr::from(b).to_string()).unwrap_or_default(),
            _ => <[u8; 16]>::try_from(*bytes).map(|b| IpAddr::from(b).to_string()).unwrap_or_default(),
        },
        _ => String::new(),
    }
}

fn load_or_make_key(path: &Path) -> Result<KeyPair, PkiError> {
    if path.exists() {
        return KeyPair::from_pem(&read(path)?).map_err(|e| certificate(path, e));
    }
    let key = KeyPair::generate().map_err(|e| certificate(path, e))?;
    write(path, &key.serialize_pem(), 0o600)?;
    Ok(key)
}

fn file(attempt: &'static str, path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File { attempt, path: path.to_owned(), source }
}

fn certificate(path: &Path, source: rcgen::Error) -> PkiError {
    PkiError::Certificate { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|e| file("read", path, e))
}

/// Writes beside the file and renames, so that a crash leaves the old file or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let beside = path.with_extension("new");
    let attempt = |e| file("write", path, e);
    let mut out = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&beside)
        .map_err(attempt)?;
    out.write_all(text.as_bytes()).map_err(attempt)?;
    out.sync_all().map_err(attempt)?;
    fs::rename(&beside, path).map_err(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ManualClock, SystemClock};
    use std::time::Duration;

    fn request() -> CertificateRequest {
        CertificateRequest {
            file: "admin".into(),
            common_name: "kubernetes-admin".into(),
            organization: "system:masters".into(),
            names: vec!["localhost".into(), "127.0.0.1".into()],
            usage: Usage::Client,
        }
    }

    #[test]
    fn certificates_are_kept_and_name_their_user() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pki::open(folder.path(), &SystemClock).unwrap().issue(&request()).unwrap();
        let again = Pki::open(folder.path(), &SystemClock).unwrap().issue(&request()).unwrap();
        assert_eq!(first.certificate, again.certificate);
        let (_, block) = x509_parser::pem::parse_x509_pem(first.certificate.as_bytes()).unwrap();
        let user = crate::user_of_certificate(&block.contents).unwrap();
        assert_eq!(user.name, "kubernetes-admin");
        assert!(user.in_group("system:masters"), "{user:?}");
    }

    #[test]
    fn renews_what_ends_soon_or_lacks_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let issue = |names: &[&str]| {
            let request =
                CertificateRequest { names: names.iter().map(|n| (*n).into()).collect(), ..request() };
            Pki::open(folder.path(), &clock).unwrap().issue(&request).unwrap().certificate
        };
        let first = issue(&["localhost"]);
        assert_eq!(first, issue(&["localhost"]));
        let wider = issue(&["localhost", "10.0.0.1"]);
        assert_ne!(first, wider);
        clock.advance(Duration::from_secs(340 * 86_400));
        assert_ne!(wider, issue(&["localhost", "10.0.0.1"]));
    }

    #[test]
    fn says_which_file_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.key"), "rubbish").unwrap();
        let error = Pki::open(folder.path(), &SystemClock).unwrap_err().to_string();
        assert!(error.contains("ca.key"), "{error}");
    }
}
