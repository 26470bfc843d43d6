use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use types::{Definitions, FieldSchema, SchemaId};

use crate::custom::Custom;
use crate::registry::Registry;
use crate::strategy::{Convert, Strategy};

/// A group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gvk {
    /// Empty for the core group.
    pub group: Arc<str>,
    /// Such as `v1`.
    pub version: Arc<str>,
    /// Such as `Deployment`.
    pub kind: Arc<str>,
}

impl Gvk {
    /// From its parts.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// What can be asked of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Connect,
}

impl Verb {
    const ALL: [(Verb, &str); 9] = [
        (Verb::Create, "create"),
        (Verb::Delete, "delete"),
        (Verb::DeleteCollection, "deletecollection"),
        (Verb::Get, "get"),
        (Verb::List, "list"),
        (Verb::Patch, "patch"),
        (Verb::Update, "update"),
        (Verb::Watch, "watch"),
        (Verb::Connect, "connect"),
    ];

    /// Lower case, as RBAC rules and discovery write it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(v, _)| *v == self).map_or("", |(_, s)| s)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, s)| *s == text).map(|(v, _)| *v)
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(u16);

impl Verbs {
    /// From their names; unknown names are left out.
    pub fn parse<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self(names.filter_map(Verb::parse).fold(0, |set, verb| set | 1 << verb as u16))
    }

    /// Whether `verb` is in the set.
    pub fn has(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u16) != 0
    }

    /// The verbs in discovery's (alphabetical) order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Verb::ALL.into_iter().filter(move |(v, _)| self.has(*v)).map(|(_, s)| s)
    }
}

/// A subresource such as `status` or `scale`.
#[derive(Clone, Debug)]
pub struct SubresourceDef {
    /// The kind it speaks.
    pub kind: Gvk,
    /// What can be asked of it.
    pub verbs: Verbs,
}

/// Something that either the program holds for good or that its users share, such as the rules of a kind.
pub enum Shared<T: ?Sized + 'static> {
    /// Part of the program.
    Static(&'static T),
    /// Made at run time.
    Counted(Arc<T>),
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Static(value) => Self::Static(value),
            Self::Counted(value) => Self::Counted(value.clone()),
        }
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Static(value) => value,
            Self::Counted(value) => value,
        }
    }
}

impl<T: ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// One resource in one version: all that routes, discovery, OpenAPI, admission and the verbs need to know.
pub struct ResourceDef {
    /// The kind of its objects.
    pub gvk: Gvk,
    /// The plural in the URL.
    pub resource: Arc<str>,
    /// The singular, lower case.
    pub singular: Box<str>,
    /// Such as `deploy`.
    pub short_names: Box<[Box<str>]>,
    /// Such as `all`.
    pub categories: Box<[Box<str>]>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be asked of it.
    pub verbs: Verbs,
    /// By name.
    pub subresources: BTreeMap<Box<str>, SubresourceDef>,
    /// The store's table: `pods`, `deployments.apps`. Versions of one kind share it.
    pub table: Arc<str>,
    /// The kind and version that is stored.
    pub storage: Gvk,
    /// Between this version and the stored one, where they differ.
    pub convert: Option<Shared<dyn Convert>>,
    /// A built-in type's shape, in [`Registry::definitions`]; see [`ResourceDef::shape`].
    pub schema: Option<SchemaId>,
    /// The kind's own rules.
    pub strategy: Shared<dyn Strategy>,
    /// What else there is to know of a custom kind.
    pub custom: Option<Arc<Custom>>,
}

impl ResourceDef {
    /// A resource that another server serves: nothing but its names is known here.
    pub fn elsewhere(group: &str, version: &str, resource: &str, namespaced: bool) -> Self {
        struct Theirs;
        impl Strategy for Theirs {}
        Self {
            gvk: Gvk::new(group, version, ""),
            resource: resource.into(),
            singular: Box::default(),
            short_names: Box::default(),
            categories: Box::default(),
            namespaced,
            verbs: Verbs::default(),
            subresources: BTreeMap::new(),
            table: Arc::default(),
            storage: Gvk::new(group, version, ""),
            convert: None,
            schema: None,
            strategy: Shared::Static(&Theirs),
            custom: None,
        }
    }

    /// Whether there is a subresource of that name.
    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.contains_key(name)
    }

    /// `apps/v1`.
    pub fn api_version(&self) -> String {
        self.gvk.api_version()
    }

    /// The kind of lists of such objects.
    pub fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.gvk.kind), |c| c.list_kind.to_string())
    }

    /// The types that this resource's schema is written in.
    pub fn definitions<'a>(&'a self, registry: &'a Registry) -> &'a Arc<Definitions> {
        self.custom.as_ref().map_or_else(|| registry.definitions(), |custom| custom.definitions())
    }

    /// The shape of the resource's objects; nothing if nothing is known of it.
    pub fn shape<'a>(&'a self, registry: &'a Registry) -> Option<(&'a Definitions, &'a FieldSchema)> {
        if let Some(custom) = &self.custom {
            return custom.shape();
        }
        let definitions = registry.definitions();
        self.schema.map(|schema| (&**definitions, &definitions.get(schema).field))
    }
}
