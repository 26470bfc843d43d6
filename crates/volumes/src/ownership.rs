//! Who owns a volume (kubernetes/kubernetes, `pkg/volume/volume_linux.go`, `SetVolumeOwnership`).

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::error::Fault;

/// Group and owner may read and write, group may pass folders, and what is made there belongs to the group.
const FILE: u32 = 0o660;
const FOLDER: u32 = 0o2770;

/// To whom the files of a volume are given that stays longer than its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ownership {
    group: Option<u32>,
    only_if_root_differs: bool,
}

impl Ownership {
    /// As the pod says.
    pub(crate) fn of(pod: &Pod) -> Self {
        let security = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let policy = security.and_then(|s| s.fs_group_change_policy.as_deref());
        Self { group: fs_group(pod), only_if_root_differs: policy == Some("OnRootMismatch") }
    }

    /// Gives everything in a folder to the group. The folder itself comes last, so that one that looks right is.
    ///
    /// Pods may be at work in it: each step is looked up anew beneath the folder, so links lead nowhere else.
    pub(crate) fn apply(&self, folder: &Path) -> Result<(), Fault> {
        let Some(group) = self.group else { return Ok(()) };
        let meta = fs::metadata(folder).map_err(Fault::file("look at", folder))?;
        if self.only_if_root_differs && meta.gid() == group && meta.mode() & FOLDER == FOLDER {
            return Ok(());
        }
        let root = sys::open_folder(folder)?;
        let mut folders = vec![PathBuf::new()];
        while let Some(path) = folders.pop() {
            give_children(root.as_fd(), &path, group, &mut folders)?;
        }
        give(root.as_fd(), folder, group, FOLDER)
    }
}

/// Gives what is in one folder away, and notes the folders in it.
fn give_children(
    root: BorrowedFd<'_>,
    path: &Path,
    group: u32,
    folders: &mut Vec<PathBuf>,
) -> Result<(), Fault> {
    let Some(folder) = open(root, path)? else { return Ok(()) };
    let listed = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    // It may have become something else meanwhile.
    let Ok(entries) = fs::read_dir(&listed) else { return Ok(()) };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        if kind.is_symlink() {
            match lchown(listed.join(&name), None, Some(group)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Fault::file("give away", &path.join(&name))(error));
                }
                _ => continue,
            }
        }
        let Some(handle) = open(folder.as_fd(), Path::new(&name))? else { continue };
        let own = path.join(&name);
        give(handle.as_fd(), &own, group, if kind.is_dir() { FOLDER } else { FILE })?;
        if kind.is_dir() {
            folders.push(own);
        }
    }
    Ok(())
}

/// A handle of what is there, if it still is.
fn open(root: BorrowedFd<'_>, path: &Path) -> Result<Option<std::os::fd::OwnedFd>, Fault> {
    match sys::open_beneath(root, path) {
        Ok(handle) => Ok(Some(handle)),
        // ENOENT, ELOOP, EXDEV: it went, or became a link, while we looked.
        Err(error) if matches!(error.errno(), Some(2 | 40 | 18)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn give(handle: BorrowedFd<'_>, path: &Path, group: u32, mode: u32) -> Result<(), Fault> {
    // What was opened, whatever its name means by now.
    let itself = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let meta = fs::metadata(&itself).map_err(Fault::file("look at", path))?;
    if meta.gid() != group {
        chown(&itself, None, Some(group)).map_err(Fault::file("give away", path))?;
    }
    let wanted = (meta.mode() | mode) & 0o7777;
    if meta.mode() & 0o7777 != wanted {
        let wanted = fs::Permissions::from_mode(wanted);
        fs::set_permissions(&itself, wanted).map_err(Fault::file("set the mode of", path))?;
    }
    Ok(())
}

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
    use std::fs::File;

    #[test]
    fn all_below_is_given_away_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, outside) = (folder.path().join("v"), folder.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        for file in [&volume.join("a/b/file"), &outside] {
            File::create(file).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, volume.join("a/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", volume.join("dangling")).unwrap();
        let state = |path: &Path| fs::symlink_metadata(path).map(|m| (m.gid(), m.mode() & 0o7777)).unwrap();
        let own = Ownership { group: Some(4242), only_if_root_differs: true };
        own.apply(&volume).unwrap();
        assert_eq!(state(&volume), (4242, 0o2775));
        assert_eq!(state(&volume.join("a/b")), (4242, 0o2775));
        assert_eq!(state(&volume.join("a/b/file")), (4242, 0o660));
        assert_eq!(state(&volume.join("a/link")).0, 4242);
        assert_eq!(state(&outside), (0, 0o600));
        // The root is right: nothing is looked at any more, unless that is wished.
        chown(volume.join("a/b/file"), None, Some(0)).unwrap();
        own.apply(&volume).unwrap();
        assert_eq!(state(&volume.join("a/b/file")).0, 0);
        Ownership { only_if_root_differs: false, ..own }.apply(&volume).unwrap();
        assert_eq!(state(&volume.join("a/b/file")).0, 4242);
        Ownership::default().apply(Path::new("/nowhere")).unwrap();
    }

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
