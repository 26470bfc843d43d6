//! What the built-in types say of themselves; collected by `build.rs`.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/documentation.json.gz"));

/// By type: its description, and those of its fields.
pub(super) struct Documentation(HashMap<String, (String, HashMap<String, String>)>);

/// How a field that refers to a type can have a description beside the reference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum References {
    /// Not at all: the reference has to be wrapped (OpenAPI 3.0).
    Wrapped,
    /// Next to it, as readers of version 2 take it.
    Plain,
}

impl Documentation {
    /// Unpacks it. It is large, and seldom asked for, so nobody keeps it.
    pub(super) fn unpack() -> Self {
        let mut text = String::new();
        let read = GzDecoder::new(PACKED).read_to_string(&mut text);
        Self(read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Writes the descriptions of the type called `name` into its schema.
    pub(super) fn describe(&self, name: &str, schema: &mut Value, references: References) {
        let Some((of_type, fields)) = self.0.get(name) else { return };
        let Value::Object(schema) = schema else { return };
        if !of_type.is_empty() {
            schema.insert("description".into(), of_type.as_str().into());
        }
        let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
        for (field, property) in properties {
            let known = fields.get(field).map(String::as_str);
            let text = known.filter(|t| !t.is_empty()).or(match field.as_str() {
                "apiVersion" => Some("The version of the schema that this object is written in."),
                "kind" => Some("The kind of object this is."),
                _ => None,
            });
            let (Some(text), Value::Object(property)) = (text, property) else { continue };
            if references == References::Wrapped {
                wrap(property);
            }
            property.insert("description".into(), text.into());
        }
    }
}

/// Puts a reference where it may have company.
fn wrap(property: &mut Map<String, Value>) {
    if let Some(reference) = property.remove("$ref") {
        property.insert("allOf".into(), json!([{"$ref": reference}]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let documentation = Documentation::unpack();
        let mut schema = json!({"properties": {"spec": {"$ref": "x"}, "kind": {}, "unheard": {}}});
        documentation.describe("io.k8s.api.core.v1.Pod", &mut schema, References::Wrapped);
        assert!(schema["description"].as_str().unwrap().starts_with("Pod is"));
        let spec = &schema["properties"]["spec"];
        assert!(spec["description"].as_str().unwrap().contains("desired behavior"));
        assert_eq!(spec["allOf"], json!([{"$ref": "x"}]));
        assert!(schema["properties"]["kind"]["description"].is_string());
        assert!(schema["properties"]["unheard"]["description"].is_null());
    }
}
