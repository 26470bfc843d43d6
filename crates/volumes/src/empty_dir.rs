//! Scratch space (kubernetes/kubernetes, `pkg/volume/emptydir/empty_dir.go`).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use types::Quantity;

use crate::error::Fault;
use crate::mounts::tmpfs;
use crate::ownership::fs_group;

/// Makes the folder, in memory if so wished. What is there already is kept.
pub(crate) fn set_up(pod: &Pod, source: &EmptyDirVolumeSource, folder: &Path) -> Result<(), Fault> {
    let there = folder.exists();
    fs::create_dir_all(folder).map_err(Fault::file("make directory", folder))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" if there => return Ok(()),
        "" => {}
        "Memory" => tmpfs(folder, memory_limit(pod, source), "0777")?,
        other => return Err(Fault::Unsupported { what: "storage medium", text: other.to_owned() }),
    }
    let group = fs_group(pod);
    if group.is_some() {
        chown(folder, None, group).map_err(Fault::file("give away", folder))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
        .map_err(Fault::file("set the mode of", folder))
}

/// As much as was asked for, and never more than the pod may use at all.
fn memory_limit(pod: &Pod, source: &EmptyDirVolumeSource) -> Option<u64> {
    let bytes = |text: &str| text.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok());
    let wanted = source.size_limit.as_ref().and_then(|q| bytes(&q.0)).filter(|n| *n > 0);
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let of_pod = containers
        .map(|c| bytes(&c.resources.as_ref()?.limits.as_ref()?.get("memory")?.0))
        .sum::<Option<u64>>()
        .filter(|n| *n > 0);
    match (wanted, of_pod) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn on_disk_and_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let pod = json!({"spec": {"securityContext": {"fsGroup": 77}, "containers": []}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let source = |value| serde_json::from_value::<EmptyDirVolumeSource>(value).unwrap();
        let disk = folder.path().join("disk");
        set_up(&pod, &source(json!({})), &disk).unwrap();
        let meta = fs::metadata(&disk).unwrap();
        assert_eq!((meta.gid(), meta.mode() & 0o7777), (77, 0o2777));
        fs::write(disk.join("kept"), "").unwrap();
        set_up(&pod, &source(json!({})), &disk).unwrap();
        assert!(disk.join("kept").exists());
        let memory = folder.path().join("memory");
        set_up(&pod, &source(json!({"medium": "Memory", "sizeLimit": "1Mi"})), &memory).unwrap();
        assert!(crate::mounts::is_mounted(&memory));
        assert!(fs::write(memory.join("big"), vec![0; 2 << 20]).is_err());
        assert_eq!(fs::metadata(&memory).unwrap().mode() & 0o7777, 0o2777);
        crate::unmount_below(folder.path()).unwrap();
        assert!(set_up(&pod, &source(json!({"medium": "HugePages"})), &disk).is_err());
    }

    #[test]
    fn memory_is_limited_by_the_pod() {
        let limit = |limits: serde_json::Value, size: &str| {
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"limits": limits}}]}});
            let source = json!({"medium": "Memory", "sizeLimit": size});
            memory_limit(&serde_json::from_value(pod).unwrap(), &serde_json::from_value(source).unwrap())
        };
        assert_eq!(limit(json!({"memory": "1Mi"}), "2Mi"), Some(1 << 20));
        assert_eq!(limit(json!({"memory": "4Mi"}), "2Mi"), Some(2 << 20));
        assert_eq!(limit(json!({}), "2Mi"), Some(2 << 20));
        assert_eq!(limit(json!({}), "0"), None);
    }
}
