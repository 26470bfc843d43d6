//! What a pod may use as a whole: the limits of its own cgroup (kubernetes/kubernetes, `pkg/kubelet/cm/
//! helpers_linux.go`, `ResourceConfigForPod`).

use std::collections::BTreeMap;

use client::{Amounts, PodSpecView, pod_requests, sum_over_containers};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::Resources;

use crate::hugepages;

/// The limits of a pod's cgroup. What is said for the whole pod counts instead of the sum over its containers, and what
/// running it costs comes on top.
pub(crate) fn of(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let Some(view) = view(spec) else { return Resources::default() };
    let (requests, limits) = (pod_requests(&view), limits(spec));
    let guaranteed_or_burstable = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .filter_map(|c| c.resources.as_ref())
        .chain(&spec.resources)
        .any(|r| {
            r.requests
                .iter()
                .chain(&r.limits)
                .any(|list| list.contains_key("cpu") || list.contains_key("memory"))
        });
    let shares = (requests.cpu.saturating_mul(1024) / 1000).clamp(2, 262_144) as u64;
    Resources {
        cpu_shares: Some(if guaranteed_or_burstable { shares } else { 2 }),
        cpu_quota_us: limits.cpu.map(|millis| (millis.saturating_mul(100)).max(1000)),
        cpu_period_us: Some(100_000),
        memory_limit: limits.memory.and_then(|bytes| u64::try_from(bytes).ok()),
        huge_pages: hugepages::limits(&limits.others),
        ..Resources::default()
    }
}

fn view(spec: &PodSpec) -> Option<PodSpecView> {
    serde_json::from_value(serde_json::to_value(spec).ok()?).ok()
}

/// Of what the pod may not use more; none where a container may use as much as it likes.
struct Limits {
    cpu: Option<i64>,
    memory: Option<i64>,
    others: BTreeMap<String, i64>,
}

/// What the containers may use at most at any one time, counted as their requests are.
fn sum(spec: &PodSpec) -> Amounts {
    let mut spec = spec.clone();
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for resources in containers.filter_map(|c| c.resources.as_mut()) {
        resources.requests = resources.limits.take();
    }
    let of =
        |resources: Option<&client::ResourcesView>| Amounts::of(resources.and_then(|r| r.requests.as_ref()));
    view(&spec).map(|view| sum_over_containers(&view, of)).unwrap_or_default()
}

fn limits(spec: &PodSpec) -> Limits {
    let whole = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    let own = Amounts::of(whole);
    let sum = sum(spec);
    let overhead = Amounts::of(spec.overhead.as_ref());
    let said = |name: &str| whole.is_some_and(|list| list.contains_key(name));
    // One container without a limit is a pod without one.
    let all = |name: &str| {
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let limit = |list: Option<&BTreeMap<String, Quantity>>| {
            let amount = list.and_then(|l| l.get(name)).and_then(|q| q.0.parse::<types::Quantity>().ok());
            amount.is_some_and(|q| q.millis() > 0)
        };
        containers.all(|c| limit(c.resources.as_ref().and_then(|r| r.limits.as_ref())))
    };
    let choose = |name: &str, own: i64, sum: i64, more: i64| match () {
        () if said(name) => Some(own.saturating_add(more)),
        () if all(name) => Some(sum.saturating_add(more)),
        () => None,
    };
    let mut others = sum.others;
    others.extend(own.others);
    Limits {
        cpu: choose("cpu", own.cpu, sum.cpu, overhead.cpu),
        memory: choose("memory", own.memory, sum.memory, overhead.memory),
        others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn limited(spec: Value) -> (Option<u64>, Option<i64>, Option<u64>) {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let r = of(&pod);
        (r.cpu_shares, r.cpu_quota_us, r.memory_limit)
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "a", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn the_sum_counts_if_all_have_limits() {
        let both = |cpu: &str| container(json!({"cpu": cpu}), json!({"cpu": cpu, "memory": "1Mi"}));
        let spec = json!({"containers": [both("500m"), both("250m")]});
        assert_eq!(limited(spec), (Some(768), Some(75_000), Some(2 << 20)));
        let spec = json!({"containers": [both("500m"), {"name": "b"}]});
        assert_eq!(limited(spec), (Some(512), None, None));
        assert_eq!(limited(json!({"containers": [{"name": "b"}]})), (Some(2), None, None));
        let spec = json!({"containers": [both("500m")], "overhead": {"cpu": "100m", "memory": "1Mi"}});
        assert_eq!(limited(spec), (Some(614), Some(60_000), Some(2 << 20)));
    }

    #[test]
    fn what_is_said_for_the_whole_pod_counts() {
        let whole = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "8Mi"}});
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "resources": whole});
        assert_eq!(limited(spec), (Some(1024), Some(200_000), Some(8 << 20)));
    }
}
