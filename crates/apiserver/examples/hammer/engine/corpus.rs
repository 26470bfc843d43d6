//! What requests begin with: every resource with an object, the reviews and the plain paths.

use registry::Registry;
use serde_json::{Value, json};

use super::arbitrary::Dice;
use super::samples::samples;

/// A resource and how its objects look.
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) namespaced: bool,
    pub(crate) kind: String,
    pub(crate) sample: Option<Value>,
    pub(crate) subresources: Vec<String>,
}

pub(crate) struct Corpus {
    pub(crate) registry: Registry,
    pub(crate) kinds: Vec<Kind>,
}

impl Corpus {
    pub(crate) fn new() -> Self {
        let registry = Registry::serving(&"api/all=true".parse().expect("a configuration")).expect("kinds");
        let mut known = samples();
        known.extend(more_samples());
        let mut kinds = Vec::new();
        for def in registry.resources() {
            let (group, version, resource) = (&*def.gvk.group, &*def.gvk.version, &*def.resource);
            let exact = known.iter().find(|(g, v, r, _)| (*g, *v, *r) == (group, version, resource));
            let near = exact.or_else(|| known.iter().find(|(g, _, r, _)| (*g, *r) == (group, resource)));
            let kind = || Kind {
                group: group.to_owned(),
                version: version.to_owned(),
                resource: resource.to_owned(),
                namespaced: def.namespaced,
                kind: def.gvk.kind.to_string(),
                sample: near.map(|(_, _, _, object)| object.clone()),
                subresources: def.subresources.keys().map(|name| name.to_string()).collect(),
            };
            // What has rules of its own comes more often.
            for _ in 0..if exact.is_some() { 4 } else { 1 } {
                kinds.push(kind());
            }
        }
        for version in ["v1", "v2"] {
            for _ in 0..12 {
                kinds.push(Kind {
                    group: "hammer.example.com".into(),
                    version: version.into(),
                    resource: "nails".into(),
                    namespaced: true,
                    kind: "Nail".into(),
                    sample: Some(nail()),
                    subresources: vec!["status".into(), "scale".into()],
                });
            }
        }
        Self { registry, kinds }
    }

    /// An object of a kind, whole or as the schema lets it be.
    pub(crate) fn object(&self, kind: &Kind, dice: &mut Dice) -> Value {
        let mut object = match &kind.sample {
            Some(sample) if !dice.one_in(16) => sample.clone(),
            _ => {
                let def = self.registry.find(&kind.group, &kind.version, &kind.resource);
                let definitions = self.registry.definitions();
                match def.and_then(|def| def.schema) {
                    Some(schema) => dice.value(definitions, &definitions.get(schema).field, 6),
                    None => dice.anything(4),
                }
            }
        };
        if !object.is_object() {
            object = json!({});
        }
        object["apiVersion"] = if kind.group.is_empty() {
            kind.version.clone().into()
        } else {
            format!("{}/{}", kind.group, kind.version).into()
        };
        object["kind"] = kind.kind.clone().into();
        object
    }
}

fn nail() -> Value {
    json!({"spec": {"size": 3, "color": "red", "name": "abc", "tags": ["a", "b"], "when": "2026-01-01T00:00:00Z",
        "parts": [{"name": "head", "weight": "100m", "extra": {"a": {"b": 1}}}], "open": {"x": [1, 2, {"y": null}]},
        "labels": {"a": "b"}, "tree": {"left": {"right": {}}}, "port": 80, "replicas": 2},
        "status": {"replicas": 1, "selector": "a=b"}})
}

