//! Namespaces.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Attempt, Error, Result};

/// A set of kinds of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces(CloneFlags);

impl Namespaces {
    /// File systems.
    pub const MOUNT: Self = Self(CloneFlags::CLONE_NEWNS);
    /// Links, addresses, rules.
    pub const NET: Self = Self(CloneFlags::CLONE_NEWNET);
    /// System V and POSIX IPC.
    pub const IPC: Self = Self(CloneFlags::CLONE_NEWIPC);
    /// Host name.
    pub const UTS: Self = Self(CloneFlags::CLONE_NEWUTS);
    /// Process numbers.
    pub const PID: Self = Self(CloneFlags::CLONE_NEWPID);
    /// The root of the cgroup trees.
    pub const CGROUP: Self = Self(CloneFlags::CLONE_NEWCGROUP);
    /// Users, groups and capabilities.
    pub const USER: Self = Self(CloneFlags::CLONE_NEWUSER);

    /// None.
    pub fn none() -> Self {
        Self(CloneFlags::empty())
    }

    /// These and those.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn bits(self) -> i32 {
        self.0.bits()
    }
}

/// Leaves the present namespaces of these kinds for new ones (process numbers: for future children).
pub fn unshare(new: Namespaces) -> Result<()> {
    nix::sched::unshare(new.0).attempt("make namespaces", || format!("{:?}", new.0))
}

/// Enters namespaces: of these kinds if `fd` is a pidfd, else the one that `fd` is.
pub fn join(fd: impl AsFd, kinds: Namespaces) -> Result<()> {
    nix::sched::setns(fd, kinds.0).attempt("join namespaces", || format!("{:?}", kinds.0))
}

/// This process's own namespace of a kind, by its name in `/proc/self/ns`.
pub fn open_own(kind: &str) -> Result<OwnedFd> {
    let path = Path::new("/proc/self/ns").join(kind);
    Ok(File::open(&path).attempt("open", || path.display().to_string())?.into())
}

/// Names the host in this UTS namespace.
pub fn set_hostname(name: &str) -> Result<()> {
    nix::unistd::sethostname(name).attempt("set the host name to", || name.to_owned())
}

/// Brings the loopback interface of this network namespace up.
pub fn loopback_up() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .attempt("open", || "a datagram socket".into())?;
    // SAFETY: all zeros is a valid `struct ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request names an interface and its flags, as SIOCSIFFLAGS wants.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) } == 0 {
        return Ok(());
    }
    Err(Error::last("bring up", "lo"))
}
