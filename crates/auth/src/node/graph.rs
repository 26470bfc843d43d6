//! Which objects a node's own pods lead to (kubernetes/kubernetes, `plugin/pkg/auth/authorizer/node/graph.go` and
//! `graph_populator.go`).
//!
//! ```text
//! node ◄ pod ◄ secret, configmap, account, claim (pvc), resource claim
//!              pvc ◄ pv ◄ secret
//! node ◄ volume attachment, resource slice, pv and snapshot content of the built-in storage
//! ```
//!
//! Edges are counted for each pair of an object and a node, so that a question is one look into a map.

use std::collections::HashMap;

use parking_lot::RwLock;
use serde_json::Value;
use types::local_volumes;

/// What the graph knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    /// A volume whose data the node keeps itself.
    OwnVolume,
    /// A snapshot that the node keeps itself.
    OwnSnapshot,
    Account,
    ResourceClaim,
    Attachment,
    Slice,
}

pub(super) type Vertex = (Kind, Box<str>, Box<str>);

const CONTENTS: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";

/// What one object (a pod, say) leads from and to.
#[derive(Default)]
pub(super) struct Edges {
    node: Box<str>,
    from: Vec<Vertex>,
}

#[derive(Default)]
pub(super) struct State {
    /// Pods, attachments and slices: those objects that name a node.
    pub(super) bound: HashMap<Vertex, Edges>,
    /// Persistent volumes: the claim each is bound to, and what it needs itself.
    volumes: HashMap<Box<str>, (Vertex, Vec<Vertex>)>,
    /// How many paths lead from an object to a node.
    pub(super) reach: HashMap<Vertex, HashMap<Box<str>, u32>>,
    /// What comes before an object: the volume before its claim, the secret before its volume.
    pub(super) before: HashMap<Vertex, Vec<Vertex>>,
}

/// The graph. Whoever follows the cluster's objects tells it of every change.
#[derive(Default)]
pub struct NodeGraph(pub(super) RwLock<State>);

fn vertex(kind: Kind, namespace: &str, name: &str) -> Vertex {
    (kind, namespace.into(), name.into())
}

impl State {
    /// Counts one path more or less to `node` from an object and from all before it.
    fn count(&mut self, vertex: &Vertex, node: &str, more: bool, depth: u8) {
        let reached = self.reach.entry(vertex.clone()).or_default();
        if more {
            *reached.entry(node.into()).or_default() += 1;
        } else if let Some(n) = reached.get_mut(node) {
            *n -= 1;
            if *n == 0 {
                reached.remove(node);
            }
        }
        if reached.is_empty() {
            self.reach.remove(vertex);
        }
        if depth > 0 {
            for earlier in self.before.get(vertex).cloned().unwrap_or_default() {
                self.count(&earlier, node, more, depth - 1);
            }
        }
    }

    fn bind(&mut self, vertex: Vertex, node: &str, from: Vec<Vertex>) {
        self.unbind(&vertex);
        self.count(&vertex, node, true, 0);
        for other in &from {
            self.count(other, node, true, 3);
        }
        self.bound.insert(vertex, Edges { node: node.into(), from });
    }

    fn unbind(&mut self, vertex: &Vertex) {
        let Some(old) = self.bound.remove(vertex) else { return };
        self.count(vertex, &old.node, false, 0);
        for other in &old.from {
            self.count(other, &old.node, false, 3);
        }
    }

    /// A new way `earlier` ► `later`, or one that is gone: all that `later` reaches, `earlier` reaches by it.
    fn link(&mut self, earlier: &Vertex, later: &Vertex, more: bool) {
        let nodes: Vec<(Box<str>, u32)> =
            self.reach.get(later).into_iter().flatten().map(|(n, c)| (n.clone(), *c)).collect();
        let adjust = |state: &mut Self| {
            for (node, times) in &nodes {
                for _ in 0..*times {
                    state.count(earlier, node, more, 3);
                }
            }
        };
        let list = self.before.entry(later.clone()).or_default();
        if more {
            list.push(earlier.clone());
        } else {
            if let Some(at) = list.iter().position(|v| v == earlier) {
                list.swap_remove(at);
            }
            if list.is_empty() {
                self.before.remove(later);
            }
        }
        adjust(self);
    }

