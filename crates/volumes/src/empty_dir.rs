//! Scratch space (kubernetes/kubernetes, `pkg/volume/emptydir/empty_dir.go`).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, ResourceRequirements};
use types::Quantity;

use crate::error::Fault;
use crate::mounts::{hugetlbfs, tmpfs_of};
use crate::ownership::fs_group;

/// Makes the folder, in memory if so wished. What is there already is kept. `node_memory` is what all pods may use together,
/// in bytes; 0 is not known.
pub(crate) fn set_up(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    folder: &Path,
    node_memory: u64,
) -> Result<(), Fault> {
    let group = fs_group(pod);
    let (mode, text) = if group.is_some() { (0o2777, "2777") } else { (0o777, "0777") };
    match source.medium.as_deref().unwrap_or_default() {
        "" if folder.exists() => Ok(()),
        "" => {
            // Under another name first: a killed agent leaves nothing that only looks as if it were made.
            let draft = folder.with_file_name(format!(".{}", file_name(folder)));
            fs::create_dir_all(&draft).map_err(Fault::file("make directory", &draft))?;
            chown(&draft, None, group).map_err(Fault::file("give away", &draft))?;
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(&draft, mode).map_err(Fault::file("set the mode of", &draft))?;
            fs::rename(&draft, folder).map_err(Fault::file("make directory", folder))
        }
        // What is mounted already is left as its pod has it by now.
        "Memory" => tmpfs_of(made(folder)?, memory_limit(pod, source, node_memory), text, group),
        medium if medium.starts_with("HugePages") => {
            let size = page_size(pod, medium)?;
            let most = source.size_limit.as_ref().and_then(|q| bytes(&q.0)).filter(|n| *n > 0);
            hugetlbfs(made(folder)?, size, most, text, group)
        }
        other => Err(Fault::Unsupported { what: "storage medium", text: other.to_owned() }),
    }
}

fn made(folder: &Path) -> Result<&Path, Fault> {
    fs::create_dir_all(folder).map_err(Fault::file("make directory", folder))?;
    Ok(folder)
}

fn file_name(folder: &Path) -> std::borrow::Cow<'_, str> {
    folder.file_name().unwrap_or_default().to_string_lossy()
}

fn bytes(text: &str) -> Option<u64> {
    text.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok())
}

/// The size of the pages that a medium of huge pages is made of: the one it names, or the only one that the pod asks for
/// (`getPageSizeMountOption`).
fn page_size(pod: &Pod, medium: &str) -> Result<u64, Fault> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let of_containers = containers.filter_map(|c| c.resources.as_ref());
    let of_pod = pod.spec.iter().filter_map(|s| s.resources.as_ref());
    let mut asked: Vec<u64> = of_containers
        .chain(of_pod)
        .flat_map(|r| r.requests.iter().chain(&r.limits).flat_map(|list| list.keys()))
        .filter_map(|name| bytes(name.strip_prefix("hugepages-")?))
        .collect();
    asked.sort_unstable();
    asked.dedup();
    let medium_says = medium.strip_prefix("HugePages-").and_then(bytes);
    match (medium, medium_says, asked.as_slice()) {
        (_, Some(size), asked) if asked.contains(&size) => Ok(size),
        ("HugePages", None, [size]) => Ok(*size),
        ("HugePages", None, [_, _, ..]) => Err(Fault::HugePages(
            "medium HugePages can't be used if container requests multiple huge page sizes",
        )),
        ("HugePages", ..) | (_, Some(_), _) => Err(Fault::HugePages(
            "hugePages storage requested, but there is no resource request for huge pages.",
        )),
        _ => Err(Fault::Unsupported { what: "storage medium", text: medium.to_owned() }),
    }
}

