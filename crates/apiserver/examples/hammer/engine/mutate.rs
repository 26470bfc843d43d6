//! Damage: to trees, texts, bytes, paths, queries and headers.

use serde_json::{Value, json};

use super::arbitrary::Dice;

/// Stands in a tree for raw text that no tree can hold.
const MARK: &str = "\u{e000}raw";

/// A text that means trouble somewhere.
pub(crate) fn nasty_text(dice: &mut Dice) -> String {
    match dice.below(40) {
        0 => "x".repeat(64 + dice.below(70_000)),
        1 => "a-".repeat(100),
        2 => "é".repeat(40),
        3 => "a".repeat(63) + "!",
        4 => "(".repeat(300),
        5 => "a && ".repeat(200) + "a",
        6 => "!".repeat(400) + "true",
        7 => "[1,2,3].map(x, [1,2,3].map(y, [1,2,3].map(z, x*y*z)))".to_owned(),
        8 => "((a+)+)+$".to_owned(),
        9 => "(a{1,1000}){1,1000}".to_owned(),
        _ => {
            const TEXTS: &[&str] = &[
                "",
                "..",
                ".",
                "/",
                "//",
                "a/b",
                "../../etc/passwd",
                "%2e%2e",
                "%00",
                "\u{0}",
                "\u{7f}",
                "\u{200b}",
                "\u{202e}abc",
                "\u{feff}",
                "\u{1f4a9}",
                "e\u{301}",
                "ﬀ",
                "İ",
                "ß",
                "\r\n",
                "a\nb",
                "\t",
                " ",
                "a b",
                "${jndi:x}",
                "$(A)",
                "$$",
                "{{.}}",
                "<script>",
                "'; drop",
                "null",
                "true",
                "1e1000",
                "-0",
                "0x1f",
                "1_000",
                "NaN",
                "9223372036854775807",
                "9223372036854775808",
                "18446744073709551616",
                "-9223372036854775809",
                "1Ei",
                "1e-30",
                "999999999999999999999Ei",
                "0.0000000001n",
                "2026-02-30T00:00:00Z",
                "0000-00-00T00:00:00Z",
                "9999-12-31T23:59:60Z",
                "+292277026596-12-04T15:30:07Z",
                "1h1h1h",
                "-5m",
                "a=b,c in (d)",
                "a in (",
                "!a",
                "a==b==c",
                "metadata.name=x",
                "spec.nodeName!=",
                ".spec.x[*]",
                "{.a..b}",
                "$..*",
                "a.b.c.d.e.f",
                "*.*",
                "~1~0",
                "/a/-",
                "/0",
                "system:masters",
                "system:serviceaccount:kube-system:x",
                "kubernetes.io/x",
                "k8s.io/",
                "A.B/C",
                "__proto__",
                "^(a+)+$",
                "[[:alpha:]",
                "\\",
                "(?i)a",
                "(?P<n>a)\\k<n>",
                "a{99999}",
                "\\p{Greek}",
                "0 0 31 2 *",
                "*/0 * * * *",
                "@every 1ns",
                "TZ=X/../../y * * * * *",
                "::",
                "::ffff:1.2.3.4",
                "0177.0.0.1",
                "1.2.3.4/33",
                "fe80::1%eth0",
                "-----BEGIN CERTIFICATE-----",
                "====",
                "YQ=",
                "object.x",
                "self",
                "1/0",
                "[0][5]",
                "dyn([]).all(x, x)",
                "'a'.matches('(')",
                "timestamp('x')",
                "duration('9999999999h')",
                "int('x')",
                "quantity('1e400')",
                "ip('x')",
                "'%s'.format([1,2])",
                "'%1000000000d'.format([1])",
                "'a'.replace('a', 'aaaaaaaaaa')",
                "lists.range(1000000)",
            ];
            (*dice.pick(TEXTS)).to_owned()
        }
    }
}

