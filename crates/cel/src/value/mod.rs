//! Values: owned ones, and JSON seen through its declared type without being copied.

mod compare;
mod json;
mod text;
pub(crate) mod time;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

pub(crate) use compare::{compare, equal};
pub(crate) use json::wrap;
use serde_json::{Map as JsonMap, Value as Json};
pub(crate) use text::{double_text, quoted};
pub use time::{Duration, Timestamp};

use crate::error::{Outcome, fail};
use crate::functions::{authz::Authz, format::NamedFormat, network::Cidr, semver::Semver, urls::Url};
use crate::ty::{ListType, MapType, StructType, Type};

/// A value of an expression; what is part of the data it was evaluated over is borrowed from there.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    String(Str<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time.
    Duration(Duration),
    /// A list.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
    /// An object.
    Struct(Struct<'a>),
    /// A type.
    Type(Type),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// A value of Kubernetes' libraries.
    Opaque(Opaque<'a>),
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Str<'a> {
    /// Part of the data or of the program.
    Borrowed(&'a str),
    /// Made while evaluating.
    Shared(Arc<str>),
}

impl Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(s) => s,
            Self::Shared(s) => s,
        }
    }
}

impl PartialEq for Str<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Str<'_> {}

impl PartialOrd for Str<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Str<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Part of the data.
    Json(&'a [Json], &'a ListType),
    /// Made while evaluating.
    Owned(Arc<Vec<Value<'a>>>),
}

/// A map.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// Part of the data.
    Json(&'a JsonMap<String, Json>, &'a MapType),
    /// Made while evaluating.
    Owned(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// An empty map is at every key that has none.
    Open(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// An object.
#[derive(Clone, Debug)]
pub enum Struct<'a> {
    /// Part of the data.
    Json(&'a JsonMap<String, Json>, &'a StructType),
    /// Made while evaluating.
    Built(Arc<Built<'a>>),
}

/// An object that an expression made: `Object.spec{replicas: 1}`.
#[derive(Debug)]
pub struct Built<'a> {
    /// The type's name.
    pub name: Arc<str>,
    /// The fields that were given.
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

/// A key of a map. Numbers are the same key if they are the same number.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// Text.
    String(Str<'a>),
}

impl Key<'_> {
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Self::Bool(b) => (0, i128::from(*b), ""),
            Self::Int(i) => (1, i128::from(*i), ""),
            Self::Uint(u) => (1, i128::from(*u), ""),
            Self::String(s) => (2, 0, s),
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<'a> From<Key<'a>> for Value<'a> {
    fn from(key: Key<'a>) -> Self {
        match key {
            Key::Bool(b) => Value::Bool(b),
            Key::Int(i) => Value::Int(i),
            Key::Uint(u) => Value::Uint(u),
            Key::String(s) => Value::String(s),
        }
    }
}

/// Values of Kubernetes' libraries.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Opaque<'a> {
    Quantity(Arc<types::Quantity>),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Arc<Semver>),
    Format(&'static NamedFormat),
    Authz(Arc<Authz<'a>>),
    /// Stands for the named expressions of a policy; the evaluator knows them.
    Variables,
}

impl<'a> Value<'a> {
    /// Text made while evaluating.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Str::Shared(text.into()))
    }

    /// Text that is part of the data.
    pub fn str(text: &'a str) -> Self {
        Self::String(Str::Borrowed(text))
    }

    /// A list of values.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Owned(Arc::new(items)))
    }

    /// A map.
    pub fn map(entries: impl IntoIterator<Item = (Key<'a>, Self)>) -> Self {
        Self::Map(Map::Owned(Arc::new(entries.into_iter().collect())))
    }

    /// JSON, seen as its declared type.
    pub fn json(json: &'a Json, ty: &'a Type) -> Self {
        wrap(json, ty)
    }

    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The type that `type()` gives.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Struct(Struct::Json(_, ty)) => Type::Struct(Arc::new(StructType::open(ty.name()))),
            Self::Struct(Struct::Built(b)) => Type::Struct(Arc::new(StructType::open(&*b.name))),
            Self::Type(_) => Type::Type(Arc::new(Type::Dyn)),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Opaque(o) => Type::Opaque(match o {
                Opaque::Quantity(_) => "kubernetes.Quantity",
                Opaque::Url(_) => "kubernetes.URL",
                Opaque::Ip(_) => "net.IP",
                Opaque::Cidr(_) => "net.CIDR",
                Opaque::Semver(_) => "kubernetes.Semver",
                Opaque::Format(_) => "kubernetes.NamedFormat",
                Opaque::Authz(a) => a.type_name(),
                Opaque::Variables => "kubernetes.variables",
            }),
        }
    }

    /// The name of its type, as messages show it.
    pub(crate) fn type_name(&self) -> String {
        self.type_of().name().to_owned()
    }

    /// As the key of a map.
    pub(crate) fn key(&self) -> Option<Key<'a>> {
        Some(match self {
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(i) => Key::Int(*i),
            Self::Uint(u) => Key::Uint(*u),
            Self::String(s) => Key::String(s.clone()),
            Self::Double(d) if d.fract() == 0.0 && d.abs() < 9.2e18 => Key::Int(*d as i64),
            _ => return None,
        })
    }

    /// What `size()` counts; `None` for values without a size.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Self::String(s) => Some(s.chars().count()),
            Self::Bytes(b) => Some(b.len()),
            Self::List(l) => Some(l.len()),
            Self::Map(m) => Some(m.len()),
            Self::Opaque(Opaque::Ip(ip)) => Some(if ip.is_ipv4() { 4 } else { 16 }),
            Self::Opaque(Opaque::Cidr(c)) => Some(usize::from(c.bits).div_ceil(8)),
            _ => None,
        }
    }
}

