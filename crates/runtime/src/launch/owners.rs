//! A sandbox's own users: what belongs to whom in a container whose root is nobody on the host.
//!
//! All mounts are made with the host's rights, as for any other container; only then does the process join the user
//! namespace, with a copy of its mounts that it can add to but not take apart. Files on disk keep the numbers they have:
//! each mount shows them shifted into the sandbox's range, so that no file is ever given away.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use sys::{MountTree, Namespaces};

use super::{At, Child, LaunchError};
use crate::spec::UserRange;

/// The users of a sandbox: their namespace, and their numbers on the host.
#[derive(Clone, Copy)]
pub(super) struct Owners<'a> {
    namespace: BorrowedFd<'a>,
    range: UserRange,
}

impl<'a> Owners<'a> {
    /// None if the sandbox uses the host's.
    pub(super) fn of(child: &'a Child, range: Option<UserRange>) -> Option<Self> {
        Some(Self { namespace: child.users.as_ref()?.as_fd(), range: range? })
    }

    /// What a user or group of the container is on the host.
    pub(super) fn host(&self, id: u32) -> u32 {
        self.range.host(id)
    }

    /// Shows a tree's files with the sandbox's numbers.
    pub(super) fn map(&self, tree: &MountTree) -> Result<(), LaunchError> {
        match tree.map_owners(self.namespace, true) {
            // Something below it cannot be shown so; then it is seen as nobody's.
            Err(error) if error.errno() == Some(EINVAL) => Ok(tree.map_owners(self.namespace, false)?),
            other => Ok(other?),
        }
    }

    /// The layers of an overlay as directories below `at` that show the sandbox's numbers: an overlay itself cannot.
    /// They are mounted in this process's own namespace only.
    pub(super) fn layers(&self, layers: &[PathBuf], at: &Path) -> Result<Vec<PathBuf>, LaunchError> {
        let shown = layers.iter().enumerate().map(|(number, layer)| {
            let place = at.join(number.to_string());
            let tree = MountTree::of(layer, false)?;
            tree.map_owners(self.namespace, false)?;
            tree.attach(sys::open_target(&place, true)?.as_fd())?;
            Ok(place)
        });
        shown.collect()
    }

    /// Gives a file or directory to the container's root.
    pub(super) fn give(&self, path: &Path) -> Result<(), LaunchError> {
        let root = Some(self.host(0));
        chown(path, root, root).at("give away", path)
    }

    /// Makes something in the container's files as its root would.
    pub(super) fn as_root<T>(&self, make: impl FnOnce() -> T) -> T {
        sys::set_fs_ids(self.host(0), self.host(0));
        let made = make();
        sys::set_fs_ids(0, 0);
        made
    }

    /// Becomes the root of the sandbox's users, with nothing more to say on the host. The mounts stay as they are.
    pub(super) fn become_root(&self) -> Result<(), LaunchError> {
        sys::join(self.namespace, Namespaces::USER)?;
        sys::set_ids(0, 0, &[])?;
        Ok(sys::unshare(Namespaces::MOUNT)?)
    }
}

const EINVAL: i32 = 22;

/// Gives the ends of pipes to the container's root, who can give them on.
pub(super) fn give_pipes(child: &Child, range: UserRange) -> Result<(), LaunchError> {
    let root = Some(range.host(0));
    for end in [&child.stdin, &child.stdout, &child.stderr].into_iter().flatten() {
        std::os::unix::fs::fchown(end, root, root).at("give away", Path::new("a pipe"))?;
    }
    Ok(())
}

/// Makes a user namespace with these numbers, and other new namespaces that belong to it, which this process enters
/// without becoming anybody else.
pub(crate) fn make(range: UserRange, others: Namespaces) -> Result<OwnedFd, LaunchError> {
    // A process holds it while its numbers are written down, which only somebody outside can do.
    let (pid, pidfd) = match sys::fork(Namespaces::USER.and(others), None)? {
        sys::Forked::Parent { pid, pidfd } => (pid, pidfd),
        sys::Forked::Child => {
            let waited = sys::die_with_parent().and_then(|()| sys::reap_for_ever());
            sys::exit_now(i32::from(waited.is_err()))
        }
    };
    let enter = || {
        for map in ["uid_map", "gid_map"] {
            let path = PathBuf::from(format!("/proc/{pid}/{map}"));
            fs::write(&path, format!("0 {} {}", range.first, range.count)).at("write", &path)?;
        }
        if others != Namespaces::none() {
            sys::join(pidfd.as_fd(), others)?;
        }
        let path = PathBuf::from(format!("/proc/{pid}/ns/user"));
        Ok(fs::File::open(&path).at("open", &path)?.into())
    };
    let entered = enter();
    const KILL: i32 = 9;
    sys::kill_pidfd(pidfd.as_fd(), KILL)?;
    sys::wait_for(pid)?;
    entered
}
