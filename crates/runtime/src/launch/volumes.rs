//! The mounts that the container asks for.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Component, Path};

use sys::{FsBuilder, MountAttr, MountPropagation, MountTree, is_on_proc, open_target};

use super::{At, LaunchError};
use crate::spec::{Mount, MountKind, Propagation};

/// A mount taken from the host, not yet attached.
pub(super) struct Taken {
    tree: MountTree,
    directory: bool,
    propagation: MountPropagation,
}

/// Takes copies of the sources while they are still peers of the host's mounts.
pub(super) fn take(mounts: &[Mount]) -> Result<Vec<Option<Taken>>, LaunchError> {
    mounts
        .iter()
        .map(|mount| if mount.kind == MountKind::Bind { take_one(mount).map(Some) } else { Ok(None) })
        .collect()
}

fn take_one(mount: &Mount) -> Result<Taken, LaunchError> {
    let meta = fs::metadata(&mount.source).at("look at mount source", &mount.source)?;
    let propagation = match mount.propagation {
        Propagation::None => MountPropagation::Private,
        Propagation::HostToContainer => MountPropagation::Slave,
        Propagation::Bidirectional => MountPropagation::Shared,
    };
    Ok(Taken { tree: MountTree::of(&mount.source, true)?, directory: meta.is_dir(), propagation })
}

/// Sets how far the copies stay peers.
pub(super) fn separate(taken: &[Option<Taken>]) -> Result<(), LaunchError> {
    for taken in taken.iter().flatten() {
        taken.tree.set(MountAttr::default(), Some(taken.propagation), true)?;
    }
    Ok(())
}

/// Attaches everything in its order. The root is the container's already.
pub(super) fn mount(taken: Vec<Option<Taken>>, mounts: &[Mount]) -> Result<(), LaunchError> {
    for (taken, mount) in taken.into_iter().zip(mounts) {
        let to = &mount.destination;
        let plain = to.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain || !to.is_absolute() || to == Path::new("/") {
            return Err(LaunchError::BadDestination(to.clone()));
        }
        let has = |option: &str| mount.options.iter().any(|o| o == option);
        let attr = MountAttr {
            readonly: mount.readonly,
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
                for (key, value) in mount.options.iter().filter_map(|option| option.split_once('=')) {
                    builder = builder.option(key, value)?;
                }
                (builder.mount(attr)?, true)
            }
        };
        let target = open_target(to, directory)?;
        if is_on_proc(&target)? {
            return Err(LaunchError::MountOnProc(to.clone()));
        }
        tree.attach(target.as_fd())?;
    }
    Ok(())
}
