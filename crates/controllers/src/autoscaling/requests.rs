//! What pods ask for (kubernetes/kubernetes, `pkg/controller/podautoscaler/replica_calculator.go`, `calculateRequests`).

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{ContainerView, PodView, ResourcesView};
use types::Quantity;

use super::why::Why;

/// Of which resource, and of which container if not of all.
pub(super) struct Requests<'a> {
    pub(super) resource: &'a str,
    pub(super) container: Option<&'a str>,
}

fn is_sidecar(container: &ContainerView) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl Requests<'_> {
    /// By pods' names, in thousandths.
    pub(super) fn of_all(&self, pods: &[Arc<PodView>]) -> Result<BTreeMap<String, i64>, Why> {
        pods.iter().map(|pod| Ok((pod.metadata.name.clone().unwrap_or_default(), self.of(pod)?))).collect()
    }

    fn of(&self, pod: &PodView) -> Result<i64, Why> {
        let whole = pod.spec.resources.as_ref().and_then(|r| r.requests.as_ref());
        match whole.filter(|requests| self.container.is_none() && !requests.is_empty()) {
            Some(_) => self.of_whole(pod),
            None => self.of_containers(pod),
        }
    }

    fn said(&self, resources: Option<&ResourcesView>) -> Option<i64> {
        let text = resources?.requests.as_ref()?.get(self.resource)?;
        text.0.parse().map(Quantity::millis).ok()
    }

    fn of_containers(&self, pod: &PodView) -> Result<i64, Why> {
        let name = || pod.metadata.name.clone().unwrap_or_default();
        let sidecars = pod.spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
        let mut sum = 0_i64;
        for container in pod.spec.containers.iter().chain(sidecars) {
            let is_it = self.container == container.name.as_deref();
            if self.container.is_some() && !is_it {
                continue;
            }
            let request = self.said(container.resources.as_ref()).ok_or_else(|| Why::NoRequest {
                resource: self.resource.to_owned(),
                container: container.name.as_deref().unwrap_or_default().to_owned(),
                pod: name(),
            })?;
            if is_it {
                return Ok(request);
            }
            sum = sum.saturating_add(request);
        }
        match self.container {
            None => Ok(sum),
            Some(container) => Err(Why::NoContainer { container: container.to_owned(), pod: name() }),
        }
    }

    /// Of a pod that asks for itself: what it does not say is the most its containers need at one time.
    fn of_whole(&self, pod: &PodView) -> Result<i64, Why> {
        let (mut sidecars, mut starting, mut any) = (0_i64, 0_i64, false);
        for container in pod.spec.init_containers.iter().flatten() {
            let Some(request) = self.said(container.resources.as_ref()) else { continue };
            any = true;
            if is_sidecar(container) {
                sidecars = sidecars.saturating_add(request);
                starting = starting.max(sidecars);
            } else {
                starting = starting.max(sidecars.saturating_add(request));
            }
        }
        let mut running = sidecars;
        for request in pod.spec.containers.iter().filter_map(|c| self.said(c.resources.as_ref())) {
            any = true;
            running = running.saturating_add(request);
        }
        let own = self.said(pod.spec.resources.as_ref());
        let needed = own.or(any.then_some(running.max(starting))).ok_or_else(|| Why::NoPodRequest {
            resource: self.resource.to_owned(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
        })?;
        let overhead = pod.spec.overhead.as_ref().and_then(|o| o.get(self.resource));
        let overhead = overhead.and_then(|text| text.0.parse().map(Quantity::millis).ok()).unwrap_or(0);
        Ok(needed.saturating_add(overhead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cpu(container: Option<&str>, spec: Value) -> Result<i64, String> {
        let pod: PodView = testkit::object(json!({"metadata": {"name": "p"}, "spec": spec}));
        Requests { resource: "cpu", container }.of(&pod).map_err(|why| why.to_string())
    }

    #[test]
    fn containers_and_sidecars_are_summed_unless_the_pod_asks_for_itself() {
        let asks = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = asks("s", "50m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"containers": [asks("a", "100m"), asks("b", "1")],
            "initContainers": [asks("i", "9"), sidecar]});
        assert_eq!(cpu(None, spec.clone()), Ok(1150));
        assert_eq!(cpu(Some("b"), spec.clone()), Ok(1000));
        assert_eq!(cpu(Some("s"), spec.clone()), Ok(50));
        assert_eq!(cpu(Some("x"), spec.clone()), Err("container x not found in Pod p".into()));
        let bare = json!({"containers": [asks("a", "1"), {"name": "b"}]});
        assert_eq!(cpu(None, bare.clone()), Err("missing request for cpu in container b of Pod p".into()));
        assert_eq!(cpu(Some("a"), bare), Ok(1000));
        let mut whole = spec;
        whole["resources"] = json!({"requests": {"memory": "1Gi"}});
        assert_eq!(cpu(None, whole.clone()), Ok(9000));
        whole["resources"]["requests"]["cpu"] = "3".into();
        whole["overhead"] = json!({"cpu": "10m"});
        assert_eq!(cpu(None, whole.clone()), Ok(3010));
        assert_eq!(cpu(Some("a"), whole), Ok(100));
        let neither = json!({"containers": [{"name": "a"}], "resources": {"requests": {"memory": "1Gi"}}});
        assert_eq!(cpu(None, neither), Err("missing pod-level request for cpu in Pod p".into()));
    }
}
