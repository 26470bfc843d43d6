//! Images as files: `docker save` archives and OCI layouts.

mod docker;
mod export;
mod import;
mod oci;
#[cfg(test)]
mod tests;

pub(crate) use docker::put_manifest;
pub use export::ExportError;
pub use import::ImportError;

/// The form of an exported archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// What `docker save` writes and `docker load` reads.
    Docker,
    /// An OCI image layout, in a tar.
    Oci,
}

/// The annotation with which containerd and Docker give the full name of an image.
const FULL_NAME: &str = "io.containerd.image.name";
/// The annotation of the OCI layout specification: a tag, or with some tools the full name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
