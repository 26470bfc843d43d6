use std::sync::Arc;

use serde_json::Value;
use types::{Definitions, FieldSchema, ListType, Schema, SchemaId, Shape};

/// Reads a structural schema as the shape of a custom kind's objects.
pub(super) fn read(
    schema: &Value,
    name: &str,
    base: &Arc<Definitions>,
) -> (Arc<Definitions>, Option<SchemaId>) {
    let mut root = field(schema, base);
    root.embedded = true;
    root.default = None;
    with_meta(&mut root, base);
    let definitions = Definitions::extending(base.clone(), vec![Schema { name: name.into(), field: root }]);
    let id = definitions.find(name);
    (Arc::new(definitions), id)
}

/// One level of a schema, and what is below it.
pub(super) fn field(schema: &Value, base: &Definitions) -> FieldSchema {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
    let open = flag("x-kubernetes-preserve-unknown-fields");
    let shape = match text("type") {
        _ if flag("x-kubernetes-int-or-string") => Shape::IntOrString,
        Some("string") => Shape::String,
        Some("integer") => Shape::Integer64,
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Boolean,
        Some("array") => {
            schema.get("items").map_or(Shape::Any, |items| Shape::List(Box::new(field(items, base))))
        }
        _ => object(schema, base).unwrap_or(if open { Shape::Any } else { Shape::Object(Box::default()) }),
    };
    let list_type = match text("x-kubernetes-list-type") {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListType::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect())
        }
        _ => ListType::Atomic,
    };
    let mut field = FieldSchema {
        shape,
        list_type,
        atomic: text("x-kubernetes-map-type") == Some("atomic"),
        open,
        embedded: flag("x-kubernetes-embedded-resource"),
        nullable: flag("nullable"),
        default: schema.get("default").filter(|d| !d.is_null()).map(|d| Box::new(d.clone())),
        ..FieldSchema::default()
    };
    if field.embedded {
        with_meta(&mut field, base);
    }
    field
}

/// An object's named fields, or its map of them.
fn object(schema: &Value, base: &Definitions) -> Option<Shape> {
    let properties = schema.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty());
    if let Some(properties) = properties {
        let fields = properties.iter().map(|(name, schema)| (name.as_str().into(), field(schema, base)));
        let mut fields: Vec<(Box<str>, FieldSchema)> = fields.collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        return Some(Shape::Object(fields.into()));
    }
    match schema.get("additionalProperties") {
        Some(values @ Value::Object(_)) => Some(Shape::Map(Box::new(field(values, base)))),
        // Of values without a schema nothing but scalars is kept.
        Some(Value::Bool(_)) => Some(Shape::Map(Box::new(FieldSchema {
            shape: Shape::Object(Box::default()),
            nullable: true,
            ..FieldSchema::default()
        }))),
        _ => None,
    }
}

/// The fields that every object has.
fn with_meta(field: &mut FieldSchema, base: &Definitions) {
    let plain = |shape| FieldSchema { shape, ..FieldSchema::default() };
    let meta = base.find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").map_or(Shape::Any, Shape::Ref);
    let mut fields = match std::mem::take(&mut field.shape) {
        Shape::Object(fields) => fields.into_vec(),
        // A whole object of which nothing is known.
        Shape::Any => Vec::new(),
        other => return field.shape = other,
    };
    fields.retain(|(name, _)| !matches!(&**name, "apiVersion" | "kind" | "metadata"));
    fields.push(("apiVersion".into(), plain(Shape::String)));
    fields.push(("kind".into(), plain(Shape::String)));
    fields.push(("metadata".into(), plain(meta)));
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    field.shape = Shape::Object(fields.into());
}
