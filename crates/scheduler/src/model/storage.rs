//! Claims and volumes, by plain loops.

use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use client::k8s_openapi::api::storage::v1::StorageClass;
use client::{Key, storage};
use proptest::collection::vec;
use proptest::option;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;

const ZONE: &str = "topology.kubernetes.io/zone";

/// All claims and volumes; the classes are always the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Storage {
    claims: Vec<PersistentVolumeClaim>,
    volumes: Vec<PersistentVolume>,
}

fn classes() -> [StorageClass; 2] {
    let near = json!([{"matchLabelExpressions": [{"key": ZONE, "values": ["z1"]}]}]);
    let class = |name: &str, provisioner: &str, near: Value| -> StorageClass {
        testkit::object(json!({"metadata": {"name": name}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": near}))
    };
    [class("hand", storage::NO_PROVISIONER, Value::Null), class("near", "x.io/y", near)]
}

impl Storage {
    pub(super) fn tell(&self, view: &mut ClusterView) {
        for class in classes() {
            view.volumes.set_class(&class.metadata.name.clone().unwrap(), Some(Arc::new(class)));
        }
        for claim in &self.claims {
            view.volumes.set_claim(Key::of(claim), Some(Arc::new(claim.clone())));
        }
        for volume in &self.volumes {
            view.volumes.set_volume(Key::of(volume), Some(Arc::new(volume.clone())));
        }
    }

    fn claim(&self, pod: &PodView, name: &str) -> &PersistentVolumeClaim {
        let is = |c: &&PersistentVolumeClaim| {
            c.metadata.name.as_deref() == Some(name) && c.metadata.namespace == pod.metadata.namespace
        };
        self.claims.iter().find(is).unwrap()
    }
}

fn size(amounts: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>) -> i64 {
    amounts.unwrap()["storage"].0.trim_end_matches("Gi").parse().unwrap()
}

fn wanted(claim: &PersistentVolumeClaim) -> i64 {
    size(claim.spec.as_ref().unwrap().resources.as_ref().unwrap().requests.as_ref())
}

fn holds(volume: &PersistentVolume) -> i64 {
    size(volume.spec.as_ref().unwrap().capacity.as_ref())
}

/// The generator's volumes are in one zone, or anywhere.
fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().unwrap().node_affinity.as_ref();
    affinity.and_then(|a| a.required.as_ref()).is_none_or(|required| {
        let expression = &required.node_selector_terms[0].match_expressions.as_ref().unwrap()[0];
        labels_of(node).get(ZONE) == Some(&expression.values.as_ref().unwrap()[0])
    })
}

impl Model {
    pub(super) fn volume_obstacles(&self, pod: &PodView, node: &Node) -> Vec<&'static str> {
        let storage = &self.storage;
        let names: Vec<String> = pod.claims().map(|(name, _)| name.into_owned()).collect();
        let claims: Vec<&PersistentVolumeClaim> = names.iter().map(|name| storage.claim(pod, name)).collect();
        for (claim, name) in claims.iter().zip(&names) {
            let once =
                claim.spec.as_ref().unwrap().access_modes.as_deref() == Some(&["ReadWriteOncePod".into()]);
            let uses = |(_, other): &(String, PodView)| {
                other.metadata.namespace == pod.metadata.namespace && other.claims().any(|(n, _)| n == *name)
            };
            if once && self.placed.iter().any(uses) {
                return vec![
                    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
                ];
            }
        }
        let (bound, mut delayed): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| !storage::volume_of(claim).is_empty());
        let mut reasons = Vec::new();
        let of = |claim: &&PersistentVolumeClaim| {
            storage.volumes.iter().find(|v| v.metadata.name.as_deref() == Some(storage::volume_of(claim)))
        };
        if bound.iter().filter_map(of).any(|volume| !reaches(volume, node)) {
            reasons.push("node(s) had volume node affinity conflict");
        }
        if bound.iter().any(|claim| of(claim).is_none()) {
            reasons.push("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
        }
        delayed.sort_by_key(|claim| wanted(claim));
        if !self.all_find(&delayed, node) {
            reasons.push("node(s) didn't find available persistent volumes to bind");
        }
        reasons
    }

    fn all_find(&self, delayed: &[&PersistentVolumeClaim], node: &Node) -> bool {
        let mut taken: Vec<&PersistentVolume> = Vec::new();
        delayed.iter().all(|claim| {
            let class = storage::class_of_claim(claim);
            let fits = |v: &&PersistentVolume| {
                storage::claim_of(v).is_none()
                    && storage::class_of_volume(v) == class
                    && holds(v) >= wanted(claim)
                    && reaches(v, node)
                    && !taken.iter().any(|t| t.metadata.name == v.metadata.name)
            };
            let all = self.storage.volumes.iter().filter(fits);
            match all.min_by_key(|v| (holds(v), v.metadata.name.clone())) {
                Some(volume) => {
                    taken.push(volume);
                    true
                }
                None => class == "near" && labels_of(node).get(ZONE).is_some_and(|zone| zone == "z1"),
            }
        })
    }
}

/// Claims `c0` to `c3` in both namespaces, and volumes for some of them.
pub(super) fn storage() -> impl Strategy<Value = Storage> {
    let volume = (1..4i64, option::weighted(0.7, select(vec!["z1", "z2"])), select(vec!["hand", "near"]));
    let bound =
        option::weighted(0.4, (option::weighted(0.7, select(vec!["z1", "z2"])), prop::bool::weighted(0.9)));
    let claim = (1..4i64, select(vec!["hand", "near"]), prop::bool::weighted(0.2), bound);
    (vec(volume, 0..5), vec(claim, 8)).prop_map(|(volumes, claims)| {
        let mut all = Storage::default();
        for (n, (size, zone, class)) in volumes.into_iter().enumerate() {
            all.volumes.push(new_volume(&format!("v{n}"), size, zone, class, None));
        }
        for (n, (size, class, once, bound)) in claims.into_iter().enumerate() {
            let (name, namespace) = (format!("c{}", n % 4), if n < 4 { "a" } else { "b" });
            let volume = format!("of-{namespace}-{name}");
            let mode = if once { "ReadWriteOncePod" } else { "ReadWriteOnce" };
            let mut claim = json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"storageClassName": class,
                "accessModes": [mode], "resources": {"requests": {"storage": format!("{size}Gi")}}}});
            if let Some((zone, there)) = bound {
                claim["metadata"]["annotations"] = json!({storage::BIND_COMPLETED: "yes"});
                claim["spec"]["volumeName"] = json!(volume);
                if there {
                    let owner = json!({"name": name, "namespace": namespace, "uid": "u"});
                    all.volumes.push(new_volume(&volume, size, zone, class, Some(owner)));
                }
            }
            all.claims.push(testkit::object(claim));
        }
        all
    })
}

fn new_volume(
    name: &str,
    size: i64,
    zone: Option<&str>,
    class: &str,
    owner: Option<Value>,
) -> PersistentVolume {
    let affinity = zone.map(|zone| {
        json!({"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}]}})
    });
    let phase = if owner.is_some() { "Bound" } else { "Available" };
    testkit::object(
        json!({"metadata": {"name": name}, "status": {"phase": phase}, "spec": {"storageClassName": class,
        "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "capacity": {"storage": format!("{size}Gi")},
        "claimRef": owner, "nodeAffinity": affinity}}),
    )
}