/// As much as was asked for, and never more than the pod, or all pods together, may use at all
/// (`calculateEmptyDirMemorySize`).
fn memory_limit(pod: &Pod, source: &EmptyDirVolumeSource, node_memory: u64) -> Option<u64> {
    let wanted = source.size_limit.as_ref().and_then(|q| bytes(&q.0));
    let limit = |resources: &ResourceRequirements| bytes(&resources.limits.as_ref()?.get("memory")?.0);
    let spec = pod.spec.as_ref();
    let sum =
        spec.and_then(|s| s.containers.iter().map(|c| limit(c.resources.as_ref()?)).sum::<Option<u64>>());
    let of_pod = spec.and_then(|s| limit(s.resources.as_ref()?)).or(sum);
    [wanted, of_pod, Some(node_memory)].into_iter().flatten().filter(|n| *n > 0).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::MetadataExt;

    fn source(value: serde_json::Value) -> EmptyDirVolumeSource {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn on_disk_and_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let pod = json!({"spec": {"securityContext": {"fsGroup": 77}, "containers": []}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let disk = folder.path().join("disk");
        set_up(&pod, &source(json!({})), &disk, 0).unwrap();
        let meta = fs::metadata(&disk).unwrap();
        assert_eq!((meta.gid(), meta.mode() & 0o7777), (77, 0o2777));
        fs::write(disk.join("kept"), "").unwrap();
        set_up(&pod, &source(json!({})), &disk, 0).unwrap();
        assert!(disk.join("kept").exists());
        let memory = folder.path().join("memory");
        set_up(&pod, &source(json!({"medium": "Memory", "sizeLimit": "1Mi"})), &memory, 8 << 20).unwrap();
        assert!(crate::mounts::is_mounted(&memory));
        assert!(fs::write(memory.join("big"), vec![0; 2 << 20]).is_err());
        assert_eq!(fs::metadata(&memory).unwrap().mode() & 0o7777, 0o2777);
        assert_eq!(fs::metadata(&memory).unwrap().gid(), 77);
        // What a pod has made of them stays, however often they are set up.
        for (place, source) in [(&disk, json!({})), (&memory, json!({"medium": "Memory"}))] {
            fs::set_permissions(place, fs::Permissions::from_mode(0o700)).unwrap();
            chown(place, Some(5), Some(6)).unwrap();
            set_up(&pod, &self::source(source), place, 0).unwrap();
            let meta = fs::metadata(place).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o700, 5, 6));
        }
        crate::unmount_below(folder.path()).unwrap();
        assert!(set_up(&pod, &source(json!({"medium": "HugePages"})), &disk.join("x"), 0).is_err());
        // What an agent has begun that was killed before it was through.
        let begun = folder.path().join(".begun");
        fs::create_dir(&begun).unwrap();
        set_up(&pod, &source(json!({})), &folder.path().join("begun"), 0).unwrap();
        assert_eq!(fs::metadata(folder.path().join("begun")).unwrap().mode() & 0o7777, 0o2777);
        assert!(!begun.exists());
    }

    #[test]
    fn huge_pages_have_the_size_that_is_asked_for() {
        let size = |medium: &str, requests: serde_json::Value| {
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": requests}}]}});
            page_size(&serde_json::from_value(pod).unwrap(), medium).map_err(|e| e.to_string())
        };
        let both = || json!({"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"});
        assert_eq!(size("HugePages", json!({"hugepages-2Mi": "4Mi"})), Ok(2 << 20));
        assert_eq!(size("HugePages-1Gi", both()), Ok(1 << 30));
        assert!(size("HugePages", both()).unwrap_err().contains("multiple huge page sizes"));
        assert!(size("HugePages-2Mi", json!({})).unwrap_err().contains("no resource request"));
        assert!(size("HugePages-x", both()).is_err());
    }

    #[test]
    fn pages_are_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("pages");
        fs::create_dir(&place).unwrap();
        hugetlbfs(&place, 2 << 20, Some(4 << 20), "0777", None).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(place.to_str().unwrap())).unwrap().to_owned();
        assert!(line.contains("hugetlbfs") && line.contains("pagesize=2M"), "{line}");
        crate::unmount_below(folder.path()).unwrap();
    }

    #[test]
    fn memory_is_limited_by_the_pod() {
        let limit = |limits: serde_json::Value, size: &str| {
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"limits": limits}}]}});
            let source = json!({"medium": "Memory", "sizeLimit": size});
            let source = serde_json::from_value(source).unwrap();
            memory_limit(&serde_json::from_value(pod).unwrap(), &source, 8 << 20)
        };
        assert_eq!(limit(json!({"memory": "1Mi"}), "2Mi"), Some(1 << 20));
        assert_eq!(limit(json!({"memory": "4Mi"}), "2Mi"), Some(2 << 20));
        assert_eq!(limit(json!({}), "2Mi"), Some(2 << 20));
        // Not half of the machine's, as the kernel has it.
        assert_eq!(limit(json!({}), "0"), Some(8 << 20));
        assert_eq!(limit(json!({"memory": "16Mi"}), "16Mi"), Some(8 << 20));
        let whole =
            json!({"spec": {"containers": [{"name": "a"}], "resources": {"limits": {"memory": "1Mi"}}}});
        let source = EmptyDirVolumeSource::default();
        assert_eq!(memory_limit(&serde_json::from_value(whole).unwrap(), &source, 0), Some(1 << 20));
        assert_eq!(memory_limit(&Pod::default(), &source, 0), None);
    }
}
