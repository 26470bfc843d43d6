use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use types::Definitions;

use crate::def::ResourceDef;
use crate::version::compare_versions;

/// The versions of a group that are served, best first, each with its resources.
type Versions = Vec<(Box<str>, Vec<Arc<ResourceDef>>)>;

/// The groups that are served, in discovery's order.
type Groups = Vec<(Box<str>, Versions)>;

/// Every resource that is served, at one moment: the built-in ones, which stay, and the custom ones, which come and
/// go. A change makes another registry, which shares all that did not change.
#[derive(Clone)]
pub struct Registry {
    builtin: Arc<[Arc<ResourceDef>]>,
    /// By the definition that brought them.
    custom: imbl::OrdMap<Arc<str>, Arc<[Arc<ResourceDef>]>>,
    /// By `group/version/resource`.
    by_path: imbl::HashMap<Box<str>, Arc<ResourceDef>>,
    definitions: Arc<Definitions>,
    /// Made when somebody asks: what discovery shows.
    groups: OnceLock<Arc<Groups>>,
}

fn path(group: &str, version: &str, resource: &str) -> Box<str> {
    let mut path = String::with_capacity(group.len() + version.len() + resource.len() + 2);
    path.push_str(group);
    path.push('/');
    path.push_str(version);
    path.push('/');
    path.push_str(resource);
    path.into()
}

fn path_of(def: &ResourceDef) -> Box<str> {
    path(&def.gvk.group, &def.gvk.version, &def.resource)
}

impl Registry {
    /// From the built-in resources.
    pub fn new(resources: Vec<Arc<ResourceDef>>, definitions: Arc<Definitions>) -> Self {
        let by_path = resources.iter().map(|def| (path_of(def), def.clone())).collect();
        let custom = imbl::OrdMap::new();
        Self { builtin: resources.into(), custom, by_path, definitions, groups: OnceLock::new() }
    }

    /// The same with `resources` in the place of what `owner` brought before; with none of them `owner` is gone.
    ///
    /// A path that is taken already stays with whoever has it.
    pub fn with_custom(&self, owner: &str, resources: Vec<Arc<ResourceDef>>) -> Self {
        let mut next = Self { groups: OnceLock::new(), ..self.clone() };
        let before = next.custom.remove(owner);
        for def in before.iter().flat_map(|defs| defs.iter()) {
            let path = path_of(def);
            if next.by_path.get(&path).is_some_and(|held| Arc::ptr_eq(held, def)) {
                next.by_path.remove(&path);
            }
        }
        let free = |def: &Arc<ResourceDef>| !next.by_path.contains_key(&path_of(def));
        let resources: Vec<Arc<ResourceDef>> = resources.into_iter().filter(free).collect();
        for def in &resources {
            next.by_path.insert(path_of(def), def.clone());
        }
        if !resources.is_empty() {
            next.custom.insert(owner.into(), resources.into());
        }
        next
    }

    /// What `owner` brought.
    pub fn custom(&self, owner: &str) -> &[Arc<ResourceDef>] {
        self.custom.get(owner).map_or(&[], |defs| &**defs)
    }

    /// Whether this very definition is still the one that is served.
    pub fn serves(&self, def: &Arc<ResourceDef>) -> bool {
        self.by_path.get(&path_of(def)).is_some_and(|held| Arc::ptr_eq(held, def))
    }

    /// The resource at `/apis/{group}/{version}/…/{resource}`.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<ResourceDef>> {
        self.by_path.get(&path(group, version, resource))
    }

    /// The resource of a kind in a group, in the version given or else any.
    pub fn find_kind(&self, group: &str, version: Option<&str>, kind: &str) -> Option<&Arc<ResourceDef>> {
        self.resources().find(|def| {
            *def.gvk.group == *group
                && *def.gvk.kind == *kind
                && version.is_none_or(|v| *def.gvk.version == *v)
        })
    }

    /// All resources: the built-in ones in the order of the facts, then the custom ones.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.builtin.iter().chain(self.custom.values().flat_map(|defs| defs.iter()))
    }

    /// The built-in resources.
    pub fn builtin_resources(&self) -> &[Arc<ResourceDef>] {
        &self.builtin
    }

    /// The shapes of all built-in types.
    pub fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    /// Each group with its versions, best first; the core group is the empty name. Groups of custom resources come
    /// last, by name.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        self.grouped()
            .iter()
            .map(|(g, versions)| (&**g, versions.iter().map(|(v, _)| &**v).collect()))
            .collect()
    }

    /// The resources of one group and version.
    pub fn of_version(&self, group: &str, version: &str) -> &[Arc<ResourceDef>] {
        let versions = self.grouped().iter().find(|(g, _)| **g == *group).map(|(_, versions)| versions);
        let found = versions.and_then(|versions| versions.iter().find(|(v, _)| **v == *version));
        found.map_or(&[], |(_, resources)| resources)
    }

    fn grouped(&self) -> &[(Box<str>, Versions)] {
        self.groups.get_or_init(|| Arc::new(group(self)))
    }
}

