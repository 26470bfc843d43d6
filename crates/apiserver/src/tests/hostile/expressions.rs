use serde_json::json;

use super::*;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const THINGS: &str = "/apis/bomb.example.com/v1/namespaces/default/things";

/// The same in a group of its own: what is deleted takes a while to be gone.
fn numbered(text: &str, n: usize) -> String {
    text.replace("bomb.example.com", &format!("bomb{n}.example.com"))
}
const JSON: &str = "application/json";

fn definition(spec: &Value) -> Value {
    json!({"metadata": {"name": "things.bomb.example.com"}, "spec": {"group": "bomb.example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"}, "versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

fn deep_schema(depth: usize) -> Value {
    (0..depth)
        .fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}))
}

/// Definitions that would make every write dear are refused when they are made.
#[tokio::test]
async fn definitions_that_cost_too_much_are_refused() {
    let server = TestServer::start().await;
    let list = |inner: Value| json!({"type": "array", "items": inner});
    let nested = "self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d != 'x'))))";
    for (n, (what, spec, codes)) in [
        ("unbounded comprehensions", json!({"type": "array", "items": {"type": "string"},
            "x-kubernetes-validations": [{"rule": nested}]}), 422..=422),
        ("a rule that is too long", json!({"type": "string", "x-kubernetes-validations": [{"rule": "self != ''".to_owned() + &" && self != ''".repeat(20_000)}]}), 422..=422),
        ("nesting parentheses", json!({"type": "string", "x-kubernetes-validations": [{"rule": "(".repeat(20_000) + "true" + &")".repeat(20_000)}]}), 422..=422),
        ("nesting lists", json!({"type": "string", "x-kubernetes-validations": [{"rule": "[".repeat(5_000) + &"]".repeat(5_000)}]}), 422..=422),
        ("many negations", json!({"type": "string", "x-kubernetes-validations": [{"rule": "!".repeat(50_000) + "true"}]}), 201..=422),
        ("many conditionals", json!({"type": "string", "x-kubernetes-validations": [{"rule": "true ? ".repeat(3_000) + "true" + &": true".repeat(3_000)}]}), 201..=422),
        ("a pattern beyond bounds", json!({"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"}), 201..=422),
        ("a pattern that nests", json!({"type": "string", "pattern": "(".repeat(10_000) + &")".repeat(10_000)}), 201..=422),
        ("a deep default", json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "default": (0..60).fold(json!({}), |v, _| json!({"a": v}))}), 201..=422),
        ("alternatives without end", json!({"type": "object", "anyOf": (0..500).map(|n| json!({"required": [format!("f{n}")]})).collect::<Vec<_>>(),
            "properties": {"a": {"type": "string"}}}), 201..=422),
        ("lists of lists of rules", list(list(list(json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.matches('^(a+)+$')"}]})))), 422..=422),
    ]
    .into_iter()
    .enumerate()
    {
        let (code, said) = server.throw(Method::POST, CRDS, JSON, numbered(&definition(&spec).to_string(), n)).await;
        assert!(codes.contains(&code), "{what}: {code} {said}");
        if code == 201 {
            for value in [json!("a".repeat(50_000) + "!"), json!({"a": {"a": {"a": 1}}}), json!([[["aaaa"]]])] {
                let thing = json!({"apiVersion": "bomb.example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": value});
                let path = numbered(&format!("{THINGS}?dryRun=All"), n);
                server.throw(Method::POST, &path, JSON, numbered(&thing.to_string(), n)).await;
            }
        }
    }
    for depth in [30, 100, 115, 3_000] {
        // Built as text: a tree so deep cannot even be let go of.
        let text = if depth < 200 {
            definition(&deep_schema(depth)).to_string()
        } else {
            let open = "{\"type\":\"object\",\"properties\":{\"a\":".repeat(depth);
            definition(&json!("X")).to_string().replace("\"X\"", &(open + "{}" + &"}}".repeat(depth)))
        };
        let (code, said) = server.throw(Method::POST, &format!("{CRDS}?dryRun=All"), JSON, text).await;
        assert!(code == 201 || (400..=422).contains(&code), "{depth}: {code} {said}");
    }
    for path in [
        ".".repeat(5_000),
        ".a".repeat(5_000),
        "[*]".repeat(5_000),
        ".a[?(@.b==".repeat(500),
        ".a['".repeat(1000),
        ".a[9999999999999999999]".into(),
    ] {
        let mut definition =
            definition(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        definition["spec"]["versions"][0]["additionalPrinterColumns"] =
            json!([{"name": "a", "type": "string", "jsonPath": path}]);
        let (code, said) =
            server.throw(Method::POST, &format!("{CRDS}?dryRun=All"), JSON, definition.to_string()).await;
        assert!(code == 201 || code == 422, "{code} {said}");
    }
}

/// What slips through is stopped while it runs.
#[tokio::test]
async fn rules_and_patterns_end() {
    let server = TestServer::start().await;
    let spec = json!({"type": "object", "properties": {
        "evil": {"type": "string", "pattern": "^(a+)+$"},
        "worse": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"},
        "list": {"type": "array", "maxItems": 60, "items": {"type": "string", "maxLength": 10},
            "x-kubernetes-validations": [{"rule": "self.all(a, self.exists(b, a == b))"}]},
        "matched": {"type": "string", "maxLength": 50_000, "x-kubernetes-validations": [{"rule": "!self.matches('^(a+)+$')"}]}}});
    let (code, said) = server.throw(Method::POST, CRDS, JSON, definition(&spec).to_string()).await;
    assert_eq!(code, 201, "{said}");
    for (field, value) in [
        ("evil", json!("a".repeat(100_000) + "!")),
        ("worse", json!("a".repeat(20_000))),
        ("list", (0..60).map(|n| json!(n.to_string())).collect()),
        ("matched", json!("a".repeat(49_999) + "!")),
    ] {
        let thing = json!({"apiVersion": "bomb.example.com/v1", "kind": "Thing", "metadata": {"name": field}, "spec": {field: value}});
        let (code, said) = server.throw(Method::POST, THINGS, JSON, thing.to_string()).await;
        assert!(code == 201 || code == 422, "{field}: {code} {said}");
    }
}

#[tokio::test]
async fn policies_run_within_a_budget() {
    let server = TestServer::start().await;
    let policy = |name: &str, expression: &str| {
        json!({"metadata": {"name": name}, "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [{
            "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
            "validations": [{"expression": expression}]}})
    };
    for (n, expression) in [
        "(".repeat(10_000) + "true" + &")".repeat(10_000),
        "true".to_owned() + &" && true".repeat(30_000),
        "[1".to_owned() + &",1".repeat(200_000) + "].size() > 0",
        "'".to_owned() + &"a".repeat(1 << 20) + "' == ''",
        "object.".repeat(10_000) + "a == 1",
    ]
    .iter()
    .enumerate()
    {
        let path = format!("{POLICIES}?dryRun=All");
        let (code, said) = server.throw(Method::POST, &path, JSON, policy("p", expression).to_string()).await;
        assert!(code == 201 || code == 422, "{n}: {code} {said}");
    }
    // Cubes of a list that the caller chooses.
    let cubes =
        "object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, a + b + c + d != ''))))";
    let doubling = "[0,1,2,3,4,5,6,7,8,9].map(a, [0,1,2,3,4,5,6,7,8,9].map(b, [0,1,2,3,4,5,6,7,8,9].map(c, [0,1,2,3,4,5,6,7,8,9].map(d, \
         [0,1,2,3,4,5,6,7,8,9].map(e, [0,1,2,3,4,5,6,7,8,9].map(f, [0,1,2,3,4,5,6,7,8,9].map(g, a+b+c+d+e+f+g))))))).size() > 0";
    let matching = "!object.data['k0'].matches('^(a|a|a+)+$')";
    let growing =
        "object.data['k0'].replace('a', object.data['k0']).replace('a', object.data['k0']).size() > 0";
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    for (name, expression) in
        [("cubes", cubes), ("doubling", doubling), ("matching", matching), ("growing", growing)]
    {
        let (code, said) =
            server.throw(Method::POST, POLICIES, JSON, policy(name, expression).to_string()).await;
        assert_eq!(code, 201, "{name}: {said}");
        let binding =
            json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        server.post(bindings, binding).await;
        let data: serde_json::Map<_, _> =
            (0..300).map(|n| (format!("k{n}"), json!("a".repeat(2_000)))).collect();
        let map = json!({"metadata": {"name": name}, "data": data});
        let (code, said) = server.throw(Method::POST, MAPS, JSON, map.to_string()).await;
        assert!(code == 201 || code == 403 || code == 422, "{name}: {code} {said}");
        server.call(Method::DELETE, &format!("{bindings}/{name}"), Value::Null).await;
        server.call(Method::DELETE, &format!("{POLICIES}/{name}"), Value::Null).await;
    }
}
