use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::base64::base64_fault;
use crate::field::Path;
use crate::quantity::Quantity;

/// Names one definition inside [`Definitions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchemaId(u32);

/// What a value looks like on the wire.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub enum Shape {
    /// Anything at all.
    #[default]
    Any,
    String,
    /// Base64 of bytes.
    Bytes,
    Integer32,
    Integer64,
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// A moment in whole seconds.
    Time,
    /// A moment in microseconds.
    MicroTime,
    /// Known fields, in alphabetical order.
    Object(Box<[(Box<str>, FieldSchema)]>),
    /// Any keys, values of one shape.
    Map(Box<FieldSchema>),
    List(Box<FieldSchema>),
    Ref(SchemaId),
}

/// How a list's elements are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// Scalars without order.
    Set,
    /// Objects with the given keys.
    Map(Box<[Box<str>]>),
}

/// A field's shape and how it merges.
#[derive(Clone, Debug, Default)]
pub struct FieldSchema {
    /// What the value looks like.
    pub shape: Shape,
    /// For server-side apply.
    pub list_type: ListType,
    /// Strategic merge: lists merge instead of being replaced.
    pub patch_merge: bool,
    /// Strategic merge: fields that the patch does not name may be dropped on request.
    pub patch_retain_keys: bool,
    /// Strategic merge: the field that tells a list's elements apart.
    pub patch_merge_key: Option<Box<str>>,
    /// Server-side apply: the map is one value.
    pub atomic: bool,
    /// Fields that the shape does not name are kept, with whatever they hold (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
    /// The value is a whole object with `apiVersion`, `kind` and `metadata` (`x-kubernetes-embedded-resource`).
    pub embedded: bool,
    /// Null is a value of its own here. Custom kinds only: elsewhere null is absence.
    pub nullable: bool,
    /// The field must be there, so it stays even when there is nothing in it. Built-in kinds only.
    pub required: bool,
    /// What stands in for an absent value. Custom kinds only: built-in kinds have their defaults in code.
    pub default: Option<Box<Value>>,
}

/// One named type.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Such as `io.k8s.api.core.v1.PodSpec`.
    pub name: Box<str>,
    /// What it looks like.
    pub field: FieldSchema,
}

/// All named types, out of an OpenAPI document's `definitions`.
#[derive(Debug, Default)]
pub struct Definitions {
    /// Other definitions that these come on top of; their ids are valid here too.
    base: Option<Arc<Definitions>>,
    schemas: Vec<Schema>,
    by_name: HashMap<Box<str>, SchemaId>,
}

/// What decoding found amiss.
#[derive(Debug, Default)]
pub struct DecodeErrors {
    /// Fields that no type knows; they were dropped. Paths as `spec.foo`.
    pub unknown: Vec<String>,
    /// Why the object cannot be read at all, worded as Go's decoder does.
    pub mismatch: Option<String>,
}

impl Definitions {
    /// Reads the `definitions` object of the schema facts.
    ///
    /// References to types that are not defined become [`Shape::Any`].
    pub fn from_openapi(definitions: &Value) -> Self {
        let Some(map) = definitions.as_object() else { return Self::default() };
        let by_name: HashMap<Box<str>, SchemaId> =
            (0..).map(SchemaId).zip(map.keys()).map(|(id, n)| (n.as_str().into(), id)).collect();
        let schemas = map
            .iter()
            .map(|(name, schema)| Schema {
                name: name.as_str().into(),
                field: read_field(name, schema, &by_name),
            })
            .collect();
        Self { base: None, schemas, by_name }
    }

    /// More types on top of `base`, whose ids and names stay valid. A custom kind's own types go here, so that they
    /// can refer to the common ones.
    pub fn extending(base: Arc<Definitions>, schemas: Vec<Schema>) -> Self {
        let first = base.len();
        let by_name = (first..).zip(&schemas).map(|(id, s)| (s.name.clone(), SchemaId(id as u32))).collect();
        Self { base: Some(base), schemas, by_name }
    }

