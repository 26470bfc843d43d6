use std::sync::Arc;
use std::time::Duration;

use base::ManualClock;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

struct Bench {
    issuer: TokenIssuer,
    clock: ManualClock,
}

fn key() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    (key.serialize_pem(), key.public_key_pem())
}

fn bench_with(options: TokenIssuerOptions, (private, public): &(String, String)) -> Bench {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let issuer = TokenIssuer::with("https://k", private, public, options, Arc::new(clock.clone())).unwrap();
    Bench { issuer, clock }
}

fn order() -> TokenOrder {
    TokenOrder {
        namespace: "shop".into(),
        account: BoundObject { name: "web".into(), uid: "u1".into() },
        pod: Some(BoundObject { name: "web-0".into(), uid: "p1".into() }),
        node: Some(BoundObject { name: "n".into(), uid: "n1".into() }),
        seconds: 600,
        warn_after: Some(300),
        id: "j".into(),
        ..TokenOrder::default()
    }
}

fn object(uid: &str, deleted: Option<&str>) -> Option<Value> {
    Some(json!({"metadata": {"uid": uid, "deletionTimestamp": deleted}}))
}

fn world(table: &str, _: &str, name: &str) -> Option<Value> {
    match (table, name) {
        ("serviceaccounts", "web") => object("u1", None),
        ("pods", "web-0") => object("p1", None),
        ("nodes", "n") => object("n1", None),
        _ => None,
    }
}

#[test]
fn tokens_hold_for_their_time_and_audience() {
    let bench = bench_with(TokenIssuerOptions::default(), &key());
    let (token, _) = bench.issuer.issue(order()).unwrap();
    let known = bench.issuer.authenticate(&token, &[], &world).unwrap();
    assert_eq!(known.user.name, "system:serviceaccount:shop:web");
    assert_eq!(known.user.uid, "u1");
    assert!(known.user.in_group("system:serviceaccounts:shop"));
    for (key, value) in
        [("pod-name", "web-0"), ("pod-uid", "p1"), ("node-name", "n"), ("credential-id", "JTI=j")]
    {
        assert_eq!(known.user.extra[&format!("authentication.kubernetes.io/{key}")], [value]);
    }
    assert_eq!((known.audiences, known.stale), (vec!["https://k".to_owned()], None));
    assert!(matches!(bench.issuer.authenticate(&token, &["vault"], &world), Err(TokenError::Audience(..))));
    let mut forged = token.clone();
    forged.truncate(token.len() - 6);
    forged.push_str("AAAAAA");
    assert!(matches!(bench.issuer.authenticate(&forged, &[], &world), Err(TokenError::Invalid(_))));
    bench.clock.advance(Duration::from_secs(301));
    assert_eq!(bench.issuer.authenticate(&token, &[], &world).unwrap().stale, Some(1));
    bench.clock.advance(Duration::from_secs(300));
    assert!(matches!(bench.issuer.authenticate(&token, &[], &world), Err(TokenError::Expired)));
}

/// Facts of upstream's `claims_test.go`: what is gone, or another by now, takes its tokens with it.
#[test]
fn tokens_die_with_what_they_are_bound_to() {
    let bench = bench_with(TokenIssuerOptions::default(), &key());
    let (token, _) = bench.issuer.issue(order()).unwrap();
    let long_ago = Some("2025-12-31T23:58:00Z");
    let just_now = Some("2025-12-31T23:59:30Z");
    for (table, put, alive) in [
        ("serviceaccounts", None, false),
        ("serviceaccounts", object("other", None), false),
        ("serviceaccounts", object("u1", long_ago), false),
        ("serviceaccounts", object("u1", just_now), true),
        ("pods", None, false),
        ("pods", object("other", None), false),
        ("pods", object("p1", long_ago), false),
        ("pods", object("p1", just_now), true),
        // With a pod, the node is only told.
        ("nodes", None, true),
    ] {
        let changed = |t: &str, space: &str, name: &str| match t == table {
            true => put.clone(),
            false => world(t, space, name),
        };
        let outcome = bench.issuer.authenticate(&token, &[], &changed);
        assert_eq!(outcome.is_ok(), alive, "{table} {put:?} {outcome:?}");
    }
    let bound = |order: TokenOrder| bench.issuer.issue(order).unwrap().0;
    let to_node = bound(TokenOrder { pod: None, ..order() });
    assert!(bench.issuer.authenticate(&to_node, &[], &world).is_ok());
    let without = |t: &str, s: &str, n: &str| if t == "nodes" { None } else { world(t, s, n) };
    assert!(bench.issuer.authenticate(&to_node, &[], &without).is_err());
    let secret = Some(BoundObject { name: "s".into(), uid: "s1".into() });
    let to_secret = bound(TokenOrder { pod: None, node: None, secret, ..order() });
    assert!(bench.issuer.authenticate(&to_secret, &[], &world).is_err());
    let with = |t: &str, s: &str, n: &str| if t == "secrets" { object("s1", None) } else { world(t, s, n) };
    assert!(bench.issuer.authenticate(&to_secret, &[], &with).is_ok());
}

