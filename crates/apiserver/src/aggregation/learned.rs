use std::sync::Arc;

use serde_json::{Map, Value, json};

/// What an extension server was last heard to serve.
#[derive(Debug)]
pub(crate) struct Learned {
    /// Of the APIService that it was asked for.
    pub(super) uid: Box<str>,
    pub(crate) version: Arc<VersionPart>,
    pub(crate) openapi: Arc<OpenApiPart>,
}

/// A version as aggregated discovery shows it.
#[derive(Debug, Default)]
pub(crate) struct VersionPart {
    pub(crate) resources: Vec<Value>,
    /// Whether the server said so when it was asked last.
    pub(crate) current: bool,
}

/// An extension server's descriptions of its types.
#[derive(Debug, Default)]
pub(crate) struct OpenApiPart {
    /// Where it describes the version, as in its index.
    pub(crate) version_3: Option<String>,
    /// Its part of the document in version 2.
    pub(crate) paths: Map<String, Value>,
    pub(crate) definitions: Map<String, Value>,
    /// Changes with the two.
    pub(crate) tag: u64,
    /// The server's own tag of the whole document.
    pub(crate) etag: Option<String>,
}

/// The resources of an `APIResourceList`, as aggregated discovery shows them (kubernetes/kubernetes,
/// `apiserver/pkg/endpoints/discovery/aggregated/etag.go`; `endpoints/groupversion.go`, `ConvertGroupVersionIntoToDiscovery`).
pub(super) fn resources(list: &Value, group: &str, version: &str) -> Option<Vec<Value>> {
    let rows = list["resources"].as_array()?;
    let kind = |row: &Value| {
        let text = |field: &str, usual: &str| row[field].as_str().unwrap_or(usual).to_owned();
        json!({"group": text("group", group), "version": text("version", version), "kind": text("kind", "")})
    };
    let mut resources: Vec<Value> = Vec::new();
    for row in rows {
        let name = row["name"].as_str()?;
        if let Some((resource, subresource)) = name.split_once('/') {
            let entry = json!({"subresource": subresource, "responseKind": kind(row), "verbs": verbs(row)});
            let parent = resources.iter_mut().find(|parent| parent["resource"] == resource);
            let parent = match parent {
                Some(parent) => parent,
                None => {
                    // A subresource of nothing that can be asked for itself.
                    resources.push(json!({"resource": resource, "scope": scope(row), "singularResource": "", "verbs": []}));
                    resources.last_mut()?
                }
            };
            match parent.get_mut("subresources").and_then(Value::as_array_mut) {
                Some(list) => list.push(entry),
                None => parent["subresources"] = json!([entry]),
            }
            continue;
        }
        let mut entry = json!({
            "resource": name, "responseKind": kind(row), "scope": scope(row),
            "singularResource": row["singularName"].as_str().unwrap_or_default(), "verbs": verbs(row),
        });
        for field in ["shortNames", "categories"] {
            if row[field].as_array().is_some_and(|list| !list.is_empty()) {
                entry[field] = row[field].clone();
            }
        }
        resources.push(entry);
    }
    Some(resources)
}

fn scope(row: &Value) -> &'static str {
    if row["namespaced"] == true { "Namespaced" } else { "Cluster" }
}

fn verbs(row: &Value) -> Value {
    if row["verbs"].is_array() { row["verbs"].clone() } else { json!([]) }
}

impl OpenApiPart {
    /// What a document in version 2 says of one version: its paths and the types they lead to.
    pub(super) fn read(document: &Value, prefix: &str, etag: Option<String>) -> Self {
        let within =
            |path: &str| path.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        let all = document["paths"].as_object().into_iter().flatten();
        let paths: Map<String, Value> =
            all.filter(|(path, _)| within(path)).map(|(path, item)| (path.clone(), item.clone())).collect();
        let mut queue = Vec::new();
        paths.values().for_each(|item| crate::openapi::note_references(item, &mut queue));
        // Types of the version that no path names are there for clients that look for kinds.
        let (group, version) = prefix.trim_start_matches("/apis/").split_once('/').unwrap_or_default();
        for (name, schema) in document["definitions"].as_object().into_iter().flatten() {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
            if kinds.into_iter().any(|k| k["group"] == group && k["version"] == version) {
                queue.push(name.clone());
            }
        }
        let mut definitions = Map::new();
        while let Some(name) = queue.pop() {
            if definitions.contains_key(&name) {
                continue;
            }
            let Some(schema) = types::at(&document["definitions"], &[&name]) else { continue };
            crate::openapi::note_references(schema, &mut queue);
            definitions.insert(name, schema.clone());
        }
        let tag = crate::openapi::sum(serde_json::json!([paths, definitions]).to_string().bytes());
        Self { version_3: None, paths, definitions, tag, etag }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresources_belong_to_their_resources() {
        let list = json!({"resources": [
            {"name": "toys", "singularName": "toy", "namespaced": true, "kind": "Toy", "verbs": ["get"], "shortNames": ["ty"]},
            {"name": "toys/scale", "namespaced": true, "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]},
            {"name": "lone/part", "namespaced": false, "kind": "Part", "verbs": ["create"]},
        ]});
        let found = resources(&list, "a.example", "v1").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["responseKind"], json!({"group": "a.example", "version": "v1", "kind": "Toy"}));
        assert_eq!(found[0]["subresources"][0]["responseKind"]["group"], "autoscaling");
        assert_eq!(found[1]["subresources"][0]["subresource"], "part");
        assert!(resources(&json!({"kind": "Status"}), "a", "v1").is_none());
    }

    #[test]
    fn a_part_brings_what_it_refers_to() {
        let document = json!({
            "paths": {
                "/apis/a.example/v1/toys": {"get": {"schema": {"$ref": "#/definitions/Toy"}}},
                "/apis/a.example/v1beta1/toys": {"get": {"schema": {"$ref": "#/definitions/Old"}}},
                "/version": {},
            },
            "definitions": {
                "Toy": {"properties": {"part": {"$ref": "#/definitions/Part"}}}, "Part": {"type": "object"}, "Old": {},
                "Lone": {"x-kubernetes-group-version-kind": [{"group": "a.example", "version": "v1", "kind": "Lone"}]},
            },
        });
        let part = OpenApiPart::read(&document, "/apis/a.example/v1", None);
        assert_eq!(part.paths.keys().collect::<Vec<_>>(), ["/apis/a.example/v1/toys"]);
        assert_eq!(part.definitions.keys().collect::<Vec<_>>(), ["Lone", "Part", "Toy"]);
    }
}
