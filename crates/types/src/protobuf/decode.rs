//! Protobuf into JSON.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::wire::{Reader, Wire};
use super::{Field, Form, Kind, MAGIC, MOST_DEPTH, Message, ProtobufError, ProtobufTypes, Shape};

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
    /// Reads a message of the type `name` into the JSON that means the same.
    ///
    /// Empty strings are left out, as Go's encoder to JSON does; unknown fields are skipped.
    pub fn decode(&self, name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
        self.message(self.find(name)?, bytes, 0)
    }

    fn message(&self, message: &Message, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
        if depth > MOST_DEPTH {
            return Err(ProtobufError::Depth);
        }
        let mut map = Map::new();
        match message.form {
            Form::Object => self.fields(message, bytes, depth, &mut map)?,
            // A named list type is a message around its list.
            Form::List => {
                self.fields(message, bytes, depth, &mut map)?;
                return Ok(map.remove("items").unwrap_or_else(|| Value::Array(Vec::new())));
            }
            Form::SchemaOr { schema, other } => return self.either(message, schema, other, bytes, depth),
            form => return special(form, bytes),
        }
        Ok(Value::Object(map))
    }

    /// The schema if there is one, else the other thing.
    fn either(
        &self,
        message: &Message,
        schema: u32,
        other: u32,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Value, ProtobufError> {
        let mut list = Vec::new();
        let (mut found, mut flag) = (None, None);
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.tag()? {
            let value = reader.value(number, wire)?;
            let Some(field) = message.field(number) else { continue };
            let value = self.value(field, value, wire, depth)?;
            match (number, field.shape) {
                (n, _) if n == schema => found = Some(value),
                (n, Shape::List) if n == other => list.push(value),
                _ => flag = Some(value),
            }
        }
        let is_list = message.field(other).is_some_and(|f| f.shape == Shape::List);
        Ok(found.or(flag).unwrap_or(if is_list { list.into() } else { false.into() }))
    }

    fn fields(
        &self,
        message: &Message,
        bytes: &[u8],
        depth: usize,
        map: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        if depth > MOST_DEPTH {
            return Err(ProtobufError::Depth);
        }
        let mut reader = Reader(bytes);
        while let Some((number, wire)) = reader.tag()? {
            let value = reader.value(number, wire)?;
            let Some(field) = message.field(number) else { continue };
            if field.name.is_empty() {
                let Wire::Bytes(inner) = value else {
                    return Err(ProtobufError::WireType { wire, field: number });
                };
                self.fields(self.target(field)?, inner, depth + 1, map)?;
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
            (Kind::Message, Wire::Bytes(b)) => self.message(self.target(field)?, b, depth + 1)?,
            _ => return Err(ProtobufError::WireType { wire, field: field.number }),
        })
    }
}

/// Types whose JSON is not an object of their fields.
pub(super) fn special(form: Form, bytes: &[u8]) -> Result<Value, ProtobufError> {
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
    Ok(match form {
        Form::Time | Form::MicroTime if bytes.is_empty() => Value::Null,
        Form::Time => timestamp(numbers[0], None).into(),
        Form::MicroTime => timestamp(numbers[0], Some(numbers[1] / 1000)).into(),
        Form::Quantity => text(1, texts[0].unwrap_or(b"0"))?.into(),
        Form::IntOrString if numbers[0] == 0 => (numbers[1] as i32).into(),
        Form::IntOrString => text(3, texts[2].unwrap_or_default())?.into(),
        _ => match texts[0] {
            None | Some([]) => Value::Null,
            Some(json) => serde_json::from_slice(json).map_err(|_| ProtobufError::Text(1))?,
        },
    })
}

/// Seconds since the epoch as RFC 3339 in UTC (Howard Hinnant's `civil_from_days`).
pub(super) fn timestamp(seconds: i64, micros: Option<i64>) -> String {
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
    BASE64_STANDARD.encode(bytes)
}
