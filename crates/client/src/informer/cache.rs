use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::key::Key;

/// The objects of one kind as last seen.
pub struct Cache<K>(Arc<RwLock<Tables<K>>>);

struct Tables<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indices: Vec<IndexTable<K>>,
}

struct IndexTable<K> {
    name: &'static str,
    values: Values<K>,
    keys: HashMap<String, HashSet<Key>>,
}

type Values<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Tables { objects: BTreeMap::new(), indices: Vec::new() })))
    }
}

impl<K> Cache<K> {
    /// The object under a key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.0.read().objects.get(key).cloned()
    }

    /// The object of this namespace and name; the namespace is empty for objects of the whole cluster.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&Key::new(namespace, name))
    }

    /// Every object, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.read().objects.values().cloned().collect()
    }

    /// Every object of a namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let prefix = format!("{namespace}/");
        let tables = self.0.read();
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let range = tables.objects.range::<str, _>(from);
        range.take_while(|(key, _)| key.as_str().starts_with(&prefix)).map(|(_, o)| o.clone()).collect()
    }

    /// Looks at every object, without copies; no change gets in meanwhile.
    pub fn for_each(&self, mut visit: impl FnMut(&Key, &Arc<K>)) {
        self.0.read().objects.iter().for_each(|(key, object)| visit(key, object));
    }

    /// Every key.
    pub fn keys(&self) -> Vec<Key> {
        self.0.read().objects.keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an object in and gives what was there.
    pub(super) fn insert(&self, object: Arc<K>, key: Key) -> Option<Arc<K>> {
        let mut tables = self.0.write();
        let old = tables.objects.insert(key.clone(), object.clone());
        for index in &mut tables.indices {
            let fresh = (index.values)(&object);
            if let Some(old) = &old {
                let gone = (index.values)(old);
                index.remove(gone.iter().filter(|value| !fresh.contains(value)), &key);
            }
            for value in fresh {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
        old
    }

    /// Takes an object out.
    pub(super) fn remove(&self, key: &Key) -> Option<Arc<K>> {
        let mut tables = self.0.write();
        let old = tables.objects.remove(key)?;
        for index in &mut tables.indices {
            let gone = (index.values)(&old);
            index.remove(gone.iter(), key);
        }
        Some(old)
    }

    pub(super) fn index(&self, name: &'static str, values: Values<K>) -> Index<K> {
        let mut tables = self.0.write();
        let place = tables.indices.iter().position(|index| index.name == name).unwrap_or_else(|| {
            let mut keys: HashMap<String, HashSet<Key>> = HashMap::new();
            for (key, object) in &tables.objects {
                for value in values(object) {
                    keys.entry(value).or_default().insert(key.clone());
                }
            }
            tables.indices.push(IndexTable { name, values, keys });
            tables.indices.len() - 1
        });
        Index { cache: Cache(self.0.clone()), place }
    }
}

impl<K> IndexTable<K> {
    fn remove<'a>(&mut self, values: impl Iterator<Item = &'a String>, key: &Key) {
        for value in values {
            if let Some(keys) = self.keys.get_mut(value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(value);
                }
            }
        }
    }
}

/// A lookup by something else than the name.
pub struct Index<K> {
    cache: Cache<K>,
    place: usize,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { cache: Cache(self.cache.0.clone()), place: self.place }
    }
}

impl<K> Index<K> {
    /// The objects under a value, by namespace and name.
    pub fn get(&self, value: &str) -> Vec<Arc<K>> {
        let tables = self.cache.0.read();
        let Some(keys) = tables.indices[self.place].keys.get(value) else { return Vec::new() };
        let mut keys: Vec<&Key> = keys.iter().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| tables.objects.get(key).cloned()).collect()
    }

    /// The keys under a value, in no order.
    pub fn keys(&self, value: &str) -> Vec<Key> {
        let tables = self.cache.0.read();
        let keys = tables.indices[self.place].keys.get(value);
        keys.map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_by_namespace_and_by_index() {
        let cache: Cache<(String, u32)> = Cache::default();
        let index = cache.index("number", Box::new(|object: &(String, u32)| vec![object.1.to_string()]));
        for (namespace, name, number) in [("a", "x", 1), ("a", "y", 2), ("ab", "x", 1), ("", "z", 3)] {
            cache.insert(Arc::new((name.into(), number)), Key::new(namespace, name));
        }
        assert_eq!(cache.list_in("a").len(), 2);
        assert_eq!(cache.by_name("", "z").unwrap().1, 3);
        assert_eq!(index.get("1").len(), 2);
        cache.insert(Arc::new(("x".into(), 2)), Key::new("a", "x"));
        assert_eq!((index.get("1").len(), index.get("2").len()), (1, 2));
        cache.remove(&Key::new("ab", "x"));
        assert!(index.get("1").is_empty());
        let again = cache.index("number", Box::new(|_| Vec::new()));
        assert_eq!(again.keys("2").len(), 2);
    }
}
