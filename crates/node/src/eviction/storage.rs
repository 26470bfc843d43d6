//! Pods that write more than they may: pure (kubernetes/kubernetes, `pkg/kubelet/eviction/eviction_manager.go`,
//! `localStorageEviction`).

use k8s_openapi::api::core::v1::{Pod, Volume};
use types::Quantity;

use super::rank::{PodUse, amount};

const STORAGE: &str = "ephemeral-storage";

/// Why a pod must go, and how that is counted.
pub(super) type Reason = (String, &'static str);

fn size_limit(volume: &Volume) -> Option<(String, u64)> {
    let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
    let bytes = u64::try_from(limit.0.parse::<Quantity>().ok()?.units()).ok().filter(|bytes| *bytes > 0)?;
    Some((limit.0.clone(), bytes))
}

/// What all containers together may write, if each of them has a limit.
fn pod_limit(pod: &Pod) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().map(|c| amount(c, true, STORAGE)).sum::<Option<u64>>().filter(|limit| *limit > 0)
}

/// Whether a pod may not write as much as it likes.
pub(super) fn is_limited(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.volumes.iter().flatten().any(|v| size_limit(v).is_some())
        || spec.containers.iter().any(|c| amount(c, true, STORAGE).is_some())
}

/// The first limit that a pod exceeds. `volumes` are what its volumes hold, by name.
pub(super) fn exceeded(pod: &Pod, used: &PodUse, volumes: &[(String, u64)]) -> Option<Reason> {
    let spec = pod.spec.as_ref()?;
    for volume in spec.volumes.iter().flatten() {
        let Some((text, limit)) = size_limit(volume) else { continue };
        if volumes.iter().any(|(name, bytes)| *name == volume.name && *bytes > limit) {
            let why = format!("Usage of EmptyDir volume {:?} exceeds the limit {text:?}. ", volume.name);
            return Some((why, "emptydirfs.limit"));
        }
    }
    if let Some(limit) = pod_limit(pod).filter(|limit| used.disk > *limit) {
        let limit = super::rank::size(limit);
        let why =
            format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
        return Some((why, "ephemeralpodfs.limit"));
    }
    spec.containers.iter().find_map(|container| {
        let limit = amount(container, true, STORAGE).filter(|limit| *limit > 0)?;
        let (.., disk) = used.containers.iter().find(|(name, ..)| *name == container.name)?;
        let text = super::rank::size(limit);
        let why =
            format!("Container {} exceeded its local ephemeral storage limit {text:?}. ", container.name);
        (*disk > limit).then_some((why, "ephemeralcontainerfs.limit"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn using(disk: u64, container: u64) -> PodUse {
        PodUse { disk, containers: vec![("c".into(), 0, container)], ..PodUse::default() }
    }

    #[test]
    fn limits_in_upstreams_words() {
        let limited = pod(json!({
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "emptyDir": {}}],
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "2Mi"}}}, {"name": "d"}]}));
        assert!(is_limited(&limited));
        let why = |used: PodUse, volume: u64| {
            exceeded(&limited, &used, &[("v".into(), volume), ("w".into(), 1 << 40)]).map(|(why, _)| why)
        };
        assert_eq!(why(using(1 << 30, 2 << 20), 1 << 20), None);
        assert_eq!(
            why(using(0, 0), (1 << 20) + 1).as_deref(),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")
        );
        assert_eq!(
            why(using(0, 3 << 20), 0).as_deref(),
            Some("Container c exceeded its local ephemeral storage limit \"2Mi\". ")
        );
        let whole = pod(
            json!({"containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "2Mi"}}}]}),
        );
        assert_eq!(
            exceeded(&whole, &using(3 << 20, 0), &[]).unwrap().0,
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "
        );
        assert!(!is_limited(&pod(json!({"containers": [{"name": "c"}]}))));
    }
}
