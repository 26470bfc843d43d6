//! Certificates for those who bring a request (kubernetes/kubernetes, `pkg/controller/certificates/authority`).

use std::net::IpAddr;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose as Extended, IsCa, Issuer, KeyUsagePurpose as Usage, SanType,
    SigningKey,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Pki, der};

/// A request to be signed.
#[derive(Clone, Debug)]
pub struct SigningOrder<'a> {
    /// The request (PKCS #10) as DER. Its subject, key and names are taken over as they are.
    pub request: &'a [u8],
    /// What the certificate shall be good for, as CertificateSigningRequests say it.
    pub usages: &'a [String],
    /// The second it begins at.
    pub not_before: i64,
    /// The second it ends at, or earlier with the authority's own certificate.
    pub not_after: i64,
}

/// A request that cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It is no request.
    #[error("cannot read the certificate request")]
    Form,
    /// Whoever asks does not show the key.
    #[error("unable to verify certificate request signature")]
    Signature,
    /// A usage nobody knows.
    #[error("unrecognized usage values: [{0}]")]
    Usages(String),
    /// A name that is none.
    #[error("cannot use the subject alternative name {0:?}")]
    Name(String),
    /// The authority's own certificate has ended.
    #[error("the signer has expired: its certificate ended at second {0}")]
    Expired(i64),
    /// The library that makes certificates refused.
    #[error("cannot make the certificate: {0}")]
    Make(rcgen::Error),
}

enum Purpose {
    Key(Usage),
    Extended(Extended),
}

/// `keyUsageDict`, `extKeyUsageDict`.
fn purpose(usage: &str) -> Option<Purpose> {
    let other = |oid: &[u64]| Purpose::Extended(Extended::Other(oid.to_vec()));
    Some(match usage {
        "signing" | "digital signature" => Purpose::Key(Usage::DigitalSignature),
        "content commitment" => Purpose::Key(Usage::ContentCommitment),
        "key encipherment" => Purpose::Key(Usage::KeyEncipherment),
        "key agreement" => Purpose::Key(Usage::KeyAgreement),
        "data encipherment" => Purpose::Key(Usage::DataEncipherment),
        "cert sign" => Purpose::Key(Usage::KeyCertSign),
        "crl sign" => Purpose::Key(Usage::CrlSign),
        "encipher only" => Purpose::Key(Usage::EncipherOnly),
        "decipher only" => Purpose::Key(Usage::DecipherOnly),
        "any" => Purpose::Extended(Extended::Any),
        "server auth" => Purpose::Extended(Extended::ServerAuth),
        "client auth" => Purpose::Extended(Extended::ClientAuth),
        "code signing" => Purpose::Extended(Extended::CodeSigning),
        "email protection" | "s/mime" => Purpose::Extended(Extended::EmailProtection),
        "ipsec end system" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 5]),
        "ipsec tunnel" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 6]),
        "ipsec user" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 7]),
        "timestamping" => Purpose::Extended(Extended::TimeStamping),
        "ocsp signing" => Purpose::Extended(Extended::OcspSigning),
        "microsoft sgc" => other(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
        "netscape sgc" => other(&[2, 16, 840, 1, 113_730, 4, 1]),
        _ => return None,
    })
}

/// The names of a request that certificates may have.
fn names(request: &X509CertificationRequest<'_>) -> Result<Vec<SanType>, SignError> {
    let extensions = request.requested_extensions().into_iter().flatten();
    let all = extensions.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(san) => Some(&san.general_names),
        _ => None,
    });
    let wrong = |text: &str| SignError::Name(text.to_owned());
    let mut names = Vec::new();
    for name in all.flatten() {
        names.push(match name {
            GeneralName::DNSName(text) => SanType::DnsName((*text).try_into().map_err(|_| wrong(text))?),
            GeneralName::RFC822Name(text) => {
                SanType::Rfc822Name((*text).try_into().map_err(|_| wrong(text))?)
            }
            GeneralName::URI(text) => SanType::URI((*text).try_into().map_err(|_| wrong(text))?),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                SanType::IpAddress(address.map_err(|_| wrong(&format!("{bytes:?}")))?)
            }
            _ => continue,
        });
    }
    Ok(names)
}

