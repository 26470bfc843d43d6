//! OpenAPI version 2, made of what is said in version 3.

use serde_json::{Map, Value, json};

/// A document's paths in the older form.
pub(super) fn paths(paths: Map<String, Value>) -> Map<String, Value> {
    let item = |(path, item): (String, Value)| {
        let Value::Object(item) = item else { return (path, item) };
        let item = item.into_iter().map(|(method, operation)| match method.as_str() {
            "parameters" => (method, parameters(&operation)),
            _ => (method, self::operation(operation)),
        });
        (path, Value::Object(item.collect()))
    };
    paths.into_iter().map(item).collect()
}

fn parameters(list: &Value) -> Value {
    let flat = |parameter: &Value| {
        let mut parameter = parameter.clone();
        if let Some(Value::Object(schema)) = types::object(&mut parameter).remove("schema") {
            types::object(&mut parameter).extend(schema);
        }
        parameter
    };
    list.as_array().into_iter().flatten().map(flat).collect()
}

fn operation(mut operation: Value) -> Value {
    let mut all = parameters(&operation["parameters"]);
    if let Some(mut body) = types::object(&mut operation).remove("requestBody") {
        let content = body["content"].as_object_mut().map(std::mem::take).unwrap_or_default();
        let media: Vec<String> = content.keys().cloned().collect();
        if let (Some(schema), Value::Array(list)) =
            (content.into_iter().next().map(|(_, c)| c["schema"].clone()), &mut all)
        {
            list.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
        }
        operation["consumes"] = media.into();
    }
    operation["parameters"] = all;
    let mut produces = None;
    for response in operation["responses"].as_object_mut().into_iter().flatten().map(|(_, r)| r) {
        if let Some(Value::Object(content)) = types::object(response).remove("content") {
            let media: Vec<String> = content.keys().cloned().collect();
            if let Some(schema) = content.into_iter().next().map(|(_, c)| c["schema"].clone()) {
                response["schema"] = schema;
            }
            produces = Some(media);
        }
    }
    if let Some(media) = produces {
        operation["produces"] = media.into();
    }
    operation
}

/// The document's types in gnostic's protobuf (google/gnostic, `openapiv2/OpenAPIv2.proto`), which is what Go clients ask
/// for. They read nothing else of it, so paths are left out.
pub(super) fn protobuf(version: &str, definitions: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, "2.0");
    nested(&mut out, 2, |out| {
        text(out, 1, "Kubernetes");
        text(out, 2, version);
    });
    // Without paths readers refuse the document.
    nested(&mut out, 8, |_| {});
    nested(&mut out, 9, |out| named(out, 1, definitions));
    out
}

fn named(out: &mut Vec<u8>, number: u32, schemas: &Map<String, Value>) {
    for (name, value) in schemas {
        nested(out, number, |out| {
            text(out, 1, name);
            nested(out, 2, |out| schema(out, value));
        });
    }
}

fn schema(out: &mut Vec<u8>, value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("$ref", Value::String(s)) => text(out, 1, s),
            ("format", Value::String(s)) => text(out, 2, s),
            ("title", Value::String(s)) => text(out, 3, s),
            ("description", Value::String(s)) => text(out, 4, s),
            ("default", value) => nested(out, 5, |out| any(out, value)),
            ("required", Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).for_each(|name| text(out, 19, name));
            }
            ("additionalProperties", value) => nested(out, 21, |out| match value {
                Value::Bool(flag) => {
                    out.extend_from_slice(&[2 << 3, u8::from(*flag)]);
                }
                value => nested(out, 1, |out| schema(out, value)),
            }),
            ("type", Value::String(s)) => nested(out, 22, |out| text(out, 1, s)),
            ("items", value) => nested(out, 23, |out| nested(out, 1, |out| schema(out, value))),
            ("allOf", Value::Array(all)) => {
                all.iter().for_each(|value| nested(out, 24, |out| schema(out, value)));
            }
            ("properties", Value::Object(fields)) => nested(out, 25, |out| named(out, 1, fields)),
            (key, value) if key.starts_with("x-") => nested(out, 31, |out| {
                text(out, 1, key);
                nested(out, 2, |out| any(out, value));
            }),
            // The rest restricts values, which clients leave to the server.
            _ => {}
        }
    }
}

/// A value of any kind: its YAML, of which JSON is a part.
fn any(out: &mut Vec<u8>, value: &Value) {
    text(out, 2, &format!("{value}\n"));
}

fn text(out: &mut Vec<u8>, number: u32, text: &str) {
    nested(out, number, |out| out.extend_from_slice(text.as_bytes()));
}

fn nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let written = types::protobuf::put_nested::<std::convert::Infallible>(out, number, |out| {
        write(out);
        Ok(())
    });
    match written {
        Ok(()) => {}
        Err(never) => match never {},
    }
}
