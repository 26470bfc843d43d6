use std::sync::Arc;

use client::{Index, Informer, Key, Object, controller_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Finds the objects that an owner manages, and those that nobody does.
pub(crate) struct Owned<K>(Index<K>);

fn orphans(namespace: &str) -> String {
    format!("-/{namespace}")
}

impl<K: Object> Owned<K> {
    pub(crate) fn new(informer: &Informer<K>) -> Self {
        Self(informer.index("managed-by", |object: &K| {
            let meta = object.meta();
            let owner = controller_of(meta).map(|owner| owner.uid.clone());
            [owner.unwrap_or_else(|| orphans(meta.namespace.as_deref().unwrap_or_default()))]
        }))
    }

    /// What the owner with this UID manages.
    pub(crate) fn of(&self, uid: &str) -> Vec<Arc<K>> {
        self.0.get(uid)
    }

    /// What an owner may claim: what it manages, and what nobody does.
    pub(crate) fn candidates(&self, owner: &ObjectMeta) -> Vec<Arc<K>> {
        let mut found = self.of(owner.uid.as_deref().unwrap_or_default());
        found.extend(self.0.get(&orphans(owner.namespace.as_deref().unwrap_or_default())));
        found
    }
}

/// The key of the object's manager, if that is of this kind.
pub(crate) fn manager(meta: &ObjectMeta, kind: &str) -> Option<Key> {
    let owner = controller_of(meta).filter(|owner| owner.kind == kind)?;
    Some(Key::new(meta.namespace.as_deref().unwrap_or_default(), &owner.name))
}
