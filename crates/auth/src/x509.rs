use ring::digest::{SHA256, digest};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::user::User;

/// A verified client certificate that names nobody who could be let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no certificate.
    #[error("cannot read the client certificate")]
    Form,
    /// There is a part for the UID, but no good one.
    #[error("unable to parse user UID from the client certificate: {0}")]
    Uid(&'static str),
}

/// The part of a subject that is the user's UID (`ParseUserUIDFromCertAuth`).
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The user a verified client certificate speaks for: the common name, with each organization as a group
/// (kubernetes/kubernetes, `apiserver/pkg/authentication/request/x509/x509.go`, `CommonNameUserConversion`).
///
/// `None` where there is no common name.
pub fn certificate_user(der: &[u8]) -> Result<Option<User>, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Form)?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().last().and_then(|n| n.as_str().ok()).filter(|n| !n.is_empty());
    let Some(name) = name else { return Ok(None) };
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    let mut user = User::authenticated(name, groups);
    let mut uids = subject.iter_attributes().filter(|a| a.attr_type().to_id_string() == UID);
    if let Some(uid) = uids.next() {
        if uids.next().is_some() {
            return Err(CertificateError::Uid("expected 1 UID, but found multiple"));
        }
        let text = match uid.attr_value().header.tag() {
            Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => uid.as_str().ok(),
            _ => None,
        };
        let text = text.ok_or(CertificateError::Uid("unable to parse UID into a string"))?;
        if text.is_empty() {
            return Err(CertificateError::Uid("UID cannot be an empty string"));
        }
        text.clone_into(&mut user.uid);
    }
    let print: String = digest(&SHA256, der).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    user.extra.insert(User::CREDENTIAL_ID.into(), vec![format!("X509SHA256={print}")]);
    Ok(Some(user))
}

/// The same, without the reason why not.
pub fn user_of_certificate(der: &[u8]) -> Option<User> {
    certificate_user(der).ok().flatten()
}

/// The second a certificate ends at, and its subject's common name.
pub fn certificate_end(der: &[u8]) -> Option<(i64, String)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().last().and_then(|n| n.as_str().ok());
    Some((certificate.validity().not_after.timestamp(), name.unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uid() -> DnType {
        DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2])
    }

    #[test]
    fn subjects_name_users() {
        let der =
            certificate(&[(DnType::CommonName, "eve"), (DnType::OrganizationName, "dev"), (uid(), "u-1")]);
        let user = certificate_user(&der).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("eve", "u-1"));
        assert!(user.in_group("dev") && user.in_group(User::AUTHENTICATED));
        assert!(user.extra[User::CREDENTIAL_ID][0].starts_with("X509SHA256="));
        assert_eq!(certificate_user(&certificate(&[(DnType::OrganizationName, "dev")])), Ok(None));
        let empty = certificate(&[(DnType::CommonName, "eve"), (uid(), "")]);
        assert!(matches!(certificate_user(&empty), Err(CertificateError::Uid(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0..400usize,
            to in any::<u8>(),
        ) {
            let _ = certificate_user(&bytes);
            let mut der = certificate(&[(DnType::CommonName, "eve"), (uid(), "x")]);
            let at = at % der.len();
            der[at] = to;
            let _ = (certificate_user(&der), certificate_end(&der));
        }
    }
}
