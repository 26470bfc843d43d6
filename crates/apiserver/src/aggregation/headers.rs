use std::fmt::Write as _;

use auth::User;
use http::{HeaderMap, HeaderName, HeaderValue, header};

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Headers that are about one connection, and not about the request (RFC 9110, section 7.6.1).
const HOPS: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Says who is asking, and takes out whatever else said so before (kubernetes/kubernetes,
/// `client-go/transport/round_trippers.go`, `SetAuthProxyHeaders`).
pub(super) fn introduce(headers: &mut HeaderMap, user: &User) {
    let theirs = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with(EXTRA) || name.starts_with("impersonate-")
    };
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| theirs(name)).cloned().collect();
    for name in unwanted.into_iter().chain([USER, UID, GROUP, header::AUTHORIZATION]) {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
    if let Some(name) = value(&user.name) {
        headers.insert(USER, name);
    }
    if let Some(uid) = value(&user.uid).filter(|uid| !uid.is_empty()) {
        headers.insert(UID, uid);
    }
    for group in user.groups.iter().filter_map(|group| value(group)) {
        headers.append(GROUP, group);
    }
    for (key, values) in &user.extra {
        let Ok(name) = HeaderName::from_bytes(format!("{EXTRA}{}", escape(key)).as_bytes()) else { continue };
        for value in values.iter().filter_map(|text| value(text)) {
            headers.append(name.clone(), value);
        }
    }
}

/// A key as a part of a header's name: what may not be there is percent-encoded (`headerKeyEscape`).
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
            | b'~' => {
                out.push(char::from(byte));
            }
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// Takes out what is about the connection only. `upgrade` leaves in what asks for another protocol.
pub(crate) fn without_hops(headers: &mut HeaderMap, upgrade: bool) {
    let protocol = headers.get(header::UPGRADE).cloned();
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.into_iter().chain(HOPS) {
        headers.remove(name);
    }
    if let Some(protocol) = protocol.filter(|_| upgrade) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Whether a request asks for another protocol (`streaming/pkg/httpstream`, `IsUpgradeRequest`).
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut wishes = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    wishes.any(|value| value.to_ascii_lowercase().contains("upgrade"))
        && headers.contains_key(header::UPGRADE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_introduces_themselves() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-group", "x-remote-uid", "x-remote-extra-a", "authorization"] {
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("forged"));
        }
        headers.insert("impersonate-user", HeaderValue::from_static("forged"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let mut user = User::authenticated("jane", ["dev".to_owned()]);
        user.extra.insert("example.com/Key".into(), vec!["a".into(), "b".into()]);
        introduce(&mut headers, &user);
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fkey"), ["a", "b"]);
        assert_eq!(headers.len(), 6, "{headers:?}");
        assert!(!headers.values().any(|v| v == "forged"));
    }

    #[test]
    fn hops_end_here() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("keep-alive, x-private, Upgrade"));
        headers.insert("x-private", HeaderValue::from_static("1"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        assert!(wants_upgrade(&headers));
        let mut plain = headers.clone();
        without_hops(&mut plain, false);
        assert!(plain.is_empty(), "{plain:?}");
        without_hops(&mut headers, true);
        assert_eq!(headers.len(), 2, "{headers:?}");
    }
}
