//! What OpenAPI says of a custom kind (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`).

use std::hash::{DefaultHasher, Hash, Hasher};

use registry::ResourceDef;
use serde_json::{Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const API_VERSION: &str = "The version of the schema that this object is written in.";
const KIND: &str = "The kind of object this is.";

/// The types of a custom kind, by name: its objects and their lists. References are names of the facts' definitions.
pub(crate) fn schemas(def: &ResourceDef, name: &str) -> Vec<(String, Value)> {
    let Some(custom) = &def.custom else { return Vec::new() };
    let mut object = custom.schema();
    if !object.is_object() {
        object = json!({"type": "object"});
    }
    let field = |description: &str| json!({"type": "string", "description": description});
    let meta =
        |target: &str, description: &str| json!({"description": description, "allOf": [{"$ref": target}]});
    if !object["properties"].is_object() {
        object["properties"] = json!({});
    }
    object["properties"]["apiVersion"] = field(API_VERSION);
    object["properties"]["kind"] = field(KIND);
    object["properties"]["metadata"] = meta(META, "What every object says of itself.");
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
