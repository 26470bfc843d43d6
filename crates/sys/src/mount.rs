//! Mounts through the kernel's descriptor interface: a tree is made detached, set up, and attached last.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::error::{Attempt, Error, Result};

/// Properties of a mount that can be switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// Nothing can be written.
    pub readonly: bool,
    /// Set-user-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes have no effect.
    pub nodev: bool,
    /// Programs cannot be run.
    pub noexec: bool,
}

impl MountAttr {
    /// For kernel file systems.
    pub const KERNEL: Self = Self { readonly: false, nosuid: true, nodev: true, noexec: true };

    fn bits(self) -> u64 {
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        bit(self.readonly, libc::MOUNT_ATTR_RDONLY)
            | bit(self.nosuid, libc::MOUNT_ATTR_NOSUID)
            | bit(self.nodev, libc::MOUNT_ATTR_NODEV)
            | bit(self.noexec, libc::MOUNT_ATTR_NOEXEC)
    }
}

/// What later mounts and unmounts travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountPropagation {
    /// None.
    Private,
    /// Those from outside come in.
    Slave,
    /// Both ways.
    Shared,
}

/// A mounted tree that is attached nowhere yet.
#[derive(Debug)]
pub struct MountTree {
    fd: OwnedFd,
    what: String,
}

impl MountTree {
    /// A copy of what is seen at `path`, with what is mounted below it if `recursive`.
    pub fn of(path: &Path, recursive: bool) -> Result<Self> {
        let text = c_path(path)?;
        let flags = libc::OPEN_TREE_CLONE
            | libc::OPEN_TREE_CLOEXEC
            | if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
        // SAFETY: the path is a C string that outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, text.as_ptr(), flags) };
        let what = path.display().to_string();
        match owned(fd) {
            Some(fd) => Ok(Self { fd, what }),
            None => Err(Error::last("take a mount of", what)),
        }
    }

    /// Changes properties, also of all mounts below if `recursive`.
    pub fn set(&self, on: MountAttr, propagation: Option<MountPropagation>, recursive: bool) -> Result<()> {
        set_attributes(self.fd.as_fd(), on, propagation, recursive)
            .map_err(|_| Error::last("set up the mount of", &*self.what))
    }

    /// Shows the owners of files as the user namespace `users` numbers them: what belongs to 0 on disk belongs to the
    /// namespace's own root here. Refused by file systems that cannot do so.
    pub fn map_owners(&self, users: BorrowedFd<'_>, recursive: bool) -> Result<()> {
        let args = MountAttrArgs {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: users.as_raw_fd() as u64,
        };
        change_attributes(self.fd.as_fd(), &args, recursive)
            .map_err(|_| match Error::last("map the owners of files in the mount of", &*self.what) {
                Error::Call { operand, source, .. } if source.raw_os_error() == Some(libc::EINVAL) => Error::Call {
                    call: "map the owners of files, for which its file system is too old or of the wrong kind (tmpfs can since Linux 6.3), in the mount of",
                    operand,
                    source,
                },
                error => error,
            })
    }

    /// Attaches the tree over `target`, an open file or directory.
    pub fn attach(self, target: BorrowedFd<'_>) -> Result<()> {
        let empty = c"".as_ptr();
        let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
        let (from, to) = (self.fd.as_raw_fd(), target.as_raw_fd());
        // SAFETY: both paths are empty C strings.
        if unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) } == 0 {
            return Ok(());
        }
        Err(Error::last("mount", self.what))
    }
}

impl From<MountTree> for OwnedFd {
    /// The root of the tree, which is gone with the descriptor.
    fn from(tree: MountTree) -> Self {
        tree.fd
    }
}

impl AsFd for MountTree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A file system that is being configured.
#[derive(Debug)]
pub struct FsBuilder {
    fd: OwnedFd,
    kind: &'static str,
}

impl FsBuilder {
    /// A file system of this kind.
    pub fn new(kind: &'static str) -> Result<Self> {
        let text =
            CString::new(kind).map_err(|_| Error::Invalid { what: "file system", text: kind.into() })?;
        // SAFETY: the name is a C string that outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, text.as_ptr(), libc::FSOPEN_CLOEXEC) };
        let fd = owned(fd).ok_or_else(|| Error::last("open file system", kind))?;
        Ok(Self { fd, kind })
    }