fn schema() -> Value {
    let rules = json!([
        {"rule": "self.size < 100 || self.color != 'blue'", "message": "too large for blue"},
        {"rule": "!has(self.tags) || self.tags.all(t, t.size() < 50)"},
        {"rule": "!has(self.parts) || self.parts.all(p, self.parts.exists_one(q, q.name == p.name))"},
        {"rule": "!has(oldSelf.name) || self.name == oldSelf.name || self.name.matches('^[a-z]*$')",
            "messageExpression": "'name may not become ' + self.name"},
        {"rule": "!has(self.when) || self.when < timestamp('2030-01-01T00:00:00Z')"},
        {"rule": "!has(self.labels) || self.labels.all(k, self.labels[k] != k)", "fieldPath": ".labels"}]);
    json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["size"], "x-kubernetes-validations": rules, "properties": {
            "size": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 1},
            "color": {"type": "string", "enum": ["red", "green", "blue"], "default": "red"},
            "name": {"type": "string", "maxLength": 100, "pattern": "^([a-zA-Z0-9]+)*$", "default": "n"},
            "tags": {"type": "array", "maxItems": 20, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 100}},
            "when": {"type": "string", "format": "date-time"},
            "parts": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "maxLength": 40}, "weight": {"x-kubernetes-int-or-string": true},
                    "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
            "open": {"x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "maxProperties": 20, "additionalProperties": {"type": "string", "maxLength": 50}},
            "tree": {"type": "object", "properties": {"left": {"type": "object", "nullable": true, "properties": {
                "right": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}},
            "port": {"x-kubernetes-int-or-string": true}, "replicas": {"type": "integer", "format": "int32"}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"},
            "conditions": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}})
}

fn definition() -> Value {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
        "schema": {"openAPIV3Schema": schema()}, "subresources": {"status": {}, "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector"}},
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "additionalPrinterColumns": [
            {"name": "size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "parts", "type": "string", "jsonPath": ".spec.parts[*].name"},
            {"name": "when", "type": "date", "jsonPath": ".spec.when"},
            {"name": "open", "type": "string", "jsonPath": ".spec.open.x[2]"}]})
    };
    json!({"metadata": {"name": "nails.hammer.example.com"}, "spec": {"group": "hammer.example.com",
        "scope": "Namespaced", "names": {"plural": "nails", "kind": "Nail", "shortNames": ["nl"]},
        "versions": [version("v1", true), version("v2", false)]}})
}

fn admission_policy(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["", "hammer.example.com", "apps"],
            "apiVersions": ["*"], "resources": ["configmaps", "nails", "deployments", "pods"]}]},
        "variables": [{"name": "names", "expression": "has(object.metadata.labels) ? object.metadata.labels.map(k, k) : []"}],
        "matchConditions": [{"name": "some", "expression": "request.userInfo.username != 'nobody'"}],
        "validations": [
            {"expression": "variables.names.size() < 1000 && variables.names.all(n, n.size() < 400)",
                "messageExpression": "'labels: ' + string(variables.names.size())"},
            {"expression": "!has(object.data) || object.data.all(k, !object.data[k].matches('^(a+)+$'))"},
            {"expression": "!has(object.spec) || dyn(object.spec) != null"},
            {"expression": "oldObject == null || oldObject.metadata.name == object.metadata.name"}],
        "auditAnnotations": [{"key": "n", "valueExpression": "string(variables.names.size())"}]}})
}

/// Made at the start: a custom kind and policies that look at what passes.
pub(crate) fn furniture() -> Vec<(&'static str, Value)> {
    let binding = json!({"metadata": {"name": "furniture"}, "spec": {"policyName": "furniture",
        "validationActions": ["Warn", "Audit"]}});
    let mutation = json!({"metadata": {"name": "furniture"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"],
            "resources": ["configmaps", "secrets"]}]}, "reinvocationPolicy": "Never", "failurePolicy": "Ignore",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{annotations: {'seen': string(size(object.metadata.name))}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}}]}});
    let mutation_binding = json!({"metadata": {"name": "furniture"}, "spec": {"policyName": "furniture"}});
    vec![
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition()),
        ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", admission_policy("furniture")),
        ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", binding),
        ("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies", mutation),
        ("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings", mutation_binding),
        (
            "/api/v1/namespaces/default/resourcequotas",
            json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "100000", "secrets": "100000"}}}),
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": "there"}, "data": {"secret": "hush"}}),
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "there"}, "data": {"a": "aHVzaA=="}}),
        ),
    ]
}

