//! What is mounted below a folder, and taking it away.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Fault;

/// Takes away everything that is mounted below `folder`.
///
/// # Errors
/// When something stays: what is below the folder must not be deleted then, because it may be anybody's.
pub fn unmount_below(folder: &Path) -> Result<(), Fault> {
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    // With a thousand pods the table of mounts is long: it is read once.
    let mut below = mounted_below(&folder)?;
    below.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    // Something may be mounted over something else, which comes to light when that goes.
    let mut found = !below.is_empty();
    while found {
        found = false;
        for path in &below {
            found |= sys::detach(path)?;
        }
    }
    for path in below {
        if sys::is_mount_root(&path)? {
            return Err(Fault::Mounted(path.display().to_string()));
        }
    }
    Ok(())
}

fn mounted_below(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    Ok(sys::mount_points()?.into_iter().filter(|path| path.starts_with(folder)).collect())
}

/// Whether something is mounted right on a folder.
pub(crate) fn is_mounted(folder: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|m| m.dev());
    match folder.parent() {
        Some(parent) => device(folder).is_some_and(|own| Some(own) != device(parent)),
        None => false,
    }
}

/// Whether a folder or file is mounted right there, be it from the same file system.
pub(crate) fn is_mount_point(path: &Path) -> Result<bool, Fault> {
    let Ok(path) = path.canonicalize() else { return Ok(false) };
    Ok(mounted_below(&path)?.contains(&path))
}

/// A file system in memory on a folder that is there, unless there is one.
pub(crate) fn tmpfs(folder: &Path, size: Option<u64>, mode: &str) -> Result<(), Fault> {
    tmpfs_of(folder, size, mode, None)
}

/// The same, of a group.
pub(crate) fn tmpfs_of(
    folder: &Path,
    size: Option<u64>,
    mode: &str,
    group: Option<u32>,
) -> Result<(), Fault> {
    let mut builder = sys::FsBuilder::new("tmpfs")?;
    if let Some(size) = size {
        builder = builder.option("size", size.to_string())?;
    }
    mount_once(builder, folder, mode, group)
}

/// A file system of huge pages of `page` bytes on a folder that is there, unless there is one.
pub(crate) fn hugetlbfs(
    folder: &Path,
    page: u64,
    size: Option<u64>,
    mode: &str,
    group: Option<u32>,
) -> Result<(), Fault> {
    let mut builder = sys::FsBuilder::new("hugetlbfs")?.option("pagesize", page.to_string())?;
    if let Some(size) = size {
        builder = builder.option("size", size.to_string())?;
    }
    mount_once(builder, folder, mode, group)
}

/// Whose it is, is set before anybody can see it.
fn mount_once(builder: sys::FsBuilder, folder: &Path, mode: &str, group: Option<u32>) -> Result<(), Fault> {
    use std::os::fd::AsFd;
    if is_mounted(folder) {
        return Ok(());
    }
    let mut builder = builder.option("mode", mode)?;
    if let Some(group) = group {
        builder = builder.option("gid", group.to_string())?;
    }
    let place = sys::open_folder(folder)?;
    Ok(builder.mount(sys::MountAttr::default())?.attach(place.as_fd())?)
}

/// For names of folders.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.as_bytes().contains(&b'/') && {
        Path::new(name).as_os_str().as_bytes().len() < 256
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn everything_below_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("a b"), folder.path().join("a b/c"));
        fs::create_dir(&one).unwrap();
        tmpfs(&one, Some(1 << 20), "0755").unwrap();
        fs::create_dir(&two).unwrap();
        tmpfs(&two, None, "0755").unwrap();
        // A second time is harmless.
        tmpfs(&two, None, "0755").unwrap();
        assert!(is_mounted(&one) && is_mounted(&two));
        // Out of sight, under something else, and twice in one place.
        let outer = sys::open_folder(&one).unwrap();
        sys::bind_handle(outer.as_fd(), &one).unwrap();
        sys::bind_handle(outer.as_fd(), &one).unwrap();
        assert!(mounted_below(folder.path()).unwrap().len() >= 4);
        unmount_below(folder.path()).unwrap();
        assert!(mounted_below(folder.path()).unwrap().is_empty());
        assert!(!is_mounted(&one) && !two.exists());
    }
}
