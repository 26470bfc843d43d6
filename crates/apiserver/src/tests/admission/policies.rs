use super::*;

fn policy(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["matchConstraints"].is_null() {
        spec["matchConstraints"] = json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": spec})
}

fn binding(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": spec})
}

impl TestServer {
    async fn bound(&self, spec: Value, to: Value) {
        self.made(&format!("{REG}/validatingadmissionpolicies"), policy("p", spec)).await;
        let mut to = to;
        to["policyName"] = "p".into();
        if to["validationActions"].is_null() {
            to["validationActions"] = json!(["Deny"]);
        }
        self.made(&format!("{REG}/validatingadmissionpolicybindings"), binding("b", to)).await;
    }

    async fn refused(&self, path: &str, object: Value) -> String {
        let (code, said) = self.post(path, object).await;
        assert!(code >= 400, "{said:#}");
        said["message"].as_str().unwrap().to_owned()
    }
}

const BEGIN: &str = "is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ";

#[tokio::test]
async fn policies_refuse_warn_and_use_variables() {
    let server = TestServer::start().await;
    let spec = json!({
        "variables": [{"name": "n", "expression": "size(object.data)"},
            {"name": "limit", "expression": "has(namespaceObject.metadata.labels) ? 2 : 1"}],
        "matchConditions": [{"name": "some", "expression": "has(object.data)"}],
        "validations": [
            {"expression": "variables.n <= variables.limit",
                "messageExpression": "'at most ' + string(variables.limit)"},
            {"expression": "object.metadata.name != 'bad'", "message": "a bad name", "reason": "Forbidden"},
            {"expression": "oldObject == null || !('k' in oldObject.data) || object.data['k'] == oldObject.data['k']"},
            {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"}
        ],
        "auditAnnotations": [{"key": "count", "valueExpression": "string(variables.n)"}]
    });
    server.bound(spec, json!({})).await;
    server.made(MAPS, map("a", json!({"k": "1", "y": "2"}))).await;
    let said = server.refused(MAPS, map("b", json!({"k": "1", "y": "2", "z": "3"}))).await;
    assert_eq!(said, format!("configmaps \"b\" {BEGIN}at most 2"));
    let (code, said) = server.post(MAPS, map("bad", json!({"k": "1"}))).await;
    assert_eq!((code, &said["reason"]), (403, &json!("Forbidden")));
    assert_eq!(said["message"], format!("configmaps \"bad\" {BEGIN}a bad name"));
    let change = json!({"data": {"k": "2"}});
    let (code, said) = server.patch(&format!("{MAPS}/a"), "application/merge-patch+json", change).await;
    assert_eq!((code, &said["reason"]), (422, &json!("Invalid")));
    assert!(said["message"].as_str().unwrap().contains("failed expression: oldObject == null ||"));
    server.gone(&format!("{REG}/validatingadmissionpolicybindings/b")).await;
    server.made(MAPS, map("bad", json!({"k": "1", "y": "2", "z": "3"}))).await;
}

#[tokio::test]
async fn policies_are_checked_when_they_are_written() {
    let server = TestServer::start().await;
    let path = format!("{REG}/validatingadmissionpolicies");
    let one = async |spec: Value| server.refused(&path, policy("p", spec)).await;
    let said =
        one(json!({"validations": [{"expression": "object.x"}, {"expression": "params.a == 1"}]})).await;
    assert!(
        said.contains("spec.validations[0].expression: Invalid value: \"object.x\": must evaluate to bool"),
        "{said}"
    );
    assert!(said.contains("spec.validations[1].expression: Invalid value: \"params.a == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')"), "{said}");
    let said = one(json!({"variables": [{"name": "a", "expression": "1 + 'x'"}],
        "validations": [{"expression": "true", "messageExpression": "1"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "2"}]}))
    .await;
    assert!(
        said.contains("spec.variables[0].expression: Invalid value: \"1 + 'x'\": compilation failed"),
        "{said}"
    );
    assert!(
        said.contains("spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string"),
        "{said}"
    );
    assert!(said.contains("spec.auditAnnotations[0].valueExpression: Invalid value: \"2\": must evaluate to one of [string null_type]"), "{said}");
}

#[tokio::test]
async fn parameters_come_by_name_and_by_selector() {
    let server = TestServer::start().await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["secrets"]}]},
        "validations": [{"expression": "size(object.metadata.name) <= int(params.data.max)"}]});
    let to = json!({"paramRef": {"name": "limit", "parameterNotFoundAction": "Deny"}});
    server.bound(spec, to).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    assert_eq!(
        server.refused(secrets, secret("a")).await,
        format!(
            "secrets \"a\" {BEGIN}failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        )
    );
    server.made(MAPS, map("limit", json!({"max": "3"}))).await;
    server.made(secrets, secret("abc")).await;
    assert_eq!(
        server.refused(secrets, secret("abcd")).await,
        format!(
            "secrets \"abcd\" {BEGIN}failed expression: size(object.metadata.name) <= int(params.data.max)"
        )
    );
    let place = format!("{REG}/validatingadmissionpolicybindings/b");
    let by_label = json!([{"op": "replace", "path": "/spec/paramRef", "value":
        {"selector": {"matchLabels": {"limit": "yes"}}, "parameterNotFoundAction": "Allow"}}]);
    assert_eq!(server.patch(&place, "application/json-patch+json", by_label).await.0, 200);
    server.made(secrets, secret("abcdef")).await;
}