    /// Sets `key` to `value`.
    pub fn option(self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Result<Self> {
        let value = value.as_ref();
        let text = c_path(Path::new(value))?;
        self.configure(FSCONFIG_SET_STRING, key, Some(&text)).map_err(|source| Error::Call {
            call: "configure",
            operand: format!("{} {key}={}{}", self.kind, value.to_string_lossy(), self.complaint()),
            source,
        })?;
        Ok(self)
    }

    /// Sets `key` without a value.
    pub fn flag(self, key: &str) -> Result<Self> {
        self.configure(FSCONFIG_SET_FLAG, key, None).map_err(|source| Error::Call {
            call: "configure",
            operand: format!("{} {key}{}", self.kind, self.complaint()),
            source,
        })?;
        Ok(self)
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(self, attr: MountAttr) -> Result<MountTree> {
        self.configure(FSCONFIG_CMD_CREATE, "", None).map_err(|source| Error::Call {
            call: "create file system",
            operand: format!("{}{}", self.kind, self.complaint()),
            source,
        })?;
        let bits = attr.bits();
        // SAFETY: takes numbers only.
        let fd =
            unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), libc::FSMOUNT_CLOEXEC, bits) };
        let fd = owned(fd).ok_or_else(|| Error::last("mount file system", self.kind))?;
        Ok(MountTree { fd, what: self.kind.into() })
    }

    fn configure(&self, command: libc::c_uint, key: &str, value: Option<&CString>) -> std::io::Result<()> {
        let key = CString::new(key).map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))?;
        let key = if command == FSCONFIG_CMD_CREATE { std::ptr::null() } else { key.as_ptr() };
        let value = value.map_or(std::ptr::null(), |value| value.as_ptr());
        // SAFETY: key and value are null or C strings that outlive the call.
        match unsafe { libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), command, key, value, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// What the kernel wrote about the failure, if it did.
    fn complaint(&self) -> String {
        let mut text = [0; 512];
        match nix::unistd::read(&self.fd, &mut text) {
            Ok(len) if len > 2 => format!(" ({})", String::from_utf8_lossy(&text[2..len]).trim_end()),
            _ => String::new(),
        }
    }
}

// `enum fsconfig_command` of `linux/mount.h`.
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttrArgs {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set_attributes(
    fd: BorrowedFd<'_>,
    on: MountAttr,
    propagation: Option<MountPropagation>,
    recursive: bool,
) -> std::io::Result<()> {
    let propagation = match propagation {
        None => 0,
        Some(MountPropagation::Private) => libc::MS_PRIVATE,
        Some(MountPropagation::Slave) => libc::MS_SLAVE,
        Some(MountPropagation::Shared) => libc::MS_SHARED,
    };
    let args = MountAttrArgs { attr_set: on.bits(), attr_clr: 0, propagation, userns_fd: 0 };
    change_attributes(fd, &args, recursive)
}

fn change_attributes(fd: BorrowedFd<'_>, args: &MountAttrArgs, recursive: bool) -> std::io::Result<()> {
    let args = std::ptr::from_ref(args);
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let size = size_of::<MountAttrArgs>();
    // SAFETY: an empty C string and a `struct mount_attr` of the length given, which the kernel only reads.
    match unsafe { libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), c"".as_ptr(), flags, args, size) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn owned(fd: libc::c_long) -> Option<OwnedFd> {
    // SAFETY: a number that is not negative is a descriptor that the kernel has just made for us.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Invalid { what: "path (it holds a zero byte)", text: path.display().to_string() })
}

/// In a new mount namespace: what is mounted here is not seen outside; what is mounted outside still comes in.
pub fn make_root_slave() -> Result<()> {
    mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&Path>)
        .attempt("detach from outside mounts", || "/".into())
}

/// Makes `root` the root directory; nothing of the old one remains reachable. `at` is any directory.
pub fn pivot_into(root: MountTree, at: &Path) -> Result<()> {
    let place = File::open(at).attempt("open", || at.display().to_string())?;
    root.attach(place.as_fd())?;
    pivot_to(at)
}

/// Makes `root` the root directory of this process, at the directory `at` of the old one, which is still there for who
/// has it: other processes of this mount namespace, and [`Outside`].
pub fn step_into(root: MountTree, at: &Path) -> Result<Outside> {
    let old = File::open("/").attempt("open", || "/".into())?;
    let place = File::open(at).attempt("open", || at.display().to_string())?;
    root.attach(place.as_fd())?;
    std::env::set_current_dir(at).attempt("enter", || at.display().to_string())?;
    nix::unistd::chroot(".").attempt("enter", || at.display().to_string())?;
    Ok(Outside(old))
}

/// The root directory that [`step_into`] came from.
#[derive(Debug)]
pub struct Outside(File);

impl Outside {
    /// Makes it this process's root directory again.
    pub fn step_out(&self) -> Result<()> {
        let attempt = || "the old root".to_owned();
        nix::unistd::fchdir(&self.0).attempt("enter", attempt)?;
        nix::unistd::chroot(".").attempt("enter", attempt)
    }

