//! By what a pod's containers are run: its RuntimeClass names a handler, and the node knows what that is (kubernetes/
//! kubernetes, `pkg/kubelet/runtimeclass`; containerd/containerd, `internal/cri/config`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::error::NodeError;
use crate::worker::Agent;

/// The handler that is built in; so is the one without a name.
const BUILT_IN: &str = "gantry";

/// What runs containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    /// We ourselves.
    BuiltIn,
    /// An OCI runtime: its name and its program.
    Oci(String, PathBuf),
    /// What another container runtime knows by this name.
    Elsewhere(String),
}

/// The handler of this name, if the node has it.
pub(crate) fn find(name: &str, known: &BTreeMap<String, PathBuf>) -> Option<Handler> {
    match known.get(name) {
        Some(program) => Some(Handler::Oci(name.to_owned(), program.clone())),
        None if name.is_empty() || name == BUILT_IN => Some(Handler::BuiltIn),
        None => None,
    }
}

impl Handler {
    /// Its program, if it is not ours.
    pub(crate) fn program(&self) -> Option<&Path> {
        match self {
            Self::BuiltIn | Self::Elsewhere(_) => None,
            Self::Oci(_, program) => Some(program),
        }
    }

    /// What it is called, if it is not the usual one.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::BuiltIn => "",
            Self::Oci(name, _) | Self::Elsewhere(name) => name,
        }
    }

    /// Whether it can give pods users of their own.
    ///
    /// # Errors
    /// With upstream's sentence.
    pub(crate) fn check_users(&self) -> Result<(), NodeError> {
        match self {
            Self::BuiltIn => Ok(()),
            Self::Elsewhere(name) if name.is_empty() => Err(NodeError::Sandbox(
                "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned(),
            )),
            Self::Oci(name, _) | Self::Elsewhere(name) => Err(NodeError::Sandbox(format!(
                "can't set `spec.hostUsers: false`, RuntimeClass handler {name:?} does not support user namespaces"
            ))),
        }
    }
}

/// What the node's status says of its handlers, and of the runtime as a whole.
pub(crate) fn told(engine: &Engine, known: &BTreeMap<String, PathBuf>) -> (Value, Value) {
    match engine {
        Engine::BuiltIn(_) => (own(known), json!({"supplementalGroupsPolicy": true})),
        Engine::Cri(cri) => {
            let health = cri.health().borrow().clone();
            let one = |h: &crate::cri::Handler| {
                json!({"name": h.name, "features": {
                "recursiveReadOnlyMounts": h.recursive_read_only, "userNamespaces": false}})
            };
            let all = health.handlers.iter().map(one).collect();
            (all, json!({"supplementalGroupsPolicy": health.strict_groups}))
        }
    }
}

fn own(known: &BTreeMap<String, PathBuf>) -> Value {
    let of = |name: &str, users: bool| json!({"name": name, "features": {"recursiveReadOnlyMounts": true, "userNamespaces": users}});
    let ours =
        ["", BUILT_IN].into_iter().filter(|name| !known.contains_key(*name)).map(|name| of(name, true));
    ours.chain(known.keys().map(|name| of(name, false))).collect()
}

impl Agent {
    /// What runs a pod's containers.
    ///
    /// # Errors
    /// When the class cannot be had, or the node does not know its handler.
    pub(crate) async fn handler(&self, pod: &Pod) -> Result<Handler, NodeError> {
        let class =
            pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref()).filter(|name| !name.is_empty());
        let elsewhere = matches!(self.runtime, Engine::Cri(_));
        let Some(class) = class else {
            return Ok(if elsewhere { Handler::Elsewhere(String::new()) } else { Handler::BuiltIn });
        };
        let api: Api<RuntimeClass> = Api::all(self.client.clone());
        let found = api.get_opt(class).await?;
        let missing = || NodeError::Sandbox(format!("runtimeclasses.node.k8s.io {class:?} not found"));
        let name = found.ok_or_else(missing)?.handler;
        if elsewhere {
            return Ok(Handler::Elsewhere(name));
        }
        find(&name, &self.config.kubelet.runtime_handlers).ok_or_else(|| {
            NodeError::Sandbox(format!(
                "failed to get sandbox runtime: no runtime for {name:?} is configured"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_known_by_name() {
        let known: BTreeMap<String, PathBuf> = [("runc".to_owned(), "/usr/sbin/runc".into())].into();
        assert_eq!(find("", &known), Some(Handler::BuiltIn));
        assert_eq!(find("gantry", &known), Some(Handler::BuiltIn));
        let runc = find("runc", &known).unwrap();
        assert_eq!(runc.program(), Some(Path::new("/usr/sbin/runc")));
        assert_eq!(
            runc.check_users().unwrap_err().to_string(),
            "can't set `spec.hostUsers: false`, RuntimeClass handler \"runc\" does not support user namespaces"
        );
        assert_eq!(find("kata", &known), None);
        let names: Vec<Value> = own(&known).as_array().unwrap().iter().map(|h| h["name"].clone()).collect();
        assert_eq!(names, ["", "gantry", "runc"]);
    }
}
