//! What extension servers say of their types (kubernetes/kubernetes, `kube-aggregator/pkg/controllers/openapi{,v3}`).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{paths, point};
use crate::aggregation::OpenApiPart;
use crate::state::Inner;

/// Adds where extension servers' versions are described.
pub(super) fn index(server: &Inner, index: &mut Map<String, Value>) {
    for extension in server.api_services().extensions() {
        let path = paths::prefix(&extension.group, &extension.version);
        // It is described by whoever serves it, or by nobody.
        index.remove(&path);
        let Some(learned) = server.learned(extension) else { continue };
        let Some(theirs) = &learned.openapi.version_3 else { continue };
        let query = theirs.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
        index.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}{query}")}));
    }
}

/// Their parts of the document in version 2.
pub(super) fn parts(server: &Inner) -> Vec<Arc<OpenApiPart>> {
    let services = server.api_services();
    let learned = services.extensions().iter().filter_map(|e| server.learned(e));
    learned
        .map(|l| l.openapi.clone())
        .filter(|part| !part.definitions.is_empty() || !part.paths.is_empty())
        .collect()
}

/// Adds a part to the document. A type that has the name of another one, and is another one, gets a name of its own
/// (`kube-openapi/pkg/aggregator`, `MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters`).
pub(super) fn merge(all: &mut Map<String, Value>, types: &mut Map<String, Value>, part: &OpenApiPart) {
    let mut definitions = part.definitions.clone();
    definitions.values_mut().for_each(|schema| point(schema, "#/definitions/"));
    let mut renamed: HashMap<String, String> = HashMap::new();
    for (name, schema) in &definitions {
        if types.get(name).is_some_and(|known| known != schema) {
            let free = (2..).map(|n| format!("{name}_v{n}"));
            let mut free = free.filter(|new| !types.contains_key(new) && !definitions.contains_key(new));
            renamed.extend(free.next().map(|new| (name.clone(), new)));
        }
    }
    for (name, mut schema) in definitions {
        rename(&mut schema, &renamed);
        types.entry(renamed.get(&name).cloned().unwrap_or(name)).or_insert(schema);
    }
    for (path, item) in &part.paths {
        let mut item = item.clone();
        rename(&mut item, &renamed);
        all.entry(path.clone()).or_insert(item);
    }
}

fn rename(value: &mut Value, renamed: &HashMap<String, String>) {
    match value {
        _ if renamed.is_empty() => {}
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some((base, name)) = reference.rsplit_once('/')
                && let Some(new) = renamed.get(name)
            {
                *reference = format!("{base}/{new}");
            }
            map.values_mut().for_each(|v| rename(v, renamed));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| rename(v, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_one_name_are_told_apart() {
        let map = |value: Value| value.as_object().cloned().unwrap();
        let mut paths = Map::new();
        let mut types = map(json!({"Meta": {"type": "object"}, "Same": {"type": "string"}}));
        let part = OpenApiPart {
            paths: map(json!({"/apis/a/v1/toys": {"schema": {"$ref": "#/definitions/Toy"}}})),
            definitions: map(json!({
                "Toy": {"properties": {"metadata": {"$ref": "#/definitions/Meta"}, "s": {"$ref": "#/definitions/Same"}}},
                "Meta": {"type": "object", "description": "newer"}, "Same": {"type": "string"},
            })),
            ..OpenApiPart::default()
        };
        merge(&mut paths, &mut types, &part);
        assert_eq!(types.keys().collect::<Vec<_>>(), ["Meta", "Meta_v2", "Same", "Toy"]);
        assert_eq!(types["Toy"]["properties"]["metadata"]["$ref"], "#/definitions/Meta_v2");
        assert_eq!(types["Toy"]["properties"]["s"]["$ref"], "#/definitions/Same");
        assert!(paths.contains_key("/apis/a/v1/toys"));
    }
}