/// Text that is written into JSON as it is.
fn raw(dice: &mut Dice) -> String {
    let depth = *dice.pick(&[33, 64, 100, 126, 127, 128, 129, 500, 3000]);
    match dice.below(24) {
        0 => "[".repeat(depth) + &"]".repeat(depth),
        1 => "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth),
        2 => "[".repeat(depth),
        3 => "[{\"properties\":".repeat(depth / 2) + "1" + &"}]".repeat(depth / 2),
        4 => format!("[{}0]", "0,".repeat(200 + dice.below(3000))),
        5 => {
            let keys = (0..200 + dice.below(800)).map(|n| format!("\"k{n}\":\"v\"")).collect::<Vec<_>>();
            format!("{{{}}}", keys.join(","))
        }
        6 => "{\"a\":1,\"a\":2,\"a\":{\"a\":3,\"a\":4}}".to_owned(),
        7 => format!("\"{}\"", "\\u0000".repeat(dice.below(2000))),
        8 => "9".repeat(1 + dice.below(600)),
        9 => format!("0.{}1", "0".repeat(dice.below(400))),
        _ => {
            let texts = [
                "1e400",
                "-1e400",
                "1e-400",
                "-0",
                "-0.0",
                "1E+2",
                "00",
                "01",
                "+1",
                ".5",
                "5.",
                "0x10",
                "NaN",
                "Infinity",
                "\"\\ud800\"",
                "\"\\ud800\\ud800\"",
                "\"\\udc00\\ud800\"",
                "\"\\x\"",
                "\"\\u12\"",
                "\"\u{1}\"",
                "'a'",
                "nul",
                "True",
                "9223372036854775807",
                "9223372036854775808",
                "-9223372036854775808",
                "18446744073709551615",
                "1.0",
                "1.5e3",
                "2147483648",
                "{,}",
                "[,]",
                "[1,]",
                "{\"a\"}",
                "{\"a\":}",
                "",
                "//x\n1",
                "/**/1",
                "{\"\":{}}",
                "\"\\/\"",
            ];
            (*dice.pick(&texts)).to_owned()
        }
    }
}

/// Changes one place of a tree, whatever its type was.
pub(crate) fn damage_tree(dice: &mut Dice, value: &mut Value) {
    if !dice.one_in(6) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let key = map.keys().nth(dice.below(map.len())).cloned().unwrap_or_default();
                if let Some(child) = map.get_mut(&key) {
                    return damage_tree(dice, child);
                }
            }
            Value::Array(list) if !list.is_empty() => {
                let at = dice.below(list.len());
                return damage_tree(dice, &mut list[at]);
            }
            _ => {}
        }
    }
    match dice.below(14) {
        0..=3 => *value = nasty_text(dice).into(),
        4 | 5 => *value = format!("{MARK}{}", dice.below(1 << 20)).into(),
        6 => *value = dice.anything(3),
        7 => *value = json!([value.clone()]),
        8 => *value = json!({"a": value.clone()}),
        9 => *value = Value::Null,
        10 => match value {
            Value::Array(list) if !list.is_empty() && list.len() < 100 => {
                let times = 1 << dice.below(9);
                let one = list[dice.below(list.len())].clone();
                list.extend(std::iter::repeat_n(one, times));
            }
            Value::Object(map) if map.len() < 100 => {
                let one = map.values().next().cloned().unwrap_or_default();
                for n in 0..1 << dice.below(10) {
                    map.insert(format!("k{n}"), one.clone());
                }
            }
            _ => *value = json!({}),
        },
        11 => {
            if let Value::Object(map) = value {
                map.insert(nasty_text(dice), dice.anything(2));
            }
        }
        12 => *value = json!(*dice.pick(&[i64::MAX, i64::MIN, -1, 0, 1 << 31, 1 << 53])),
        _ => *value = json!(*dice.pick(&[0.5, 1e300, -1e-300, 1.0])),
    }
}

