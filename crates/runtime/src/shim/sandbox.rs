//! The sandbox's namespaces, as the shim enters them.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use sys::cgroup::Hierarchies;
use sys::{Forked, FsBuilder, MountAttr, Namespaces};

use super::{At, ShimError};
use crate::protocol::{PROCESS_FILE, ProcessFile, SANDBOX_FILE, SHM, SandboxFile, ShimFile};
use crate::spec::{IpcMode, NetworkMode, PidMode, SandboxSpec};

/// A sandbox that is ready for containers.
pub(super) struct Entered {
    pub(super) groups: Arc<Hierarchies>,
    /// This process's own PID namespace, to come back to.
    pub(super) own_pids: OwnedFd,
    /// The first process of the shared PID namespace.
    pub(super) init: Option<(u32, OwnedFd)>,
    /// The namespace with the mounts that starts of containers see, if not all.
    pub(super) few_mounts: Option<File>,
    pub(super) netns: Option<std::path::PathBuf>,
    /// The sandbox's own users.
    pub(super) users: Option<OwnedFd>,
    /// The host's namespaces that were left.
    pub(super) host: Vec<OwnedFd>,
}

const DEFAULT_SHM: u64 = 64 << 20;

/// Makes the namespaces that `sandbox.json` in the current directory asks for.
pub(super) fn enter() -> Result<Entered, ShimError> {
    let path = Path::new(SANDBOX_FILE);
    let text = fs::read(path).at("read", path)?;
    let ShimFile::<SandboxFile, Hierarchies> { sandbox: file, hierarchies, few_mounts } =
        serde_json::from_slice(&text)
            .map_err(|source| ShimError::Record { path: path.to_owned(), source })?;
    let spec = &file.spec;
    let groups = Arc::new(hierarchies);
    groups.group(&file.shim_cgroup).join_self_everywhere()?;

    let (own_network, own_ipc) = (spec.network == NetworkMode::Own, spec.ipc == IpcMode::Own);
    let mut new = Namespaces::none();
    if own_network {
        new = new.and(Namespaces::NET).and(Namespaces::UTS);
    }
    if own_ipc {
        new = new.and(Namespaces::IPC);
    }
    let left = [(own_network, "net"), (own_network, "uts"), (own_ipc, "ipc")];
    let left = left.iter().filter(|(own, _)| *own);
    let host = left.map(|(_, kind)| sys::open_own(kind)).collect::<sys::Result<Vec<_>>>()?;
    let users = match spec.users {
        Some(range) => Some(crate::launch::make_users(range, new)?),
        None => {
            sys::unshare(new)?;
            None
        }
    };
    if own_network {
        sys::set_hostname(&spec.hostname)?;
        sys::loopback_up()?;
        if let Some(netns) = &file.netns {
            sys::bind_file(Path::new("/proc/self/ns/net"), netns)?;
        }
    }
    if own_ipc {
        let size = spec.shm_size.unwrap_or(DEFAULT_SHM).to_string();
        let root = spec.users.map_or(0, |range| range.host(0)).to_string();
        let tmpfs = FsBuilder::new("tmpfs")?.option("mode", "1777")?.option("size", size)?;
        let tmpfs = tmpfs.option("uid", &root)?.option("gid", &root)?;
        let target = sys::open_target(Path::new(SHM), true)?;
        tmpfs.mount(MountAttr::KERNEL)?.attach(std::os::fd::AsFd::as_fd(&target))?;
    }
    set_sysctls(spec)?;

    let few_mounts = few_mounts.map(|path| File::open(&path).at("open", &path)).transpose()?;
    let own_pids = sys::open_own("pid")?;
    let init = if spec.pid == PidMode::Shared { Some(shared_init(users.as_ref())?) } else { None };
    let pid = sys::pid();
    let me = ProcessFile { pid, start: sys::process_start(pid).unwrap_or(0) };
    super::container::write_record(Path::new(PROCESS_FILE), &me)?;
    Ok(Entered { groups, own_pids, init, few_mounts, netns: file.netns, users, host })
}

fn set_sysctls(spec: &SandboxSpec) -> Result<(), ShimError> {
    for (name, value) in &spec.sysctls {
        let path = name.replace('.', "/");
        let ipc =
            ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"].iter().any(|p| path.starts_with(p));
        let ours = if path.starts_with("net/") {
            spec.network == NetworkMode::Own
        } else {
            ipc && spec.ipc == IpcMode::Own
        };
        if !ours || path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(ShimError::Sysctl(name.clone()));
        }
        let file = Path::new("/proc/sys").join(path);
        fs::write(&file, value).at("set", &file)?;
    }
    Ok(())
}

/// Starts the first process of a PID namespace for all containers; it reaps orphans until the shim ends.
fn shared_init(users: Option<&OwnedFd>) -> Result<(u32, OwnedFd), ShimError> {
    match sys::fork(Namespaces::PID, None)? {
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Forked::Child => {
            // No handler: the first process of a PID namespace ignores what it does not handle.
            let joined = users.map_or(Ok(()), |users| {
                sys::join(users, Namespaces::USER).and_then(|()| sys::set_ids(0, 0, &[]))
            });
            let waited = joined
                .and_then(|()| sys::die_with_parent())
                .and_then(|()| sys::close_from(0))
                .and_then(|()| sys::reap_for_ever());
            sys::exit_now(i32::from(waited.is_err()))
        }
    }
}
