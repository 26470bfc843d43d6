//! Kubernetes' protobuf encoding, read into JSON with the help of the field numbers
//! (kubernetes/kubernetes, `apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`).

use std::collections::HashMap;

use serde_json::{Map, Value};

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
    target: Box<str>,
}

/// The field numbers of every type.
#[derive(Debug, Default)]
pub struct ProtobufTypes(HashMap<Box<str>, Box<[Field]>>);

/// A message with its kind on the outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// The message itself.
    pub raw: &'a [u8],
}

const MAGIC: &[u8] = b"k8s\0";
const MOST_DEPTH: usize = 64;

/// Opens the envelope.
pub fn open_envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = Reader(rest);
    while let Some((number, wire)) = reader.tag()? {
        match (number, reader.value(number, wire)?) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, wire)) = meta.tag()? {
                    match (number, meta.value(number, wire)?) {
                        (1, Wire::Bytes(b)) => envelope.api_version = text(1, b)?,
                        (2, Wire::Bytes(b)) => envelope.kind = text(2, b)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

impl ProtobufTypes {
    /// Reads the facts: for each type a list of `[number, JSON name, kind, shape, type]`.
    pub fn from_facts(facts: &Value) -> Self {
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
                target: row[4].as_str().unwrap_or_default().into(),
            })
        };
        let types = facts.as_object().into_iter().flatten().map(|(name, rows)| {
            let mut fields: Vec<Field> = rows.as_array().into_iter().flatten().filter_map(field).collect();
            fields.sort_by_key(|f| f.number);
            (name.as_str().into(), fields.into())
        });
        Self(types.collect())
    }

    /// Reads a message of the type `name` into the JSON that means the same.
    ///
    /// Empty strings are left out, as Go's encoder to JSON does; unknown fields are skipped.
    pub fn decode(&self, name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
        self.message(name, bytes, 0)
    }

    fn message(&self, name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
        if depth > MOST_DEPTH {
            return Err(ProtobufError::Depth);
        }
        let short = name.rsplit('.').next().unwrap_or(name);
        match short {
            "Time" | "MicroTime" | "Quantity" | "IntOrString" | "FieldsV1" | "RawExtension" | "JSON" => {
                return special(short, bytes);
            }
            _ => {}
        }
        let mut map = Map::new();
        self.fields(name, bytes, depth, &mut map)?;
        // A named list type is a message around its list.
        if map.len() <= 1 && self.0.get(name).is_some_and(|f| f.len() == 1 && &*f[0].name == "items") {
            return Ok(map.remove("items").unwrap_or_else(|| Value::Array(Vec::new())));
        }
        match short {
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
                Ok(either(map))
            }
            _ => Ok(Value::Object(map)),
        }
    }

    fn fields(
        &self,
        name: &str,
        bytes: &[u8],
        depth: usize,
        map: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        let fields = self.0.get(name).ok_or_else(|| ProtobufError::UnknownType(name.to_owned()))?;
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.tag()? {
            let value = reader.value(number, wire)?;
            let Ok(at) = fields.binary_search_by_key(&number, |f| f.number) else { continue };
            let field = &fields[at];
            if field.name.is_empty() {
                let Wire::Bytes(inner) = value else {
                    return Err(ProtobufError::WireType { wire, field: number });
                };
                self.fields(&field.target, inner, depth + 1, map)?;
                continue;
            }
            let key = || field.name.to_string();
            match field.shape {
                Shape::One => {
                    let value = self.value(field, value, wire, depth)?;
                    // An empty class name means "none" where an absent one means "the default".
                    let empty = value == "" && &*field.name != "storageClassName";
                    if !empty && !value.is_null() {
                        map.insert(key(), value);
                    }
                }
                Shape::List => {
                    let slot = map.entry(key()).or_insert_with(|| Value::Array(Vec::new()));
                    let Value::Array(list) = slot else { continue };
                    match value {
                        // Numbers may come packed.
                        Wire::Bytes(packed)
                            if matches!(field.kind, Kind::Integer32 | Kind::Integer64 | Kind::Boolean) =>
                        {
                            let mut packed = Reader(packed);
                            while !packed.0.is_empty() {
                                let number = Wire::Varint(packed.varint()?);
                                list.push(self.value(field, number, 0, depth)?);
                            }
                        }
                        other => list.push(self.value(field, other, wire, depth)?),
                    }
                }
                Shape::Map => {
                    let Wire::Bytes(entry) = value else {
                        return Err(ProtobufError::WireType { wire, field: number });
                    };
                    let (entry_key, entry_value) = self.entry(field, entry, depth)?;
                    let slot = map.entry(key()).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(inner) = slot {
                        inner.insert(entry_key, entry_value);
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&self, field: &Field, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.tag()? {
            match (number, reader.value(number, wire)?) {
                (1, Wire::Bytes(b)) => key = text(1, b)?,
                (2, v) => value = Some(self.value(field, v, wire, depth)?),
                _ => {}
            }
        }
        let absent = match field.kind {
            Kind::Text | Kind::Bytes => Value::String(String::new()),
            _ => Value::Null,
        };
        Ok((key, value.unwrap_or(absent)))
    }

    fn value(&self, field: &Field, value: Wire<'_>, wire: u8, depth: usize) -> Result<Value, ProtobufError> {
        Ok(match (field.kind, value) {
            (Kind::Text, Wire::Bytes(b)) => text(field.number, b)?.into(),
            (Kind::Bytes, Wire::Bytes(b)) => base64(b).into(),
            (Kind::Boolean, Wire::Varint(n)) => (n != 0).into(),
            // Negative numbers come as 64 bits, whatever their type.
            (Kind::Integer32, Wire::Varint(n)) => (n as i64 as i32).into(),
            (Kind::Integer64, Wire::Varint(n)) => (n as i64).into(),
            (Kind::Double, Wire::Fixed64(n)) => f64::from_bits(n).into(),
            (Kind::Message, Wire::Bytes(b)) => self.message(&field.target, b, depth + 1)?,
            _ => return Err(ProtobufError::WireType { wire, field: field.number }),
        })
    }
}

/// Types whose JSON is not an object of their fields.
fn special(name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut numbers, mut texts) = ([0i64; 4], [None, None, None, None]);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.tag()? {
        let value = reader.value(number, wire)?;
        let Some(slot) = (number as usize).checked_sub(1).filter(|i| *i < 4) else { continue };
        match value {
            Wire::Varint(n) => numbers[slot] = n as i64,
            Wire::Bytes(b) => texts[slot] = Some(b),
            Wire::Fixed64(_) | Wire::Fixed32 => {}
        }
    }
    Ok(match name {
        "Time" | "MicroTime" if bytes.is_empty() => Value::Null,
        "Time" => timestamp(numbers[0], None).into(),
        "MicroTime" => timestamp(numbers[0], Some(numbers[1] / 1000)).into(),
        "Quantity" => text(1, texts[0].unwrap_or(b"0"))?.into(),
        "IntOrString" if numbers[0] == 0 => (numbers[1] as i32).into(),
        "IntOrString" => text(3, texts[2].unwrap_or_default())?.into(),
        _ => match texts[0] {
            None | Some([]) => Value::Null,
            Some(json) => serde_json::from_slice(json).map_err(|_| ProtobufError::Text(1))?,
        },
    })
}

/// `JSONSchemaPropsOr…`: the schema if there is one, else the other thing.
fn either(mut map: Map<String, Value>) -> Value {
    let first = ["schema", "Schema"].iter().find_map(|key| map.remove(*key));
    first.or_else(|| map.into_iter().next().map(|(_, v)| v)).unwrap_or(Value::Bool(true))
}

/// Seconds since the epoch as RFC 3339 in UTC (Howard Hinnant's `civil_from_days`).
fn timestamp(seconds: i64, micros: Option<i64>) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days.saturating_add(719_468);
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let fraction = micros.map(|m| format!(".{m:06}")).unwrap_or_default();
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

fn text(field: u32, bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Text(field))
}

/// Standard base64 with padding, the JSON form of bytes.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    /// The next field's number and wire type; nothing at the end.
    fn tag(&mut self) -> Result<Option<(u32, u8)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        Ok(Some(((tag >> 3) as u32, (tag & 7) as u8)))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn value(&mut self, field: u32, wire: u8) -> Result<Wire<'a>, ProtobufError> {
        match wire {
            0 => Ok(Wire::Varint(self.varint()?)),
            1 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Ok(Wire::Fixed64(u64::from_le_bytes(bytes)))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Ok(Wire::Bytes(self.take(length)?))
            }
            5 => self.take(4).map(|_| Wire::Fixed32),
            _ => Err(ProtobufError::WireType { wire, field }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn types() -> ProtobufTypes {
        ProtobufTypes::from_facts(&json!({
            "x.Pod": [[1, "name", "string", "one"], [2, "", "message", "one", "x.Inner"], [3, "labels", "string", "map"],
                [4, "ports", "int32", "list"], [5, "port", "message", "one", "x.IntOrString"],
                [6, "created", "message", "one", "x.Time"], [7, "data", "bytes", "map"], [8, "child", "message", "one", "x.Pod"]],
            "x.Inner": [[1, "replicas", "int32", "one"]],
        }))
    }

    #[test]
    fn reads_every_shape() {
        let mut bytes = vec![0x0a, 1, b'a'];
        bytes.extend([0x12, 2, 0x08, 3]);
        bytes.extend([0x1a, 6, 0x0a, 1, b'k', 0x12, 1, b'v']);
        bytes.extend([0x20, 1, 0x20, 2]);
        bytes.extend([0x2a, 4, 0x08, 0, 0x10, 80]);
        bytes.extend([0x32, 6, 0x08, 0x80, 0xa3, 0x05, 0x10, 0]);
        bytes.extend([0x3a, 6, 0x0a, 1, b'k', 0x12, 1, b'x']);
        let want = json!({"name": "a", "replicas": 3, "labels": {"k": "v"}, "ports": [1, 2], "port": 80,
            "created": "1970-01-02T00:00:00Z", "data": {"k": "eA=="}});
        assert_eq!(types().decode("x.Pod", &bytes), Ok(want));
    }

    #[test]
    fn opens_the_envelope() {
        let bytes =
            [b"k8s\0".as_slice(), &[0x0a, 9, 0x0a, 2, b'v', b'1', 0x12, 3, b'P', b'o', b'd', 0x12, 1, 7]]
                .concat();
        let envelope = open_envelope(&bytes).unwrap();
        assert_eq!(
            (envelope.api_version.as_str(), envelope.kind.as_str(), envelope.raw),
            ("v1", "Pod", [7].as_slice())
        );
        assert_eq!(open_envelope(b"{}"), Err(ProtobufError::NoEnvelope));
    }

    #[test]
    fn dates() {
        assert_eq!(timestamp(1_767_225_600, None), "2026-01-01T00:00:00Z");
        assert_eq!(timestamp(-1, Some(5)), "1969-12-31T23:59:59.000005Z");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = types().decode("x.Pod", &bytes);
            let _ = open_envelope(&bytes);
            for name in ["Time", "MicroTime", "Quantity", "IntOrString", "JSON"] {
                let _ = special(name, &bytes);
            }
        }
    }
}
