use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const LIMIT: usize = 3 * 1024 * 1024;

fn laughs(levels: usize) -> String {
    let mut bomb = String::from(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata:\n  a0: &a0 [x,x,x,x,x,x,x,x,x]\n",
    );
    for n in 1..levels {
        bomb += &format!("  a{n}: &a{n} [{}]\n", [format!("*a{}", n - 1).as_str(); 9].join(","));
    }
    bomb
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[tokio::test]
async fn bodies_that_blow_up_are_refused() {
    let server = TestServer::start().await;
    let made = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    assert_eq!(server.post(MAPS, made).await.0, 201);
    let a = format!("{MAPS}/a");
    let apply = format!("{a}?fieldManager=m");
    for depth in [200, 5_000, 400_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = nested(open, close, depth);
            let object = format!("{{\"metadata\":{{\"name\":\"x\"}},\"data\":{deep}}}");
            if object.len() > LIMIT {
                continue;
            }
            for media in [JSON, YAML] {
                assert_eq!(
                    server.throw(Method::POST, MAPS, media, object.clone()).await.0,
                    400,
                    "{media} {depth}"
                );
            }
            for media in [MERGE, STRATEGIC, PATCH] {
                assert_eq!(
                    server.throw(Method::PATCH, &a, media, object.clone()).await.0,
                    400,
                    "{media} {depth}"
                );
            }
            assert_eq!(server.throw(Method::PATCH, &apply, APPLY, object.clone()).await.0, 400);
            assert_eq!(server.throw(Method::DELETE, &a, JSON, object).await.0, 400);
        }
        // Lists within lists without a bracket.
        assert_eq!(server.throw(Method::POST, MAPS, YAML, "- ".repeat(depth)).await.0, 400);
    }
    for levels in [3, 9, 60] {
        let (code, _) = server.throw(Method::POST, MAPS, YAML, laughs(levels)).await;
        assert_eq!(code, 400, "{levels}");
        assert_eq!(server.throw(Method::PATCH, &apply, APPLY, laughs(levels)).await.0, 400);
    }
    // Merge keys and anchors that lie in themselves.
    for yaml in [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "&a *a",
        "<<: *x",
        "? &a [*a]\n: 1",
        "!!binary |\n  ====",
        "%TAG ! x\n---\n!y z",
    ] {
        assert_eq!(server.throw(Method::POST, MAPS, YAML, yaml).await.0, 400, "{yaml}");
    }
}

#[tokio::test]
async fn protobuf_that_lies_is_refused() {
    let server = TestServer::start().await;
    let enveloped = |raw: &[u8]| {
        types::protobuf::envelope::<()>("v1", "ConfigMap", |out| {
            out.extend_from_slice(raw);
            Ok(())
        })
        .unwrap()
    };
    // Messages within messages: an object of JSON schemas.
    let mut deep = Vec::new();
    for _ in 0..20_000 {
        let mut outer = vec![0x0a];
        let mut length = deep.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&deep);
        deep = outer;
        if deep.len() > 100_000 {
            break;
        }
    }
    for raw in [
        &deep[..],
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xff; 64],
        &[0x0b; 1000],
        &[0x12, 0x04, 0x0a, 0x02, 0xff, 0xfe],
    ] {
        let (code, said) = server.throw(Method::POST, MAPS, PROTOBUF, enveloped(raw)).await;
        assert!((400..=422).contains(&code), "{code} {said}");
    }
    // A list of a million empty elements is three megabytes that want to be hundreds.
    let pods = enveloped(&[0x12, 0x00].repeat(1_000_000));
    let (code, _) = server.throw(Method::POST, MAPS, PROTOBUF, pods).await;
    assert!((400..=422).contains(&code), "{code}");
    for junk in [
        &b"k8s\0"[..],
        b"k8s\0\x0a",
        b"k8s",
        b"",
        b"\0\0\0\0",
        b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert_eq!(server.throw(Method::POST, MAPS, PROTOBUF, junk.to_vec()).await.0, 400);
    }
}

