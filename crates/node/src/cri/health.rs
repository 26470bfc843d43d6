//! Whether the runtime is well, as the node's status tells it (`pkg/kubelet/runtime.go`, `runtimeErrors`).

use std::time::Duration;

use cri::runtime as calls;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::{Cri, CriError};
use crate::admit::Refusal;

/// A runtime that is silent for less may be on its way back (`maxWaitForContainerRuntime`).
const SILENCE: Duration = Duration::from_secs(30);

/// What the runtime says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Why the node is not ready, if the runtime is the reason.
    pub(crate) fault: Option<String>,
    /// What it can do, by handler: the features of each, the one without a name first.
    pub(crate) handlers: Vec<Handler>,
    /// It can leave out the groups that an image gives its user.
    pub(crate) strict_groups: bool,
    /// The image of its sandboxes.
    pub(crate) sandbox_image: Option<String>,
    /// Since when it has been silent.
    silent_since: Option<Instant>,
}

/// A handler that RuntimeClasses may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handler {
    pub(crate) name: String,
    /// It makes what is mounted below a mount read-only too.
    pub(crate) recursive_read_only: bool,
}

/// Why the node is not ready: pure.
fn fault(status: &cri::RuntimeStatus) -> Option<String> {
    let told = |kind: &str| status.conditions.iter().find(|c| c.r#type == kind);
    let shown = |c: &cri::RuntimeCondition| {
        format!("{}={} reason:{} message:{}", c.r#type, c.status, c.reason, c.message)
    };
    let mut faults = Vec::new();
    match told("NetworkReady") {
        Some(condition) if condition.status => {}
        Some(condition) => {
            faults.push(format!("container runtime network not ready: {}", shown(condition)));
        }
        None => faults.push("container runtime network not ready: condition NetworkReady is not set".into()),
    }
    match told("RuntimeReady") {
        Some(condition) if condition.status => {}
        Some(condition) => faults.push(format!("container runtime not ready: {}", shown(condition))),
        None => faults.push("container runtime not ready: condition RuntimeReady is not set".into()),
    }
    match faults.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

impl Cri {
    /// Asks the runtime how it is.
    pub(super) async fn ask_health(&self) {
        let question = cri::StatusRequest { verbose: true };
        let told = match self.ask_within(&calls::STATUS, question, SILENCE).await {
            Ok(told) => told,
            Err(error) => return self.note_silence(&error),
        };
        let config = told.info.get("config").and_then(|c| serde_json::from_str::<serde_json::Value>(c).ok());
        let image = config.and_then(|c| c["sandboxImage"].as_str().map(str::to_owned));
        let handlers = told.runtime_handlers.into_iter().map(|handler| Handler {
            name: handler.name,
            recursive_read_only: handler.features.is_some_and(|f| f.recursive_read_only_mounts),
        });
        let health = Health {
            fault: fault(&told.status.unwrap_or_default()),
            handlers: handlers.collect(),
            strict_groups: told.features.is_some_and(|f| f.supplemental_groups_policy),
            sandbox_image: image.filter(|name| !name.is_empty()),
            silent_since: None,
        };
        self.0.health.send_if_modified(|have| {
            let new = *have != health;
            *have = health;
            new
        });
    }

    /// Whether nothing was wrong when it was asked last.
    pub(super) fn is_well(&self) -> bool {
        let health = self.0.health.borrow();
        health.fault.is_none() && health.silent_since.is_none()
    }

    /// Takes note that the runtime does not answer.
    pub(super) fn note_silence(&self, error: &CriError) {
        let now = Instant::now();
        self.0.health.send_if_modified(|have| {
            let since = *have.silent_since.get_or_insert_with(|| {
                tracing::warn!(%error, "the container runtime does not answer");
                now
            });
            let down = now.duration_since(since) >= SILENCE;
            let new = down && have.fault.as_deref() != Some(DOWN);
            if new {
                have.fault = Some(DOWN.to_owned());
            }
            new
        });
    }
}

impl Cri {
    /// Why a pod is not taken: it wants what this runtime cannot do (`pkg/kubelet/lifecycle/predicate.go`).
    pub(crate) fn refused(&self, pod: &Pod) -> Option<Refusal> {
        let security = pod.spec.as_ref()?.security_context.as_ref()?;
        let strict = security.supplemental_groups_policy.as_deref() == Some("Strict");
        (strict && !self.0.health.borrow().strict_groups).then(|| Refusal {
            reason: "SupplementalGroupsPolicyNotSupported".into(),
            message: "SupplementalGroupsPolicy=Strict is not supported in this node".into(),
        })
    }
}

const DOWN: &str = "container runtime is down";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_upstreams_sentences() {
        let condition = |kind: &str, status, reason: &str, message: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        };
        let of = |conditions| fault(&cri::RuntimeStatus { conditions });
        let ready = |kind| condition(kind, true, "", "");
        assert_eq!(of(vec![ready("RuntimeReady"), ready("NetworkReady")]), None);
        let no_network =
            condition("NetworkReady", false, "NetworkPluginNotReady", "cni plugin not initialized");
        let why = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized";
        assert_eq!(of(vec![ready("RuntimeReady"), no_network.clone()]).as_deref(), Some(why));
        let both = format!("[{why}, container runtime not ready: condition RuntimeReady is not set]");
        assert_eq!(of(vec![no_network]), Some(both));
    }
}
