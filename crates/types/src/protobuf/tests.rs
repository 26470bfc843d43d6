use super::decode::{special, timestamp};
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn types() -> ProtobufTypes {
    ProtobufTypes::from_facts(&json!({
        "x.Pod": [[1, "name", "string", "one"], [2, "", "message", "one", "x.Inner"], [3, "labels", "string", "map"],
            [4, "ports", "int32", "list"], [5, "port", "message", "one", "x.IntOrString"],
            [6, "created", "message", "one", "x.Time"], [7, "data", "bytes", "map"], [8, "child", "message", "one", "x.Pod"]],
        "x.Inner": [[1, "replicas", "int32", "one"]], "x.IntOrString": [], "x.Time": [],
    }))
}

#[test]
fn reads_every_shape() {
    let mut bytes = vec![0x0a, 1, b'a'];
    bytes.extend([0x12, 2, 0x08, 3]);
    bytes.extend([0x1a, 6, 0x0a, 1, b'k', 0x12, 1, b'v']);
    bytes.extend([0x20, 1, 0x20, 2]);
    bytes.extend([0x2a, 4, 0x08, 0, 0x10, 80]);
    bytes.extend([0x32, 6, 0x08, 0x80, 0xa3, 0x05, 0x10, 0]);
    bytes.extend([0x3a, 6, 0x0a, 1, b'k', 0x12, 1, b'x']);
    let want = json!({"name": "a", "replicas": 3, "labels": {"k": "v"}, "ports": [1, 2], "port": 80,
        "created": "1970-01-02T00:00:00Z", "data": {"k": "eA=="}});
    assert_eq!(types().decode("x.Pod", &bytes), Ok(want));
}

#[test]
fn writes_what_it_reads() {
    let types = types();
    for value in [
        json!({"name": "a", "replicas": -3, "labels": {"k": "v", "l": ""}, "ports": [1, 2], "port": 80,
            "created": "1970-01-02T00:00:00Z", "data": {"k": "eA=="}, "child": {"port": "http", "replicas": 0}}),
        json!({"child": {"child": {"name": "x".repeat(300)}}}),
        json!({}),
    ] {
        let mut with_more = value.clone();
        with_more["unknown"] = json!([{"a": null}]);
        let mut bytes = Vec::new();
        types.encode("x.Pod", with_more.to_string().as_bytes(), false, &mut bytes).unwrap();
        assert!(types.encode("x.Pod", with_more.to_string().as_bytes(), true, &mut Vec::new()).is_err());
        assert_eq!(types.decode("x.Pod", &bytes), Ok(value));
    }
    for bad in ["[]", r#"{"created": "tomorrow"}"#, r#"{"data": {"k": "?"}}"#, r#"{"child": 1}"#, "{"] {
        assert!(types.encode("x.Pod", bad.as_bytes(), false, &mut Vec::new()).is_err(), "{bad}");
    }
}

#[test]
fn envelopes_close_what_they_open() {
    let bytes = envelope::<()>("apps/v1", "Deployment", |out| {
        out.extend_from_slice(b"raw");
        Ok(())
    })
    .unwrap();
    let opened = open_envelope(&bytes).unwrap();
    assert_eq!(
        (opened.api_version.as_str(), opened.kind.as_str(), opened.raw),
        ("apps/v1", "Deployment", &b"raw"[..])
    );
    assert_eq!(event("ADDED", b"x"), b"\0\0\0\x0c\x0a\x05ADDED\x12\x03\x0a\x01x");
}

#[test]
fn opens_the_envelope() {
    let bytes = [b"k8s\0".as_slice(), &[0x0a, 9, 0x0a, 2, b'v', b'1', 0x12, 3, b'P', b'o', b'd', 0x12, 1, 7]]
        .concat();
    let envelope = open_envelope(&bytes).unwrap();
    assert_eq!(
        (envelope.api_version.as_str(), envelope.kind.as_str(), envelope.raw),
        ("v1", "Pod", [7].as_slice())
    );
    assert_eq!(open_envelope(b"{}"), Err(ProtobufError::NoEnvelope));
}

#[test]
fn dates() {
    assert_eq!(timestamp(1_767_225_600, None), "2026-01-01T00:00:00Z");
    assert_eq!(timestamp(-1, Some(5)), "1969-12-31T23:59:59.000005Z");
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = types().decode("x.Pod", &bytes);
        let _ = open_envelope(&bytes);
        for form in [Form::Time, Form::MicroTime, Form::Quantity, Form::IntOrString, Form::Json] {
            let _ = special(form, &bytes);
        }
    }
}
