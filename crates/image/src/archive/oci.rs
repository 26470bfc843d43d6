use oci_spec::image::{Descriptor, ImageIndex};

use super::import::{Files, Found, ImportError};
use super::{FULL_NAME, REF_NAME};
use crate::content::Content;
use crate::digest::Digest;
use crate::image::{LARGEST_DOCUMENT, digest_of, parse_manifest};
use crate::platform::Platform;
use crate::reference::Reference;

/// The images of an OCI layout, those of this machine's platform where there is a choice.
pub(super) fn read(content: &Content, files: &mut Files, index: &[u8]) -> Result<Vec<Found>, ImportError> {
    let index: ImageIndex = parse("index.json", index)?;
    let platform = Platform::default();
    let mut found: Vec<Found> = Vec::new();
    for entry in index.manifests() {
        let names = names(entry)?;
        let Some(manifest) = manifest(content, files, entry, &platform)? else { continue };
        match found.iter_mut().find(|image| image.manifest == manifest) {
            Some(image) => image.names.extend(names),
            None => found.push(Found { manifest, names }),
        }
    }
    if found.is_empty() {
        return Err(ImportError::Malformed("index.json names no image".into()));
    }
    Ok(found)
}

/// Follows an entry to an image manifest whose parts are all here; `None` for what is no image.
fn manifest(
    content: &Content,
    files: &mut Files,
    entry: &Descriptor,
    platform: &Platform,
) -> Result<Option<Digest>, ImportError> {
    let mut entry = entry.clone();
    // An index of the layout names manifests or one more index, whose entries are manifests.
    for _ in 0..4 {
        let digest = blob(content, files, &entry)?;
        let bytes = content.read(&digest, LARGEST_DOCUMENT)?;
        let value: serde_json::Value = parse(&digest.to_string(), &bytes)?;
        if value.get("manifests").is_some() {
            let index: ImageIndex = parse(&digest.to_string(), &bytes)?;
            entry = platform
                .choose(&index)
                .map_err(|available| ImportError::NoPlatform {
                    platform: platform.clone(),
                    available: available.join(", "),
                })?
                .clone();
            continue;
        }
        let manifest = parse_manifest(&digest, &bytes)?;
        if !manifest.config().media_type().to_string().contains("image") {
            return Ok(None); // an artifact or attestation
        }
        for part in std::iter::once(manifest.config()).chain(manifest.layers()) {
            blob(content, files, part)?;
        }
        return Ok(Some(digest));
    }
    Err(ImportError::Malformed(format!("index {} is nested too deeply", entry.digest())))
}

/// Makes sure that the blob is in the store, from the archive or from before.
fn blob(content: &Content, files: &mut Files, descriptor: &Descriptor) -> Result<Digest, ImportError> {
    let digest = digest_of(descriptor, "blob")?;
    if content.contains(&digest, descriptor.size()) {
        return Ok(digest);
    }
    let name = format!("blobs/sha256/{}", digest.hex());
    let (actual, size) = files.get(content, &name)?;
    if actual != digest {
        return Err(ImportError::Malformed(format!("{name} has the digest {actual}")));
    }
    if size != descriptor.size() {
        let promised = descriptor.size();
        return Err(ImportError::Malformed(format!(
            "{name} has {size} bytes, its descriptor says {promised}"
        )));
    }
    Ok(digest)
}

fn names(entry: &Descriptor) -> Result<Vec<String>, ImportError> {
    let annotation = |key| entry.annotations().as_ref().and_then(|all| all.get(key));
    let name = annotation(FULL_NAME).or_else(|| {
        // Only a tag says nothing about the repository.
        annotation(REF_NAME).filter(|name| name.contains(['/', ':']))
    });
    match name {
        Some(name) => Ok(name.parse::<Reference>()?.tagged().into_iter().collect()),
        None => Ok(Vec::new()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|source| ImportError::Json { what: what.to_owned(), source })
}
