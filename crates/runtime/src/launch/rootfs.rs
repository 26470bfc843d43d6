//! The overlay of an image's layers and the container's own.

use std::fs;
use std::path::Path;

use sys::MountTree;

use super::owners::Owners;
use super::{At, LaunchError};
use crate::spec::Rootfs;

/// A detached mount of the container's files.
pub(super) fn mount(
    rootfs: &Rootfs,
    writable: &Path,
    owners: Option<&Owners<'_>>,
) -> Result<MountTree, LaunchError> {
    if rootfs.layers.is_empty() {
        return Err(LaunchError::NoLayers);
    }
    let (upper, work) = match (&rootfs.upper, &rootfs.work) {
        (Some(upper), Some(work)) => (upper.clone(), work.clone()),
        _ => (writable.join("upper"), writable.join("work")),
    };
    for dir in [&upper, &work, &writable.join("root")] {
        fs::create_dir_all(dir).at("make directory", dir)?;
    }
    let Some(owners) = owners else { return Ok(sys::overlay(&rootfs.layers, &upper, &work, &[])?) };
    // The root directory of the container is the upper one's.
    owners.give(&upper)?;
    let layers = owners.layers(&rootfs.layers, &writable.join("layers"))?;
    Ok(sys::overlay(&layers, &upper, &work, &[])?)
}
