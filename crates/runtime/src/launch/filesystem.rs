//! What every container finds besides its image: `/proc`, `/dev`, `/sys`, and what of them is hidden.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use sys::cgroup::Hierarchies;
use sys::{FsBuilder, MountAttr, MountTree, open_target};

use super::owners::Owners;
use super::{At, LaunchError};
use crate::spec::ContainerSpec;

/// What containers do not see of `/proc` and `/sys` (moby/moby, `oci/defaults.go`, `DefaultLinuxSpec`).
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What they cannot write of it (the same).
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// The group `tty` has this number everywhere.
const TTY_GROUP: u32 = 5;
/// Host device directories that every container has as its own.
const OWN_IN_DEV: [&str; 4] = ["pts", "shm", "mqueue", "fd"];

/// A device node to make.
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) kind: char,
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The host devices that the container asks for; all of them if it is privileged.
pub(super) fn host_devices(spec: &ContainerSpec) -> Result<Vec<Node>, LaunchError> {
    let mut nodes = Vec::new();
    if spec.privileged {
        add_all(Path::new("/dev"), &mut nodes);
    }
    for device in &spec.devices {
        let meta = fs::metadata(&device.host_path).at("look at device", &device.host_path)?;
        let path = if device.container_path.as_os_str().is_empty() {
            &device.host_path
        } else {
            &device.container_path
        };
        if let Some(node) = node(path.clone(), &meta) {
            nodes.push(Node {
                mode: device.mode.unwrap_or(node.mode),
                uid: device.uid.unwrap_or(node.uid),
                gid: device.gid.unwrap_or(node.gid),
                ..node
            });
        }
    }
    Ok(nodes)
}

fn add_all(dir: &Path, nodes: &mut Vec<Node>) {
    // What vanishes meanwhile is not there.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        if meta.is_dir() {
            let own = dir == Path::new("/dev") && OWN_IN_DEV.iter().any(|name| entry.file_name() == *name);
            if !own {
                add_all(&entry.path(), nodes);
            }
        } else if entry.file_name() != "console" && entry.file_name() != "ptmx" {
            nodes.extend(node(entry.path(), &meta));
        }
    }
}

fn node(path: PathBuf, meta: &fs::Metadata) -> Option<Node> {
    let kind = if meta.file_type().is_char_device() {
        'c'
    } else if meta.file_type().is_block_device() {
        'b'
    } else {
        return None;
    };
    let (major, minor) = device_numbers(meta.rdev());
    Some(Node { path, kind, major, minor, mode: meta.mode() & 0o777, uid: meta.uid(), gid: meta.gid() })
}

/// As glibc's `gnu_dev_major` and `gnu_dev_minor`.
pub(crate) fn device_numbers(rdev: u64) -> (u64, u64) {
    ((rdev >> 8 & 0xfff) | (rdev >> 32 & !0xfff), (rdev & 0xff) | (rdev >> 12 & !0xff))
}

/// Mounts `/proc`, `/dev` and `/sys`. The root is the container's already.
pub(super) fn mount_kernel(
    privileged: bool,
    groups: &Hierarchies,
    owners: Option<&Owners<'_>>,
) -> Result<(), LaunchError> {
    for place in ["/proc", "/dev", "/sys"] {
        // One that leads elsewhere would also lead the masks below it elsewhere.
        if Path::new(place).symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return Err(LaunchError::LinkedMountPoint(place));
        }
    }
    let kernel = MountAttr::KERNEL;
    let for_looking = MountAttr { readonly: !privileged, ..kernel };
    on_dir("/proc", FsBuilder::new("proc")?.mount(kernel)?)?;
    on_dir("/sys", FsBuilder::new("sysfs")?.mount(for_looking)?)?;
    mount_cgroups(groups, for_looking)?;

    let host = |id: u32| owners.map_or(id, |owners| owners.host(id)).to_string();
    let tmpfs = FsBuilder::new("tmpfs")?.option("mode", "0755")?.option("size", "64m")?;
    let tmpfs = tmpfs.option("uid", host(0))?.option("gid", host(0))?;
    on_dir("/dev", tmpfs.mount(MountAttr { nosuid: true, ..MountAttr::default() })?)?;
    let pts = FsBuilder::new("devpts")?
        .option("mode", "0620")?
        .option("ptmxmode", "0666")?
        .option("gid", host(TTY_GROUP))?;
    on_dir("/dev/pts", pts.mount(MountAttr { nosuid: true, noexec: true, ..MountAttr::default() })?)?;
    on_dir("/dev/mqueue", FsBuilder::new("mqueue")?.mount(kernel)?)?;
    for (name, major, minor) in NODES {
        let path = Path::new("/dev").join(name);
        sys::make_node(&path, 'c', major, minor, 0o666)?;
        owners.map_or(Ok(()), |owners| owners.give(&path))?;
    }
    for (target, link) in LINKS {
        symlink(target, link).at("make link", Path::new(link))?;
    }
    Ok(())
}