/// The kinds that a single server's random lives leave alone, because they change what others meet.
fn more_samples() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let (registration, flow) = ("admissionregistration.k8s.io", "flowcontrol.apiserver.k8s.io");
    let hook = json!({"webhooks": [{"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1/x"}, "rules": [{"operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["nothings"]}], "timeoutSeconds": 1,
        "matchConditions": [{"name": "x", "expression": "object.metadata.name == 'x'"}]}]});
    let claim = json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c",
        "selectors": [{"cel": {"expression": "device.driver == 'd'"}}]}}]}}});
    vec![
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions", definition_sample()),
        (registration, "v1", "validatingadmissionpolicies", {
            let mut policy = admission_policy("x");
            policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"] = json!(["nothings"]);
            policy
        }),
        (
            registration,
            "v1",
            "validatingadmissionpolicybindings",
            json!({"spec": {"policyName": "absent", "validationActions": ["Deny"], "paramRef": {"name": "a",
            "parameterNotFoundAction": "Deny"}, "matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}}),
        ),
        (registration, "v1", "validatingwebhookconfigurations", hook.clone()),
        (registration, "v1", "mutatingwebhookconfigurations", hook),
        (
            flow,
            "v1",
            "flowschemas",
            json!({"spec": {"matchingPrecedence": 9000, "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "x"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}}),
        ),
        (
            flow,
            "v1",
            "prioritylevelconfigurations",
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 10}}}}}),
        ),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "clusterrolebindings",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "x", "apiGroup": "rbac.authorization.k8s.io"}]}),
        ),
        ("storage.k8s.io", "v1", "csidrivers", json!({"spec": {"attachRequired": true}})),
        ("storage.k8s.io", "v1", "csinodes", json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}})),
        (
            "storage.k8s.io",
            "v1",
            "volumeattachments",
            json!({"spec": {"attacher": "a", "nodeName": "n",
            "source": {"persistentVolumeName": "v"}}}),
        ),
        ("resource.k8s.io", "v1", "resourceclaims", claim.clone()),
        ("resource.k8s.io", "v1", "resourceclaimtemplates", json!({"spec": {"spec": claim["spec"]}})),
        (
            "resource.k8s.io",
            "v1",
            "deviceclasses",
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'd'"}}]}}),
        ),
        ("networking.k8s.io", "v1", "servicecidrs", json!({"spec": {"cidrs": ["10.99.0.0/16"]}})),
        (
            "networking.k8s.io",
            "v1",
            "ipaddresses",
            json!({"spec": {"parentRef": {"resource": "services",
            "name": "x", "namespace": "default"}}}),
        ),
        (
            "apiregistration.k8s.io",
            "v1",
            "apiservices",
            json!({"spec": {"group": "x.y", "version": "v1",
            "groupPriorityMinimum": 10, "versionPriority": 10, "service": {"name": "a", "namespace": "default"}}}),
        ),
        (
            "authentication.k8s.io",
            "v1",
            "tokenreviews",
            json!({"spec": {"token": "secret", "audiences": ["a"]}}),
        ),
        (
            "authorization.k8s.io",
            "v1",
            "subjectaccessreviews",
            json!({"spec": {"user": "eve", "groups": ["a"],
            "extra": {"a": ["b"]}, "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]}}}}),
        ),
        (
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            json!({"spec": {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}}),
        ),
        (
            "authorization.k8s.io",
            "v1",
            "localsubjectaccessreviews",
            json!({"metadata": {"namespace": "default"},
            "spec": {"user": "eve", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}}),
        ),
        ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", json!({"spec": {"namespace": "default"}})),
        ("", "v1", "bindings", json!({"target": {"kind": "Node", "name": "n"}})),
    ]
}

fn definition_sample() -> Value {
    let mut definition = definition();
    definition["spec"]["group"] = "x.example.com".into();
    definition["metadata"] = json!({"name": "nails.x.example.com"});
    definition
}

/// What is no resource.
pub(crate) const PATHS: &[&str] = &[
    "/",
    "/api",
    "/apis",
    "/api/v1",
    "/apis/apps",
    "/apis/apps/v1",
    "/apis/hammer.example.com/v1",
    "/version",
    "/healthz",
    "/livez/ping",
    "/readyz?verbose",
    "/healthz?exclude=store&verbose",
    "/metrics",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    "/openapi/v3",
    "/openapi/v3/apis/batch/v1",
    "/openapi/v3/api/v1",
    "/debug/pprof/",
    "/logs/",
    "/openapi/v3/apis/hammer.example.com/v1",
    "/swagger.json",
    "/apis/absent.example.com/v1",
    "/apis/apps/v9",
    "/ui",
    "/api/v2",
    "/apis/nothing/v1/namespaces/default/things/x",
    "/api/v1/nothings",
    "/metrics/cadvisor",
    "/configz",
    "/statusz",
    "/flagz",
];
