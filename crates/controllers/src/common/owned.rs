use std::sync::Arc;

use client::{Change, Index, Informer, Key, Object, PodView, WorkQueue, controller_of, is_deleting};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use types::LabelSelector;

use super::claim::selects;
use super::expectations::Expectations;

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

/// What a change of a pod means for those who manage pods: whoever manages it, or did, looks again, and what was expected
/// has come about; whoever selects an orphan may adopt it.
pub(crate) fn on_pods<O: Object + Resource<DynamicType = ()>>(
    owners: &Informer<O>,
    seen: Arc<Expectations>,
    selector: fn(&O) -> Option<LabelSelector>,
) -> impl Fn(&Change<PodView>, &WorkQueue<Key>) + Send + Sync + 'static {
    let owners = owners.clone();
    move |change, queue| {
        let kind = O::kind(&());
        let pod = change.object();
        let owner = manager(&pod.metadata, &kind);
        let going = matches!(change, Change::Deleted(_)) || is_deleting(&pod.metadata);
        if let Some(owner) = &owner {
            if matches!(change, Change::Added(_)) {
                seen.created(owner);
            }
            if going {
                seen.deleted(owner, pod.metadata.uid.as_deref().unwrap_or_default());
            }
            queue.add(owner.clone());
        }
        if let Change::Updated { old, .. } = change
            && let Some(former) =
                manager(&old.metadata, &kind).filter(|former| Some(former) != owner.as_ref())
        {
            queue.add(former);
        }
        if controller_of(&pod.metadata).is_none() && !going {
            for owner in owners.store().list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                if selector(&owner).is_some_and(|s| !s.is_everything() && selects(&s, &**pod)) {
                    queue.add(Key::of(&*owner));
                }
            }
        }
    }
}