fn on_dir(path: &str, tree: MountTree) -> Result<(), LaunchError> {
    Ok(tree.attach(open_target(Path::new(path), true)?.as_fd())?)
}

/// The container's own part of the cgroup trees, for programs that size themselves by their limits.
fn mount_cgroups(groups: &Hierarchies, attr: MountAttr) -> Result<(), LaunchError> {
    const AT: &str = "/sys/fs/cgroup";
    if groups.is_v2() {
        return on_dir(AT, FsBuilder::new("cgroup2")?.mount(attr)?);
    }
    let tmpfs = FsBuilder::new("tmpfs")?.option("mode", "0755")?.option("size", "64k")?;
    on_dir(AT, tmpfs.mount(MountAttr::KERNEL)?)?;
    for hierarchy in groups.resource() {
        let mut builder = FsBuilder::new("cgroup")?;
        for controller in &hierarchy.controllers {
            builder = builder.flag(controller)?;
        }
        on_dir(&format!("{AT}/{}", hierarchy.option()), builder.mount(attr)?)?;
        for controller in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
            let link = Path::new(AT).join(controller);
            symlink(hierarchy.option(), &link).at("make link", &link)?;
        }
    }
    Ok(())
}

/// Makes the host devices asked for.
pub(super) fn make_devices(nodes: &[Node], owners: Option<&Owners<'_>>) -> Result<(), LaunchError> {
    for node in nodes {
        if node.path.symlink_metadata().is_ok() {
            continue;
        }
        if let Some(parent) = node.path.parent() {
            fs::create_dir_all(parent).at("make directory", parent)?;
        }
        sys::make_node(&node.path, node.kind, node.major, node.minor, node.mode)?;
        let host = |id: u32| Some(owners.map_or(id, |owners| owners.host(id)));
        std::os::unix::fs::chown(&node.path, host(node.uid), host(node.gid)).at("give away", &node.path)?;
    }
    Ok(())
}

/// The sandbox's shared memory.
pub(super) fn mount_shm(shm: MountTree) -> Result<(), LaunchError> {
    on_dir("/dev/shm", shm)
}

/// Hides and protects parts of `/proc` and `/sys`.
pub(super) fn mask(masked: Option<&[String]>, readonly: Option<&[String]>) -> Result<(), LaunchError> {
    let or_default = |given: Option<&[String]>, default: &[&str]| -> Vec<PathBuf> {
        given.map_or_else(
            || default.iter().map(PathBuf::from).collect(),
            |given| given.iter().map(PathBuf::from).collect(),
        )
    };
    for path in or_default(readonly, &READONLY_PATHS) {
        if path.exists() {
            let tree = MountTree::of(&path, true)?;
            tree.set(MountAttr { readonly: true, ..MountAttr::KERNEL }, None, true)?;
            tree.attach(open_target(&path, path.is_dir())?.as_fd())?;
        }
    }
    for path in or_default(masked, &MASKED_PATHS) {
        let Ok(meta) = path.metadata() else { continue };
        let nothing = if meta.is_dir() {
            let tmpfs = FsBuilder::new("tmpfs")?.option("size", "4k")?;
            tmpfs.mount(MountAttr { readonly: true, ..MountAttr::KERNEL })?
        } else {
            MountTree::of(Path::new("/dev/null"), false)?
        };
        nothing.attach(open_target(&path, meta.is_dir())?.as_fd())?;
    }
    Ok(())
}

/// Makes the container's terminal its `/dev/console`: standard input is that terminal by now.
pub(super) fn mount_console() -> Result<(), LaunchError> {
    let terminal = MountTree::of(Path::new("/proc/self/fd/0"), false)?;
    Ok(terminal.attach(open_target(Path::new("/dev/console"), false)?.as_fd())?)
}
