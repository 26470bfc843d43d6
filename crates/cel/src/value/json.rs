use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Number, Value as Json};

use super::{Key, List, Map, Opaque, Str, Struct, Timestamp, Value, double_text, time};
use crate::error::{Outcome, fail};
use crate::ty::{DYN_LIST, DYN_MAP, Type};

/// JSON seen as a type. Where the two do not fit (the schema is checked before), the JSON's own type counts.
pub(crate) fn wrap<'a>(json: &'a Json, ty: &'a Type) -> Value<'a> {
    match (json, ty) {
        (Json::Null, _) => Value::Null,
        (Json::Bool(b), _) => Value::Bool(*b),
        (Json::Number(n), _) => number(n, ty),
        (Json::String(s), Type::Dyn | Type::String) => Value::str(s),
        (Json::String(s), _) => string(s, ty),
        (Json::Array(items), Type::List(list)) => Value::List(List::Json(items, list)),
        (Json::Array(items), _) => Value::List(List::Json(items, &DYN_LIST)),
        (Json::Object(map), Type::Struct(ty)) => Value::Struct(Struct::Json(map, ty)),
        (Json::Object(map), Type::Map(ty)) => Value::Map(Map::Json(map, ty)),
        (Json::Object(map), _) => Value::Map(Map::Json(map, &DYN_MAP)),
    }
}

fn number<'a>(n: &Number, ty: &Type) -> Value<'a> {
    match ty {
        Type::Double => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
        Type::Uint if n.is_u64() => Value::Uint(n.as_u64().unwrap_or_default()),
        _ => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Value::Int(i),
            (_, Some(d)) if matches!(ty, Type::Int) && d.fract() == 0.0 && d.abs() < 9.2e18 => {
                Value::Int(d as i64)
            }
            (_, d) => Value::Double(d.unwrap_or(f64::NAN)),
        },
    }
}

fn string<'a>(s: &'a str, ty: &Type) -> Value<'a> {
    let typed = match ty {
        Type::Timestamp => Timestamp::parse(s).or_else(|| Timestamp::parse_date(s)).map(Value::Timestamp),
        Type::Duration => time::Duration::parse(s).map(Value::Duration),
        Type::Bytes => STANDARD.decode(s).ok().map(|b| Value::Bytes(b.into())),
        _ => None,
    };
    typed.unwrap_or(Value::str(s))
}

impl Value<'_> {
    /// As JSON: timestamps and durations as text, bytes in base64, an absent optional as null; types and most
    /// values of Kubernetes' libraries have no JSON.
    pub fn to_json(&self) -> Outcome<Json> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(i) => Json::from(*i),
            Self::Uint(u) => Json::from(*u),
            Self::Double(d) => match Number::from_f64(*d) {
                Some(n) => Json::Number(n),
                None => return fail(format!("{} has no JSON form", double_text(*d))),
            },
            Self::String(s) => Json::String(s.to_string()),
            Self::Bytes(b) => Json::String(STANDARD.encode(b)),
            Self::Timestamp(t) => Json::String(t.to_string()),
            Self::Duration(d) => Json::String(d.seconds_text()),
            Self::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Self::List(list) => Json::Array(list.iter().map(|v| v.to_json()).collect::<Outcome<_>>()?),
            Self::Map(Map::Json(map, _)) | Self::Struct(Struct::Json(map, _)) => Json::Object((*map).clone()),
            Self::Map(map) => {
                let mut object = JsonMap::new();
                for key in map.keys() {
                    let value = map.get(&key).map_or(Ok(Json::Null), |v| v.to_json())?;
                    object.insert(key_text(&key), value);
                }
                Json::Object(object)
            }
            Self::Struct(Struct::Built(built)) => {
                let mut object = JsonMap::new();
                for (name, value) in &built.fields {
                    object.insert(name.to_string(), value.to_json()?);
                }
                Json::Object(object)
            }
            Self::Optional(None) => Json::Null,
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Opaque(Opaque::Quantity(q)) => Json::String(q.to_string()),
            Self::Opaque(Opaque::Ip(ip)) => Json::String(ip.to_string()),
            Self::Opaque(Opaque::Cidr(c)) => Json::String(c.to_string()),
            other => return fail(format!("a value of type {} has no JSON form", other.type_name())),
        })
    }

    /// Refuses objects whose type's name does not say where they stand: `Object.spec` at `spec` (apiserver,
    /// `pkg/cel/mutation/dynamic/objects.go`, `CheckTypeNamesMatchFieldPathNames`).
    pub fn check_object_paths(&self) -> Outcome<()> {
        match self {
            Self::Struct(Struct::Built(built)) => check_path(self, &built.name),
            _ => Ok(()),
        }
    }
}

fn check_path(value: &Value<'_>, path: &str) -> Outcome<()> {
    match value {
        Value::Struct(Struct::Built(built)) => {
            if *built.name != *path {
                return fail(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    built.name
                ));
            }
            built.fields.iter().try_for_each(|(name, v)| check_path(v, &format!("{path}.{name}")))
        }
        Value::List(List::Owned(items)) => items.iter().try_for_each(|v| check_path(v, path)),
        Value::Map(Map::Owned(map)) => map.values().try_for_each(|v| check_path(v, path)),
        Value::Optional(Some(v)) => check_path(v, path),
        _ => Ok(()),
    }
}

fn key_text(key: &Key<'_>) -> String {
    match key {
        Key::Bool(b) => b.to_string(),
        Key::Int(i) => i.to_string(),
        Key::Uint(u) => u.to_string(),
        Key::String(s) => s.to_string(),
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::str(text)
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<i64> for Value<'_> {
    fn from(i: i64) -> Self {
        Self::Int(i)
    }
}

impl From<IpAddr> for Value<'_> {
    fn from(ip: IpAddr) -> Self {
        Self::Opaque(Opaque::Ip(ip))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Str::Shared(Arc::from(text)))
    }
}
