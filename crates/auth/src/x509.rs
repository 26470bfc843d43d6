use x509_parser::prelude::{FromDer, X509Certificate};

use crate::user::User;

/// The user a verified client certificate speaks for: the common name, with each organization as a group
/// (kubernetes/kubernetes, `apiserver/pkg/authentication/request/x509/x509.go`, `CommonNameUserConversion`).
///
/// `None` where there is no common name or the certificate cannot be read.
pub fn user_of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|n| !n.is_empty())?;
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    Some(User::authenticated(name, groups))
}
