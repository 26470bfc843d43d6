//! OpenAPI v3 out of the schema facts: what `kubectl explain` and client-side checks read (kubernetes/kubernetes,
//! `kube-openapi/pkg/handler3`).
//!
//! Documents are made when somebody asks; only their tags are kept.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderValue, Request, Response, StatusCode, header};
use registry::{FACTS, Registry, ResourceDef, Verb};
use serde_json::{Map, Value, json};
use types::Status;

use crate::crds;
use crate::respond::{self, Body};
use crate::state::Inner;

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: where each group and version is described.
pub(crate) fn index(server: &Inner) -> Response<Body> {
    let mut paths = Map::new();
    let registry = server.registry();
    for (group, versions) in registry.groups() {
        for version in versions {
            let path = path_of(group, version);
            let tag = tag(server, &registry, group, version);
            paths
                .insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={tag}")}));
        }
    }
    respond::json_value(&json!({"paths": paths}))
}

/// The facts never change while the server runs, so their size and the path are tag enough; custom kinds have their own.
fn tag(server: &Inner, registry: &Registry, group: &str, version: &str) -> String {
    let defs = registry.of_version(group, version).iter().map(std::sync::Arc::as_ref);
    if let Some(tag) = crds::tag(defs) {
        return format!("{tag:016X}");
    }
    let path = path_of(group, version);
    let mut tags = server.openapi_tags.lock();
    let make = || {
        let sum = FACTS.bytes().chain(path.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{sum:016X}")
    };
    tags.entry(path.clone()).or_insert_with(make).clone()
}

/// `/openapi/v2`: the head of a document without types. Clients read it when version 3 does not know a kind, to
/// find that version 2 does not know it either; the types themselves are in version 3 only.
pub(crate) fn version_2(http: &Request<Body>) -> Response<Body> {
    // The type that is asked for has an `@`, which the answer's type must not have.
    const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let accept = http.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !accept.contains(ASKED) {
        let head = json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": registry::KUBERNETES_VERSION}, "paths": {}});
        return respond::json_value(&head);
    }
    // Document { swagger = 1, info = 2 { title = 1, version = 2 } }, each length below 128.
    let text = |number: u8, text: &[u8]| [&[number << 3 | 2, text.len() as u8], text].concat();
    let info = [text(1, b"Kubernetes"), text(2, registry::KUBERNETES_VERSION.as_bytes())].concat();
    respond::with_type(StatusCode::OK, PROTOBUF, [text(1, b"2.0"), text(2, &info)].concat())
}

/// The description of one group and version.
pub(crate) fn document(
    server: &Inner,
    group: &str,
    version: &str,
    http: &Request<Body>,
) -> Result<Response<Body>, Status> {
    let registry = server.registry();
    let resources: Vec<&ResourceDef> =
        registry.of_version(group, version).iter().map(std::sync::Arc::as_ref).collect();
    if resources.is_empty() {
        return Err(Status::no_such_resource());
    }
    let etag = format!("\"{}\"", tag(server, &registry, group, version));
    if http.headers().get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes()) {
        let mut response = Response::new(respond::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let facts: Value = serde_json::from_str(FACTS).map_err(Status::internal)?;
    let document = build(&registry, &resources, &facts, group, version);
    let mut response = respond::json(StatusCode::OK, document.to_string());
    if let Ok(value) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    Ok(response)
}

fn build(
    registry: &Registry,
    resources: &[&ResourceDef],
    facts: &Value,
    group: &str,
    version: &str,
) -> Value {
    let definitions = &facts["definitions"];
    let mut paths = Map::new();
    let mut wanted = BTreeSet::new();
    let mut custom = BTreeMap::new();
    for def in resources {
        let name = match (&def.custom, def.schema) {
            (Some(custom), _) => &*custom.type_name,
            (None, Some(schema)) => &*registry.definitions().get(schema).name,
            (None, None) => continue,
        };
        wanted.insert(name.to_owned());
        wanted.insert(format!("{name}List"));
        custom.extend(crds::schemas(def, name));
        add_paths(&mut paths, def, name);
    }
    wanted.insert("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".into());
    wanted.insert("io.k8s.apimachinery.pkg.apis.meta.v1.Status".into());
    let mut schemas = Map::new();
    let mut queue: Vec<String> = wanted.into_iter().collect();
    while let Some(name) = queue.pop() {
        if schemas.contains_key(&name) {
            continue;
        }
        let Some(schema) = custom.get(&name).or_else(|| definitions.get(&name)) else { continue };
        let mut schema = schema.clone();
        rewrite_refs(&mut schema, &mut queue);
        schemas.insert(name, schema);
    }
    let title = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": registry::KUBERNETES_VERSION, "description": title},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// Points references into `components`, and notes what they refer to.
fn rewrite_refs(schema: &mut Value, queue: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get_mut("$ref") {
                let short = name.rsplit('/').next().unwrap_or(name).to_owned();
                *name = format!("#/components/schemas/{short}");
                queue.push(short);
            }
            map.values_mut().for_each(|v| rewrite_refs(v, queue));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| rewrite_refs(v, queue)),
        _ => {}
    }
}

fn add_paths(paths: &mut Map<String, Value>, def: &ResourceDef, schema: &str) {
    let root = format!("/{}", path_of(&def.gvk.group, &def.gvk.version));
    let collection = if def.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", def.resource)
    } else {
        format!("{root}/{}", def.resource)
    };
    let operation = |verb: &str, parameters: &[&str], body: Option<Value>| {
        let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
        let mut op = json!({
            "parameters": parameters.iter().map(|name| parameter(name)).collect::<Vec<_>>(),
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind":
                {"group": &*def.gvk.group, "version": &*def.gvk.version, "kind": &*def.gvk.kind},
        });
        if let Some(body) = body {
            op["requestBody"] = body;
        }
        op
    };
    let object_body =
        json!({"content": {"*/*": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}}});
    let patch = json!({"schema": {"type": "object"}});
    let mut forms =
        vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    // Clients choose by this: custom kinds have no rules for strategic merges.
    if def.custom.is_none() {
        forms.push("application/strategic-merge-patch+json");
    }
    let content: Map<String, Value> =
        forms.into_iter().map(|form| (form.to_owned(), patch.clone())).collect();
    let patch_body = json!({"content": content});
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
    let mut on_collection = Map::new();
    let mut on_object = Map::new();
    if def.verbs.has(Verb::List) {
        on_collection.insert("get".into(), operation("list", LIST, None));
    }
    if def.verbs.has(Verb::Create) {
        on_collection.insert("post".into(), operation("post", WRITE, Some(object_body.clone())));
    }
    if def.verbs.has(Verb::DeleteCollection) {
        on_collection.insert("delete".into(), operation("deletecollection", &[LIST, DELETE].concat(), None));
    }
    if def.verbs.has(Verb::Get) {
        on_object.insert("get".into(), operation("get", &["pretty"], None));
    }
    if def.verbs.has(Verb::Update) {
        on_object.insert("put".into(), operation("put", WRITE, Some(object_body)));
    }
    if def.verbs.has(Verb::Patch) {
        on_object.insert("patch".into(), operation("patch", &[WRITE, &["force"]].concat(), Some(patch_body)));
    }
    if def.verbs.has(Verb::Delete) {
        on_object.insert("delete".into(), operation("delete", DELETE, None));
    }
    let single = format!("{collection}/{{name}}");
    paths.insert(collection, Value::Object(on_collection));
    if !on_object.is_empty() {
        paths.insert(single, Value::Object(on_object));
    }
    if def.namespaced && def.verbs.has(Verb::List) {
        paths.insert(format!("{root}/{}", def.resource), json!({"get": operation("list", LIST, None)}));
    }
}

fn parameter(name: &str) -> Value {
    let kind = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "watch" | "allowWatchBookmarks" | "sendInitialEvents" | "orphanDependents" | "force" => "boolean",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}
