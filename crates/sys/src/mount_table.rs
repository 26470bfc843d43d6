//! What is mounted where, and namespaces with less of it.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::error::{Attempt, Error, Result};
use crate::mount::detach;
use crate::namespace::{Namespaces, unshare};

/// Where things are mounted, in the order of mounting, as this thread sees it.
pub fn mount_points() -> Result<Vec<PathBuf>> {
    let path = "/proc/thread-self/mountinfo";
    let text = std::fs::read(path).attempt("read", || path.into())?;
    let lines = text.split(|b| *b == b'\n');
    Ok(lines.filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape).collect())
}

/// Whether something is mounted right on `path`, which may be absent. It is not asked of the file system.
pub fn is_mount_root(path: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => {
            Err(nix::Error::from_raw(errno.raw_os_error())).attempt("look at", || path.display().to_string())
        }
    }
}

/// The mount that a file or folder lies on: where it is mounted, and whether others are told of what is mounted below.
pub fn mount_of(path: &Path) -> Result<(PathBuf, bool)> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
    let opened = opened.attempt("open", || path.display().to_string())?;
    let about = format!("/proc/thread-self/fdinfo/{}", opened.as_raw_fd());
    let about = std::fs::read_to_string(&about).attempt("read", || about)?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim).unwrap_or_default();
    let table = "/proc/thread-self/mountinfo";
    let text = std::fs::read(table).attempt("read", || table.into())?;
    let found = text.split(|b| *b == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let own = fields.first().is_some_and(|first| *first == id.as_bytes());
        let optional = fields.iter().skip(6).take_while(|field| **field != b"-");
        let shared = optional.into_iter().any(|field| field.starts_with(b"shared:"));
        own.then(|| fields.get(4).map(|at| (unescape(at), shared))).flatten()
    });
    found.ok_or_else(|| Error::Invalid { what: "mounted file", text: path.display().to_string() })
}

/// Blanks and the like are written in octal.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match (first, after.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = &after[3..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// A new mount namespace with only those of this one's mounts that `keep` wants. Nothing that is mounted or unmounted
/// later comes in or goes out.
pub fn few_mounts(keep: impl Fn(&Path) -> bool + Send + Sync) -> Result<OwnedFd> {
    let apart = || -> Result<OwnedFd> {
        unshare(Namespaces::MOUNT)?;
        mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&Path>)
            .attempt("detach from outside mounts", || "/".into())?;
        for path in mount_points()?.iter().rev().filter(|path| !keep(path)) {
            detach(path)?;
        }
        let own = "/proc/thread-self/ns/mnt";
        Ok(File::open(own).attempt("open", || own.into())?.into())
    };
    // A namespace is a thread's; it lives on by its descriptor.
    std::thread::scope(|scope| scope.spawn(apart).join())
        .unwrap_or_else(|_| Err(Error::Invalid { what: "namespace", text: "a thread that panicked".into() }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::mount::{FsBuilder, MountAttr, make_root_slave, open_target};

    #[test]
    fn a_file_lies_on_a_mount_that_is_shared_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().canonicalize().unwrap().join("own mount");
        std::fs::create_dir(&own).unwrap();
        let tree = FsBuilder::new("tmpfs").unwrap().mount(MountAttr::default()).unwrap();
        tree.attach(open_target(&own, true).unwrap().as_fd()).unwrap();
        let below = own.join("below");
        std::fs::write(&below, "").unwrap();
        for (flag, shared) in [(MsFlags::MS_PRIVATE, false), (MsFlags::MS_SHARED, true)] {
            mount(None::<&Path>, &own, None::<&Path>, flag, None::<&Path>).unwrap();
            assert_eq!(mount_of(&below).unwrap(), (own.clone(), shared));
        }
        assert_ne!(mount_of(folder.path()).unwrap().0, own);
        detach(&own).unwrap();
        assert!(mount_of(&below).is_err());
    }

    #[test]
    fn mount_points_may_have_blanks() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/a\9"), Path::new(r"/a\9"));
    }

    #[test]
    fn few_mounts_are_those_that_are_kept() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["kept", "left"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let look = || {
            // In a namespace of our own nobody else is troubled.
            unshare(Namespaces::MOUNT).unwrap();
            make_root_slave().unwrap();
            for name in ["kept", "left"] {
                let target = open_target(&dir.path().join(name), true).unwrap();
                let tmpfs = FsBuilder::new("tmpfs").unwrap().mount(MountAttr::KERNEL).unwrap();
                tmpfs.attach(target.as_fd()).unwrap();
            }
            let few = few_mounts(|path| !path.ends_with("left")).unwrap();
            assert!(mount_points().unwrap().contains(&dir.path().join("left")), "its own stay");
            seen_from(&few)
        };
        let few = std::thread::scope(|scope| scope.spawn(look).join().unwrap());
        assert!(few.contains(&dir.path().join("kept")) && !few.contains(&dir.path().join("left")), "{few:?}");
    }

    fn seen_from(namespace: &OwnedFd) -> Vec<PathBuf> {
        let look = || {
            unshare(Namespaces::MOUNT).unwrap();
            crate::namespace::join(namespace, Namespaces::MOUNT).unwrap();
            mount_points().unwrap()
        };
        std::thread::scope(|scope| scope.spawn(look).join().unwrap())
    }
}
