use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::{ImageIndex, MediaType, SCHEMA_VERSION};
use serde_json::json;

use super::docker::Item;
use super::{ArchiveFormat, FULL_NAME, REF_NAME};
use crate::compress::decompress;
use crate::content::{Content, ContentError, replace_file};
use crate::digest::Digest;
use crate::image::{
    Image, LARGEST_DOCUMENT, LoadError, canonical_json, descriptor, digest_of, parse_manifest,
};
use crate::reference::Reference;
use crate::store::{ImageStore, StoreError};

/// Why images were not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No such image, or its content is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive could not be written.
    #[error("write image archive: {0}")]
    Write(#[source] io::Error),
    /// A file of the layout could not be written.
    #[error("write {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A document could not be put together.
    #[error("write image archive: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<ContentError> for ExportError {
    fn from(e: ContentError) -> Self {
        Self::Store(e.into())
    }
}

impl From<LoadError> for ExportError {
    fn from(e: LoadError) -> Self {
        Self::Store(e.into())
    }
}

/// An image to export, with the names under which it was asked for.
struct Chosen {
    image: Image,
    names: Vec<String>,
}

impl ImageStore {
    /// Writes images into one archive. An image that is asked for by name takes that name along; one that is asked
    /// for by identifier has none, as with `docker save`. Blocks.
    pub fn export(
        &self,
        references: &[&str],
        format: ArchiveFormat,
        out: impl Write,
    ) -> Result<(), ExportError> {
        let _lease = self.locks().ingest()?;
        let chosen = self.choose(references)?;
        let mut tar = tar::Builder::new(out);
        match format {
            ArchiveFormat::Docker => self.docker(&chosen, &mut tar)?,
            ArchiveFormat::Oci => {
                let (layout, blobs) = self.layout(&chosen)?;
                for (name, bytes) in layout {
                    append(&mut tar, name, bytes.len() as u64, &bytes[..])?;
                }
                for (digest, size) in blobs {
                    let blob = self.content().open_blob(&digest)?;
                    append(&mut tar, &format!("blobs/sha256/{}", digest.hex()), size, blob)?;
                }
            }
        }
        tar.into_inner().and_then(|mut out| out.flush()).map_err(ExportError::Write)
    }

    /// Writes images as an OCI layout into the directory `dir`, making it if need be. Blocks.
    pub fn export_directory(&self, references: &[&str], dir: &Path) -> Result<(), ExportError> {
        let _lease = self.locks().ingest()?;
        let (layout, blobs) = self.layout(&self.choose(references)?)?;
        let target = dir.join("blobs/sha256");
        fs::create_dir_all(&target).map_err(|source| ExportError::File { path: target.clone(), source })?;
        for (digest, _) in blobs {
            let path = target.join(digest.hex());
            let failed = |source| ExportError::File { path: path.clone(), source };
            let mut file = File::create(&path).map_err(failed)?;
            io::copy(&mut self.content().open_blob(&digest)?, &mut file).map_err(failed)?;
        }
        // The index last: until it is there, nobody takes the directory for a layout.
        for (name, bytes) in layout {
            replace_file(&dir.join(name), &bytes)?;
        }
        Ok(())
    }

    fn choose(&self, references: &[&str]) -> Result<Vec<Chosen>, ExportError> {
        let mut chosen: Vec<Chosen> = Vec::new();
        for text in references {
            let image = self.resolve(text).ok_or_else(|| StoreError::NotFound((*text).to_owned()))?;
            let name =
                text.parse::<Reference>().ok().and_then(|r| r.tagged()).filter(|n| image.names.contains(n));
            match chosen.iter_mut().find(|known| known.image.manifest == image.manifest) {
                Some(known) => known.names.extend(name),
                None => chosen.push(Chosen { image, names: name.into_iter().collect() }),
            }
        }
        Ok(chosen)
    }

    /// The small files of an OCI layout, and its blobs with their sizes.
    #[allow(clippy::type_complexity)]
    fn layout(
        &self,
        chosen: &[Chosen],
    ) -> Result<(Vec<(&'static str, Vec<u8>)>, BTreeMap<Digest, u64>), ExportError> {
        let mut blobs = BTreeMap::new();
        let mut manifests = Vec::new();
        for Chosen { image, names } in chosen {
            let bytes = self.content().read(&image.manifest, LARGEST_DOCUMENT)?;
            let manifest = parse_manifest(&image.manifest, &bytes)?;
            blobs.insert(image.manifest, bytes.len() as u64);
            for part in std::iter::once(manifest.config()).chain(manifest.layers()) {
                blobs.insert(digest_of(part, "blob")?, part.size());
            }
            let media_type = manifest.media_type().clone().unwrap_or(MediaType::ImageManifest);
            let entry = descriptor(media_type, &image.manifest, bytes.len() as u64)?;
            if names.is_empty() {
                manifests.push(entry.clone());
            }
            for name in names {
                let mut named = entry.clone();
                let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
                let annotations = [(FULL_NAME.into(), name.clone()), (REF_NAME.into(), tag.into())];
                named.set_annotations(Some(HashMap::from(annotations)));
                manifests.push(named);
            }
        }
        let mut index = ImageIndex::default();
        index
            .set_schema_version(SCHEMA_VERSION)
            .set_media_type(Some(MediaType::ImageIndex))
            .set_manifests(manifests);
        let header = serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?;
        Ok((vec![("oci-layout", header), ("index.json", canonical_json(&index)?)], blobs))
    }

    /// Layers go out uncompressed and named by what they hold, so that every reader takes them.
    fn docker(&self, chosen: &[Chosen], tar: &mut tar::Builder<impl Write>) -> Result<(), ExportError> {
        let mut written = BTreeSet::new();
        let mut items = Vec::new();
        for Chosen { image, names } in chosen {
            let config = format!("{}.json", image.id.hex());
            if written.insert(image.id) {
                let bytes = self.content().read(&image.id, LARGEST_DOCUMENT)?;
                append(tar, &config, bytes.len() as u64, &bytes[..])?;
            }
            for layer in image.layers.iter() {
                if written.insert(layer.diff_id) {
                    // A tar states sizes first, and a compressed stream does not know its own.
                    let size = io::copy(&mut plain(self.content(), &layer.digest)?, &mut io::sink());
                    let size = size.map_err(ExportError::Write)?;
                    append(tar, &layer_name(&layer.diff_id), size, plain(self.content(), &layer.digest)?)?;
                }
            }
            let familiar = |name: &String| name.parse::<Reference>().map_or(name.clone(), |r| r.familiar());
            items.push(Item {
                config,
                repo_tags: Some(names.iter().map(familiar).collect()),
                layers: Some(image.layers.iter().map(|layer| layer_name(&layer.diff_id)).collect()),
            });
        }
        let manifest = serde_json::to_vec(&items)?;
        append(tar, "manifest.json", manifest.len() as u64, &manifest[..])
    }
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}/layer.tar", diff_id.hex())
}

fn plain(content: &Content, digest: &Digest) -> Result<Box<dyn Read>, ExportError> {
    let (_, stream) = decompress(content.open_blob(digest)?).map_err(ExportError::Write)?;
    Ok(stream)
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    data: impl Read,
) -> Result<(), ExportError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, data).map_err(ExportError::Write)
}
