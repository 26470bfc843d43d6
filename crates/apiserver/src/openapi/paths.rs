//! The paths of a resource, as OpenAPI version 3 describes them.

use registry::{ResourceDef, Verb};
use serde_json::{Map, Value, json};

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "pretty"];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];

/// `api/v1` or `apis/apps/v1`.
pub(super) fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// An operation on its way.
struct Operation<'a> {
    def: &'a ResourceDef,
    /// Such as `readCoreV1NamespacedPod`.
    id: String,
    /// Such as `get`, `list` or `connect`.
    action: &'a str,
    parameters: Vec<&'a str>,
    /// The type that is sent.
    body: Option<Value>,
    /// The type that comes back.
    answer: Option<&'a str>,
}

impl Operation<'_> {
    fn finish(self) -> Value {
        let gvk = &self.def.gvk;
        let content = |name: &str| {
            let schema = json!({"schema": reference(name)});
            let mut media = vec!["application/json", "application/yaml"];
            if self.def.custom.is_none() {
                media.push("application/vnd.kubernetes.protobuf");
            }
            media.into_iter().map(|m| (m.to_owned(), schema.clone())).collect::<Map<_, _>>()
        };
        let answer = match self.answer {
            Some(name) => json!({"description": "OK", "content": content(name)}),
            None => json!({"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}),
        };
        let mut responses = json!({"200": answer, "401": {"description": "Unauthorized"}});
        if self.action == "post" {
            responses["201"] = responses["200"].clone();
            responses["201"]["description"] = "Created".into();
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [tag(self.def)],
            "parameters": self.parameters.iter().map(|name| query(name)).collect::<Vec<_>>(),
            "responses": responses,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind":
                {"group": &*gvk.group, "version": &*gvk.version, "kind": &*gvk.kind},
        });
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation
    }
}