#[tokio::test]
async fn sizes_have_an_end() {
    let server = TestServer::start().await;
    let map = |size: usize| {
        json!({"metadata": {"name": format!("m{size}")}, "data": {"k": "x".repeat(size)}}).to_string()
    };
    // As upstream: what a ConfigMap may hold, then what a request may.
    assert_eq!(server.throw(Method::POST, MAPS, JSON, map((1 << 20) + 1)).await.0, 422);
    let (code, said) = server.throw(Method::POST, MAPS, JSON, map(LIMIT - 100)).await;
    assert_eq!((code, said["reason"].as_str()), (422, Some("Invalid")), "{said}");
    let (code, said) = server.throw(Method::POST, MAPS, JSON, map(LIMIT)).await;
    assert_eq!((code, said["reason"].as_str()), (413, Some("RequestEntityTooLarge")), "{said}");
    // Nothing unpacks a body, so nothing blows up.
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        packed.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    let request = Request::post(MAPS)
        .header("content-type", JSON)
        .header("content-encoding", "gzip")
        .body(full(packed));
    assert_eq!(server.send(request.unwrap(), Some(&server.admin)).await.0, 400);

    let with = |metadata: Value| {
        let mut whole = json!({"name": "x"});
        whole.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        json!({"metadata": whole}).to_string()
    };
    let labels: serde_json::Map<_, _> = (0..20_000).map(|n| (format!("l{n}"), json!("v"))).collect();
    let owner = |n| json!({"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": format!("u{n}")});
    let entry = |n| {
        json!({"manager": format!("m{n}"), "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:data": {format!("f:k{n}"): {}}}})
    };
    for (what, codes, body) in [
        ("a long label", 422..=422, with(json!({"labels": {"a": "v".repeat(1 << 20)}}))),
        ("a long key", 422..=422, with(json!({"labels": {"k".repeat(1 << 20): "v"}}))),
        ("many labels", 201..=422, with(json!({"labels": labels}))),
        ("long annotations", 422..=422, with(json!({"annotations": {"a": "v".repeat(300 << 10)}}))),
        ("a long name", 422..=422, with(json!({"name": "n".repeat(1 << 20)}))),
        (
            "many owners",
            201..=422,
            with(json!({"name": "o", "ownerReferences": (0..8_000).map(owner).collect::<Vec<_>>()})),
        ),
        (
            "many finalizers",
            422..=422,
            with(json!({"finalizers": (0..50_000).map(|n| format!("f{n}")).collect::<Vec<_>>()})),
        ),
        (
            "many managers",
            201..=422,
            with(json!({"name": "y", "managedFields": (0..8_000).map(entry).collect::<Vec<_>>()})),
        ),
    ] {
        let (code, said) = server.throw(Method::POST, MAPS, JSON, body).await;
        assert!(codes.contains(&code), "{what}: {code} {said}");
    }
    // Each unknown field is a warning, and a response has no room for all of them.
    let unknown: serde_json::Map<_, _> = (0..60_000).map(|n| (format!("u{n}"), json!(1))).collect();
    let mut map = json!({"metadata": {"name": "unknown"}});
    map.as_object_mut().unwrap().extend(unknown);
    let request = Request::post(MAPS).header("content-type", JSON).body(full(map.to_string())).unwrap();
    let response = server.api.handle(request, Some(&server.admin)).await;
    assert_eq!(response.status(), 201);
    let told: usize = response.headers().get_all("warning").iter().map(|w| w.len()).sum();
    assert!(told > 1_000 && told < 16_000, "{told}");
    // Pods with thousands of containers and twice as many mounts.
    let container = |n: usize| {
        json!({"name": format!("c{n}"), "image": "i", "ports": [{"containerPort": 1 + n % 65535}],
        "volumeMounts": [{"name": format!("v{n}"), "mountPath": format!("/{n}")}], "env": [{"name": "A", "value": "$(A)".repeat(10)}]})
    };
    let volume = |n: usize| json!({"name": format!("v{n}"), "emptyDir": {}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": (0..3_000).map(container).collect::<Vec<_>>(),
        "volumes": (0..3_000).map(volume).collect::<Vec<_>>()}});
    let (code, _) =
        server.throw(Method::POST, "/api/v1/namespaces/default/pods", JSON, pod.to_string()).await;
    assert!(code == 201 || code == 403 || code == 422, "{code}");
}

#[tokio::test]
async fn patches_do_not_multiply() {
    let server = TestServer::start().await;
    let made = json!({"metadata": {"name": "a"}, "data": {"k": "v".repeat(1000)}});
    server.post(MAPS, made).await;
    let a = format!("{MAPS}/a");
    // Each copy doubles what is there (`apiserver/pkg/endpoints/handlers/patch.go`, `maxJSONPatchOperations`, and the
    // limit of what copies may add).
    let mut bomb = vec![json!({"op": "add", "path": "/data/x", "value": {}})];
    bomb.extend((0..60).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/x/{n}")})));
    let (code, said) = server.throw(Method::PATCH, &a, PATCH, json!(bomb).to_string()).await;
    assert!((400..=422).contains(&code), "{code} {said}");
    let doubling: Vec<_> = (0..40)
        .map(|_| json!({"op": "copy", "from": "/metadata/annotations", "path": "/metadata/annotations/a"}))
        .collect();
    let mut doubling_first =
        vec![json!({"op": "add", "path": "/metadata/annotations", "value": {"b": "c".repeat(100)}})];
    doubling_first.extend(doubling);
    let (code, _) = server.throw(Method::PATCH, &a, PATCH, json!(doubling_first).to_string()).await;
    assert!((400..=422).contains(&code), "{code}");
    let test = json!({"op": "test", "path": "/data/k", "value": "v"});
    let (code, said) = server.throw(Method::PATCH, &a, PATCH, json!(vec![test; 10_001]).to_string()).await;
    assert_eq!(code, 413, "{said}");
    assert_eq!(
        said["message"],
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    for path in [
        "/".repeat(100_000),
        "/a".repeat(100_000),
        "~".repeat(1000),
        "/data/~9".into(),
        "/data/18446744073709551616".into(),
    ] {
        for op in ["add", "remove", "replace", "move", "copy", "test"] {
            let patch = json!([{"op": op, "path": path, "from": path, "value": 1}]).to_string();
            let (code, said) = server.throw(Method::PATCH, &a, PATCH, patch).await;
            assert!((400..=422).contains(&code), "{op} {code} {said}");
        }
    }
    // Directives of strategic merges in places where they mean nothing.
    for patch in [
        json!({"$patch": "explode"}),
        json!({"data": {"$patch": 5}}),
        json!({"$retainKeys": "data"}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": {"a": 1}}}),
        json!({"metadata": {"ownerReferences": [{"$patch": "delete"}]}}),
        json!({"metadata": {"$setElementOrder/ownerReferences": [5, null, {"uid": []}]}}),
        json!({"$setElementOrder/x": [[[[]]]]}),
        json!([]),
        json!("x"),
        json!(null),
        json!(5),
    ] {
        let (code, said) = server.throw(Method::PATCH, &a, STRATEGIC, patch.to_string()).await;
        assert!(code == 200 || (400..=422).contains(&code), "{patch}: {code} {said}");
        assert!(server.get(&a).await.1["metadata"]["name"] == "a");
    }
}
