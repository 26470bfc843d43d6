//! Whether a container that has ended is started again, by what it says itself (kubernetes/kubernetes,
//! `pkg/api/v1/pod/util.go`, `ContainerShouldRestart`).

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec};

use crate::error::NodeError;
use crate::plan::{grace_of, policy_of};
use crate::worker::{Agent, uid_of};

/// What applies to a container of this pod that has ended with `code`: `Always`, `OnFailure` or `Never`. Init containers
/// that succeed are through, whatever this says.
pub(crate) fn policy<'a>(spec: &'a PodSpec, container: &'a Container, code: i32) -> &'a str {
    let init = spec.init_containers.iter().flatten().any(|c| c.name == container.name);
    let of_pod = match policy_of(spec) {
        // Of init containers, only those that fail are tried again.
        "Never" => "Never",
        _ if init => "OnFailure",
        other => other,
    };
    let Some(own) = container.restart_policy.as_deref() else { return of_pod };
    match rule(container, code).map(|rule| rule.action.as_str()) {
        Some("Restart" | RESTART_ALL) => "Always",
        _ => own,
    }
}

/// The action of a rule that has the whole pod begin anew.
const RESTART_ALL: &str = "RestartAllContainers";

/// Whether a container that has ended with `code` has the whole pod begin anew.
pub(crate) fn restarts_all(container: &Container, code: i32) -> bool {
    container.restart_policy.is_some() && rule(container, code).is_some_and(|rule| rule.action == RESTART_ALL)
}

/// The first rule that fits.
fn rule(container: &Container, code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let named = codes.values.iter().flatten().any(|value| *value == code);
        match codes.operator.as_str() {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    })
}

/// Whether a container that fails may be started again at all (`IsContainerRestartable`).
pub(crate) fn is_restartable(spec: &PodSpec, container: &Container) -> bool {
    match container.restart_policy.as_deref() {
        None => policy_of(spec) != "Never",
        Some(own) => own != "Never" || container.restart_policy_rules.iter().flatten().next().is_some(),
    }
}

impl Agent {
    /// Ends all containers of a pod and clears them away, so that everything begins anew where it is: sandbox, network and
    /// volumes stay (`pkg/kubelet/kuberuntime`, `RestartAllContainersOnContainerExits`).
    pub(crate) async fn restart_all(&self, pod: &Pod, because: &str) -> Result<(), NodeError> {
        let uid = uid_of(pod);
        let why = format!("Container {because} has ended in a way that restarts all containers of the pod");
        self.recorder.normal(pod, "RestartAllContainers", why);
        self.stop_all(pod, pod.spec.as_ref().map_or(0, grace_of)).await?;
        self.hear_last_words(pod, &self.runtime.containers(uid));
        // Until they are there again they wait, and have not been lost.
        let spec = pod.spec.iter();
        let all = spec.flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
        let names: Vec<String> = all.map(|container| container.name.clone()).collect();
        self.note(uid, |known| {
            for name in names {
                let why = format!("container {because} restarts all containers of the pod");
                known.waiting.insert(name, ("RestartingAllContainers".to_owned(), why));
            }
        });
        self.write_status(pod).await?;
        for run in self.runtime.containers(uid) {
            if crate::ephemeral::find(pod, &run.name).is_none() {
                self.runtime.remove_container(&run.id).await?;
            }
        }
        // How often each has run is counted in the status; what follows is another look.
        self.queue.add(client::Key::of(pod));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn applies(pod: &str, container: Value, code: i32) -> String {
        let mut own = json!({"name": "a"});
        own.as_object_mut().unwrap().extend(container.as_object().cloned().unwrap());
        let spec = json!({"restartPolicy": pod, "containers": [own]});
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        policy(&spec, &spec.containers[0], code).to_owned()
    }

    #[test]
    fn rules_come_before_the_container_and_that_before_the_pod() {
        let rule = |operator: &str| {
            let codes = json!({"operator": operator, "values": [42, 43]});
            json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": codes}]})
        };
        assert_eq!(applies("OnFailure", json!({}), 1), "OnFailure");
        assert_eq!(applies("Never", json!({"restartPolicy": "OnFailure"}), 1), "OnFailure");
        assert_eq!(applies("Always", json!({"restartPolicy": "Never"}), 1), "Never");
        assert_eq!(
            (applies("Never", rule("In"), 42), applies("Never", rule("In"), 1)),
            ("Always".into(), "Never".into())
        );
        assert_eq!(
            (applies("Never", rule("NotIn"), 42), applies("Never", rule("NotIn"), 1)),
            ("Never".into(), "Always".into())
        );
    }

    #[test]
    fn init_containers_are_tried_again_when_they_fail() {
        let spec = |pod: &str, own: Value| -> PodSpec {
            serde_json::from_value(json!({"restartPolicy": pod, "containers": [], "initContainers": [own]}))
                .unwrap()
        };
        let policy_of = |pod: &str, own: Value| {
            let spec = spec(pod, own);
            policy(&spec, &spec.init_containers.as_ref().unwrap()[0], 1).to_owned()
        };
        assert_eq!(policy_of("Always", json!({"name": "i"})), "OnFailure");
        assert_eq!(policy_of("Never", json!({"name": "i"})), "Never");
        assert_eq!(policy_of("Never", json!({"name": "i", "restartPolicy": "Always"})), "Always");
        assert_eq!(policy_of("Always", json!({"name": "i", "restartPolicy": "Never"})), "Never");
    }

    #[test]
    fn some_exits_begin_the_pod_anew() {
        let codes = json!({"operator": "In", "values": [88]});
        let container: Container = serde_json::from_value(json!({"name": "a", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": codes}]}))
        .unwrap();
        assert!(restarts_all(&container, 88) && !restarts_all(&container, 0));
    }
}
