use std::collections::BTreeMap;

use auth::{ClientAuthority, TlsError, User};
use http::HeaderMap;
use percent_encoding::percent_decode_str;

/// A proxy in front of the API that says who is asking (kubernetes/kubernetes,
/// `apiserver/pkg/authentication/request/headerrequest/requestheader.go`).
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// Whose certificates proxies show.
    pub authority: ClientAuthority,
    /// The same as PEM.
    pub authority_pem: String,
    /// Which common names are proxies'; none means all of the authority's.
    pub allowed_names: Vec<String>,
    /// Headers that may have the user's name; the first one that is there counts.
    pub username_headers: Vec<String>,
    /// Headers that may have the user's UID.
    pub uid_headers: Vec<String>,
    /// Headers that have groups.
    pub group_headers: Vec<String>,
    /// What headers begin with that have whatever else is known.
    pub extra_prefixes: Vec<String>,
}

impl FrontProxy {
    /// The common name that clusters give their own front proxy's certificate.
    pub const CLIENT: &'static str = "front-proxy-client";

    /// A proxy that tells of users in upstream's headers, and shows a certificate of this authority (PEM).
    pub fn new(authority: &str) -> Result<Self, TlsError> {
        Ok(Self {
            authority: ClientAuthority::new(authority)?,
            authority_pem: authority.to_owned(),
            allowed_names: vec![Self::CLIENT.into()],
            username_headers: vec!["X-Remote-User".into()],
            uid_headers: vec!["X-Remote-Uid".into()],
            group_headers: vec!["X-Remote-Group".into()],
            extra_prefixes: vec!["X-Remote-Extra-".into()],
        })
    }

    pub(super) fn trusts(&self, name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|n| n == name)
    }

    /// Takes the user out of the headers.
    pub(super) fn user(&self, headers: &mut HeaderMap) -> Option<User> {
        let texts = |name: &str| -> Vec<String> {
            let values = headers.get_all(name.to_ascii_lowercase()).iter();
            let texts = values.map(|v| String::from_utf8_lossy(v.as_bytes()).trim().to_owned());
            texts.filter(|t| !t.is_empty()).collect()
        };
        let first = |names: &[String]| names.iter().find_map(|name| texts(name).into_iter().next());
        let name = first(&self.username_headers)?;
        let uid = first(&self.uid_headers).unwrap_or_default();
        let groups: Vec<String> = self.group_headers.iter().flat_map(|name| texts(name)).collect();
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        let mut used: Vec<String> = Vec::new();
        for prefix in self.extra_prefixes.iter().map(|p| p.to_ascii_lowercase()) {
            for header in headers.keys() {
                let Some(key) = header.as_str().strip_prefix(&prefix) else { continue };
                let plain = percent_decode_str(key).decode_utf8();
                let key = plain.map_or_else(|_| key.to_owned(), |p| p.into_owned()).to_lowercase();
                extra.entry(key).or_default().extend(texts(header.as_str()));
                used.push(header.as_str().to_owned());
            }
        }
        used.extend(
            self.username_headers.iter().chain(&self.uid_headers).chain(&self.group_headers).cloned(),
        );
        for header in used {
            headers.remove(header.to_ascii_lowercase());
        }
        let user = match name.as_str() {
            "system:anonymous" => {
                let mut groups = groups;
                if !groups.iter().any(|g| g == "system:unauthenticated") {
                    groups.push("system:unauthenticated".into());
                }
                User { name, groups, ..User::default() }
            }
            _ if groups.iter().any(|g| g == User::AUTHENTICATED || g == "system:unauthenticated") => {
                User { name, groups, ..User::default() }
            }
            _ => User::authenticated(name, groups),
        };
        Some(User { uid, extra, ..user })
    }
}
