use std::fs::{self, Permissions};
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::Rootfs;
use super::cache::Blob;
use super::error::StepError;
use crate::diff::write_layer;
use crate::fsutil::open_root;
use crate::image::Layer;
use crate::overlay;
use crate::store::ImageStore;

/// The file system of a stage while one instruction changes it.
pub(super) struct Workspace {
    store: ImageStore,
    scratch: TempDir,
    lower: Vec<PathBuf>,
}

impl Workspace {
    /// Stacks an empty directory over `layers`.
    pub(super) fn new(store: &ImageStore, layers: &[Layer]) -> Result<Self, StepError> {
        let lower = store.snapshots().ensure(store.content(), layers)?;
        let scratch = store.snapshots().scratch()?;
        for name in ["upper", "work", "empty"] {
            let path = scratch.path().join(name);
            fs::create_dir(&path).map_err(StepError::io("create", &path))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))
                .map_err(StepError::io("set permissions of", &path))?;
        }
        Ok(Self { store: store.clone(), scratch, lower })
    }

    fn upper(&self) -> PathBuf {
        self.scratch.path().join("upper")
    }

    /// The root directory, with everything below visible in it.
    pub(super) fn root(&self) -> Result<OwnedFd, StepError> {
        let upper = self.upper();
        if self.lower.is_empty() {
            return open_root(&upper).map_err(StepError::io("open", &upper));
        }
        overlay::mount(&self.lower, &upper, &self.scratch.path().join("work"))
            .map_err(StepError::io("mount the layers for", &upper))
    }

    /// For whoever mounts it elsewhere.
    pub(super) fn rootfs(&self) -> Rootfs {
        let mut lower = self.lower.clone();
        if lower.is_empty() {
            lower.push(self.scratch.path().join("empty"));
        }
        Rootfs { lower, upper: self.upper(), work: self.scratch.path().join("work") }
    }

    /// Makes a layer of what has changed; `None` if nothing has.
    pub(super) fn finish(self) -> Result<Option<Blob>, StepError> {
        let upper = self.upper();
        let root = open_root(&upper).map_err(StepError::io("open", &upper))?;
        let mut writer = BufWriter::with_capacity(256 << 10, self.store.content().writer()?);
        let entries = write_layer(&root, &mut writer)?;
        writer.flush().map_err(StepError::io("write the layer of", &upper))?;
        if entries == 0 {
            return Ok(None);
        }
        let writer =
            writer.into_inner().map_err(|e| StepError::io("write the layer of", &upper)(e.into_error()))?;
        let (digest, size) = writer.commit(None, None)?;
        // Uncompressed, so the blob is the diff.
        Ok(Some(Blob { digest, size, diff_id: digest }))
    }
}