/// Too much of what metadata may hold.
pub(crate) fn stuff_metadata(dice: &mut Dice, object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").filter(|m| m.is_object()) else { return };
    let many = 1 << dice.below(12);
    match dice.below(9) {
        0 => metadata["labels"] = (0..many).map(|n| (format!("l{n}"), json!("v"))).collect(),
        1 => metadata["labels"] = json!({"a": "v".repeat(many * 16), "x/y/z": "a", "k".repeat(300): ""}),
        2 => metadata["annotations"] = json!({"a": "v".repeat(many * 80)}),
        3 => {
            let owner = |n| json!({"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": format!("u{n}"), "controller": true});
            metadata["ownerReferences"] = (0..many / 4).map(owner).collect();
        }
        4 => {
            let fields = json!({"f:data": {"f:a": {}, "k:{\"a\":1}": {"v:[": {}}}, ".": 3});
            let manager = |n| {
                json!({"manager": format!("m{n}"), "operation": "Apply", "apiVersion": "v1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields})
            };
            metadata["managedFields"] = (0..many / 8).map(manager).collect();
        }
        5 => metadata["finalizers"] = (0..many / 4).map(|n| format!("a.b/f{n}")).collect(),
        6 => {
            metadata["generateName"] = nasty_text(dice).into();
            metadata["name"] = Value::Null;
        }
        7 => metadata["resourceVersion"] = nasty_text(dice).into(),
        _ => metadata["name"] = nasty_text(dice).into(),
    }
}

/// JSON with the marks replaced by what no tree can hold.
pub(crate) fn to_text(dice: &mut Dice, value: &Value) -> Vec<u8> {
    let text = value.to_string();
    if !text.contains(MARK) {
        return text.into_bytes();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    let open = format!("\"{MARK}");
    while let Some(at) = rest.find(&open) {
        out.push_str(&rest[..at]);
        out.push_str(&raw(dice));
        let after = &rest[at + open.len()..];
        rest = after.find('"').map_or("", |end| &after[end + 1..]);
    }
    out.push_str(rest);
    out.into_bytes()
}

/// Flips, cuts, doubles and swaps bytes.
pub(crate) fn damage_bytes(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = dice.below(bytes.len());
        match dice.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, dice.below(256) as u8),
            3 => {
                let end = (at + dice.below(40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => bytes[at] ^= 1 << dice.below(8),
            5 => bytes[at] = *dice.pick(b"{}[]\",:\\\0&*!|>%-?\xff\x80\x7f09"),
            _ => bytes[at] = dice.below(256) as u8,
        }
    }
}

/// Tricks with the encoding and the shape of a path.
pub(crate) fn damage_path(dice: &mut Dice, path: &mut String) {
    let slashes: Vec<usize> = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at).collect();
    let at = if slashes.is_empty() { 0 } else { *dice.pick(&slashes) };
    const PIECES: &[&str] = &[
        "/..",
        "/.",
        "/%2e%2e",
        "/%2E",
        "//",
        "/%2f",
        "%2f..%2f",
        ";a=b",
        "%00",
        "%ff",
        "%",
        "%zz",
        "%u0041",
        "/%20",
        "/a%0ab",
        "/%c0%af",
        "/%e2%80%8b",
        "/%f0%9f%92%a9",
        "/watch",
        "/namespaces",
        "/status",
        "/proxy/x",
        "/api/v1",
        "/*",
        "/$",
        "/~",
        "/metadata.name=x",
        "/@",
        ":80",
        "/https:x:443",
        "%25%32%65",
        "/%252e%252e",
        "/-",
        "/_",
        "/0",
    ];
    match dice.below(8) {
        0..=3 => path.insert_str(at, dice.pick::<&str>(PIECES)),
        4 => path.push_str(dice.pick::<&str>(PIECES)),
        5 => {
            // The same, otherwise written.
            let Some(at) = (!path.is_empty()).then(|| dice.below(path.len())) else { return };
            if path.is_char_boundary(at)
                && let Some(c) = path[at..].chars().next().filter(|c| c.is_ascii_alphanumeric())
            {
                path.replace_range(at..at + 1, &format!("%{:02x}", c as u32));
            }
        }
        6 => path.insert_str(at, &format!("/{}", "a".repeat(1 << dice.below(14)))),
        _ => {
            // A step less or twice.
            let end = slashes.iter().copied().find(|s| *s > at).unwrap_or(path.len());
            let step = path[at..end].to_owned();
            if dice.one_in(2) {
                path.replace_range(at..end, "");
            } else {
                path.insert_str(at, &step);
            }
        }
    }
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
}

/// Parameters of all sorts, wanted or not.
pub(crate) fn parameter(dice: &mut Dice) -> String {
    const NAMES: &[&str] = &[
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "labelSelector",
        "fieldSelector",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "force",
        "pretty",
        "gracePeriodSeconds",
        "propagationPolicy",
        "orphanDependents",
        "timeout",
        "container",
        "command",
        "stdin",
        "tty",
        "follow",
        "tailLines",
        "sinceSeconds",
        "ports",
        "path",
        "watch",
        "includeObject",
        "exact",
        "export",
        "a",
        "",
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "verbose",
        "exclude",
        "labels",
        "user",
    ];
    const VALUES: &[&str] = &[
        "",
        "0",
        "1",
        "-1",
        "true",
        "false",
        "maybe",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999",
        "1e3",
        "0x10",
        "%2B1",
        "+1",
        "%00",
        "%ff",
        "%",
        "All",
        "all",
        "None",
        "Exact",
        "NotOlderThan",
        "Strict",
        "Warn",
        "Ignore",
        "Background",
        "Foreground",
        "Orphan",
        "1s",
        "-1s",
        "1h1m1s",
        "999999999h",
        "0.0000001ns",
        "a%3Db",
        "a%3D%3Db",
        "a+in+(b%2Cc)",
        "a+notin+()",
        "!a",
        "a%3E5",
        "a%3C-9999999999999999999",
        "metadata.name%3Dthere",
        "metadata.namespace%3Dkube-system",
        "spec.color%3Dred",
        "spec.nodeName%21%3Dx",
        "metadata.name%3Dx%2Cmetadata.name%3Dy",
        "a%5C%2Cb%3Dc",
        "%5C",
        "status.phase%3D%3D",
        "%2C%2C%2C",
        "((((",
        "3a",
        "313a61",
        "2d313a78",
        "7fffffffffffffff3a78",
        "zz",
        "meta.k8s.io",
        "%F0%9F%92%A9",
        "%E2%80%AE",
        "x%0d%0ay",
    ];
    let name = *dice.pick(NAMES);
    match dice.below(30) {
        0 => {
            let terms: Vec<String> = (0..1 << dice.below(11)).map(|n| format!("a{n}!%3Db")).collect();
            format!("labelSelector={}", terms.join("%2C"))
        }
        1 => format!("labelSelector=a+in+({})", "v%2C".repeat(1 << dice.below(12))),
        2 => format!("fieldSelector={}", "metadata.name!%3Dx%2C".repeat(1 << dice.below(10))),
        3 => format!("{name}={}", "9".repeat(1 << dice.below(13))),
        4 => format!("{name}={}", "(".repeat(1 << dice.below(12))),
        _ => format!("{name}={}", dice.pick(VALUES)),
    }
}

/// A header of any sort.
pub(crate) fn header(dice: &mut Dice, token: &str) -> (String, Vec<u8>) {
    const HEADERS: &[(&str, &str)] = &[
        ("accept", "application/json;as=Table;g=meta.k8s.io;v=v1"),
        ("accept", "application/json;as=Table;g=meta.k8s.io;v=v1beta1, application/json"),
        ("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
        ("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
        ("accept", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
        ("accept", "application/yaml"),
        ("accept", "application/json;as=Nonsense;g=x;v=y"),
        ("accept", "*/*;q=0, text/html;;;q=x, ,,"),
        ("accept", "application/json;stream=watch"),
        ("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
        ("accept", "application/json;v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList"),
        ("accept", "application/cbor"),
        ("accept-encoding", "gzip"),
        ("accept-encoding", "gzip;q=0, deflate, br;q=1.5, *"),
        ("content-encoding", "gzip"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-type", "application/json;;;=\"\\"),
        ("content-type", "application/yaml"),
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("content-type", "application/apply-patch+yaml"),
        ("content-type", "application/apply-patch+cbor"),
        ("content-type", "application/cbor"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked, identity"),
        ("authorization", "Bearer"),
        ("authorization", "Bearer  "),
        ("authorization", "Bearer a.b.c"),
        ("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06YWRtaW4ifQ."),
        ("authorization", "Bearer abcdef.0123456789abcdef"),
        ("authorization", "Basic YTpi"),
        ("authorization", "Bearer secret"),
        ("impersonate-user", "bob"),
        ("impersonate-user", "system:serviceaccount:default:web"),
        ("impersonate-user", "system:node:n"),
        ("impersonate-group", "system:masters"),
        ("impersonate-uid", "u"),
        ("impersonate-extra-a%2fb", "c"),
        ("impersonate-extra-%zz", "c"),
        ("x-remote-user", "system:admin"),
        ("x-remote-group", "system:masters"),
        ("x-forwarded-for", "1.2.3.4, ::1, x, 999.1.1.1"),
        ("x-real-ip", "::"),
        ("upgrade", "websocket"),
        ("upgrade", "SPDY/3.1"),
        ("upgrade", "h2c"),
        ("connection", "Upgrade, close, keep-alive"),
        ("sec-websocket-key", "x"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
        ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.////, v4.channel.k8s.io"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("user-agent", ""),
        ("user-agent", "/"),
        ("user-agent", "kubectl/v1.37 (linux) é"),
        ("if-none-match", "\"x\", W/\"y\", *"),
        ("if-modified-since", "yesterday"),
        ("range", "bytes=0-"),
        ("expect", "100-continue"),
        ("host", "a:b:c"),
        ("origin", "null"),
        ("cookie", "a=b"),
        ("audit-id", "x y z"),
        ("traceparent", "00-0-0-0"),
        ("x-http-method-override", "DELETE"),
        ("te", "trailers"),
    ];
    match dice.below(16) {
        0 => ("user-agent".to_owned(), vec![b'a'; 1 << dice.below(14)]),
        1 => ("authorization".to_owned(), format!("Bearer {token}").into_bytes()),
        2 => {
            let mut token = token.as_bytes().to_vec();
            damage_bytes(dice, &mut token);
            ("authorization".to_owned(), [b"Bearer ", &token[..]].concat())
        }
        3 => ("accept".to_owned(), b"application/json;as=Table,".repeat(1 << dice.below(8))),
        4 => (format!("impersonate-extra-{}", dice.below(100)), b"v".to_vec()),
        5 => ("accept".to_owned(), (0..40).map(|_| dice.below(256) as u8).collect()),
        _ => {
            let (name, value) = dice.pick(HEADERS);
            ((*name).to_owned(), value.as_bytes().to_vec())
        }
    }
}
