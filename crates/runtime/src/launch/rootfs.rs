//! The overlay of an image's layers and the container's own.

use std::fs;
use std::path::Path;

use sys::{FsBuilder, MountAttr, MountTree};

use super::{At, LaunchError};
use crate::spec::Rootfs;

/// A detached mount of the container's files.
pub(super) fn mount(rootfs: &Rootfs, writable: &Path) -> Result<MountTree, LaunchError> {
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
    // One layer at a time (kernel 6.5), which has no limit of a page for all names together.
    let one_by_one = || -> sys::Result<FsBuilder> {
        rootfs
            .layers
            .iter()
            .try_fold(FsBuilder::new("overlay")?, |builder, layer| builder.option("lowerdir+", layer))
    };
    let builder = match one_by_one() {
        Ok(builder) => builder,
        Err(error) if error.errno() == Some(EINVAL) => {
            let escaped: Vec<String> = rootfs.layers.iter().map(|layer| escape(layer)).collect();
            FsBuilder::new("overlay")?.option("lowerdir", escaped.join(":"))?
        }
        Err(error) => return Err(error.into()),
    };
    let builder = builder.option("upperdir", &upper)?.option("workdir", &work)?;
    Ok(builder.mount(MountAttr::default())?)
}

const EINVAL: i32 = 22;

/// In a list, colons separate and backslashes escape.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}
