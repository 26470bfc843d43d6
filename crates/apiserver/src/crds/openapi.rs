//! What OpenAPI says of a custom kind (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`).

use std::hash::{DefaultHasher, Hash, Hasher};

use registry::ResourceDef;
use serde_json::{Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const API_VERSION: &str = "The version of the schema that this object is written in.";
/// Fields that nobody has described may stand there.
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const KIND: &str = "The kind of object this is.";

/// Which readers a document is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Of version 3.
    Newer,
    /// Of version 2: they know fewer words, and refuse whatever field is not described once one is.
    Older,
}

/// The types of a custom kind, by name: its objects and their lists. References are names of the facts' definitions.
pub(crate) fn schemas(def: &ResourceDef, name: &str, readers: Readers) -> Vec<(String, Value)> {
    let Some(custom) = &def.custom else { return Vec::new() };
    let mut object = custom.schema();
    let anything = readers == Readers::Older && is_set(&object, PRESERVE);
    if !object.is_object() || anything {
        object = json!({"type": "object"});
    }
    if readers == Readers::Older {
        simplify(&mut object);
    }
    let field = |description: &str| json!({"type": "string", "description": description});
    let meta =
        |target: &str, description: &str| json!({"description": description, "allOf": [{"$ref": target}]});
    if !anything {
        if !object["properties"].is_object() {
            object["properties"] = json!({});
        }
        object["properties"]["apiVersion"] = field(API_VERSION);
        object["properties"]["kind"] = field(KIND);
        object["properties"]["metadata"] = meta(META, "Standard object's metadata.");
    }
    let gvk = |kind: &str| json!([{"group": &*def.gvk.group, "version": &*def.gvk.version, "kind": kind}]);
    object["x-kubernetes-group-version-kind"] = gvk(&def.gvk.kind);
    let list = json!({
        "type": "object",
        "description": format!("{} is a list of {}", custom.list_kind, def.gvk.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": field(API_VERSION),
            "kind": field(KIND),
            "metadata": meta(LIST_META, "What every list says of itself."),
            "items": {
                "type": "array",
                "description": format!("The {}.", def.resource),
                "items": {"allOf": [{"$ref": name}]},
            },
        },
        "x-kubernetes-group-version-kind": gvk(&custom.list_kind),
    });
    vec![(name.to_owned(), object), (format!("{name}List"), list)]
}

fn is_set(schema: &Value, word: &str) -> bool {
    schema[word] == true
}

/// Takes away what readers of version 2 do not know or trip over (`apiextensions-apiserver/pkg/controller/openapi/v2/
/// conversion.go`, `ToStructuralOpenAPIV2`): where anything may stand, nothing must be described.
fn simplify(schema: &mut Value) {
    let (nullable, open) = (is_set(schema, "nullable"), is_set(schema, PRESERVE));
    let Some(object) = schema.as_object_mut() else { return };
    for junctor in ["allOf", "anyOf", "oneOf", "not", "nullable"] {
        object.remove(junctor);
    }
    if nullable || open {
        object.remove("items");
        object.remove("properties");
    }
    let kind = object.get("type").and_then(Value::as_str);
    if nullable
        || (kind == Some("array") && !object.contains_key("items"))
        || (open && kind == Some("object"))
    {
        object.remove("type");
    }
    let properties = object.get_mut("properties").and_then(Value::as_object_mut);
    let mut optional = Vec::new();
    for (name, inner) in properties.into_iter().flatten() {
        if is_set(inner, "nullable") {
            optional.push(name.clone());
        }
        simplify(inner);
    }
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !optional.iter().any(|o| name == o));
        if required.is_empty() {
            object.remove("required");
        }
    }
    for inner in ["items", "additionalProperties"] {
        object.get_mut(inner).map(simplify).unwrap_or_default();
    }
}

/// A tag that changes with the custom kinds among `defs`; nothing if there are none.
pub(crate) fn tag<'a>(defs: impl Iterator<Item = &'a ResourceDef>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let mut any = false;
    for custom in defs.filter_map(|def| def.custom.as_ref()) {
        any = true;
        custom.fingerprint.hash(&mut hasher);
    }
    any.then(|| hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_readers_get_what_they_understand() {
        let simple = |mut schema: Value| {
            simplify(&mut schema);
            schema
        };
        let open = json!({"type": "object", PRESERVE: true, "properties": {"a": {"type": "string"}}});
        let whole = simple(
            json!({"type": "object", "required": ["list", "maybe"], "anyOf": [{}], "properties": {
                "open": open, "maybe": {"type": "integer", "nullable": true},
                "list": {"type": "array", "items": {"type": "array", "nullable": true, "items": {"type": "string"}}},
            }}),
        );
        let wanted = json!({"type": "object", "required": ["list"], "properties": {
            "open": {PRESERVE: true}, "maybe": {}, "list": {"type": "array", "items": {}},
        }});
        assert_eq!(whole, wanted);
        let any = json!({"type": "array", PRESERVE: true, "items": {"type": "string"}});
        assert_eq!(simple(any), json!({PRESERVE: true}));
    }
}