    /// How many types there are, those below included.
    fn len(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.len()) + self.schemas.len()
    }

    /// The type called `name`.
    pub fn find(&self, name: &str) -> Option<SchemaId> {
        self.by_name.get(name).copied().or_else(|| self.base.as_ref()?.find(name))
    }

    /// The type behind an id.
    pub fn get(&self, id: SchemaId) -> &Schema {
        match &self.base {
            Some(base) if (id.0 as usize) < base.len() => base.get(id),
            Some(base) => &self.schemas[id.0 as usize - base.len()],
            None => &self.schemas[id.0 as usize],
        }
    }

    /// Follows references until a shape that is none.
    pub fn resolve<'a>(&'a self, field: &'a FieldSchema) -> &'a FieldSchema {
        match field.shape {
            Shape::Ref(id) => self.resolve(&self.get(id).field),
            _ => field,
        }
    }

    /// The schema of the field `name` in a value of shape `of` (an object's field or a map's value).
    pub fn field<'a>(&'a self, of: &'a FieldSchema, name: &str) -> Option<&'a FieldSchema> {
        match &self.resolve(of).shape {
            Shape::Object(fields) => {
                fields.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok().map(|i| &fields[i].1)
            }
            Shape::Map(values) => Some(values),
            _ => None,
        }
    }

    /// The schema of a list's elements.
    pub fn items<'a>(&'a self, of: &'a FieldSchema) -> Option<&'a FieldSchema> {
        match &self.resolve(of).shape {
            Shape::List(items) => Some(items),
            _ => None,
        }
    }

    /// Whether the elements of a list are of the type called `name`.
    pub fn lists(&self, of: &FieldSchema, name: &str) -> bool {
        self.items(of)
            .is_some_and(|items| matches!(items.shape, Shape::Ref(id) if &*self.get(id).name == name))
    }

    /// Makes an object conform to its type: drops nulls, unknown fields, and lists and maps without anything in them,
    /// brings quantities to their canonical form, and says what does not fit. Stops at the first mismatch.
    pub fn decode(&self, id: SchemaId, value: &mut Value) -> DecodeErrors {
        let mut errors = DecodeErrors::default();
        let schema = self.get(id);
        self.decode_field(&schema.field, short(&schema.name), value, None, &mut errors);
        errors
    }

    fn decode_field(
        &self,
        field: &FieldSchema,
        go_struct: &str,
        value: &mut Value,
        path: Option<&Path<'_>>,
        errors: &mut DecodeErrors,
    ) {
        if errors.mismatch.is_some() {
            return;
        }
        let mut mismatch = |value: &Value, go_type: &str| {
            let place = match path {
                Some(path) => format!("struct field {go_struct}.{path}"),
                None => "value".to_owned(),
            };
            errors.mismatch =
                Some(format!("json: cannot unmarshal {} into Go {place} of type {go_type}", kind_of(value)));
        };
        match &field.shape {
            Shape::Any => {}
            Shape::String if value.is_string() => {}
            Shape::String => mismatch(value, "string"),
            Shape::Bytes => match value.as_str() {
                Some(text) => {
                    errors.mismatch = base64_fault(text)
                        .map(|at| format!("illegal base64 data at input byte {at}"))
                        .or(errors.mismatch.take());
                }
                None => mismatch(value, "[]uint8"),
            },
            Shape::Time | Shape::MicroTime => match value.as_str() {
                Some(text) => match time(text, matches!(field.shape, Shape::MicroTime)) {
                    Some(canonical) => *value = Value::String(canonical),
                    None => {
                        let layout = "2006-01-02T15:04:05Z07:00";
                        errors.mismatch =
                            Some(format!("parsing time {text:?} as {layout:?}: cannot parse it"));
                    }
                },
                None => mismatch(value, "string"),
            },
            Shape::Boolean if value.is_boolean() => {}
            Shape::Boolean => mismatch(value, "bool"),
            Shape::Number if value.is_number() => {}
            Shape::Number => mismatch(value, "float64"),
            Shape::Integer32 if value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {}
            Shape::Integer32 => mismatch(value, "int32"),
            Shape::Integer64 if value.is_i64() => {}
            Shape::Integer64 => mismatch(value, "int64"),
            Shape::IntOrString
                if value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {}
            Shape::IntOrString => mismatch(value, "int32"),
            Shape::Quantity => {
                let text = match value {
                    Value::String(s) => std::mem::take(s),
                    Value::Number(n) => n.to_string(),
                    _ => return mismatch(value, "resource.Quantity"),
                };
                match text.parse::<Quantity>() {
                    Ok(quantity) => *value = Value::String(quantity.to_string()),
                    Err(error) => errors.mismatch = Some(error.to_string()),
                }
            }
            Shape::Object(fields) => {
                let Value::Object(map) = value else { return mismatch(value, &format!("v1.{go_struct}")) };
                map.retain(|key, child| {
                    if child.is_null() {
                        return false;
                    }
                    let below = path.map_or(Path::new(key), |p| p.child(key));
                    match fields.binary_search_by(|(n, _)| n.as_ref().cmp(key)) {
                        Ok(i) => {
                            let field = &fields[i].1;
                            self.decode_field(field, go_struct, child, Some(&below), errors);
                            field.required || !self.is_nothing(field, child)
                        }
                        Err(_) => {
                            errors.unknown.push(below.to_string());
                            false
                        }
                    }
                });
            }
            Shape::Map(values) => {
                let Value::Object(map) = value else { return mismatch(value, "map[string]string") };
                for (key, child) in map.iter_mut() {
                    let below = path.map_or(Path::new(key), |p| p.child(key));
                    self.fill_null(values, child);
                    self.decode_field(values, go_struct, child, Some(&below), errors);
                }
            }
            Shape::List(items) => {
                let Value::Array(list) = value else { return mismatch(value, "[]") };
                for (i, child) in list.iter_mut().enumerate() {
                    let root = Path::new("");
                    self.fill_null(items, child);
                    self.decode_field(items, go_struct, child, Some(&path.unwrap_or(&root).index(i)), errors);
                }
            }
            Shape::Ref(id) => {
                let schema = self.get(*id);
                self.decode_field(&schema.field, short(&schema.name), value, path, errors);
            }
        }
    }

    /// Whether a value is a list or map without anything in it, which Go's encoder leaves out (`omitempty`).
    fn is_nothing(&self, field: &FieldSchema, value: &Value) -> bool {
        match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty() && matches!(self.resolve(field).shape, Shape::Map(_)),
            _ => false,
        }
    }

    /// A null in a list or map stands for Go's zero value of its type.
    fn fill_null(&self, field: &FieldSchema, value: &mut Value) {
        if !value.is_null() {
            return;
        }
        *value = match &self.resolve(field).shape {
            Shape::Any | Shape::Time | Shape::MicroTime => return,
            Shape::String | Shape::Bytes => "".into(),
            Shape::Integer32 | Shape::Integer64 | Shape::Number | Shape::IntOrString => 0.into(),
            Shape::Boolean => false.into(),
            Shape::Quantity => "0".into(),
            Shape::Object(_) | Shape::Map(_) => Value::Object(serde_json::Map::new()),
            Shape::List(_) | Shape::Ref(_) => Value::Array(Vec::new()),
        };
    }
}

