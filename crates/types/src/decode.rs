//! Reading trees while keeping an eye on fields that are there twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads JSON. The second value holds the paths of fields that came more than once, of which the last counts.
pub fn json_with_duplicates(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = with_duplicates(&mut reader)?;
    reader.end()?;
    Ok(read)
}

/// Reads any format that says what it holds.
pub fn with_duplicates<'de, D: Deserializer<'de>>(from: D) -> Result<(Value, Vec<String>), D::Error> {
    let mut duplicates = Vec::new();
    let value = Tree(&mut duplicates).deserialize(from)?;
    // Paths were put together from the end.
    for path in &mut duplicates {
        path.remove(0);
    }
    Ok((value, duplicates))
}

struct Tree<'a>(&'a mut Vec<String>);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.deserialize(from)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let known = self.0.len();
            let Some(item) = items.next_element_seed(Tree(self.0))? else { return Ok(Value::Array(list)) };
            self.0[known..].iter_mut().for_each(|path| path.insert_str(0, &format!("[{}]", list.len())));
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let known = self.0.len();
            let value = entries.next_value_seed(Tree(self.0))?;
            self.0[known..].iter_mut().for_each(|path| path.insert_str(0, &format!(".{key}")));
            if map.contains_key(&key) {
                self.0.push(format!(".{key}"));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_that_come_twice_are_named() {
        let text = r#"{"a": 1, "b": [{"c": {"d": 1, "d": 2}}, {"e": null, "e": null}], "a": 3, "a": 4}"#;
        let (value, duplicates) = json_with_duplicates(text.as_bytes()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(duplicates, ["b[0].c.d", "b[1].e", "a", "a"]);
        assert!(json_with_duplicates(b"{} x").is_err());
    }

    proptest! {
        #[test]
        fn reads_what_everybody_reads(text in "[\\[\\]{}\":,a-c0-9.e \\-tru]{0,40}") {
            let plain = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(json_with_duplicates(text.as_bytes()).ok().map(|(v, _)| v), plain);
        }
    }
}
