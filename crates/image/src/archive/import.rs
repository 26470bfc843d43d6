use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::compress::decompress;
use crate::content::{Content, ContentError, io_error};
use crate::digest::Digest;
use crate::fsutil::open_root;
use crate::image::{Image, LARGEST_DOCUMENT, LoadError};
use crate::platform::Platform;
use crate::reference::ReferenceError;
use crate::store::{ImageStore, StoreError};
use crate::tarball::{Kind, TarError, TarReader};

use super::{docker, oci};

/// Files of one archive; far more than any has.
const MOST_FILES: usize = 100_000;

/// Why an archive was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive cannot be read.
    #[error("read {}: {source}", path.display())]
    Open {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The archive is no valid tar.
    #[error("image archive: {0}")]
    Tar(#[from] TarError),
    /// Something that claims to be an archive has more files than any image.
    #[error("image archive has more than {MOST_FILES} files")]
    TooManyFiles,
    /// Neither form is recognised.
    #[error("not an image archive: it has neither manifest.json nor index.json")]
    Unknown,
    /// The archive names a file that it does not contain.
    #[error("image archive lacks {0}")]
    Missing(String),
    /// A document of the archive is malformed.
    #[error("image archive: {what}: {source}")]
    Json {
        /// Which document.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A document contradicts itself or another one.
    #[error("image archive: {0}")]
    Malformed(String),
    /// The archive has images for other machines only.
    #[error("image archive has no image for {platform}, only for: {available}")]
    NoPlatform {
        /// What was looked for.
        platform: Platform,
        /// What there is.
        available: String,
    },
    /// The archive gives an image an impossible name.
    #[error("image archive: {0}")]
    Reference(#[from] ReferenceError),
    /// The images could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ContentError> for ImportError {
    fn from(e: ContentError) -> Self {
        Self::Store(e.into())
    }
}

impl From<LoadError> for ImportError {
    fn from(e: LoadError) -> Self {
        Self::Store(e.into())
    }
}

/// Where the files of an archive are: in the content store, by their names in the archive.
pub(super) struct Files {
    by_name: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
    /// A layout that is a directory; its blobs are taken in when somebody asks for them.
    dir: Option<OwnedFd>,
}

impl Files {
    /// The blob that the archive has under `name`.
    pub(super) fn get(&mut self, content: &Content, name: &str) -> Result<(Digest, u64), ImportError> {
        let name = name.trim_start_matches("./");
        if let Some(found) = self.by_name.get(name) {
            return Ok(*found);
        }
        // Old archives store a layer that several images share once, and link to it.
        if let Some(found) = self.links.get(name).and_then(|target| self.by_name.get(target)) {
            return Ok(*found);
        }
        let missing = || ImportError::Missing(name.to_owned());
        let dir = self.dir.as_ref().ok_or_else(missing)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat2(dir, name, flags, Mode::empty(), resolve).map_err(|_| missing())?;
        let mut file = File::from(file);
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(missing());
        }
        let failed = |source| ImportError::Open { path: name.into(), source };
        let mut writer = content.writer()?;
        io::copy(&mut file, &mut writer).map_err(failed)?;
        let found = writer.commit(None, None)?;
        self.by_name.insert(name.to_owned(), found);
        Ok(found)
    }

    /// The document that the archive has under `name`, if it has one.
    pub(super) fn document(&mut self, content: &Content, name: &str) -> Result<Option<Vec<u8>>, ImportError> {
        match self.get(content, name) {
            Err(ImportError::Missing(_)) => Ok(None),
            other => Ok(Some(content.read(&other?.0, LARGEST_DOCUMENT)?)),
        }
    }
}

/// An image found in an archive, with the tags that it asks for.
pub(super) struct Found {
    pub(super) manifest: Digest,
    pub(super) names: Vec<String>,
}

impl ImageStore {
    /// Imports all images of an archive: a `docker save` tar or an OCI layout tar, compressed or not.
    ///
    /// Every digest is verified and the layers are unpacked before an image gets its names. Blocks.
    pub fn import(&self, archive: impl Read) -> Result<Vec<Image>, ImportError> {
        let _lease = self.locks().ingest()?;
        let files = take_in(self.content(), archive)?;
        self.import_files(files)
    }

    /// Imports an archive file, or a directory that is an OCI layout.
    pub fn import_path(&self, path: &Path) -> Result<Vec<Image>, ImportError> {
        let failed = |source| ImportError::Open { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            return self.import(File::open(path).map_err(failed)?);
        }
        let _lease = self.locks().ingest()?;
        let dir = open_root(path).map_err(failed)?;
        self.import_files(Files { by_name: HashMap::new(), links: HashMap::new(), dir: Some(dir) })
    }

    fn import_files(&self, mut files: Files) -> Result<Vec<Image>, ImportError> {
        let content = self.content();
        let docker = files.document(content, "manifest.json")?;
        let found = match (files.document(content, "index.json")?, docker) {
            // What Docker saves today is both. The layout has the true manifests, the other one more names.
            (Some(index), docker) => {
                let mut found = oci::read(content, &mut files, &index)?;
                if let Some(docker) = docker {
                    docker::add_names(content, &mut files, &docker, &mut found)?;
                }
                found
            }
            (None, Some(docker)) => docker::read(content, &mut files, &docker)?,
            (None, None) => return Err(ImportError::Unknown),
        };
        let mut images = Vec::new();
        for Found { manifest, names } in found {
            let loaded = self.prepare(&manifest)?;
            self.snapshots().ensure(content, &loaded.layers).map_err(StoreError::from)?;
            images.push(self.register(manifest, names, [])?);
        }
        // A later image may have taken the name of an earlier one.
        images.iter().map(|image| Ok(self.by_id(&image.id)?)).collect()
    }
}

/// Stores every file of a tar as a blob. What turns out to belong to no image goes with the next collection.
fn take_in(content: &Content, archive: impl Read) -> Result<Files, ImportError> {
    let (_, stream) = decompress(archive).map_err(TarError::Io)?;
    let mut tar = TarReader::new(stream);
    let mut files = Files { by_name: HashMap::new(), links: HashMap::new(), dir: None };
    while let Some(entry) = tar.next()? {
        if files.by_name.len() + files.links.len() >= MOST_FILES {
            return Err(ImportError::TooManyFiles);
        }
        // Names are only ever keys of a map; none of them reaches the file system.
        let name = String::from_utf8_lossy(&entry.path).trim_start_matches("./").to_owned();
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        match entry.kind {
            Kind::File => {
                let mut writer = content.writer()?;
                io::copy(&mut tar, &mut writer)
                    .map_err(io_error("write", &content.path(&Digest::of(b""))))?;
                files.by_name.insert(name, writer.commit(None, None)?);
            }
            Kind::HardLink => _ = files.links.insert(name, link),
            // `<layer>/layer.tar -> ../<other layer>/layer.tar`
            Kind::Symlink => _ = files.links.insert(name, link.trim_start_matches("../").to_owned()),
            _ => {}
        }
    }
    Ok(files)
}
