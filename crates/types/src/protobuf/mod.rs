//! Kubernetes' protobuf encoding, to and from JSON with the help of the field numbers
//! (kubernetes/kubernetes, `apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`).

mod decode;
mod encode;
mod wire;

use std::collections::HashMap;

use serde_json::Value;

pub use decode::{Envelope, base64, open_envelope};
pub use encode::{envelope, event};
pub use wire::put_nested;

/// Bytes that are no such message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The envelope's four magic bytes are missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
    /// The bytes end in the middle of something.
    #[error("unexpected EOF")]
    Truncated,
    /// A field has a wire type that it cannot have.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// The type on the wire.
        wire: u8,
        /// The field's number.
        field: u32,
    },
    /// A string that is not UTF-8, or JSON inside that is none.
    #[error("proto: field {0} holds no valid text")]
    Text(u32),
    /// Deeper than any type is.
    #[error("proto: nested too deeply")]
    Depth,
    /// JSON that does not fit the type, and so cannot be said in protobuf.
    #[error("cannot be encoded as protobuf: {0}")]
    Json(String),
    /// A type whose field numbers are not known.
    #[error("proto: no field numbers are known for {0}")]
    UnknownType(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Bytes,
    Boolean,
    Integer32,
    Integer64,
    Double,
    Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
}

#[derive(Debug)]
struct Field {
    number: u32,
    /// Empty where the message's fields belong to its parent.
    name: Box<str>,
    kind: Kind,
    shape: Shape,
    /// Which message this is; `None` if it is a scalar, or a message whose fields nobody knows.
    target: Option<usize>,
}

/// What a message looks like in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// An object of its fields.
    Object,
    /// The list that is its only field.
    List,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON, as text.
    Json,
    /// A schema (the field with the first number), or something else (the field with the second).
    SchemaOr {
        schema: u32,
        other: u32,
    },
}

impl Form {
    fn of(name: &str) -> Self {
        match name.rsplit('.').next().unwrap_or(name) {
            "Time" => Self::Time,
            "MicroTime" => Self::MicroTime,
            "Quantity" => Self::Quantity,
            "IntOrString" => Self::IntOrString,
            "FieldsV1" | "RawExtension" | "JSON" => Self::Json,
            "ExtraValue" | "Verbs" => Self::List,
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
                Self::SchemaOr { schema: 1, other: 2 }
            }
            "JSONSchemaPropsOrBool" => Self::SchemaOr { schema: 2, other: 1 },
            _ => Self::Object,
        }
    }
}

#[derive(Debug)]
struct Message {
    form: Form,
    /// By number.
    fields: Box<[Field]>,
    /// By JSON name: the field, or a field of the message that belongs to its parent.
    by_name: HashMap<Box<str>, Route>,
}

impl Message {
    fn field(&self, number: u32) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |f| f.number).ok().map(|i| &self.fields[i])
    }
}

/// The way to a field by its JSON name.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// The index of the message's own field.
    Own(usize),
    /// The index of the field whose message has a field of that name.
    Through(usize),
}

/// The field numbers of every type.
#[derive(Debug, Default)]
pub struct ProtobufTypes {
    messages: Vec<Message>,
    by_name: HashMap<Box<str>, usize>,
}

const MAGIC: &[u8] = b"k8s\0";
const MOST_DEPTH: usize = 64;

impl ProtobufTypes {
    /// Reads the facts: for each type a list of `[number, JSON name, kind, shape, type]`.
    pub fn from_facts(facts: &Value) -> Self {
        let types = || facts.as_object().into_iter().flatten();
        let by_name: HashMap<Box<str>, usize> =
            types().enumerate().map(|(i, (name, _))| (name.as_str().into(), i)).collect();
        let field = |row: &Value| -> Option<Field> {
            Some(Field {
                number: u32::try_from(row[0].as_u64()?).ok()?,
                name: row[1].as_str()?.into(),
                kind: match row[2].as_str()? {
                    "string" => Kind::Text,
                    "bytes" => Kind::Bytes,
                    "bool" => Kind::Boolean,
                    "int32" => Kind::Integer32,
                    "int64" => Kind::Integer64,
                    "double" => Kind::Double,
                    _ => Kind::Message,
                },
                shape: match row[3].as_str()? {
                    "list" => Shape::List,
                    "map" => Shape::Map,
                    _ => Shape::One,
                },
                target: row[4].as_str().and_then(|name| by_name.get(name)).copied(),
            })
        };
        let mut messages: Vec<Message> = types()
            .map(|(name, rows)| {
                let mut fields: Vec<Field> =
                    rows.as_array().into_iter().flatten().filter_map(field).collect();
                fields.sort_by_key(|f| f.number);
                Message { form: Form::of(name), fields: fields.into(), by_name: HashMap::new() }
            })
            .collect();
        for i in 0..messages.len() {
            let mut routes = HashMap::new();
            if messages[i].form == Form::Object {
                find_routes(&messages, i, 0, &mut |name, route| {
                    routes.entry(name.into()).or_insert(route);
                });
            }
            messages[i].by_name = routes;
        }
        Self { messages, by_name }
    }

    fn find(&self, name: &str) -> Result<&Message, ProtobufError> {
        let unknown = || ProtobufError::UnknownType(name.to_owned());
        self.by_name.get(name).map(|i| &self.messages[*i]).ok_or_else(unknown)
    }

    fn target(&self, field: &Field) -> Result<&Message, ProtobufError> {
        let unknown = || ProtobufError::UnknownType(field.name.to_string());
        field.target.map(|i| &self.messages[i]).ok_or_else(unknown)
    }
}

/// Names every field of a message, own ones first.
fn find_routes(messages: &[Message], message: usize, depth: usize, found: &mut dyn FnMut(&str, Route)) {
    let fields = || messages[message].fields.iter().enumerate();
    for (i, field) in fields().filter(|(_, f)| !f.name.is_empty()) {
        found(&field.name, Route::Own(i));
    }
    for (i, field) in fields().filter(|(_, f)| f.name.is_empty()) {
        if let (Some(target), true) = (field.target, depth < 4) {
            find_routes(messages, target, depth + 1, &mut |name, _| found(name, Route::Through(i)));
        }
    }
}

#[cfg(test)]
mod tests;