    fn remove_volume(&mut self, name: &str) {
        let Some((claim, needs)) = self.volumes.remove(name) else { return };
        let volume = vertex(Kind::Volume, "", name);
        for need in &needs {
            self.link(need, &volume, false);
        }
        self.link(&volume, &claim, false);
    }
}

impl NodeGraph {
    /// Whether a path leads from the object to the node.
    pub(super) fn reaches(&self, kind: Kind, namespace: &str, name: &str, node: &str) -> bool {
        let state = self.0.read();
        state.reach.get(&vertex(kind, namespace, name)).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// An object of one of [`NodeGraph::TABLES`] is there, or has changed.
    pub fn set(&self, table: &str, object: &Value) {
        let text = |path: &[&str]| types::str_at(object, path).unwrap_or_default();
        let (namespace, name) = (text(&["metadata", "namespace"]), text(&["metadata", "name"]));
        match table {
            "pods" => {
                let pod = vertex(Kind::Pod, namespace, name);
                let node = text(&["spec", "nodeName"]);
                let mut state = self.0.write();
                if node.is_empty() {
                    state.unbind(&pod);
                } else {
                    state.bind(pod, node, of_pod(object, namespace, name));
                }
            }
            "persistentvolumes" => {
                let mut state = self.0.write();
                state.remove_volume(name);
                let claim = &object["spec"]["claimRef"];
                if let (Some(space), Some(claim)) = (claim["namespace"].as_str(), claim["name"].as_str()) {
                    let claim = vertex(Kind::Claim, space, claim);
                    let volume = vertex(Kind::Volume, "", name);
                    let needs = of_volume(object, space);
                    state.link(&volume, &claim, true);
                    for need in &needs {
                        state.link(need, &volume, true);
                    }
                    state.volumes.insert(name.into(), (claim, needs));
                }
                drop(state);
                // The source of a volume never changes.
                let source = &object["spec"]["csi"];
                let own = source["driver"] == local_volumes::DRIVER;
                let node = source["volumeAttributes"][local_volumes::NODE].as_str().filter(|_| own);
                self.named(vertex(Kind::OwnVolume, "", name), node.unwrap_or_default());
            }
            "volumeattachments.storage.k8s.io" => {
                self.named(vertex(Kind::Attachment, "", name), text(&["spec", "nodeName"]));
            }
            CONTENTS => {
                let own = object["spec"]["driver"] == local_volumes::DRIVER;
                let node = text(&["metadata", "labels", local_volumes::NODE_LABEL]);
                self.named(vertex(Kind::OwnSnapshot, "", name), if own { node } else { "" });
            }
            "resourceslices.resource.k8s.io" => {
                self.named(vertex(Kind::Slice, "", name), text(&["spec", "nodeName"]));
            }
            _ => {}
        }
    }

    fn named(&self, vertex: Vertex, node: &str) {
        let mut state = self.0.write();
        if node.is_empty() {
            state.unbind(&vertex);
        } else {
            state.bind(vertex, node, Vec::new());
        }
    }

    /// An object is gone.
    pub fn remove(&self, table: &str, namespace: &str, name: &str) {
        let mut state = self.0.write();
        match table {
            "pods" => state.unbind(&vertex(Kind::Pod, namespace, name)),
            "persistentvolumes" => {
                state.remove_volume(name);
                state.unbind(&vertex(Kind::OwnVolume, "", name));
            }
            CONTENTS => state.unbind(&vertex(Kind::OwnSnapshot, "", name)),
            "volumeattachments.storage.k8s.io" => state.unbind(&vertex(Kind::Attachment, "", name)),
            "resourceslices.resource.k8s.io" => state.unbind(&vertex(Kind::Slice, "", name)),
            _ => {}
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.0.write() = State::default();
    }

    /// The tables to be followed.
    pub const TABLES: [&'static str; 5] = [
        "pods",
        "persistentvolumes",
        "volumeattachments.storage.k8s.io",
        "resourceslices.resource.k8s.io",
        CONTENTS,
    ];
}

fn each<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// What a pod names.
fn of_pod(pod: &Value, namespace: &str, pod_name: &str) -> Vec<Vertex> {
    let spec = &pod["spec"];
    let mut out: Vec<Vertex> = Vec::new();
    let mut add = |kind, name: Option<&str>| {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            out.push(vertex(kind, namespace, name));
        }
    };
    // A mirror pod of a file on the node gives the node nothing.
    if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some() {
        return out;
    }
    add(Kind::Account, spec["serviceAccountName"].as_str());
    for secret in each(spec, "imagePullSecrets") {
        add(Kind::Secret, secret["name"].as_str());
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in each(spec, list) {
            for source in each(container, "envFrom") {
                add(Kind::ConfigMap, source["configMapRef"]["name"].as_str());
                add(Kind::Secret, source["secretRef"]["name"].as_str());
            }
            for variable in each(container, "env") {
                let from = &variable["valueFrom"];
                add(Kind::ConfigMap, from["configMapKeyRef"]["name"].as_str());
                add(Kind::Secret, from["secretKeyRef"]["name"].as_str());
            }
        }
    }
    for volume in each(spec, "volumes") {
        add(Kind::Secret, volume["secret"]["secretName"].as_str());
        add(Kind::ConfigMap, volume["configMap"]["name"].as_str());
        add(Kind::Claim, volume["persistentVolumeClaim"]["claimName"].as_str());
        if volume.get("ephemeral").is_some_and(Value::is_object) {
            let name = format!("{pod_name}-{}", volume["name"].as_str().unwrap_or_default());
            add(Kind::Claim, Some(&name));
        }
        for source in each(&volume["projected"], "sources") {
            add(Kind::Secret, source["secret"]["name"].as_str());
            add(Kind::ConfigMap, source["configMap"]["name"].as_str());
        }
        // Drivers whose secrets are in the pod's own namespace.
        add(Kind::Secret, volume["csi"]["nodePublishSecretRef"]["name"].as_str());
        add(Kind::Secret, volume["azureFile"]["secretName"].as_str());
        for driver in ["cephfs", "rbd", "cinder", "flexVolume", "iscsi", "scaleIO", "storageos"] {
            add(Kind::Secret, volume[driver]["secretRef"]["name"].as_str());
        }
    }
    for claim in each(spec, "resourceClaims") {
        add(Kind::ResourceClaim, claim["resourceClaimName"].as_str());
    }
    for claim in each(&pod["status"], "resourceClaimStatuses") {
        add(Kind::ResourceClaim, claim["resourceClaimName"].as_str());
    }
    add(Kind::ResourceClaim, pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"].as_str());
    out
}

/// The secrets that a persistent volume names.
fn of_volume(volume: &Value, claim_namespace: &str) -> Vec<Vertex> {
    let mut out = Vec::new();
    for (driver, source) in volume["spec"].as_object().into_iter().flatten() {
        // What only the controller's side of a driver needs is not the node's.
        for field in ["secretRef", "nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
            if let Some(name) = source[field]["name"].as_str() {
                let namespace = source[field]["namespace"].as_str().unwrap_or(claim_namespace);
                out.push(vertex(Kind::Secret, namespace, name));
            }
        }
        if driver == "azureFile"
            && let Some(name) = source["secretName"].as_str()
        {
            let namespace = source["secretNamespace"].as_str().unwrap_or(claim_namespace);
            out.push(vertex(Kind::Secret, namespace, name));
        }
    }
    out
}