/// A moment as Go's encoder writes it: in UTC, and as fine as its type is.
fn time(text: &str, micro: bool) -> Option<String> {
    // Go takes RFC 3339 and nothing else; jiff would take more.
    let rest = text.get(10..)?;
    if !rest.starts_with('T') || rest.contains(['[', ' ']) {
        return None;
    }
    let moment: jiff::Timestamp = text.parse().ok()?;
    if !micro {
        return Some(jiff::Timestamp::from_second(moment.as_second()).ok()?.to_string());
    }
    Some(format!("{moment:.6}"))
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Fields that need not be there, and that Go's encoder writes all the same: they have no `omitempty`.
const WRITTEN_ALWAYS: [(&str, &str); 3] = [
    ("discovery.v1.EndpointSlice", "endpoints"),
    ("rbac.v1.ClusterRole", "rules"),
    ("rbac.v1.Role", "rules"),
];

fn read_field(name: &str, schema: &Value, by_name: &HashMap<Box<str>, SchemaId>) -> FieldSchema {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let nested = |key: &str| schema.get(key).map(|s| Box::new(read_field("", s, by_name)));
    let shape = match (text("type"), text("format")) {
        _ if name.ends_with("api.resource.Quantity") => Shape::Quantity,
        _ if name.ends_with("apis.meta.v1.Time") => Shape::Time,
        _ if name.ends_with("apis.meta.v1.MicroTime") => Shape::MicroTime,
        (Some("string"), Some("int-or-string")) => Shape::IntOrString,
        (Some("string"), Some("byte")) => Shape::Bytes,
        (Some("string"), _) => Shape::String,
        (Some("integer"), Some("int32")) => Shape::Integer32,
        (Some("integer"), _) => Shape::Integer64,
        (Some("number"), _) => Shape::Number,
        (Some("boolean"), _) => Shape::Boolean,
        (Some("array"), _) => nested("items").map_or(Shape::Any, Shape::List),
        (Some("object"), _) => {
            match (schema.get("properties").and_then(Value::as_object), nested("additionalProperties")) {
                (Some(properties), _) => {
                    let required = schema.get("required").and_then(Value::as_array);
                    let is_required = |field: &str| {
                        WRITTEN_ALWAYS.iter().any(|(of, f)| *f == field && name.ends_with(of))
                            || required.is_some_and(|all| all.iter().any(|n| n == field))
                    };
                    let fields = properties.iter().map(|(name, schema)| {
                        let required = is_required(name);
                        (name.as_str().into(), FieldSchema { required, ..read_field("", schema, by_name) })
                    });
                    let mut fields: Vec<(Box<str>, FieldSchema)> = fields.collect();
                    fields.sort_by(|a, b| a.0.cmp(&b.0));
                    Shape::Object(fields.into())
                }
                (None, Some(values)) => Shape::Map(values),
                (None, None) if name.ends_with(".FieldsV1") || name.ends_with(".RawExtension") => Shape::Any,
                // Types without fields: what is in them is unknown, and they are objects nevertheless.
                (None, None) => Shape::Object(Box::default()),
            }
        }
        _ => text("$ref")
            .and_then(|r| by_name.get(r.rsplit('/').next().unwrap_or(r)))
            .map_or(Shape::Any, |id| Shape::Ref(*id)),
    };
    let strategy = text("x-kubernetes-patch-strategy").unwrap_or_default();
    let list_type = match text("x-kubernetes-list-type") {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListType::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect())
        }
        _ => ListType::Atomic,
    };
    FieldSchema {
        shape,
        list_type,
        patch_merge: strategy.split(',').any(|s| s == "merge"),
        patch_retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
        patch_merge_key: text("x-kubernetes-patch-merge-key").map(Into::into),
        atomic: text("x-kubernetes-map-type") == Some("atomic"),
        ..FieldSchema::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definitions() -> Definitions {
        Definitions::from_openapi(&json!({
            "a.v1.Web": {"type": "object", "properties": {
                "spec": {"$ref": "#/definitions/a.v1.WebSpec"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
            "a.v1.WebSpec": {"type": "object", "properties": {
                "replicas": {"type": "integer", "format": "int32"},
                "memory": {"$ref": "io.k8s.apimachinery.pkg.api.resource.Quantity"},
                "ports": {"type": "array", "items": {"type": "integer", "format": "int32"}},
                "nothing": {"$ref": "a.v1.Nothing"},
                "raw": {"$ref": "io.k8s.apimachinery.pkg.runtime.RawExtension"},
            }},
            "a.v1.Nothing": {"type": "object"},
            "io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": "object"},
            "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
        }))
    }

    fn decode(mut value: Value) -> (Value, DecodeErrors) {
        let definitions = definitions();
        let errors = definitions.decode(definitions.find("a.v1.Web").unwrap(), &mut value);
        (value, errors)
    }

    #[test]
    fn drops_what_is_empty_unless_it_must_be_there() {
        let definitions = Definitions::from_openapi(&json!({
            "a.v1.Web": {"type": "object", "required": ["must"], "properties": {
                "must": {"type": "array", "items": {"type": "string"}},
                "list": {"type": "array", "items": {"type": "string"}},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "inner": {"$ref": "a.v1.Web"}, "nothing": {"type": "object"},
            }},
        }));
        let mut value = json!({
            "must": [], "list": [], "map": {}, "nothing": {}, "inner": {"list": [], "map": {"a": ""}, "must": ["x"]},
        });
        definitions.decode(definitions.find("a.v1.Web").unwrap(), &mut value);
        // An object of known fields means something by being there.
        assert_eq!(value, json!({"must": [], "nothing": {}, "inner": {"map": {"a": ""}, "must": ["x"]}}));
    }

    #[test]
    fn drops_nulls_and_unknown_fields() {
        let (value, errors) = decode(json!({
            "spec": {"replicas": 1, "memory": "1024Mi", "replica": 2, "ports": null},
            "labels": {"a": "b", "c": null}, "x": {}
        }));
        assert_eq!(errors.mismatch, None);
        assert_eq!(errors.unknown, ["spec.replica", "x"]);
        assert_eq!(value, json!({"spec": {"replicas": 1, "memory": "1Gi"}, "labels": {"a": "b", "c": ""}}));
    }

    #[test]
    fn words_mismatches_as_go_does() {
        let (_, errors) = decode(json!({"spec": {"replicas": "3"}}));
        assert_eq!(
            errors.mismatch.as_deref(),
            Some("json: cannot unmarshal string into Go struct field WebSpec.spec.replicas of type int32")
        );
        let (_, errors) = decode(json!({"spec": {"memory": "much"}}));
        assert!(errors.mismatch.unwrap().starts_with("quantities must match"));
    }

    #[test]
    fn what_has_no_fields_is_an_object_and_what_is_raw_anything() {
        let (value, errors) = decode(json!({"spec": {"nothing": {"x": 1}, "raw": {"x": 1}}}));
        assert_eq!((errors.mismatch, errors.unknown), (None, vec!["spec.nothing.x".to_owned()]));
        assert_eq!(value, json!({"spec": {"nothing": {}, "raw": {"x": 1}}}));
        let (_, errors) = decode(json!({"spec": {"nothing": [[{}]]}}));
        assert!(errors.mismatch.unwrap().starts_with("json: cannot unmarshal array"));
    }

    #[test]
    fn nulls_in_lists_are_zero_values() {
        let (value, errors) = decode(json!({"spec": {"ports": [1, null]}}));
        assert_eq!((errors.mismatch, value["spec"]["ports"].clone()), (None, json!([1, 0])));
    }

    #[test]
    fn moments_are_canonical_or_refused() {
        for (given, coarse, fine) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z"),
            ("2026-01-01T01:30:00.1234567+01:30", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456Z"),
        ] {
            assert_eq!(time(given, false).as_deref(), Some(coarse));
            assert_eq!(time(given, true).as_deref(), Some(fine));
        }
        for bad in [
            "",
            "tomorrow",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-02-30T00:00:00Z",
            "2026-01-01 00:00:00Z",
        ] {
            assert_eq!(time(bad, false), None, "{bad}");
        }
    }
}
