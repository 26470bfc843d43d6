//! JSON into protobuf, in one pass over the text: no tree is built in between.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::wire::{put_bytes, put_nested, put_number, put_tag};
use super::{Field, Form, Kind, MAGIC, Message, ProtobufError, ProtobufTypes, Route, Shape};

/// A message in an envelope that says what it is; `write` appends the message itself.
pub fn envelope<E>(
    api_version: &str,
    kind: &str,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut out = MAGIC.to_vec();
    put_nested::<E>(&mut out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok(())
    })?;
    put_nested(&mut out, 2, write)?;
    // Encoding and type of the content, which are empty.
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    Ok(out)
}

/// A watch event with its length in front, as it follows others in a stream. `object` has an envelope of its own.
pub fn event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    put_bytes(&mut out, 1, kind.as_bytes());
    let wrapped = put_nested::<std::convert::Infallible>(&mut out, 2, |out| {
        put_bytes(out, 1, object);
        Ok(())
    });
    match wrapped {
        Ok(()) => {}
        Err(never) => match never {},
    }
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

impl ProtobufTypes {
    /// Whether messages of the type can be written.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Appends the message of type `name` that means the same as `json`. Fields that have no number are errors if `whole`,
    /// and left out otherwise.
    pub fn encode(
        &self,
        name: &str,
        json: &[u8],
        whole: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtobufError> {
        let message = self.find(name)?;
        let mut reader = serde_json::Deserializer::from_slice(json);
        Content { how: How { types: self, whole }, message, out }
            .deserialize(&mut reader)
            .map_err(|e| ProtobufError::Json(e.to_string()))
    }

    /// Appends a list: `meta` is its metadata, `items` are objects of type `name`, all of them whole.
    pub fn encode_list<'j>(
        &self,
        name: &str,
        meta: &[u8],
        items: impl Iterator<Item = Cow<'j, [u8]>>,
        whole: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtobufError> {
        put_nested(out, 1, |out| self.encode(LIST_META, meta, false, out))?;
        for item in items {
            put_nested(out, 2, |out| self.encode(name, &item, whole, out))?;
        }
        Ok(())
    }
}

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// What everything on the way down needs to know.
#[derive(Clone, Copy)]
struct How<'a> {
    types: &'a ProtobufTypes,
    /// Whether a field without a number is an error rather than left out.
    whole: bool,
}

/// Reads JSON and appends what a message holds.
struct Content<'a> {
    how: How<'a>,
    message: &'a Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        match self.message.form {
            Form::Json => {
                let raw: &RawValue = serde::Deserialize::deserialize(json)?;
                put_bytes(self.out, 1, raw.get().as_bytes());
                Ok(())
            }
            _ => json.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of the form {:?}", self.message.form)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.message.form {
            Form::SchemaOr { other, .. } => {
                put_number(self.out, other, value.into());
                Ok(())
            }
            _ => Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.message.form {
            Form::IntOrString => {
                put_number(self.out, 1, 0);
                put_number(self.out, 2, value);
                Ok(())
            }
            Form::Quantity => {
                put_bytes(self.out, 1, value.to_string().as_bytes());
                Ok(())
            }
            _ => Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_i64(i64::try_from(value).map_err(E::custom)?)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.message.form {
            Form::Quantity => put_bytes(self.out, 1, text.as_bytes()),
            Form::IntOrString => {
                put_number(self.out, 1, 1);
                put_bytes(self.out, 3, text.as_bytes());
            }
            Form::Time | Form::MicroTime => {
                let moment: jiff::Timestamp = text.parse().map_err(E::custom)?;
                // Before the epoch the fraction still counts forward.
                let nanos = moment.as_nanosecond();
                let second = 1_000_000_000;
                put_number(self.out, 1, nanos.div_euclid(second) as i64);
                put_number(self.out, 2, nanos.rem_euclid(second) as i64);
            }
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let field = match self.message.form {
            Form::List => self.message.field(1),
            Form::SchemaOr { other, .. } => self.message.field(other),
            _ => None,
        };
        let Some(field) = field else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        };
        while items
            .next_element_seed(Item { how: self.how, field, number: field.number, out: self.out })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Content { how, message, out } = self;
        if let Form::SchemaOr { schema, other } = message.form {
            let Some(field) = message.field(schema) else { return Ok(()) };
            let target = how.types.target(field).map_err(A::Error::custom)?;
            if message.field(other).is_some_and(|f| f.kind == Kind::Boolean) {
                put_number(out, other, 1);
            }
            return put_nested(out, schema, |out| Content { how, message: target, out }.visit_map(map));
        }
        // Messages whose fields are their parent's in JSON, until they are complete.
        let mut parts: Vec<Part<'_>> = Vec::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match message.by_name.get(&*key).copied() {
                None if how.whole && !matches!(&*key, "apiVersion" | "kind") => {
                    return Err(A::Error::custom(format_args!("no field number is known for {key}")));
                }
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(Route::Own(i)) => {
                    map.next_value_seed(Whole { how, field: &message.fields[i], out })?;
                }
                Some(Route::Through(i)) => {
                    let part = part(how, &mut parts, &message.fields[i]).map_err(A::Error::custom)?;
                    let (field, out) = part.field(how, &key).map_err(A::Error::custom)?;
                    map.next_value_seed(Whole { how, field, out })?;
                }
            }
        }
        parts.into_iter().for_each(|part| part.close(out));
        Ok(())
    }
}

