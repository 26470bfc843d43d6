//! Images: content, layers, registries, archives and builds.
//!
//! An image comes in by [`ImageStore::pull`], [`ImageStore::import`] or [`build::build`]; its blobs are kept by digest
//! under `content/`, its layers are unpacked once under `snapshots/`, and [`ImageStore::layer_dirs`] names the
//! directories that a container's overlay mount stacks. Nothing here knows of containers or Kubernetes.
//!
//! Everything that comes from outside (layers, archives, manifests, build contexts) is hostile until proven
//! otherwise: digests and sizes are verified, and no path of it is ever resolved by string.

mod archive;
pub mod build;
mod compress;
mod content;
mod diff;
mod digest;
mod fsutil;
mod image;
mod index;
mod lease;
mod overlay;
mod platform;
mod pull;
mod reference;
mod snapshot;
mod store;
mod tarball;
#[cfg(test)]
mod testing;
mod unpack;

pub use archive::{ArchiveFormat, ExportError, ImportError};
pub use content::ContentError;
pub use diff::DiffError;
pub use digest::{Digest, DigestError};
pub use fsutil::PathProblem;
pub use image::{Image, Layer};
pub use platform::Platform;
pub use pull::{Auth, PullError, PullOptions, Scheme};
pub use reference::{Reference, ReferenceError};
pub use snapshot::SnapshotError;
pub use store::{GcReport, ImageStore, Removed, StoreError};
pub use unpack::{Limits, TarError, UnpackError};
