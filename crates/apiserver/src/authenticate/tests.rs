use auth::{ClientAuthority, Pki};
use http::HeaderMap;
use proptest::prelude::*;

use super::front_proxy::FrontProxy;
use super::{take_bearer, take_websocket_token};

fn proxy() -> FrontProxy {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path(), &base::SystemClock).unwrap();
    let names = |name: &str| vec![name.to_owned()];
    FrontProxy {
        authority_pem: String::new(),
        authority: ClientAuthority::new(pki.ca()).unwrap(),
        allowed_names: names("proxy"),
        username_headers: names("X-Remote-User"),
        uid_headers: names("X-Remote-Uid"),
        group_headers: names("X-Remote-Group"),
        extra_prefixes: names("X-Remote-Extra-"),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

#[test]
fn a_proxys_word_is_taken_out_of_the_headers() {
    let mut given = headers(&[
        ("x-remote-user", "bob"),
        ("x-remote-uid", "u1"),
        ("x-remote-group", "a"),
        ("x-remote-group", "b"),
        ("x-remote-extra-acme.com%2fproject", "p"),
        ("accept", "x"),
    ]);
    let user = proxy().user(&mut given).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("bob", "u1"));
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(user.extra["acme.com/project"], ["p"]);
    assert_eq!(given.len(), 1);
    assert!(proxy().user(&mut given).is_none());
    assert!(proxy().trusts("proxy") && !proxy().trusts("other"));
}

#[test]
fn tokens_are_taken_out_of_the_headers() {
    let mut given = headers(&[("authorization", "bearer abc ")]);
    assert_eq!(take_bearer(&mut given).as_deref(), Some("abc"));
    assert!(given.is_empty());
    for odd in ["abc", "Basic abc", "Bearer", "Bearer "] {
        assert_eq!(take_bearer(&mut headers(&[("authorization", odd)])), None, "{odd}");
    }
    let offer = "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io";
    let mut given = headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", offer)]);
    assert_eq!(take_websocket_token(&mut given).as_deref(), Some("abc"));
    assert_eq!(given["sec-websocket-protocol"], "v5.channel.k8s.io");
    let alone = "base64url.bearer.authorization.k8s.io.YWJj";
    let mut given = headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", alone)]);
    assert_eq!(take_websocket_token(&mut given), None);
}

proptest! {
    #[test]
    fn no_header_is_too_odd(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        let Ok(value) = http::HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut given = HeaderMap::new();
        for name in ["authorization", "sec-websocket-protocol", "x-remote-user", "x-remote-extra-a%zz"] {
            given.append(name, value.clone());
        }
        given.append("upgrade", "websocket".parse().unwrap());
        let _ = (take_bearer(&mut given), take_websocket_token(&mut given), proxy().user(&mut given));
    }
}
