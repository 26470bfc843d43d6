//! What a running pod holds while its resources change, or are asked for that it cannot have (kubernetes/kubernetes,
//! `component-helpers/resource/helpers.go`, `PodRequests` with `UseStatusResources`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Deserializer};

use super::{PodSpecView, PodStatusView, ResourcesView};
use crate::requests::is_sidecar;

type List = BTreeMap<String, Quantity>;

/// A plain list, as `allocatedResources` is one, as requests.
pub(super) fn requests<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<ResourcesView>>, D::Error> {
    let list = Option::<List>::deserialize(from)?;
    Ok(list.map(|list| Box::new(ResourcesView { requests: Some(list) })))
}

/// The specification with the requests that count now, if they are not what it says. What the status says of resources is taken
/// out: nobody else looks at it.
pub(super) fn take(spec: &PodSpecView, status: &mut PodStatusView) -> Option<PodSpecView> {
    let pending = status.conditions.iter().flatten().find(|c| c.type_.as_deref() == Some("PodResizePending"));
    let infeasible = pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible"));
    let mut held: Option<PodSpecView> = None;
    let statuses = status.container_statuses.iter_mut().flatten();
    for status in statuses {
        let told = (status.resources.take(), status.allocated_resources.take());
        let place = spec.containers.iter().position(|c| c.name == status.name);
        let own = place.map(|place| (place, spec.containers[place].resources.as_ref()));
        if let Some((place, own)) = own
            && let Some(now) = counting(own, told, infeasible)
        {
            held.get_or_insert_with(|| spec.clone()).containers[place].resources = Some(now);
        }
    }
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    for status in status.init_container_statuses.iter_mut().flatten() {
        let told = (status.resources.take(), status.allocated_resources.take());
        let place =
            inits.iter().position(|c| c.name == status.name).filter(|place| is_sidecar(&inits[*place]));
        if let Some(place) = place
            && let Some(now) = counting(inits[place].resources.as_ref(), told, infeasible)
            && let Some(inits) = &mut held.get_or_insert_with(|| spec.clone()).init_containers
        {
            inits[place].resources = Some(now);
        }
    }
    let told = (status.resources.take(), status.allocated_resources.take());
    if spec.resources.is_some()
        && let Some(now) = counting(spec.resources.as_ref(), told, infeasible)
    {
        held.get_or_insert_with(|| spec.clone()).resources = Some(now);
    }
    held
}

/// The most of what is asked for, what was promised and what is there; nothing, if that is what is asked for. What is asked for
/// in vain does not count (`determineContainerReqs`).
fn counting(
    own: Option<&ResourcesView>,
    (actual, allocated): (Option<Box<ResourcesView>>, Option<Box<ResourcesView>>),
    infeasible: bool,
) -> Option<ResourcesView> {
    // Without it, nobody has told yet.
    let actual = actual?;
    let own = own.and_then(|own| own.requests.as_ref());
    let told = || {
        [Some(&actual), allocated.as_ref()].into_iter().flatten().flat_map(|r| r.requests.iter().flatten())
    };
    let is_less = |a: &Quantity, b: &Quantity| a.0 != b.0 && amount(a) < amount(b);
    let more = told().any(|(name, q)| own.and_then(|own| own.get(name)).is_none_or(|own| is_less(own, q)));
    if !more && !infeasible {
        return None;
    }
    let mut all = own.filter(|_| !infeasible).cloned().unwrap_or_default();
    for (name, q) in told() {
        if all.get(name).is_none_or(|known| is_less(known, q)) {
            all.insert(name.clone(), q.clone());
        }
    }
    let same = own.is_some_and(|own| {
        own.len() == all.len() && own.iter().zip(&all).all(|(a, b)| a.0 == b.0 && amount(a.1) == amount(b.1))
    });
    (!same).then_some(ResourcesView { requests: Some(all) })
}

fn amount(quantity: &Quantity) -> types::Quantity {
    quantity.0.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::PodView;
    use crate::requests::pod_requests;

    /// Thousandths of a core that count: of a container that asks for 500, a sidecar that asks for 100, and these.
    fn cores(status: Value) -> i64 {
        let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = json!({"metadata": {"name": "p"}, "status": status, "spec": {
            "containers": [{"name": "c", "resources": cpu("500m")}],
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": cpu("100m")},
                {"name": "i", "resources": cpu("50m")}]}});
        let pod: PodView = serde_json::from_value(pod).unwrap();
        pod_requests(pod.counting()).cpu
    }

    #[test]
    fn what_is_held_counts_as_long_as_it_is_more() {
        let of = |name: &str, actual: &str, allocated: &str| {
            json!({"name": name, "resources": {"requests": {"cpu": actual}},
            "allocatedResources": {"cpu": allocated}})
        };
        let all = |list: Value| json!({"containerStatuses": list});
        assert_eq!(cores(json!({})), 600);
        assert_eq!(cores(all(json!([of("c", "0.5", "500m")]))), 600);
        assert_eq!(cores(all(json!([of("c", "2", "500m")]))), 2100, "it has not become smaller yet");
        assert_eq!(cores(all(json!([of("c", "200m", "200m")]))), 600, "it is about to become larger");
        assert_eq!(cores(all(json!([of("c", "200m", "700m")]))), 800);
        let infeasible = json!({"containerStatuses": [of("c", "200m", "200m")],
            "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]});
        assert_eq!(cores(infeasible), 300, "it will not become larger");
        let inits = |name: &str| json!({"initContainerStatuses": [of(name, "1", "1")]});
        assert_eq!((cores(inits("s")), cores(inits("i"))), (1500, 600), "what is over is no resize");
        let untold = json!({"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "2"}}]});
        assert_eq!(cores(untold), 600);
    }

    #[test]
    fn a_whole_pod_is_resized_likewise() {
        let whole = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], "resources": whole("1")},
            "status": {"resources": whole("3"), "allocatedResources": {"cpu": "1"}}});
        let pod: PodView = serde_json::from_value(pod).unwrap();
        assert_eq!(pod_requests(pod.counting()).cpu, 3000);
        assert_eq!(pod.spec.resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "1");
    }
}