    /// Gives it up for good, as [`pivot_into`] does; `at` is where the new root is mounted on it.
    pub fn leave(self, at: &Path) -> Result<()> {
        self.step_out()?;
        drop(self);
        pivot_to(at)
    }
}

/// Makes what is mounted at `at` the root directory.
fn pivot_to(at: &Path) -> Result<()> {
    std::env::set_current_dir(at).attempt("enter", || at.display().to_string())?;
    match nix::unistd::pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).attempt("leave", || "the old root".into())?,
        // The first root of a machine that runs from its initial RAM disk cannot be pivoted away.
        Err(nix::Error::EINVAL) => {
            mount(Some("."), "/", None::<&Path>, MsFlags::MS_MOVE, None::<&Path>)
                .attempt("move", || "the new root".into())?;
            nix::unistd::chroot(".").attempt("enter", || "the new root".into())?;
        }
        Err(errno) => return Err(errno).attempt("pivot into", || at.display().to_string()),
    }
    std::env::set_current_dir("/").attempt("enter", || "/".into())
}

/// Makes the root mount read-only (not what is mounted below it).
pub fn set_root_readonly() -> Result<()> {
    let root = File::open("/").attempt("open", || "/".into())?;
    let attr = MountAttr { readonly: true, ..MountAttr::default() };
    set_attributes(root.as_fd(), attr, None, false).attempt("make read-only", || "/".into())
}

/// A place to mount on.
#[derive(Debug)]
pub struct OpenedTarget {
    fd: OwnedFd,
}

impl AsFd for OpenedTarget {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens `path` to mount on it, creating an empty directory or file, and its parents, if absent.
///
/// Symbolic links are followed, so this is for use after [`pivot_into`], where they cannot lead out.
pub fn open_target(path: &Path, directory: bool) -> Result<OpenedTarget> {
    let open = |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
    let file = match open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if directory {
                fs::create_dir_all(path).attempt("make directory", || path.display().to_string())?;
            } else {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).attempt("make directory", || parent.display().to_string())?;
                }
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o644)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(path)
                    .attempt("make file", || path.display().to_string())?;
            }
            open(path)
        }
        result => result,
    };
    Ok(OpenedTarget { fd: file.attempt("open", || path.display().to_string())?.into() })
}

/// Whether an open file lies on a proc file system.
pub fn is_on_proc(file: impl AsFd) -> Result<bool> {
    let stat = nix::sys::statfs::fstatfs(file).attempt("look at", || "a mount target".into())?;
    Ok(stat.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// Makes a device node (`c` or `b`) or FIFO (`p`) with this mode, whatever the mode mask.
pub fn make_node(path: &Path, kind: char, major: u64, minor: u64, mode: u32) -> Result<()> {
    let flag = match kind {
        'c' | 'u' => SFlag::S_IFCHR,
        'b' => SFlag::S_IFBLK,
        'p' => SFlag::S_IFIFO,
        other => return Err(Error::Invalid { what: "kind of device", text: other.to_string() }),
    };
    let mode = Mode::from_bits_truncate(mode);
    mknod(path, flag, mode, makedev(major, minor)).attempt("make device", || path.display().to_string())?;
    nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, path, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)
        .attempt("set the mode of", || path.display().to_string())
}

/// Makes the file `target` show `source` (a namespace, say).
pub fn bind_file(source: &Path, target: &Path) -> Result<()> {
    let place = open_target(target, false)?;
    MountTree::of(source, false)?.attach(place.as_fd())
}

/// Takes away what is mounted on `path`; true if something was.
pub fn detach(path: &Path) -> Result<bool> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(false),
        Err(errno) => Err(errno).attempt("unmount", || path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_attr_is_as_the_kernel_has_it() {
        // `MOUNT_ATTR_SIZE_VER0` of `linux/mount.h`.
        assert_eq!(size_of::<MountAttrArgs>(), 32);
    }

    #[test]
    fn targets_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/file");
        open_target(&file, false).unwrap();
        assert!(file.is_file());
        let sub = dir.path().join("a/c/d");
        let opened = open_target(&sub, true).unwrap();
        assert!(sub.is_dir());
        assert!(!is_on_proc(&opened).unwrap());
        assert!(is_on_proc(open_target(Path::new("/proc/self"), true).unwrap()).unwrap());
    }

    #[test]
    fn detaching_nothing_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!detach(dir.path()).unwrap());
        assert!(!detach(&dir.path().join("absent")).unwrap());
    }
}
