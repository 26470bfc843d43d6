use crate::syntax::{KEYWORDS, RESERVED};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The type of an expression or of declared data.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; checked when evaluated.
    Dyn,
    /// What a fault left behind; fits everywhere so that one fault is told once.
    #[doc(hidden)]
    Error,
    /// `null_type`.
    Null,
    /// `bool`.
    Bool,
    /// `int`, 64 bits.
    Int,
    /// `uint`, 64 bits.
    Uint,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`; base64 in JSON.
    Bytes,
    /// A point in time; RFC 3339 or a date in JSON.
    Timestamp,
    /// A span of time, written as Go does (`1h30m`) in JSON.
    Duration,
    /// A list.
    List(Arc<ListType>),
    /// A map.
    Map(Arc<MapType>),
    /// An object with declared fields.
    Struct(Arc<StructType>),
    /// A value that may be absent.
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A type known only by its name, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A type parameter of a function.
    #[doc(hidden)]
    Param(u32),
}

/// A type, and how much of it there can be at most.
#[derive(Clone, Debug)]
pub struct Decl {
    /// The type.
    pub ty: Type,
    /// The most code points, bytes, items or entries that a value has, where a schema says so.
    pub max: Option<u64>,
}

impl Decl {
    /// A type without a bound.
    pub const fn new(ty: Type) -> Self {
        Self { ty, max: None }
    }

    /// The same with a bound on its size.
    pub fn max(self, max: u64) -> Self {
        Self { max: Some(max), ..self }
    }
}

impl From<Type> for Decl {
    fn from(ty: Type) -> Self {
        Self::new(ty)
    }
}

/// How a list's items are told apart (`x-kubernetes-list-type`): equality and `+` depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// Order matters.
    #[default]
    Atomic,
    /// No order, no duplicates.
    Set,
    /// No order, objects with these keys.
    Map(Vec<String>),
}

/// A list's items.
#[derive(Debug)]
pub struct ListType {
    /// Each item.
    pub items: Decl,
    /// How they are told apart.
    pub kind: ListKind,
}

/// A map's keys and values.
#[derive(Debug)]
pub struct MapType {
    /// Each key.
    pub key: Decl,
    /// Each value.
    pub value: Decl,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub json: String,
    /// Its type and bound.
    pub decl: Decl,
}

type Fields = BTreeMap<String, Field>;
type Maker = Box<dyn FnOnce() -> Fields + Send + Sync>;

/// An object type: a name and fields. Two of them are the same type if they have the same name.
pub struct StructType {
    name: String,
    fields: LazyLock<Fields, Maker>,
    open: bool,
}

impl fmt::Debug for StructType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl StructType {
    /// A type with these fields, by their names in JSON. Names that are no identifiers are escaped as upstream does
    /// ([`escape`]); those that cannot be are left out.
    pub fn new(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Decl)>) -> Self {
        let fields: Vec<_> = fields.into_iter().collect();
        let this = Self::lazy(name, move || fields);
        LazyLock::force(&this.fields);
        this
    }

    /// A type whose fields are worked out when first asked for; schemas that contain themselves need this.
    pub fn lazy<F, I>(name: impl Into<String>, fields: F) -> Self
    where
        F: FnOnce() -> I + Send + Sync + 'static,
        I: IntoIterator<Item = (String, Decl)>,
    {
        let make: Maker = Box::new(move || {
            fields()
                .into_iter()
                .filter_map(|(json, decl)| Some((escape(&json)?, Field { json, decl })))
                .collect()
        });
        Self { name: name.into(), fields: LazyLock::new(make), open: false }
    }

    /// A type whose fields are named in CEL as they are in JSON.
    pub(crate) fn plain(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Decl)>) -> Self {
        let fields: BTreeMap<String, Field> =
            fields.into_iter().map(|(json, decl)| (json.clone(), Field { json, decl })).collect();
        let this = Self { name: name.into(), fields: LazyLock::new(Box::new(move || fields)), open: false };
        LazyLock::force(&this.fields);
        this
    }

    /// A type that has every field, each of type `dyn`.
    pub fn open(name: impl Into<String>) -> Self {
        Self { name: name.into(), fields: LazyLock::new(Box::new(BTreeMap::new)), open: true }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A field by its name in CEL.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// Its fields by their names in CEL.
    pub fn fields(&self) -> &BTreeMap<String, Field> {
        &self.fields
    }

    pub(crate) fn field_type(&self, name: &str) -> Option<Type> {
        if self.open { Some(Type::Dyn) } else { self.field(name).map(|f| f.decl.ty.clone()) }
    }
}

/// A property's name as CEL expressions write it (apiserver, `pkg/cel/escaping.go`, `Escape`), or `None` if they
/// cannot.
///
/// ```text
/// a-b → a__dash__b    namespace → __namespace__    a__b → a__underscores__b
/// ```
pub fn escape(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(legal) {
        return None;
    }
    if KEYWORDS.contains(&name) || RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    Some(
        name.replace("__", "__underscores__")
            .replace('.', "__dot__")
            .replace('-', "__dash__")
            .replace('/', "__slash__"),
    )
}