impl Pki {
    /// Signs a request; gives the certificate as PEM.
    pub fn sign(&self, order: &SigningOrder<'_>) -> Result<String, SignError> {
        let (_, request) = X509CertificationRequest::from_der(order.request).map_err(|_| SignError::Form)?;
        request.verify_signature().map_err(|_| SignError::Signature)?;
        let end = self.end();
        if order.not_before >= end {
            return Err(SignError::Expired(end));
        }
        let mut params = CertificateParams::default();
        let mut unknown: Vec<&str> = Vec::new();
        for usage in order.usages {
            match purpose(usage) {
                Some(Purpose::Key(usage)) if params.key_usages.contains(&usage) => {}
                Some(Purpose::Key(usage)) => params.key_usages.push(usage),
                Some(Purpose::Extended(usage)) if params.extended_key_usages.contains(&usage) => {}
                Some(Purpose::Extended(usage)) => params.extended_key_usages.push(usage),
                None => unknown.push(usage),
            }
        }
        if !unknown.is_empty() {
            return Err(SignError::Usages(unknown.join(" ")));
        }
        let at = |seconds| {
            time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        };
        (params.not_before, params.not_after) = (at(order.not_before), at(order.not_after.min(end)));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = names(&request)?;
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem, &self.ca_key).map_err(SignError::Make)?;
        // The library knows fewer subjects and keys than there are (it keeps one organization): those are put in as
        // they came, and what comes out is signed anew.
        let model = params.signed_by(&self.ca_key, &issuer).map_err(SignError::Make)?;
        let info = &request.certification_request_info;
        let tbs = der::parts(model.der()).and_then(|parts| {
            let mut fields = der::parts(parts.first()?)?;
            *fields.get_mut(5)? = info.subject.as_raw();
            *fields.get_mut(6)? = info.subject_pki.raw;
            Some((der::sequence(&fields), parts.get(1)?.to_vec()))
        });
        let (tbs, algorithm) = tbs.ok_or(SignError::Form)?;
        let signature = der::bits(&self.ca_key.sign(&tbs).map_err(SignError::Make)?);
        let whole = der::sequence(&[&tbs, &algorithm, &signature]);
        Ok(pem(&whole))
    }

    /// The second the authority's own certificate ends at.
    fn end(&self) -> i64 {
        let block = x509_parser::pem::parse_x509_pem(self.ca_pem.as_bytes()).ok();
        let end = block.as_ref().and_then(|(_, block)| {
            let (_, ca) = X509Certificate::from_der(&block.contents).ok()?;
            Some(ca.validity().not_after.timestamp())
        });
        end.unwrap_or(i64::MIN)
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SystemClock;
    use proptest::prelude::*;
    use rcgen::{DnType, KeyPair};

    fn request(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["web".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.distinguished_name.push(DnType::CommonName, "eve");
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn order<'a>(request: &'a [u8], usages: &'a [String]) -> SigningOrder<'a> {
        SigningOrder { request, usages, not_before: 1_800_000_000, not_after: 1_800_003_600 }
    }

    #[test]
    fn subject_key_and_names_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), &SystemClock).unwrap();
        let key = KeyPair::generate().unwrap();
        let usages = ["client auth", "digital signature", "key encipherment"].map(str::to_owned);
        let request = request(&key);
        let pem = pki.sign(&order(&request, &usages)).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let (rest, made) = X509Certificate::from_der(&block.contents).unwrap();
        assert!(rest.is_empty());
        let user = crate::user_of_certificate(&block.contents).unwrap();
        assert!(user.name == "eve" && user.in_group("dev"));
        assert_eq!(made.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert_eq!(made.validity().not_after.timestamp(), 1_800_003_600);
        let names = made.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
        assert!(!made.is_ca() && made.extended_key_usage().unwrap().unwrap().value.client_auth);
        let (_, authority) = x509_parser::pem::parse_x509_pem(pki.ca().as_bytes()).unwrap();
        let (_, authority) = X509Certificate::from_der(&authority.contents).unwrap();
        assert_eq!(made.issuer(), authority.subject());
        made.verify_signature(Some(authority.public_key())).unwrap();

        let long = SigningOrder { not_after: i64::MAX / 4, ..order(&request, &usages) };
        let pem = pki.sign(&long).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, made) = X509Certificate::from_der(&block.contents).unwrap();
        assert_eq!(made.validity().not_after.timestamp(), authority.validity().not_after.timestamp());
        let odd = ["tea making".to_owned()];
        assert!(matches!(pki.sign(&order(&request, &odd)), Err(SignError::Usages(_))));
        let late = SigningOrder { not_before: i64::MAX / 4, ..order(&request, &usages) };
        assert!(matches!(pki.sign(&late), Err(SignError::Expired(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Nobody gets a certificate for what the owner of the key did not ask for.
        #[test]
        fn nothing_but_what_was_asked_for_is_signed(at in 0_usize..2000, to in any::<u8>()) {
            let folder = tempfile::tempdir().unwrap();
            let pki = Pki::open(folder.path(), &SystemClock).unwrap();
            let key = KeyPair::generate().unwrap();
            let mut changed = request(&key);
            let at = at % changed.len();
            changed[at] = to;
            if let Ok(pem) = pki.sign(&order(&changed, &[])) {
                let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
                let (_, made) = X509Certificate::from_der(&block.contents).unwrap();
                let user = crate::user_of_certificate(&block.contents).unwrap();
                prop_assert!(user.name == "eve" && user.in_group("dev"));
                prop_assert_eq!(made.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
                let names = made.subject_alternative_name().unwrap().unwrap();
                prop_assert_eq!(names.value.general_names.len(), 2);
            }
        }
    }
}
