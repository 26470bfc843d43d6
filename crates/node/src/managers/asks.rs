//! What a pod asks of the resource managers, taken out of its object.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use types::Quantity;

use crate::memory::Amounts;
use crate::plan::is_sidecar;

/// When a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Alone, before those that follow.
    Init,
    /// From its turn on to the end.
    Sidecar,
    /// Until it ends.
    Main,
}

/// One container's wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// CPUs of its own; none if it shares.
    pub(crate) cpus: usize,
    /// Memory of known nodes, if it is to have that.
    pub(crate) memory: Amounts,
    /// Limits of resources that may be plugins'.
    pub(crate) devices: BTreeMap<String, usize>,
}

/// A pod's containers in the order in which they are admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodAsk {
    pub(crate) uid: String,
    pub(crate) containers: Vec<Ask>,
}

impl PodAsk {
    pub(crate) fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        // Requests of a whole pod are nobody's in it.
        let levelled = spec.is_some_and(|s| s.resources.is_some());
        let guaranteed =
            !levelled && pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) == Some("Guaranteed");
        let inits = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten());
        let inits = inits.map(|c| (c, if is_sidecar(c) { Role::Sidecar } else { Role::Init }));
        let mains = spec.into_iter().flat_map(|s| &s.containers).map(|c| (c, Role::Main));
        let containers = inits.chain(mains).map(|(c, role)| Ask::of(c, role, guaranteed)).collect();
        Self { uid: pod.metadata.uid.clone().unwrap_or_default(), containers }
    }

    /// The init containers that have ended when the one at `place` runs.
    pub(crate) fn ended(&self, place: usize) -> Vec<&str> {
        let before = self.containers.iter().take(place).filter(|c| c.role == Role::Init);
        before.map(|c| c.name.as_str()).collect()
    }

    /// The most of something that runs at any one time.
    pub(crate) fn most(&self, amount: impl Fn(&Ask) -> u64) -> u64 {
        let (mut most, mut sidecars, mut mains) = (0, 0, 0);
        for ask in &self.containers {
            match ask.role {
                Role::Init => most = most.max(sidecars + amount(ask)),
                Role::Sidecar => sidecars += amount(ask),
                Role::Main => mains += amount(ask),
            }
        }
        most.max(sidecars + mains)
    }
}

impl Ask {
    fn of(container: &Container, role: Role, guaranteed: bool) -> Self {
        let resources = container.resources.as_ref();
        let read =
            |map: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
                let parsed = map
                    .into_iter()
                    .flatten()
                    .filter_map(|(n, q)| Some((n.clone(), q.0.parse::<Quantity>().ok()?)));
                parsed.collect::<Vec<(String, Quantity)>>()
            };
        let requests = read(resources.and_then(|r| r.requests.as_ref()));
        let limits = read(resources.and_then(|r| r.limits.as_ref()));
        let millis = requests.iter().find(|(name, _)| name == "cpu").map_or(0, |(_, q)| q.millis());
        let whole = |q: &Quantity| u64::try_from(q.units()).unwrap_or(0);
        let ours = |name: &str| name == "memory" || name.starts_with("hugepages-");
        Self {
            name: container.name.clone(),
            role,
            cpus: if guaranteed && millis > 0 && millis % 1000 == 0 { (millis / 1000) as usize } else { 0 },
            memory: requests
                .iter()
                .filter(|(name, _)| guaranteed && ours(name))
                .map(|(name, q)| (name.clone(), whole(q)))
                .collect(),
            devices: limits
                .iter()
                .filter(|(name, q)| name.contains('/') && q.units() > 0)
                .map(|(name, q)| (name.clone(), whole(q) as usize))
                .collect(),
        }
    }
}

/// Whether containers ask for another amount of a resource.
pub(super) fn differ(one: &Pod, other: &Pod, name: &str) -> bool {
    let amounts = |pod: &Pod| -> Vec<Option<Quantity>> {
        let containers =
            pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
        let request =
            |c: &Container| c.resources.as_ref()?.requests.as_ref()?.get(name)?.0.parse::<Quantity>().ok();
        containers.map(request).collect()
    };
    amounts(one) != amounts(other)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asks(class: &str, inits: Value, resources: Value) -> PodAsk {
        let main = json!({"name": "main", "resources": {"requests": resources, "limits": resources}});
        let pod = json!({"metadata": {"uid": "u"}, "status": {"qosClass": class},
            "spec": {"initContainers": inits, "containers": [main]}});
        PodAsk::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_whole_cpus_of_guaranteed_pods_are_exclusive() {
        let cpus = |class: &str, cpu: &str| {
            asks(class, json!([]), json!({"cpu": cpu, "memory": "1Mi"})).containers[0].cpus
        };
        assert_eq!((cpus("Guaranteed", "2"), cpus("Guaranteed", "2000m")), (2, 2));
        assert_eq!((cpus("Guaranteed", "1500m"), cpus("Burstable", "2")), (0, 0));
        let ask =
            asks("Guaranteed", json!([]), json!({"memory": "1Mi", "hugepages-2Mi": "4Mi", "e.com/x": "3"}));
        let memory = [("memory".to_owned(), 1 << 20), ("hugepages-2Mi".to_owned(), 4 << 20)].into();
        assert_eq!(ask.containers[0].memory, memory);
        assert_eq!(ask.containers[0].devices, [("e.com/x".to_owned(), 3)].into());
    }

    #[test]
    fn init_containers_run_one_after_the_other() {
        let init = |name: &str, cpu: &str, policy: Value| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let inits = json!([
            init("a", "3", json!(null)),
            init("side", "1", json!("Always")),
            init("b", "4", json!(null))
        ]);
        let ask = asks("Guaranteed", inits, json!({"cpu": "2"}));
        assert_eq!(ask.most(|a| a.cpus as u64), 5);
        assert_eq!((ask.ended(0), ask.ended(3)), (vec![], vec!["a", "b"]));
    }
}
