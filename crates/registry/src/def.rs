use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use types::{Definitions, SchemaId};

use crate::strategy::{Convert, Strategy};

/// A group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gvk {
    /// Empty for the core group.
    pub group: Box<str>,
    /// Such as `v1`.
    pub version: Box<str>,
    /// Such as `Deployment`.
    pub kind: Box<str>,
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

/// One resource in one version: all that routes, discovery, OpenAPI, admission and the verbs need to know.
pub struct ResourceDef {
    /// The kind of its objects.
    pub gvk: Gvk,
    /// The plural in the URL.
    pub resource: Box<str>,
    /// The singular, lower case.
    pub singular: Box<str>,
    /// Such as `deploy`.
    pub short_names: &'static [&'static str],
    /// Such as `all`.
    pub categories: &'static [&'static str],
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
    pub convert: Option<&'static dyn Convert>,
    /// The type's shape, in [`Registry::definitions`].
    pub schema: Option<SchemaId>,
    /// The kind's own rules.
    pub strategy: &'static dyn Strategy,
}

impl ResourceDef {
    /// Whether there is a subresource of that name.
    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.contains_key(name)
    }

    /// `apps/v1`.
    pub fn api_version(&self) -> String {
        self.gvk.api_version()
    }
}

/// Group, version and plural.
type ResourcePath = (Box<str>, Box<str>, Box<str>);

/// Every resource that is served.
pub struct Registry {
    resources: Vec<Arc<ResourceDef>>,
    by_path: HashMap<ResourcePath, Arc<ResourceDef>>,
    definitions: Arc<Definitions>,
}

impl Registry {
    /// From its parts.
    pub fn new(resources: Vec<Arc<ResourceDef>>, definitions: Arc<Definitions>) -> Self {
        let by_path = resources
            .iter()
            .map(|def| ((def.gvk.group.clone(), def.gvk.version.clone(), def.resource.clone()), def.clone()))
            .collect();
        Self { resources, by_path, definitions }
    }

    /// The resource at `/apis/{group}/{version}/…/{resource}`.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<ResourceDef>> {
        // The key owns its parts; three short allocations are cheaper to read than a borrowed-key wrapper type.
        self.by_path.get(&(group.into(), version.into(), resource.into()))
    }

    /// The resource of a kind in a group, in the version given or else any.
    pub fn find_kind(&self, group: &str, version: Option<&str>, kind: &str) -> Option<&Arc<ResourceDef>> {
        self.resources.iter().find(|def| {
            *def.gvk.group == *group
                && *def.gvk.kind == *kind
                && version.is_none_or(|v| *def.gvk.version == *v)
        })
    }

    /// All resources, in the order of the facts.
    pub fn resources(&self) -> &[Arc<ResourceDef>] {
        &self.resources
    }

    /// The shapes of all types.
    pub fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    /// Each group with its versions, best first; the core group is the empty name.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for def in &self.resources {
            let (group, version) = (&*def.gvk.group, &*def.gvk.version);
            match groups.iter_mut().find(|(g, _)| *g == group) {
                Some((_, versions)) if versions.contains(&version) => {}
                Some((_, versions)) => versions.push(version),
                None => groups.push((group, vec![version])),
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by(|a, b| b.cmp(a));
        }
        groups
    }
}