#[tokio::test]
async fn mutating_policies_apply_and_patch() {
    let server = TestServer::start().await;
    let path = format!("{REG}/mutatingadmissionpolicies");
    if server.get(&path).await.0 != 200 {
        return;
    }
    let spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["configmaps"]}]},
    "reinvocationPolicy": "Never", "failurePolicy": "Fail",
    "variables": [{"name": "who", "expression": "request.userInfo.username"}],
    "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: Object.metadata.labels{by: variables.who}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/metadata/labels/by', value: 'admin'}, JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a'), value: 'x'}]"}}
    ]});
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "m"}, "spec": spec});
    server.made(&path, object).await;
    let to = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "mb"}, "spec": {"policyName": "m"}});
    server.made(&format!("{REG}/mutatingadmissionpolicybindings"), to).await;
    let made = server.made(MAPS, map("a", json!({"k": "v"}))).await;
    assert_eq!(made["metadata"]["labels"], json!({"by": "admin"}));
    assert_eq!(made["data"], json!({"k": "v", "a": "x"}));
    let said = server
        .refused(MAPS, {
            let mut map = map("b", Value::Null);
            map.as_object_mut().unwrap().remove("data");
            map
        })
        .await;
    assert!(said.starts_with("policy 'm' with binding 'mb' denied request: JSONPath: "), "{said}");
}

#[tokio::test]
async fn types_are_checked_behind_the_scenes() {
    let server = TestServer::start().await;
    let path = format!("{REG}/validatingadmissionpolicies");
    let status = async || server.get(&format!("{path}/p")).await.1["status"].clone();
    let spec = json!({"validations": [{"expression": "object.data['a'] == 'b'"}, {"expression": "object.dat == 1"}]});
    server.made(&path, policy("p", spec)).await;
    server.until(async || status().await["observedGeneration"] == 1).await;
    let told = status().await["typeChecking"]["expressionWarnings"].clone();
    assert_eq!(told[0]["fieldRef"], "spec.validations[1].expression");
    assert!(
        told[0]["warning"]
            .as_str()
            .unwrap()
            .contains("/v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'dat'"),
        "{told}"
    );
    let fixed = json!({"spec": {"validations": [{"expression": "object.data['a'] == 'b'"}]}});
    server.patch(&format!("{path}/p"), "application/merge-patch+json", fixed).await;
    server.until(async || status().await["observedGeneration"] == 2).await;
    assert!(status().await["typeChecking"]["expressionWarnings"].is_null(), "{}", status().await);
    let (_, known) = server.get(&format!("{path}/p")).await;
    let fields = known["metadata"]["managedFields"].as_array().unwrap().clone();
    let own = fields.iter().find(|f| f["manager"] == "validatingadmissionpolicy-status").unwrap();
    assert_eq!((&own["operation"], &own["subresource"]), (&json!("Apply"), &json!("status")));
}