fn group(registry: &Registry) -> Groups {
    let mut order: Vec<&str> = Vec::new();
    let mut groups: HashMap<&str, BTreeMap<&str, Vec<Arc<ResourceDef>>>> = HashMap::new();
    let builtin = registry.builtin.len();
    let mut custom_from = 0;
    for (i, def) in registry.resources().enumerate() {
        if i == builtin {
            custom_from = order.len();
        }
        let group = &*def.gvk.group;
        let versions = groups.entry(group).or_insert_with(|| {
            order.push(group);
            BTreeMap::new()
        });
        versions.entry(&def.gvk.version).or_default().push(def.clone());
    }
    if registry.custom.is_empty() {
        custom_from = order.len();
    }
    order[custom_from..].sort_unstable();
    let grouped = order.into_iter().map(|name| {
        let versions = groups.remove(name).unwrap_or_default();
        let mut versions: Versions = versions.into_iter().map(|(v, defs)| (v.into(), defs)).collect();
        versions.sort_by(|a, b| compare_versions(&b.0, &a.0));
        (name.into(), versions)
    });
    grouped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::{Gvk, Shared};

    fn def(like: &ResourceDef, group: &str, version: &str, resource: &str) -> Arc<ResourceDef> {
        Arc::new(ResourceDef {
            gvk: Gvk::new(group, version, "Thing"),
            resource: resource.into(),
            singular: "thing".into(),
            short_names: Box::default(),
            categories: Box::default(),
            namespaced: true,
            verbs: like.verbs,
            subresources: Default::default(),
            table: "things".into(),
            storage: Gvk::new(group, version, "Thing"),
            convert: None,
            schema: None,
            custom: None,
            strategy: match &like.strategy {
                Shared::Static(strategy) => Shared::Static(*strategy),
                Shared::Counted(strategy) => Shared::Counted(strategy.clone()),
            },
        })
    }

    #[test]
    fn custom_resources_come_and_go() {
        let before = Registry::builtin();
        let like = before.find("", "v1", "configmaps").unwrap().clone();
        let things = def(&like, "b.example", "v1", "things");
        let one = before.with_custom("x", vec![things.clone(), def(&like, "b.example", "v1beta1", "things")]);
        let two = one.with_custom("y", vec![def(&like, "a.example", "v1", "others")]);
        assert!(before.find("b.example", "v1", "things").is_none(), "a snapshot stays as it is");
        assert!(two.serves(&things) && !before.serves(&things));
        let groups = two.groups();
        let last: Vec<_> = groups[groups.len() - 2..].to_vec();
        assert_eq!(last, [("a.example", vec!["v1"]), ("b.example", vec!["v1", "v1beta1"])]);
        let three = two.with_custom("x", vec![def(&like, "b.example", "v1", "things")]);
        assert!(!three.serves(&things) && three.find("b.example", "v1beta1", "things").is_none());
        let four = three.with_custom("x", Vec::new()).with_custom("y", Vec::new());
        assert_eq!(four.groups(), before.groups());
    }

    #[test]
    fn what_is_built_in_stays() {
        let before = Registry::builtin();
        let maps = before.find("", "v1", "configmaps").unwrap().clone();
        let after = before.with_custom("x", vec![def(&maps, "", "v1", "configmaps")]);
        assert!(after.serves(&maps) && after.custom("x").is_empty());
        assert!(after.with_custom("x", Vec::new()).serves(&maps));
    }
}