impl Type {
    /// A list of these items.
    pub fn list(items: impl Into<Decl>) -> Self {
        Self::list_of(items, ListKind::Atomic)
    }

    /// A list of these items, told apart as `kind` says.
    pub fn list_of(items: impl Into<Decl>, kind: ListKind) -> Self {
        Self::List(Arc::new(ListType { items: items.into(), kind }))
    }

    /// A map.
    pub fn map(key: impl Into<Decl>, value: impl Into<Decl>) -> Self {
        Self::Map(Arc::new(MapType { key: key.into(), value: value.into() }))
    }

    /// An object with these fields, by their names in JSON.
    pub fn structure(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Decl)>) -> Self {
        Self::Struct(Arc::new(StructType::new(name, fields)))
    }

    /// An object with these fields, by their names in CEL, which are those in JSON: upstream escapes what comes of
    /// schemas only, so that `request.namespace` is just that.
    pub fn record(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Decl)>) -> Self {
        Self::Struct(Arc::new(StructType::plain(name, fields)))
    }

    /// A value that may be absent.
    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// Whether anything fits.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint => true,
            Self::Optional(of) => of.is_scalar(),
            _ => false,
        }
    }

    /// The name that `type(x)` shows.
    pub fn name(&self) -> &str {
        match self {
            Self::Dyn | Self::Error | Self::Param(_) => "dyn",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Struct(s) => &s.name,
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Opaque(name) => name,
        }
    }

    /// Its parameters, such as a list's item type.
    pub(crate) fn params(&self) -> Vec<&Self> {
        match self {
            Self::List(l) => vec![&l.items.ty],
            Self::Map(m) => vec![&m.key.ty, &m.value.ty],
            Self::Optional(t) | Self::Type(t) => vec![t],
            _ => Vec::new(),
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => a.items.ty == b.items.ty,
            (Self::Map(a), Self::Map(b)) => a.key.ty == b.key.ty && a.value.ty == b.value.ty,
            (Self::Struct(a), Self::Struct(b)) => a.name == b.name,
            (Self::Optional(a), Self::Optional(b)) | (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// As cel-go writes types in its messages (`checker/format.go`).
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Null => "null",
            Self::Error => "!error!",
            _ => self.name(),
        };
        f.write_str(name)?;
        let params = self.params();
        if !params.is_empty() {
            for (i, p) in params.iter().enumerate() {
                write!(f, "{}{p}", if i == 0 { "(" } else { ", " })?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// The item type of lists without a declaration.
pub(crate) static DYN_LIST: LazyLock<ListType> =
    LazyLock::new(|| ListType { items: Decl::new(Type::Dyn), kind: ListKind::Atomic });
/// The type of objects without a declaration.
pub(crate) static DYN_MAP: LazyLock<MapType> =
    LazyLock::new(|| MapType { key: Decl::new(Type::String), value: Decl::new(Type::Dyn) });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (name, want) in [
            ("a", Some("a")),
            ("namespace", Some("__namespace__")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("_a_", Some("_a_")),
            ("$ref", None),
            ("1a", None),
            ("", None),
        ] {
            assert_eq!(escape(name).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn names() {
        let t = Type::map(Type::String, Type::list(Type::Timestamp));
        assert_eq!(t.to_string(), "map(string, list(timestamp))");
        assert_eq!(Type::optional(Type::Dyn).to_string(), "optional_type(dyn)");
    }
}
