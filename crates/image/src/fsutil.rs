//! File system work relative to directory descriptors.
//!
//! Paths from layers, archives and build contexts pass through here: they are split into components, and each lookup
//! is the kernel's own, confined to a root directory (`openat2` with `RESOLVE_IN_ROOT`).

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, openat,
    openat2, statat, unlinkat,
};
use rustix::io::Errno;

/// The attribute by which an overlay directory hides everything below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Extended attributes: names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Why a path is not looked up at all.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathProblem {
    /// It starts at the root of whoever looks it up.
    #[error("is absolute")]
    Absolute,
    /// It has a `..` in it.
    #[error("contains ..")]
    Parent,
    /// It holds a zero byte.
    #[error("contains a zero byte")]
    Nul,
    /// It is longer than the kernel takes.
    #[error("is too long")]
    TooLong,
}

/// Splits a relative path; `.` and empty components vanish.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&OsStr>, PathProblem> {
    if path.starts_with(b"/") {
        return Err(PathProblem::Absolute);
    }
    if path.contains(&0) {
        return Err(PathProblem::Nul);
    }
    if path.len() > 4095 {
        return Err(PathProblem::TooLong);
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(PathProblem::Parent),
            part if part.len() > 255 => return Err(PathProblem::TooLong),
            part => parts.push(OsStr::from_bytes(part)),
        }
    }
    Ok(parts)
}

pub(crate) fn join(parts: &[&OsStr]) -> PathBuf {
    parts.iter().collect()
}

/// Opens a directory that we made ourselves.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens `path` below `root`, which plays `/` for symbolic links and `..` on the way.
pub(crate) fn open_in(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT) {
            // A rename somewhere below the root while the kernel walked; trying again is what it asks for.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// A directory below `root`, only to look things up in.
pub(crate) fn dir_in(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    open_in(root, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// The entry `name` of `dir` itself, without following it.
pub(crate) fn lstat(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<Stat, Errno> {
    statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn lstat_optional(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<Option<Stat>, Errno> {
    match lstat(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Overlay's sign that a name is gone: a character device 0/0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let readable = openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::new(readable)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            found.push(OsString::from_vec(name));
        }
    }
    found.sort();
    Ok(found)
}

/// Opens the directory `name` of `dir`, never through a symbolic link.
pub(crate) fn subdir(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name.as_ref(), flags, Mode::empty())
}

/// Removes `name` and everything below it; what is not there is fine.
pub(crate) fn remove_all(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    let dir = dir.as_fd();
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    // The kernel bounds the depth of a path that a layer can name, and so this stack.
    let mut stack = vec![(subdir(dir, name)?, name.to_owned(), None::<Vec<OsString>>)];
    while let Some((fd, own_name, pending)) = stack.last_mut() {
        let pending = match pending {
            Some(pending) => pending,
            None => pending.insert(names(&*fd)?),
        };
        match pending.pop() {
            Some(child) => match unlinkat(&*fd, &child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => {
                    let below = subdir(&*fd, &child)?;
                    stack.push((below, child, None));
                }
                Err(e) => return Err(e.into()),
            },
            None => {
                let own_name = own_name.clone();
                stack.pop();
                let parent = stack.last().map_or(dir, |(fd, ..)| fd.as_fd());
                unlinkat(parent, &own_name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) };
    Timestamps { last_access: time, last_modification: time }
}

/// A path by which calls that know no descriptors reach `name` in `dir`, without following `name`.
fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

/// Sets an attribute of the entry `name` itself.
pub(crate) fn set_xattr(dir: impl AsFd, name: &OsStr, key: &[u8], value: &[u8]) -> Result<(), Errno> {
    let key = CString::new(key).map_err(|_| Errno::INVAL)?;
    rustix::fs::lsetxattr(proc_path(dir.as_fd(), name), key, value, XattrFlags::empty())
}

/// The attributes of the entry `name` itself, sorted by key, without those that belong to overlayfs.
pub(crate) fn xattrs(dir: impl AsFd, name: &OsStr) -> Result<Xattrs, Errno> {
    let path = proc_path(dir.as_fd(), name);
    let mut list = vec![0; 4096];
    let length = loop {
        match rustix::fs::llistxattr(&path, &mut list[..]) {
            Err(Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => break other?,
        }
    };
    let mut found = Vec::new();
    for key in list[..length].split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        if is_overlay_xattr(key) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        match rustix::fs::lgetxattr(&path, key, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((key.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    found.sort();
    Ok(found)
}

/// Attributes that steer overlayfs. A layer that could set them could show any directory of its file system.
pub(crate) fn is_overlay_xattr(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

pub(crate) fn is_opaque(dir: impl AsFd, name: &OsStr) -> bool {
    let mut value = [0; 2];
    rustix::fs::lgetxattr(proc_path(dir.as_fd(), name), OPAQUE, &mut value[..])
        .is_ok_and(|n| &value[..n] == b"y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_only_harmless_paths() {
        let split = |path: &str| components(path.as_bytes()).map(|parts| join(&parts));
        assert_eq!(split("./a//b/./c/"), Ok(PathBuf::from("a/b/c")));
        assert_eq!(split("./"), Ok(PathBuf::new()));
        assert_eq!(split("/a"), Err(PathProblem::Absolute));
        assert_eq!(split("a/../b"), Err(PathProblem::Parent));
        assert_eq!(split("a\0"), Err(PathProblem::Nul));
        assert_eq!(split(&"a".repeat(256)), Err(PathProblem::TooLong));
        assert_eq!(split("a..b/..c"), Ok(PathBuf::from("a..b/..c")));
    }

    #[test]
    fn symbolic_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/inside"), "").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", dir.path().join("upwards")).unwrap();
        let root = open_root(dir.path()).unwrap();
        for link in ["absolute", "upwards"] {
            assert_eq!(names(dir_in(&root, Path::new(link)).unwrap()).unwrap(), ["inside"]);
        }
    }

    #[test]
    fn removes_trees_but_not_what_links_point_at() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("keep"), "").unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink(other.path(), dir.path().join("a/link")).unwrap();
        remove_all(open_root(dir.path()).unwrap(), OsStr::new("a")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(other.path().join("keep").exists());
    }
}