/// A message whose fields are its parent's in JSON, on its way.
struct Part<'a> {
    number: u32,
    message: &'a Message,
    out: Vec<u8>,
    parts: Vec<Part<'a>>,
}

/// The part for a field of the parent.
fn part<'a, 'p>(
    how: How<'a>,
    parts: &'p mut Vec<Part<'a>>,
    field: &Field,
) -> Result<&'p mut Part<'a>, ProtobufError> {
    let at = match parts.iter().position(|part| part.number == field.number) {
        Some(at) => at,
        None => {
            let message = how.types.target(field)?;
            parts.push(Part { number: field.number, message, out: Vec::new(), parts: Vec::new() });
            parts.len() - 1
        }
    };
    Ok(&mut parts[at])
}

impl<'a> Part<'a> {
    /// The field called `key`, here or further down, and where it is written.
    fn field(&mut self, how: How<'a>, key: &str) -> Result<(&'a Field, &mut Vec<u8>), ProtobufError> {
        let message = self.message;
        match message.by_name.get(key) {
            Some(Route::Own(i)) => Ok((&message.fields[*i], &mut self.out)),
            Some(Route::Through(i)) => part(how, &mut self.parts, &message.fields[*i])?.field(how, key),
            None => Err(ProtobufError::UnknownType(key.to_owned())),
        }
    }

    fn close(mut self, out: &mut Vec<u8>) {
        self.parts.into_iter().for_each(|part| part.close(&mut self.out));
        put_bytes(out, self.number, &self.out);
    }
}

/// A field with all of its elements.
struct Whole<'a> {
    how: How<'a>,
    field: &'a Field,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        match self.field.shape {
            Shape::One => {
                let Self { how, field, out } = self;
                Item { how, field, number: field.number, out }.deserialize(json)
            }
            Shape::List | Shape::Map => json.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {:?}", self.field.shape)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { how, field, out } = self;
        while items.next_element_seed(Item { how, field, number: field.number, out })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { how, field, out } = self;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            put_nested(out, field.number, |out| {
                put_bytes(out, 1, key.as_bytes());
                map.next_value_seed(Item { how, field, number: 2, out })
            })?;
        }
        Ok(())
    }
}

/// One element of a field, or its only value, with its tag.
struct Item<'a> {
    how: How<'a>,
    field: &'a Field,
    /// The field's own number, or that of values in maps.
    number: u32,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        if self.field.kind != Kind::Message {
            return json.deserialize_any(self);
        }
        let Self { how, field, number, out } = self;
        let message = how.types.target(field).map_err(D::Error::custom)?;
        put_nested(out, number, |out| Content { how, message, out }.deserialize(json))
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {:?} for field {}", self.field.kind, self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        put_number(self.out, self.number, value.into());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.visit_f64(value as f64),
            _ => {
                put_number(self.out, self.number, value);
                Ok(())
            }
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.visit_f64(value as f64),
            _ => self.visit_i64(i64::try_from(value).map_err(E::custom)?),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                put_tag(self.out, self.number, 1);
                self.out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            _ => put_number(self.out, self.number, value as i64),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::Bytes => {
                let bytes = crate::decode_base64(text).ok_or_else(|| E::custom("illegal base64 data"))?;
                put_bytes(self.out, self.number, &bytes);
            }
            _ => put_bytes(self.out, self.number, text.as_bytes()),
        }
        Ok(())
    }
}
