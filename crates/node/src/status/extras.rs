//! What a container's status tells of its mounts, its user and its stop signal (kubernetes/kubernetes,
//! `pkg/kubelet/kubelet_pods.go`, `convertToAPIContainerStatuses`).

use std::fs;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use runtime::UserRange;

use super::Known;

/// The container's mounts as they are.
pub(super) fn mounts(
    pod: &Pod,
    container: &core::Container,
    known: &Known,
) -> Option<Vec<core::VolumeMountStatus>> {
    let is_image = |name: &str| {
        let mut volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        volumes.any(|volume| volume.name == name && volume.image.is_some())
    };
    let told = container.volume_mounts.as_ref()?.iter().map(|mount| {
        // Wherever a mount cannot be what it should be, the container does not start.
        let recursive = match (mount.read_only, mount.recursive_read_only.as_deref()) {
            (Some(true), Some("IfPossible")) if known.no_recursive_read_only => Some("Disabled"),
            (Some(true), Some("Enabled" | "IfPossible")) => Some("Enabled"),
            (Some(true), _) => Some("Disabled"),
            _ => None,
        };
        let image = known.image_volumes.get(&mount.name).filter(|_| is_image(&mount.name));
        core::VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: recursive.map(str::to_owned),
            volume_status: image.map(|id| core::VolumeStatus {
                image: Some(core::ImageVolumeStatus { image_ref: id.clone() }),
            }),
        }
    });
    Some(told.collect())
}

/// Whom a process runs as, in the numbers of its own users.
pub(crate) fn user_of(pid: u32, users: Option<UserRange>) -> Option<core::ContainerUser> {
    user_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, users)
}

fn user_in(status: &str, users: Option<UserRange>) -> Option<core::ContainerUser> {
    let first = i64::from(users.map_or(0, |range| range.first));
    let numbers = |name: &str| -> Option<Vec<i64>> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().map(|number| Some(number.parse::<i64>().ok()? - first)).collect()
    };
    let (uid, gid) = (*numbers("Uid:")?.get(1)?, *numbers("Gid:")?.get(1)?);
    let mut groups = numbers("Groups:")?;
    // As upstream's runtimes, the first group is one of them.
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    let linux = core::LinuxContainerUser { uid, gid, supplemental_groups: Some(groups) };
    Some(core::ContainerUser { linux: Some(linux) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mounts_tell_how_far_they_are_read_only() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"volumes": [{"name": "i", "image": {}}],
        "containers": [{"name": "a", "volumeMounts": [
            {"name": "v", "mountPath": "/1"},
            {"name": "v", "mountPath": "/2", "readOnly": true},
            {"name": "v", "mountPath": "/3", "readOnly": true, "recursiveReadOnly": "IfPossible"},
            {"name": "i", "mountPath": "/4"},
        ]}]}}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let image_volumes = [("i".to_owned(), "sha256:1".to_owned())].into();
        let known = Known { image_volumes, ..Known::default() };
        let told = mounts(&pod, container, &known).unwrap();
        let recursive: Vec<_> = told.iter().map(|m| m.recursive_read_only.as_deref()).collect();
        assert_eq!(recursive, [None, Some("Disabled"), Some("Enabled"), None]);
        let image = told[3].volume_status.as_ref().unwrap().image.as_ref().unwrap();
        assert_eq!(image.image_ref, "sha256:1");
        assert!(told[0].volume_status.is_none());
        let known = Known { no_recursive_read_only: true, ..Known::default() };
        let told = mounts(&pod, container, &known).unwrap();
        assert_eq!(told[2].recursive_read_only.as_deref(), Some("Disabled"));
    }

    #[test]
    fn users_are_counted_from_their_own_zero() {
        let status =
            "Name:\tx\nUid:\t131105\t131105\t131105\t131105\nGid:\t131106\t131106\t1\t1\nGroups:\t131122 \n";
        let user = user_in(status, Some(UserRange { first: 131_072, count: 65_536 })).unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (33, 34, Some(vec![34, 50])));
        assert_eq!(user_in("Uid:\tx", None), None);
    }
}
