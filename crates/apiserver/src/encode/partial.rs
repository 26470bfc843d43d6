use serde_json::{Value, json};

/// An object's metadata alone.
pub(super) fn object(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// The same for a list.
pub(super) fn list(objects: &[Value], meta: Value) -> Value {
    let items: Vec<Value> = objects.iter().map(object).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items})
}
