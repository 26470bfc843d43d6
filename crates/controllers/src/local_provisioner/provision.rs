//! Which volume a claim gets, if any.

use std::sync::Arc;

use client::{Cache, Key, is_deleting};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use types::Quantity;
use types::local_volumes::{DRIVER, FINALIZER, KIND, NODE, NODE_LABEL};

use super::attributes;
use super::origin::{self, Sources, Wish};
use super::parameters::Parameters;

/// Where the scheduler wants to have the claim's first pod.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const HOSTNAME: &str = "kubernetes.io/hostname";
/// No file system is smaller.
const LEAST: i64 = 8 << 20;

/// What is there.
pub(super) struct World<'a> {
    pub(super) classes: &'a Cache<StorageClass>,
    pub(super) nodes: &'a Cache<Node>,
    pub(super) sources: Sources<'a>,
}

/// What is to be done for a claim without a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    Make(Box<PersistentVolume>),
    /// Somebody else knows where its data comes from.
    LeaveToPopulator,
    /// `another_node`: the scheduler is to choose again.
    Refuse {
        why: String,
        another_node: bool,
    },
}

/// The name of a claim's volume.
pub(super) fn name_for(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// The claim that a volume of ours is for.
pub(super) fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let spec = volume.spec.as_ref().filter(|_| is_ours(volume))?;
    let claim = spec.claim_ref.as_ref()?;
    Some(Key::new(claim.namespace.as_deref()?, claim.name.as_deref()?))
}

/// Whether the built-in storage has made a volume.
pub(super) fn is_ours(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().and_then(|s| s.csi.as_ref()).is_some_and(|csi| csi.driver == DRIVER)
}

