//! Who goes first, and what is said to it: pure (kubernetes/kubernetes, `pkg/kubelet/eviction/helpers.go`,
//! `rankMemoryPressure`, `rankDiskPressureFunc`, `rankPIDPressure`, `evictionMessage`).

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::{Container, Pod};
use types::Quantity;

use super::decide::Observed;
use super::threshold::{Resource, Threshold};
use crate::requests::requests;

/// What a pod uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodUse {
    pub(crate) memory: u64,
    /// Of the node's disk: layers, logs and volumes.
    pub(crate) disk: u64,
    pub(crate) inodes: u64,
    pub(crate) pids: u64,
    /// By container: name, memory, and disk (layer and log).
    pub(crate) containers: Vec<(String, u64, u64)>,
}

/// From here on pods are needed by the system (`scheduling.SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

/// Whether the node cannot do without it (`pkg/kubelet/types/pod_update.go`, `IsCriticalPod`).
pub(crate) fn is_critical(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|a| a.get("kubernetes.io/config.source"));
    let mirror =
        pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    mirror || source.is_some_and(|s| s != "api") || priority(pod) >= CRITICAL
}

/// What a container asks for, or may at most have.
pub(crate) fn amount(container: &Container, limit: bool, name: &str) -> Option<u64> {
    let resources = container.resources.as_ref()?;
    let map = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    u64::try_from(map?.get(name)?.0.parse::<Quantity>().ok()?.units()).ok()
}

/// The places of the pods, who is to go first at the front.
pub(crate) fn rank(resource: Resource, pods: &[(&Pod, PodUse)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pods.len()).collect();
    order.sort_by_cached_key(|place| {
        let (pod, used) = &pods[*place];
        let asked = |amount: i64| u64::try_from(amount).unwrap_or(0);
        let (used, asked) = match resource {
            Resource::Memory => (used.memory, asked(requests(pod).memory)),
            Resource::EphemeralStorage => (used.disk, asked(requests(pod).storage)),
            Resource::Inodes => (used.inodes, 0),
            // Whatever it uses, it asked for none.
            Resource::Pids => (used.pids, 0),
        };
        let exceeds = resource == Resource::Pids || used > asked;
        (Reverse(exceeds), priority(pod), Reverse(i128::from(used) - i128::from(asked)))
    });
    order
}

/// What an evicted pod's status and event say.
pub(crate) fn message(threshold: &Threshold, observed: &Observed, pod: &Pod, used: &PodUse) -> String {
    let resource = threshold.signal.resource();
    let plain = matches!(resource, Resource::Inodes | Resource::Pids);
    let shown = |n: u64| if plain { n.to_string() } else { size(n) };
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        shown(threshold.least(observed.capacity)),
        shown(observed.available)
    );
    let name = match resource {
        Resource::Memory => "memory",
        Resource::EphemeralStorage => "ephemeral-storage",
        Resource::Inodes | Resource::Pids => return text,
    };
    for container in pod.spec.iter().flat_map(|s| &s.containers) {
        let Some((_, memory, disk)) = used.containers.iter().find(|(n, ..)| *n == container.name) else {
            continue;
        };
        let used = if resource == Resource::Memory { *memory } else { *disk };
        let asked = amount(container, false, name).unwrap_or(0);
        if used > asked {
            text += &format!(
                "Container {} was using {}, request is {}, has larger consumption of {name}. ",
                container.name,
                size(used),
                size(asked)
            );
        }
    }
    text
}

/// Bytes, in the largest unit that leaves no remainder, as upstream shows binary quantities.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.into_iter().find(|(_, bits)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    unit.map_or_else(|| bytes.to_string(), |(unit, bits)| format!("{}{unit}", bytes >> bits))
}

#[cfg(test)]
mod tests {
    use super::super::threshold::{Amount, Signal};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Duration;

    fn pod(name: &str, priority: i32, memory: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]}}))
        .unwrap()
    }

    fn using(memory: u64) -> PodUse {
        PodUse { memory, containers: vec![("c".into(), memory, 0)], ..PodUse::default() }
    }

    #[test]
    fn who_uses_more_than_asked_goes_first_then_who_matters_less() {
        let pods = [
            pod("modest", 0, "1Mi"),
            pod("greedy", 5, "1"),
            pod("greedier", 5, "1"),
            pod("important", 9, "1"),
            pod("unimportant-modest", -1, "1Mi"),
        ];
        let uses = [1000, 1000, 2000, 9000, 1000].map(using);
        let all: Vec<_> = pods.iter().zip(uses).collect();
        let names: Vec<_> = rank(Resource::Memory, &all)
            .into_iter()
            .map(|place| all[place].0.metadata.name.as_deref().unwrap())
            .collect();
        assert_eq!(names, ["greedier", "greedy", "important", "unimportant-modest", "modest"]);
    }

    #[test]
    fn process_ids_go_by_priority_and_number() {
        let pods = [pod("a", 1, "1"), pod("b", 0, "1"), pod("c", 0, "1")];
        let uses = [9, 1, 2].map(|pids| PodUse { pids, ..PodUse::default() });
        let all: Vec<_> = pods.iter().zip(uses).collect();
        assert_eq!(rank(Resource::Pids, &all), [2, 1, 0]);
    }

    #[test]
    fn words() {
        let threshold = Threshold {
            signal: Signal::MemoryAvailable,
            value: Amount::Absolute(100 << 20),
            most: None,
            grace: Duration::ZERO,
            reclaim: None,
        };
        let observed = Observed { available: 5 << 20, capacity: 1 << 30 };
        let said = message(&threshold, &observed, &pod("p", 0, "1Ki"), &using(4096));
        assert_eq!(
            said,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 5Mi. \
            Container c was using 4Ki, request is 1Ki, has larger consumption of memory. "
        );
        assert_eq!((size(0), size(1023), size(3 << 30)), ("0".into(), "1023".into(), "3Gi".into()));
    }

    #[test]
    fn the_systems_own_stay() {
        assert!(is_critical(&pod("a", 2_000_000_000, "1")) && !is_critical(&pod("a", 1_999_999_999, "1")));
        let fixed = json!({"metadata": {"annotations": {"kubernetes.io/config.source": "file"}}});
        assert!(is_critical(&serde_json::from_value(fixed).unwrap()));
    }

    proptest! {
        #[test]
        fn an_order_of_all(list in prop::collection::vec((-2i32..3, 0u64..5, 0u64..5), 0..20)) {
            let pods: Vec<_> = list.iter().map(|(p, asked, _)| pod("x", *p, &asked.to_string())).collect();
            let all: Vec<_> = pods.iter().zip(list.iter().map(|(.., used)| using(*used))).collect();
            let order = rank(Resource::Memory, &all);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..all.len()).collect::<Vec<_>>());
            for pair in order.windows(2) {
                let of = |place: usize| { let (p, asked, used) = list[place]; (used > asked, p, used as i64 - asked as i64) };
                let (first, second) = (of(pair[0]), of(pair[1]));
                prop_assert!(first.0 >= second.0);
                if first.0 == second.0 { prop_assert!(first.1 <= second.1); }
                if (first.0, first.1) == (second.0, second.1) { prop_assert!(first.2 >= second.2); }
            }
        }
    }
}