#[test]
fn keys_and_issuers_can_be_changed_without_a_break() {
    let (old, new) = (key(), key());
    let before = bench_with(TokenIssuerOptions::default(), &old);
    let (token, _) = before.issuer.issue(order()).unwrap();
    let both = TokenIssuerOptions {
        keys: vec![old.1.clone()],
        issuers: vec!["https://new".into(), "https://k".into()],
        audiences: vec!["https://new".into(), "https://k".into()],
        ..TokenIssuerOptions::default()
    };
    let during = bench_with(both, &new);
    assert!(during.issuer.authenticate(&token, &[], &world).is_ok());
    let (fresh, _) = during.issuer.issue(order()).unwrap();
    assert!(during.issuer.authenticate(&fresh, &[], &world).is_ok());
    assert!(before.issuer.authenticate(&fresh, &[], &world).is_err());
    let after = bench_with(TokenIssuerOptions::default(), &new);
    assert!(matches!(after.issuer.authenticate(&token, &[], &world), Err(TokenError::Invalid(_))));
    let keys = during.issuer.jwks();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    assert_eq!(keys["keys"][0]["crv"], "P-256");
    let header = jsonwebtoken::decode_header(&fresh).unwrap();
    assert_eq!(keys["keys"][0]["kid"], header.kid.unwrap());
    let told = during.issuer.discovery("https://10.0.0.1:6443");
    assert_eq!(told["issuer"], "https://new");
    assert_eq!(told["jwks_uri"], "https://10.0.0.1:6443/openid/v1/jwks");
    assert_eq!(told["id_token_signing_alg_values_supported"], json!(["ES256"]));
}

#[test]
fn tokens_in_secrets_hold_as_long_as_the_secret_has_them() {
    let bench = bench_with(TokenIssuerOptions::default(), &key());
    let token = bench.issuer.issue_legacy("shop", "s", "web", "u1").unwrap();
    let secret = |token: &str, labels: Value| {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(token);
        json!({"metadata": {"uid": "s1", "labels": labels}, "data": {"token": data}})
    };
    for (stored, ok) in [
        (Some(secret(&token, Value::Null)), true),
        (Some(secret("another", Value::Null)), false),
        (Some(secret(&token, json!({"kubernetes.io/legacy-token-invalid-since": "2025-01-01"}))), false),
        (None, false),
    ] {
        let lookup = |t: &str, s: &str, n: &str| if t == "secrets" { stored.clone() } else { world(t, s, n) };
        let outcome = bench.issuer.authenticate(&token, &[], &lookup);
        assert_eq!(outcome.is_ok(), ok, "{outcome:?}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in ".{0,200}", at in 0..2000usize, to in any::<char>()) {
        let (private, public) = key();
        let bench = bench_with(TokenIssuerOptions::default(), &(private, public));
        prop_assert!(bench.issuer.authenticate(&text, &[], &world).is_err());
        let (token, _) = bench.issuer.issue(order()).unwrap();
        let mut chars: Vec<char> = token.chars().collect();
        let at = at % chars.len();
        let same = chars[at] == to;
        chars[at] = to;
        let mutated: String = chars.into_iter().collect();
        if !same && at + 2 < token.len() {
            prop_assert!(bench.issuer.authenticate(&mutated, &[], &world).is_err());
        }
    }
}
