use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, MediaType};

use crate::compress::Compression;
use crate::content::{Content, ContentError};
use crate::digest::Digest;
use crate::snapshot::chain_ids;

/// The biggest manifest, index or configuration that is read into memory.
pub(crate) const LARGEST_DOCUMENT: u64 = 8 << 20;

/// One image of the store, as it was when it was looked up.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the configuration: what `docker images` calls the image id.
    pub id: Digest,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// Its tags in full (`docker.io/library/nginx:latest`), sorted.
    pub names: Vec<String>,
    /// The repositories and digests under which it was pulled (`docker.io/library/nginx@sha256:…`), sorted.
    pub digests: Vec<String>,
    /// What to run and how.
    pub config: Arc<ImageConfiguration>,
    /// Bytes of its configuration and its layers as they are stored.
    pub size: u64,
    /// The layers, the base first.
    pub layers: Arc<[Layer]>,
}

impl Image {
    /// An image that is not in a store of ours: another runtime has its content, and of what it runs only the user is
    /// known.
    pub fn elsewhere(
        id: Digest,
        names: Vec<String>,
        digests: Vec<String>,
        size: u64,
        user: Option<String>,
    ) -> Self {
        let mut own = oci_spec::image::Config::default();
        own.set_user(user);
        let mut config = ImageConfiguration::default();
        config.set_config(Some(own));
        Self { id, manifest: id, names, digests, config: Arc::new(config), size, layers: Arc::from([]) }
    }
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob.
    pub size: u64,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Names this layer on top of those below it.
    pub chain_id: Digest,
}

/// Why a stored image cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("{what} {digest} is malformed: {source}")]
    Json { what: &'static str, digest: Digest, source: serde_json::Error },
    #[error("manifest {manifest} names {layers} layers, its configuration {diff_ids}")]
    LayerCount { manifest: Digest, layers: usize, diff_ids: usize },
    #[error("{what} {text:?}: {source}")]
    Digest { what: &'static str, text: String, source: crate::DigestError },
    #[error("layer {digest} has the unsupported media type {media_type}")]
    MediaType { digest: Digest, media_type: String },
}

/// What a manifest says, apart from names.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) id: Digest,
    pub(crate) config: Arc<ImageConfiguration>,
    pub(crate) size: u64,
    pub(crate) layers: Arc<[Layer]>,
}

impl Loaded {
    pub(crate) fn read(content: &Content, manifest: &Digest) -> Result<Self, LoadError> {
        let parsed = parse_manifest(manifest, &content.read(manifest, LARGEST_DOCUMENT)?)?;
        let id = digest_of(parsed.config(), "configuration")?;
        let config: ImageConfiguration = serde_json::from_slice(&content.read(&id, LARGEST_DOCUMENT)?)
            .map_err(|source| LoadError::Json { what: "image configuration", digest: id, source })?;
        let layers = layers_of(manifest, &parsed, &config)?;
        let size = parsed.config().size() + layers.iter().map(|layer| layer.size).sum::<u64>();
        Ok(Self { id, config: Arc::new(config), size, layers: layers.into() })
    }
}

pub(crate) fn parse_manifest(digest: &Digest, bytes: &[u8]) -> Result<ImageManifest, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Json {
        what: "image manifest",
        digest: *digest,
        source,
    })
}

pub(crate) fn digest_of(descriptor: &Descriptor, what: &'static str) -> Result<Digest, LoadError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|source| LoadError::Digest { what, text, source })
}

/// Joins the blobs of the manifest with the diff ids of the configuration.
pub(crate) fn layers_of(
    digest: &Digest,
    manifest: &ImageManifest,
    config: &ImageConfiguration,
) -> Result<Vec<Layer>, LoadError> {
    let diff_ids: Vec<Digest> = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| {
            text.parse().map_err(|source| LoadError::Digest { what: "diff id", text: text.clone(), source })
        })
        .collect::<Result<_, _>>()?;
    if diff_ids.len() != manifest.layers().len() {
        return Err(LoadError::LayerCount {
            manifest: *digest,
            layers: manifest.layers().len(),
            diff_ids: diff_ids.len(),
        });
    }
    let chain = chain_ids(&diff_ids);
    manifest
        .layers()
        .iter()
        .zip(diff_ids.into_iter().zip(chain))
        .map(|(layer, (diff_id, chain_id))| {
            let digest = digest_of(layer, "layer")?;
            if !is_layer(layer.media_type()) {
                return Err(LoadError::MediaType { digest, media_type: layer.media_type().to_string() });
            }
            Ok(Layer { digest, size: layer.size(), diff_id, chain_id })
        })
        .collect()
}

/// Any tar, of the OCI or Docker kind; how it is compressed is seen from its first bytes.
fn is_layer(media_type: &MediaType) -> bool {
    let text = media_type.to_string();
    text.starts_with("application/vnd.oci.image.layer.")
        || text.starts_with("application/vnd.docker.image.rootfs.")
        || text.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

pub(crate) fn layer_media_type(compression: Compression) -> MediaType {
    match compression {
        Compression::None => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    }
}

pub(crate) fn descriptor(media_type: MediaType, digest: &Digest, size: u64) -> Result<Descriptor, LoadError> {
    // Both types hold the same text; the conversion fails only for a text that is no digest.
    let text = digest.to_string();
    let parsed = oci_spec::image::Digest::try_from(text.clone()).map_err(|_| LoadError::Digest {
        what: "blob",
        text: text.clone(),
        source: crate::DigestError::Malformed(text),
    })?;
    Ok(Descriptor::new(media_type, size, parsed))
}

/// JSON with sorted keys: the same configuration always has the same digest.
pub(crate) fn canonical_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    fn sort(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                let mut fields: Vec<_> = std::mem::take(map).into_iter().collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, mut field) in fields {
                    sort(&mut field);
                    map.insert(key, field);
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(sort),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(value)?;
    sort(&mut value);
    serde_json::to_vec(&value)
}