pub(super) fn plan(claim: &PersistentVolumeClaim, world: &World<'_>) -> Step {
    let annotations = claim.metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|a| a.get(name)).map(String::as_str);
    let asked = PROVISIONER.iter().find_map(|name| annotation(name));
    let wish = origin::wish(claim);
    // The data says where the volume is, so nobody has to wait for a pod.
    let has_source = asked.is_none() && matches!(wish, Wish::Snapshot(_) | Wish::Claim(_));
    if (asked != Some(DRIVER) && !has_source) || is_deleting(&claim.metadata) {
        return Step::Nothing;
    }
    let spec = claim.spec.clone().unwrap_or_default();
    let class_name = annotation("volume.beta.kubernetes.io/storage-class")
        .or(spec.storage_class_name.as_deref())
        .unwrap_or_default();
    let refuse = |why: String| Step::Refuse { why, another_node: false };
    let Some(class) = world.classes.by_name("", class_name) else {
        if has_source {
            return Step::Nothing;
        }
        return refuse(format!("storageclass.storage.k8s.io {class_name:?} not found"));
    };
    let delayed = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    // Others are asked for by the binder.
    if class.provisioner != DRIVER || (has_source && !delayed) {
        return Step::Nothing;
    }
    if matches!(wish, Wish::Other(_)) {
        return Step::LeaveToPopulator;
    }
    let failed =
        |why: &str| refuse(format!("failed to provision volume with StorageClass {class_name:?}: {why}"));
    let parameters = match Parameters::read(&class.parameters.clone().unwrap_or_default()) {
        Ok(parameters) => parameters,
        Err(why) => return failed(&why),
    };
    if let Some(why) = attributes::refusal(claim) {
        return failed(&why);
    }
    if spec.selector.is_some() {
        return failed("claim Selector is not supported");
    }
    if let Wish::Wrong(why) = &wish {
        return failed(why);
    }
    let found = match origin::find(claim, &wish, &world.sources) {
        Ok(found) => found,
        Err(why) => return failed(&format!("error getting handle for {wish}: {why}")),
    };
    let block = spec.volume_mode.as_deref() == Some("Block");
    if block && parameters == Parameters::Directory {
        return failed(
            "a directory is no block device: volumeMode Block takes parameter \"kind\": \"image\"",
        );
    }
    let node = match (&found, annotation(SELECTED_NODE)) {
        // Wherever the scheduler would like to have it.
        (Some(found), _) => match world.nodes.by_name("", &found.node) {
            Some(node) if allows(&class, &node) => node,
            Some(_) => {
                return failed(&format!(
                    "its allowedTopologies do not have node {:?}, where the data of the source is",
                    found.node
                ));
            }
            None => {
                return failed(&format!("node {:?}, where the data of the source is, not found", found.node));
            }
        },
        (None, None) if delayed => return Step::Nothing,
        (None, None) => match any_node(&class, world) {
            Some(node) => node,
            None => return failed("no node is ready that the class allows"),
        },
        (None, Some(name)) => {
            let another = |why: String| Step::Refuse { why, another_node: true };
            match world.nodes.by_name("", name) {
                Some(node) if is_deleting(&node.metadata) => {
                    return another(format!("failed to get target node: node {name:?} is being deleted"));
                }
                Some(node) if !allows(&class, &node) => {
                    return another(format!(
                        "failed to provision volume with StorageClass {class_name:?}: its allowedTopologies do not \
                         have node {name:?}"
                    ));
                }
                Some(node) => node,
                None => return another(format!("failed to get target node: node {name:?} not found")),
            }
        }
    };
    let node_name = node.metadata.name.as_deref().unwrap_or_default();
    let Some(host) = label(&node, HOSTNAME) else {
        return failed(&format!("node {node_name:?} has no label {HOSTNAME:?}"));
    };
    let (wanted, given) = requested(claim);
    let given = origin::capacity(found.as_ref(), wanted, given);
    let capacity = if wanted < LEAST && parameters == Parameters::Image && !block {
        Quantity::from_bytes(LEAST).to_string()
    } else {
        given
    };
    let name = name_for(claim);
    let meta = &claim.metadata;
    let fs_type = (parameters == Parameters::Image && !block).then_some("ext4");
    let mut attributes = json!({NODE: node_name, KIND: parameters.name()});
    if let Some((name, value)) = found.as_ref().map(|found| &found.attribute) {
        attributes[*name] = value.as_str().into();
    }
    let volume: Value = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "labels": {NODE_LABEL: node_name},
            "annotations": {PROVISIONED_BY: DRIVER},
            "finalizers": [FINALIZER],
        },
        "spec": {
            "capacity": {"storage": capacity},
            "accessModes": spec.access_modes,
            "volumeMode": spec.volume_mode,
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class_name,
            "mountOptions": class.mount_options,
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace,
                "name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version},
            "csi": {"driver": DRIVER, "volumeHandle": name, "fsType": fs_type,
                "volumeAttributes": attributes},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": HOSTNAME, "operator": "In", "values": [host]}]}]}},
        },
    });
    match serde_json::from_value(volume) {
        Ok(volume) => Step::Make(Box::new(volume)),
        Err(error) => failed(&error.to_string()),
    }
}

/// Bytes, and how the claim writes them.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> (i64, String) {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let text = requests.and_then(|r| r.get("storage")).map(|q| q.0.clone()).unwrap_or_default();
    (bytes(&text), text)
}

/// An amount in bytes.
pub(super) fn bytes(text: &str) -> i64 {
    text.parse::<Quantity>().map_or(0, Quantity::units)
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether the class lets volumes be on the node.
fn allows(class: &StorageClass, node: &Node) -> bool {
    let Some(terms) = class.allowed_topologies.as_ref().filter(|t| !t.is_empty()) else { return true };
    terms.iter().any(|term| {
        let mut expressions = term.match_label_expressions.iter().flatten();
        expressions.all(|e| label(node, &e.key).is_some_and(|value| e.values.iter().any(|v| v == value)))
    })
}

/// For a claim that is to be bound before there is a pod: the first node that works.
fn any_node(class: &StorageClass, world: &World<'_>) -> Option<Arc<Node>> {
    let mut nodes = world.nodes.list();
    nodes.retain(|node| {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let open = node.spec.as_ref().is_none_or(|s| s.unschedulable != Some(true));
        ready && open && !is_deleting(&node.metadata) && allows(class, node)
    });
    nodes.into_iter().min_by(|a, b| a.metadata.name.cmp(&b.metadata.name))
}
