//! The mounts that the container asks for.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Component, Path, PathBuf};

use sys::{FsBuilder, MountAttr, MountPropagation, MountTree, is_on_proc, open_target};

use super::owners::Owners;
use super::{At, LaunchError};
use crate::spec::{Mount, MountKind, Propagation};

/// A mount taken from the host, not yet attached.
pub(super) struct Taken {
    tree: MountTree,
    directory: bool,
    propagation: MountPropagation,
}

/// Takes copies of the sources while they are still peers of the host's mounts.
pub(super) fn take(mounts: &[Mount], owners: Option<&Owners<'_>>) -> Result<Vec<Option<Taken>>, LaunchError> {
    mounts
        .iter()
        .map(|mount| if mount.kind == MountKind::Bind { take_one(mount, owners).map(Some) } else { Ok(None) })
        .collect()
}

fn take_one(mount: &Mount, owners: Option<&Owners<'_>>) -> Result<Taken, LaunchError> {
    let meta = fs::metadata(&mount.source).at("look at mount source", &mount.source)?;
    let propagation = match mount.propagation {
        Propagation::None => MountPropagation::Private,
        Propagation::HostToContainer => MountPropagation::Slave,
        Propagation::Bidirectional => MountPropagation::Shared,
    };
    let tree = MountTree::of(&mount.source, true)?;
    if let Some(owners) = owners {
        owners.map(&tree)?;
    }
    Ok(Taken { tree, directory: meta.is_dir(), propagation })
}

/// Makes the images' files that are asked for, in `folder`. Nothing mounted here is seen outside by now.
pub(super) fn take_layers(
    taken: &mut [Option<Taken>],
    mounts: &[Mount],
    folder: &Path,
    owners: Option<&Owners<'_>>,
) -> Result<(), LaunchError> {
    for (number, (taken, mount)) in taken.iter_mut().zip(mounts).enumerate() {
        if mount.kind != MountKind::Layers {
            continue;
        }
        let place = layers_at(mount, &folder.join(number.to_string()), owners)?;
        let root = sys::open_folder(&place)?;
        let shown = sys::open_in_root(root.as_fd(), if_any(&mount.sub_path))
            .map_err(|_| LaunchError::NoSubPath(mount.sub_path.clone()))?;
        let directory = shown.metadata().at("look at", &place)?.is_dir();
        let itself = PathBuf::from(format!("/proc/self/fd/{}", shown.as_raw_fd()));
        let tree = MountTree::of(&itself, false)?;
        *taken = Some(Taken { tree, directory, propagation: MountPropagation::Private });
    }
    Ok(())
}

/// Mounts an image's files in this process's own namespace.
pub(super) fn layers_at(
    mount: &Mount,
    folder: &Path,
    owners: Option<&Owners<'_>>,
) -> Result<PathBuf, LaunchError> {
    let (place, empty) = (folder.join("shown"), folder.join("empty"));
    fs::create_dir_all(&empty).at("make directory", &empty)?;
    let layers = match owners {
        Some(owners) => owners.layers(&mount.layers, &folder.join("layers"))?,
        None => mount.layers.clone(),
    };
    sys::overlay_to_read(&layers, &empty)?.attach(open_target(&place, true)?.as_fd())?;
    Ok(place)
}

fn if_any(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Sets how far the copies stay peers.
pub(super) fn separate(taken: &[Option<Taken>]) -> Result<(), LaunchError> {
    for taken in taken.iter().flatten() {
        taken.tree.set(MountAttr::default(), Some(taken.propagation), true)?;
    }
    Ok(())
}

/// Attaches everything in its order. The root is the container's already.
pub(super) fn mount(
    taken: Vec<Option<Taken>>,
    mounts: &[Mount],
    owners: Option<&Owners<'_>>,
) -> Result<(), LaunchError> {
    for (taken, mount) in taken.into_iter().zip(mounts) {
        let to = &mount.destination;
        let plain = to.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain || !to.is_absolute() || to == Path::new("/") {
            return Err(LaunchError::BadDestination(to.clone()));
        }
        let has = |option: &str| mount.options.iter().any(|o| o == option);
        let attr = MountAttr {
            readonly: mount.readonly || mount.kind == MountKind::Layers,
            nosuid: has("nosuid"),
            nodev: has("nodev"),
            noexec: has("noexec"),
        };
        let (tree, directory) = match taken {
            Some(Taken { tree, directory, .. }) => {
                tree.set(attr, None, mount.recursive_readonly && mount.readonly)?;
                (tree, directory)
            }
            None => {
                let mut builder = FsBuilder::new("tmpfs")?;
                if let Some(owners) = owners {
                    let root = owners.host(0).to_string();
                    builder = builder.option("uid", &root)?.option("gid", &root)?;
                }
                for (key, value) in mount.options.iter().filter_map(|option| option.split_once('=')) {
                    builder = builder.option(key, value)?;
                }
                (builder.mount(attr)?, true)
            }
        };
        let target = match owners {
            Some(owners) => owners.as_root(|| open_target(to, directory))?,
            None => open_target(to, directory)?,
        };
        if is_on_proc(&target)? {
            return Err(LaunchError::MountOnProc(to.clone()));
        }
        tree.attach(target.as_fd())?;
    }
    Ok(())
}
