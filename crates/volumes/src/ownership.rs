//! Who owns a volume (kubernetes/kubernetes, `pkg/volume/volume_linux.go`, `SetVolumeOwnership`).

use k8s_openapi::api::core::v1::Pod;

/// The group that owns the pod's volumes.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let security = pod.spec.as_ref()?.security_context.as_ref()?;
    security.fs_group.and_then(|g| u32::try_from(g).ok())
}

/// The user that all containers of the pod run as, if it is one and not root (upstream: `FsUserFrom`).
pub(crate) fn fs_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let common = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(common));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_user_or_none() {
        let user = |spec: serde_json::Value| {
            fs_user(&serde_json::from_value::<Pod>(json!({ "spec": spec })).unwrap())
        };
        let as_user = |id: i64| json!({"name": "a", "securityContext": {"runAsUser": id}});
        assert_eq!(user(json!({"containers": [as_user(5), as_user(5)]})), Some(5));
        assert_eq!(user(json!({"containers": [as_user(5), as_user(6)]})), None);
        assert_eq!(user(json!({"containers": [as_user(5), {"name": "b"}]})), None);
        let common = json!({"securityContext": {"runAsUser": 7}, "containers": [{"name": "b"}]});
        assert_eq!(user(common), Some(7));
    }
}