impl<'a> List<'a> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Owned(items) => items.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at an index.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items, ty) => items.get(index).map(|item| wrap(item, &ty.items.ty)),
            Self::Owned(items) => items.get(index).cloned(),
        }
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

impl<'a> Map<'a> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Owned(map) | Self::Open(map) => map.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a value at a key.
    pub fn contains(&self, key: &Key<'a>) -> bool {
        match self {
            Self::Open(map) => map.contains_key(key),
            _ => self.get(key).is_some(),
        }
    }

    /// The value at a key.
    pub fn get(&self, key: &Key<'a>) -> Option<Value<'a>> {
        match self {
            Self::Json(map, ty) => match key {
                Key::String(key) => map.get(&**key).map(|value| wrap(value, &ty.value.ty)),
                _ => None,
            },
            Self::Owned(map) => map.get(key).cloned(),
            Self::Open(map) => Some(map.get(key).cloned().unwrap_or_else(|| Value::map([]))),
        }
    }

    pub(crate) fn field(&self, name: &'a str) -> Option<Value<'a>> {
        match self {
            Self::Json(map, ty) => map.get(name).map(|value| wrap(value, &ty.value.ty)),
            Self::Owned(_) | Self::Open(_) => self.get(&Key::String(Str::Borrowed(name))),
        }
    }

    /// The keys, in the order in which they are visited.
    pub fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|k| Key::String(Str::Borrowed(k))).collect(),
            Self::Owned(map) | Self::Open(map) => map.keys().cloned().collect(),
        }
    }
}

impl<'a> Struct<'a> {
    /// The type's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Json(_, ty) => ty.name(),
            Self::Built(built) => &built.name,
        }
    }

    /// A field that is set, by its name in CEL.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json(map, ty) => {
                let field = ty.field(name)?;
                map.get(&field.json).map(|value| wrap(value, &field.decl.ty))
            }
            Self::Built(built) => built.fields.get(name).cloned(),
        }
    }

    /// The fields that are set, by their names in CEL.
    pub fn entries(&self) -> Vec<(&str, Value<'a>)> {
        match self {
            Self::Json(map, ty) => ty
                .fields()
                .iter()
                .filter_map(|(name, f)| Some((name.as_str(), wrap(map.get(&f.json)?, &f.decl.ty))))
                .collect(),
            Self::Built(built) => built.fields.iter().map(|(k, v)| (&**k, v.clone())).collect(),
        }
    }
}

/// The index that a value means in a list.
pub(crate) fn list_index(index: &Value<'_>) -> Outcome<i64> {
    match index {
        Value::Int(i) => Ok(*i),
        Value::Uint(u) => Ok(i64::try_from(*u).unwrap_or(i64::MAX)),
        Value::Double(d) if d.fract() == 0.0 && d.abs() < 9.2e18 => Ok(*d as i64),
        Value::Double(_) => fail("unsupported index value type double in list"),
        other => fail(format!("unsupported index type '{}' in list", other.type_name())),
    }
}
