//! How the classes of pods share the CPU when there is not enough of it (kubernetes/kubernetes,
//! `pkg/kubelet/cm/qos_container_manager_linux.go`, `setCPUCgroupConfig`). Guaranteed pods weigh for themselves what they ask
//! for; Burstable ones share what they ask for together; BestEffort ones get what nobody else wants.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use runtime::Resources;

use crate::plan::is_over;
use crate::requests::requests;
use crate::worker::Agent;

/// Pods that come and go together are weighed together.
const PACE: Duration = Duration::from_secs(1);
/// The least that the kernel takes.
const LEAST: u64 = 2;

/// The folder of a pod's cgroup below the one of all pods; the Guaranteed are right below that.
pub(crate) fn folder(pod: &Pod) -> Option<String> {
    match class(pod) {
        "Guaranteed" => None,
        other => Some(other.to_lowercase()),
    }
}

fn class(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.qos_class.as_deref()).unwrap_or("BestEffort")
}

/// What the Burstable ones among these pods weigh together.
fn burstable(pods: impl Iterator<Item = Pod>) -> u64 {
    let counting = pods.filter(|pod| class(pod) == "Burstable" && !is_over(pod));
    let millis = counting.fold(0i64, |sum, pod| sum.saturating_add(requests(&pod).cpu));
    u64::try_from(millis).unwrap_or(0).saturating_mul(1024).div_euclid(1000).clamp(LEAST, 262_144)
}

impl Agent {
    /// Makes the cgroups of the classes, and keeps their weights true.
    pub(crate) async fn weigh_classes(self: Arc<Self>) {
        self.weigh("besteffort", LEAST).await;
        let mut told = None;
        loop {
            let now = burstable(self.pods.list().iter().map(|pod| self.as_promised(pod)));
            if told != Some(now) && self.weigh("burstable", now).await {
                told = Some(now);
            }
            tokio::time::sleep(PACE).await;
            self.looked.notified().await;
        }
    }

    async fn weigh(&self, class: &str, shares: u64) -> bool {
        let resources = Resources { cpu_shares: Some(shares), ..Resources::default() };
        let done = self.runtime.limit_class(class, &resources).await;
        if let Err(error) = &done {
            tracing::warn!(class, %error, "a class of pods cannot be given its weight");
        }
        done.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(class: &str, phase: &str, cpu: &str) -> Pod {
        serde_json::from_value(json!({
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]},
            "status": {"qosClass": class, "phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn burstable_pods_weigh_what_they_ask_for() {
        let all = [
            pod("Burstable", "Running", "250m"),
            pod("Burstable", "Pending", "500m"),
            pod("Burstable", "Succeeded", "4"),
            pod("Guaranteed", "Running", "8"),
            pod("BestEffort", "Running", "16"),
        ];
        assert_eq!(burstable(all.into_iter()), 768);
        assert_eq!(burstable([].into_iter()), 2);
        assert_eq!(burstable([pod("Burstable", "Running", "5k")].into_iter()), 262_144);
    }

    #[test]
    fn places_of_classes() {
        let of = |class: &str| folder(&pod(class, "Running", "1"));
        assert_eq!((of("Guaranteed"), of("Burstable")), (None, Some("burstable".into())));
        assert_eq!(folder(&Pod::default()), Some("besteffort".into()));
    }
}