/// Adds the paths of a resource whose objects are of the type called `schema`; `type_of` tells the types of other kinds.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    def: &ResourceDef,
    schema: &str,
    type_of: &dyn Fn(&registry::Gvk) -> Option<String>,
) {
    let root = format!("/{}", prefix(&def.gvk.group, &def.gvk.version));
    let (scope, within) = if def.namespaced {
        ("Namespaced", format!("{root}/namespaces/{{namespace}}"))
    } else {
        ("", root.clone())
    };
    let (api, kind) = (api_name(def), &*def.gvk.kind);
    let list = format!("{schema}List");
    let op = |id: &str, action, parameters: &[&'static str], body: Option<Value>, answer| {
        let id = id.replace("{api}", &api).replace("{kind}", &format!("{scope}{kind}"));
        Operation { def, id, action, parameters: parameters.to_vec(), body, answer: Some(answer) }.finish()
    };
    let has = |verb| def.verbs.has(verb);
    let status = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
    let options = || body(&["*/*"], "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
    let mut collection = Map::new();
    if has(Verb::List) {
        collection.insert("get".into(), op("list{api}{kind}", "list", LIST, None, &list));
    }
    if has(Verb::Create) {
        collection.insert(
            "post".into(),
            op("create{api}{kind}", "post", WRITE, Some(body(&["*/*"], schema)), schema),
        );
    }
    if has(Verb::DeleteCollection) {
        let parameters = [LIST, DELETE].concat();
        let deletion =
            op("delete{api}Collection{kind}", "deletecollection", &parameters, Some(options()), status);
        collection.insert("delete".into(), deletion);
    }
    let mut object = Map::new();
    if has(Verb::Get) {
        object.insert("get".into(), op("read{api}{kind}", "get", &["pretty"], None, schema));
    }
    if has(Verb::Update) {
        object.insert(
            "put".into(),
            op("replace{api}{kind}", "put", WRITE, Some(body(&["*/*"], schema)), schema),
        );
    }
    if has(Verb::Patch) {
        let parameters = [WRITE, &["force"]].concat();
        object.insert(
            "patch".into(),
            op("patch{api}{kind}", "patch", &parameters, Some(patch_body(def)), schema),
        );
    }
    if has(Verb::Delete) {
        object.insert("delete".into(), op("delete{api}{kind}", "delete", DELETE, Some(options()), status));
    }
    let mut insert = |path: String, mut operations: Map<String, Value>| {
        if operations.is_empty() {
            return;
        }
        let names = ["namespace", "name", "path"].into_iter().filter(|n| path.contains(&format!("{{{n}}}")));
        let parameters: Vec<Value> = names
            .map(|n| json!({"name": n, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
            .collect();
        operations.insert("parameters".into(), parameters.into());
        paths.insert(path, Value::Object(operations));
    };
    insert(format!("{within}/{}", def.resource), collection);
    let single = format!("{within}/{}/{{name}}", def.resource);
    insert(single.clone(), object);
    if def.namespaced && has(Verb::List) {
        let id = format!("list{api}{kind}ForAllNamespaces");
        let all = op(&id, "list", LIST, None, &list);
        insert(format!("{root}/{}", def.resource), Map::from_iter([("get".to_owned(), all)]));
    }
    for (name, sub) in &def.subresources {
        let own = type_of(&sub.kind).unwrap_or_else(|| schema.to_owned());
        insert(format!("{single}/{name}"), subresource(def, &api, scope, name, sub, &own));
        if &**name == "proxy" {
            insert(format!("{single}/{name}/{{path}}"), connections(def, &api, scope, "ProxyWithPath"));
        }
    }
}

fn subresource(
    def: &ResourceDef,
    api: &str,
    scope: &str,
    name: &str,
    sub: &registry::SubresourceDef,
    schema: &str,
) -> Map<String, Value> {
    if sub.verbs.has(Verb::Connect) {
        return connections(def, api, scope, &capital(name));
    }
    let target = format!("{scope}{}{}", def.gvk.kind, capital(name));
    let op = |verb: &str, action, parameters: &[&'static str], body, answer| {
        let id = format!("{verb}{api}{target}");
        Operation { def, id, action, parameters: parameters.to_vec(), body, answer }.finish()
    };
    let mut operations = Map::new();
    if sub.verbs.has(Verb::Get) {
        let answer = (name != "log").then_some(schema);
        let parameters: &[&str] = match name {
            "log" => {
                &["container", "follow", "limitBytes", "previous", "sinceSeconds", "tailLines", "timestamps"]
            }
            _ => &["pretty"],
        };
        operations.insert("get".into(), op("read", "get", parameters, None, answer));
    }
    if sub.verbs.has(Verb::Create) {
        let body = Some(body(&["*/*"], schema));
        operations.insert("post".into(), op("create", "post", WRITE, body, Some(schema)));
    }
    if sub.verbs.has(Verb::Update) {
        let body = Some(body(&["*/*"], schema));
        operations.insert("put".into(), op("replace", "put", WRITE, body, Some(schema)));
    }
    if sub.verbs.has(Verb::Patch) {
        let parameters = [WRITE, &["force"]].concat();
        operations
            .insert("patch".into(), op("patch", "patch", &parameters, Some(patch_body(def)), Some(schema)));
    }
    operations
}

/// Subresources that hand a connection through, by whatever method.
fn connections(def: &ResourceDef, api: &str, scope: &str, name: &str) -> Map<String, Value> {
    let parameters: &[&str] = match name {
        "Exec" => &["command", "container", "stderr", "stdin", "stdout", "tty"],
        "Attach" => &["container", "stderr", "stdin", "stdout", "tty"],
        "Portforward" => &["ports"],
        _ => &["path"],
    };
    let methods: &[&str] = if name.starts_with("Proxy") {
        &["get", "post", "put", "patch", "delete", "head", "options"]
    } else {
        &["get", "post"]
    };
    let operation = |method: &&str| {
        let id = format!("connect{api}{}{scope}{}{name}", capital(method), def.gvk.kind);
        let operation = Operation {
            def,
            id,
            action: "connect",
            parameters: parameters.to_vec(),
            body: None,
            answer: None,
        };
        ((*method).to_owned(), operation.finish())
    };
    methods.iter().map(operation).collect()
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn body(media: &[&str], schema: &str) -> Value {
    let content: Map<String, Value> =
        media.iter().map(|m| ((*m).to_owned(), json!({"schema": reference(schema)}))).collect();
    json!({"required": true, "content": content})
}

fn patch_body(def: &ResourceDef) -> Value {
    let mut forms =
        vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    // Clients choose by this: custom kinds have no rules for strategic merges.
    if def.custom.is_none() {
        forms.push("application/strategic-merge-patch+json");
    }
    body(&forms, "io.k8s.apimachinery.pkg.apis.meta.v1.Patch")
}

fn query(name: &str) -> Value {
    let kind = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" | "limitBytes" | "sinceSeconds" | "tailLines"
        | "ports" => "integer",
        "watch"
        | "allowWatchBookmarks"
        | "sendInitialEvents"
        | "orphanDependents"
        | "force"
        | "follow"
        | "previous"
        | "timestamps"
        | "stdin"
        | "stdout"
        | "stderr"
        | "tty" => "boolean",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

/// `core_v1`, `rbacAuthorization_v1`.
fn tag(def: &ResourceDef) -> String {
    let name = group_name(&def.gvk.group);
    let mut chars = name.chars();
    let first = chars.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{}_{}", chars.as_str(), def.gvk.version)
}

/// `CoreV1`, `RbacAuthorizationV1`.
fn api_name(def: &ResourceDef) -> String {
    format!("{}{}", group_name(&def.gvk.group), capital(&def.gvk.version))
}

/// `Core`, `Apps`, `RbacAuthorization`.
fn group_name(group: &str) -> String {
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    match short {
        "" => "Core".to_owned(),
        name => name.split(['.', '-']).map(capital).collect(),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
