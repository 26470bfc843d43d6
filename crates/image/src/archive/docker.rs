use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use serde::{Deserialize, Serialize};

use super::import::{Files, Found, ImportError};
use crate::compress::{Compression, peek};
use crate::content::{Content, io_error};
use crate::digest::Digest;
use crate::image::{
    LARGEST_DOCUMENT, canonical_json, descriptor, digest_of, layer_media_type, parse_manifest,
};
use crate::reference::Reference;

/// One image in the `manifest.json` of `docker save` (moby, `image/tarexport/tarexport.go`, `manifestItem`).
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Item {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

fn items(document: &[u8]) -> Result<Vec<Item>, ImportError> {
    serde_json::from_slice(document)
        .map_err(|source| ImportError::Json { what: "manifest.json".into(), source })
}

fn names(item: &Item) -> Result<Vec<String>, ImportError> {
    let tags = item.repo_tags.iter().flatten();
    tags.filter_map(|tag| tag.parse::<Reference>().map(|r| r.tagged()).transpose()).map(|r| Ok(r?)).collect()
}

/// The images of `manifest.json`. Such an archive has no OCI manifests; each image gets one.
pub(super) fn read(content: &Content, files: &mut Files, document: &[u8]) -> Result<Vec<Found>, ImportError> {
    let mut found = Vec::new();
    for item in items(document)? {
        let (id, size) = files.get(content, &item.config)?;
        let config: ImageConfiguration = serde_json::from_slice(&content.read(&id, LARGEST_DOCUMENT)?)
            .map_err(|source| ImportError::Json { what: item.config.clone(), source })?;
        let layers = item.layers.as_deref().unwrap_or_default();
        if layers.len() != config.rootfs().diff_ids().len() {
            let (named, promised) = (layers.len(), config.rootfs().diff_ids().len());
            let problem = format!("{} has {promised} layers, manifest.json names {named}", item.config);
            return Err(ImportError::Malformed(problem));
        }
        let layers = layers
            .iter()
            .map(|name| {
                let (digest, size) = files.get(content, name)?;
                Ok(descriptor(layer_media_type(compression(content, &digest)?), &digest, size)?)
            })
            .collect::<Result<Vec<_>, ImportError>>()?;
        let config = descriptor(MediaType::ImageConfig, &id, size)?;
        found.push(Found { manifest: put_manifest(content, config, layers)?, names: names(&item)? });
    }
    Ok(found)
}

/// Adds the tags of `manifest.json` to the images of the layout beside it.
pub(super) fn add_names(
    content: &Content,
    files: &mut Files,
    document: &[u8],
    found: &mut [Found],
) -> Result<(), ImportError> {
    for item in items(document)? {
        let id = files.get(content, &item.config)?.0;
        for image in found.iter_mut() {
            let manifest =
                parse_manifest(&image.manifest, &content.read(&image.manifest, LARGEST_DOCUMENT)?)?;
            if digest_of(manifest.config(), "configuration")? == id {
                image.names.extend(names(&item)?);
            }
        }
    }
    Ok(())
}

fn compression(content: &Content, digest: &Digest) -> Result<Compression, ImportError> {
    let mut file = std::io::BufReader::with_capacity(16, content.open_blob(digest)?);
    let first = peek(&mut file).map_err(io_error("read blob", &content.path(digest)))?;
    Ok(Compression::of(&first))
}

/// Stores a manifest for content that came without one.
pub(crate) fn put_manifest(
    content: &Content,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<Digest, ImportError> {
    let json = |source| ImportError::Json { what: "new manifest".into(), source };
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .map_err(|e| ImportError::Malformed(format!("new manifest: {e}")))?;
    Ok(content.put(&canonical_json(&manifest).map_err(json)?)?)
}
