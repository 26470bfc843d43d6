use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use client::Key;
use client::storage::class_of_volume;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use kube::{Resource, ResourceExt};

use super::Plan;

/// Claims, volumes and all that says where volumes can be. What a decision has given away counts as given away before the
/// server has heard of it.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    claims: HashMap<Key, Known<PersistentVolumeClaim>>,
    volumes: HashMap<Key, Known<PersistentVolume>>,
    /// The names of volumes by class.
    of_class: HashMap<String, BTreeSet<Key>>,
    classes: HashMap<String, Arc<StorageClass>>,
    nodes: HashMap<String, Arc<CSINode>>,
    drivers: HashMap<String, Arc<CSIDriver>>,
    pub(super) capacities: HashMap<Key, Arc<CSIStorageCapacity>>,
    attachments: HashMap<String, Arc<VolumeAttachment>>,
    /// The names of attachments by node.
    attached_to: HashMap<String, BTreeSet<String>>,
}

/// An object as the server has it, and as it is about to be.
#[derive(Debug)]
struct Known<K> {
    now: Arc<K>,
    soon: Option<Arc<K>>,
}

impl<K: Resource> Known<K> {
    fn latest(&self) -> &Arc<K> {
        self.soon.as_ref().unwrap_or(&self.now)
    }
}

pub(super) fn revision(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// News of an object is newer than what was assumed of it, unless it is the very state that was built upon.
fn learn<K: Resource>(all: &mut HashMap<Key, Known<K>>, key: Key, object: Arc<K>) {
    let soon = all.remove(&key).and_then(|known| known.soon);
    let soon = soon.filter(|soon| revision(&**soon) >= revision(&*object));
    all.insert(key, Known { now: object, soon });
}

impl Volumes {
    pub(crate) fn set_claim(&mut self, key: Key, claim: Option<Arc<PersistentVolumeClaim>>) {
        match claim {
            Some(claim) => learn(&mut self.claims, key, claim),
            None => drop(self.claims.remove(&key)),
        }
    }

    pub(crate) fn set_volume(&mut self, key: Key, volume: Option<Arc<PersistentVolume>>) {
        if let Some(known) = self.volumes.get(&key)
            && let Some(names) = self.of_class.get_mut(class_of_volume(&known.now))
        {
            names.remove(&key);
        }
        match volume {
            Some(volume) => {
                self.of_class.entry(class_of_volume(&volume).to_owned()).or_default().insert(key.clone());
                learn(&mut self.volumes, key, volume);
            }
            None => drop(self.volumes.remove(&key)),
        }
    }

    /// Takes in a class, or that it is gone. Tells whether that may help a pod; so do the next ones.
    pub(crate) fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) -> bool {
        set(&mut self.classes, name, class, |old, new| old.allowed_topologies != new.allowed_topologies)
    }

    pub(crate) fn set_node(&mut self, name: &str, node: Option<Arc<CSINode>>) -> bool {
        set(&mut self.nodes, name, node, |old, new| old.spec != new.spec)
    }

    pub(crate) fn set_driver(&mut self, name: &str, driver: Option<Arc<CSIDriver>>) -> bool {
        set(&mut self.drivers, name, driver, |old, new| old.spec != new.spec)
    }

    /// How much there is changes often, and less of it helps nobody.
    pub(crate) fn set_capacity(&mut self, key: Key, capacity: Option<Arc<CSIStorageCapacity>>) -> bool {
        let Some(new) = capacity else {
            self.capacities.remove(&key);
            return false;
        };
        let helps = match self.capacities.get(&key) {
            Some(old) => most(&new) > most(old) || old.node_topology != new.node_topology,
            None => true,
        };
        self.capacities.insert(key, new);
        helps
    }

    /// Takes in that a volume is attached to a node, or is not any more: then the node has room for another one.
    pub(crate) fn set_attachment(&mut self, name: &str, attachment: Option<Arc<VolumeAttachment>>) -> bool {
        let before = self.attachments.remove(name);
        if let Some(before) = &before
            && let Some(names) = self.attached_to.get_mut(&before.spec.node_name)
        {
            names.remove(name);
            if names.is_empty() {
                self.attached_to.remove(&before.spec.node_name);
            }
        }
        let gone = before.is_some() && attachment.is_none();
        if let Some(attachment) = attachment {
            let names = self.attached_to.entry(attachment.spec.node_name.clone()).or_default();
            names.insert(name.to_owned());
            self.attachments.insert(name.to_owned(), attachment);
        }
        gone
    }

    /// What is attached to a node, whoever uses it.
    pub(super) fn attachments(&self, node: &str) -> impl Iterator<Item = &Arc<VolumeAttachment>> {
        let names = self.attached_to.get(node).into_iter().flatten();
        names.filter_map(|name| self.attachments.get(name))
    }

    pub(super) fn claim(&self, key: &Key) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(key).map(Known::latest)
    }

    pub(super) fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(&Key::new("", name)).map(Known::latest)
    }

    /// As the server has it.
    pub(super) fn real_claim(&self, key: &Key) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(key).map(|known| &known.now)
    }

    /// As the server has it.
    pub(super) fn real_volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(&Key::new("", name)).map(|known| &known.now)
    }

    pub(super) fn volumes_of(&self, class: &str) -> impl Iterator<Item = Arc<PersistentVolume>> {
        let names = self.of_class.get(class).into_iter().flatten();
        names.filter_map(|name| self.volumes.get(name)).map(|known| known.latest().clone())
    }

    pub(super) fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }

    pub(super) fn node(&self, name: &str) -> Option<&Arc<CSINode>> {
        self.nodes.get(name)
    }

    pub(super) fn driver(&self, name: &str) -> Option<&Arc<CSIDriver>> {
        self.drivers.get(name)
    }

    /// From now on, others see a plan as carried out.
    pub(crate) fn assume(&mut self, plan: &Plan) {
        for binding in &plan.bind {
            if let Some(known) = self.volumes.get_mut(&Key::of(&*binding.volume)) {
                known.soon = Some(binding.volume.clone());
            }
        }
        for wish in &plan.provision {
            if let Some(known) = self.claims.get_mut(&Key::of(&*wish.claim)) {
                known.soon = Some(wish.claim.clone());
            }
        }
    }

    /// A plan came to nothing; what the server has, counts.
    pub(crate) fn forsake(&mut self, plan: &Plan) {
        for binding in &plan.bind {
            if let Some(known) = self.volumes.get_mut(&Key::of(&*binding.volume)) {
                known.soon = None;
            }
        }
        for wish in &plan.provision {
            if let Some(known) = self.claims.get_mut(&Key::of(&*wish.claim)) {
                known.soon = None;
            }
        }
    }
}

/// Tells whether the object is new, or differs in what matters.
fn set<K>(
    all: &mut HashMap<String, Arc<K>>,
    name: &str,
    object: Option<Arc<K>>,
    differs: impl Fn(&K, &K) -> bool,
) -> bool {
    let Some(object) = object else {
        all.remove(name);
        return false;
    };
    let helps = all.get(name).is_none_or(|old| differs(old, &object));
    all.insert(name.to_owned(), object);
    helps
}

/// How large a volume can be made, as far as is known (`volumeLimit`).
pub(super) fn most(capacity: &CSIStorageCapacity) -> Option<i64> {
    let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
    most.0.parse::<types::Quantity>().ok().map(types::Quantity::units)
}
