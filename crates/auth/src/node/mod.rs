//! What a node may do: what every node may, and beyond that only what its own pods need (kubernetes/kubernetes,
//! `plugin/pkg/auth/authorizer/node/node_authorizer.go`).

mod graph;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use types::local_volumes;

use crate::attributes::{Answer, Attributes};
use crate::bootstrap::node_rules;
use crate::rbac::Rule;
use crate::user::User;

use graph::Kind;
pub use graph::NodeGraph;

/// Knows nodes and their pods.
pub struct NodeAuthorizer {
    graph: Arc<NodeGraph>,
    rules: Vec<Rule>,
}

const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// The node a user is, by `system:node:<name>` and the group `system:nodes` (`pkg/auth/nodeidentifier/default.go`).
/// `None` for users who are no nodes.
pub fn node_of(user: &User) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|_| user.in_group(NODES))
}

impl NodeAuthorizer {
    /// Over a graph that somebody keeps up to date.
    pub fn new(graph: Arc<NodeGraph>) -> Self {
        Self { graph, rules: node_rules() }
    }

    /// The graph.
    pub fn graph(&self) -> &NodeGraph {
        &self.graph
    }

    /// Whether it knows of rules for `user`; those cannot be listed.
    pub fn concerns(&self, user: &User) -> bool {
        node_of(user).is_some()
    }

    /// Whether `user`, as a node, may do it.
    pub fn authorize(&self, user: &User, a: &Attributes<'_>) -> Answer {
        let Some(node) = node_of(user) else { return Answer::default() };
        if node.is_empty() {
            return Answer::no_opinion(format!("unknown node for user {:?}", user.name));
        }
        let verdict = match (a.group, a.resource) {
            ("", "secrets") => self.read_one(node, Kind::Secret, a),
            ("", "configmaps") => self.read_one(node, Kind::ConfigMap, a),
            ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "update" | "patch" => self.related(node, Kind::Claim, a),
                _ => Err("can only get/update/patch this type".into()),
            },
            ("", "persistentvolumeclaims") => self.get(node, Kind::Claim, a),
            ("", "persistentvolumes") => self.volume(node, a),
            ("snapshot.storage.k8s.io", "volumesnapshotcontents") => self.snapshot_content(node, a),
            ("resource.k8s.io", "resourceclaims") => self.get(node, Kind::ResourceClaim, a),
            ("storage.k8s.io", "volumeattachments") => self.get(node, Kind::Attachment, a),
            ("", "serviceaccounts") if a.verb == "get" && a.subresource.is_empty() => {
                self.get(node, Kind::Account, a)
            }
            ("", "serviceaccounts") => self.create_token(node, a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("resource.k8s.io", "resourceslices") => self.slice(node, a),
            ("", "nodes") => own_node(node, a),
            ("", "pods") => self.pod(node, a),
            _ if self.rules.iter().any(|rule| rule.allows(a)) => Ok(()),
            _ => Err(String::new()),
        };
        match verdict {
            Ok(()) => Answer::allow(""),
            Err(why) => Answer::no_opinion(why),
        }
    }

    fn related(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Verdict {
        if a.name.is_empty() {
            return Err("No Object name found".into());
        }
        if self.graph.reaches(kind, a.namespace, a.name, node) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn get(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Verdict {
        if a.verb != "get" {
            return Err("can only get individual resources of this type".into());
        }
        if !a.subresource.is_empty() {
            return Err("cannot get subresource".into());
        }
        self.related(node, kind, a)
    }

    fn read_one(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Verdict {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".into());
        }
        if !a.subresource.is_empty() {
            return Err("cannot read subresource".into());
        }
        if a.namespace.is_empty() {
            return Err("can only read namespaced object of this type".into());
        }
        self.related(node, kind, a)
    }

    fn create_token(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        if a.verb != "create" || a.name.is_empty() {
            return Err("can only create tokens for individual service accounts".into());
        }
        if a.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".into());
        }
        self.related(node, Kind::Account, a)
    }

    fn slice(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        if !a.subresource.is_empty() {
            return Err("cannot authorize ResourceSlice subresources".into());
        }
        match a.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, Kind::Slice, a),
            "watch" | "list" | "deletecollection" if a.selects("spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => Err(
                "can only list/watch/deletecollection resourceslices with spec.nodeName field selector".into(),
            ),
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".into()),
        }
    }

    /// Beyond what upstream's nodes may: those volumes whose data a node keeps itself, by the built-in storage. What it
    /// may change of them is for the NodeRestriction plugin to see to.
    fn volume(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        let is_own = || self.graph.reaches(Kind::OwnVolume, "", a.name, node);
        match (a.subresource, a.verb) {
            ("", "list" | "watch") if a.selects_label(local_volumes::NODE_LABEL, node) => Ok(()),
            ("", "get" | "patch") if is_own() => Ok(()),
            _ => self.get(node, Kind::Volume, a),
        }
    }

    /// The snapshots that a node keeps itself, likewise. Who may give a content its label may give it to a node.
    fn snapshot_content(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        match (a.subresource, a.verb) {
            ("", "list" | "watch") if a.selects_label(local_volumes::NODE_LABEL, node) => Ok(()),
            ("", "list" | "watch") => Err(format!(
                "can only list/watch volumesnapshotcontents with {} label selector",
                local_volumes::NODE_LABEL
            )),
            ("", "get" | "patch") | ("status", "patch") => self.related(node, Kind::OwnSnapshot, a),
            _ => Err("can only get/list/watch/patch this type and patch its status".into()),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        match (a.subresource, a.verb) {
            ("", "get") => self.get(node, Kind::Pod, a),
            ("", "list" | "watch") if a.selects("spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !a.name.is_empty() => self.related(node, Kind::Pod, a),
            ("", "list" | "watch") => {
                Err("can only list/watch pods with spec.nodeName field selector".into())
            }
            // Whose pods these may be is for the NodeRestriction plugin to see to.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

/// Yes, or why not.
type Verdict = Result<(), String>;

fn lease(node: &str, a: &Attributes<'_>) -> Verdict {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    if a.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if a.verb != "create" && a.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Verdict {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".into());
    }
    if !a.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".into());
    }
    if a.verb != "create" && a.name != node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_node(node: &str, a: &Attributes<'_>) -> Verdict {
    match (a.subresource, a.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if a.name == node => Ok(()),
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        _ => Err(String::new()),
    }
}
