use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::content::{ContentError, replace_file};
use crate::digest::Digest;
use crate::store::ImageStore;

/// Beyond this many the oldest are not worth finding out; a cache may forget everything.
const MOST_ENTRIES: usize = 10_000;

/// What earlier builds made, by what they made it from.
///
/// The key of a layer is made of the chain id below it and of everything that the instruction reads, so an entry is
/// right for ever; it becomes useless when the garbage collection takes its blob.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cache {
    #[serde(default)]
    layers: BTreeMap<Digest, Option<Blob>>,
    /// When an image with the same content and configuration was first built.
    #[serde(default)]
    created: BTreeMap<Digest, String>,
}

/// A layer as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
}

fn path(store: &ImageStore) -> PathBuf {
    store.dir().join("build-cache.json")
}

impl Cache {
    /// A cache that cannot be read is an empty one.
    fn read(store: &ImageStore) -> Self {
        let Ok(bytes) = std::fs::read(path(store)) else { return Self::default() };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "the build cache is malformed; starting a new one");
            Self::default()
        })
    }

    fn change(store: &ImageStore, change: impl FnOnce(&mut Self)) -> Result<(), ContentError> {
        let _lock = store.locks().index()?;
        let mut cache = Self::read(store);
        cache
            .layers
            .retain(|_, blob| blob.is_none_or(|blob| store.content().contains(&blob.digest, blob.size)));
        if cache.layers.len() > MOST_ENTRIES || cache.created.len() > MOST_ENTRIES {
            cache = Self::default();
        }
        change(&mut cache);
        match serde_json::to_vec(&cache) {
            Ok(bytes) => replace_file(&path(store), &bytes),
            Err(error) => {
                tracing::warn!(%error, "cannot write the build cache");
                Ok(())
            }
        }
    }

    /// What the instruction with this key made: a layer, or nothing.
    pub(super) fn find(store: &ImageStore, key: &Digest) -> Option<Option<Blob>> {
        let found = *Self::read(store).layers.get(key)?;
        match found {
            Some(blob) if !store.content().contains(&blob.digest, blob.size) => None,
            found => Some(found),
        }
    }

    pub(super) fn remember(store: &ImageStore, key: Digest, blob: Option<Blob>) -> Result<(), ContentError> {
        Self::change(store, |cache| _ = cache.layers.insert(key, blob))
    }

    /// The time of the first build with this outcome: building the same thing again gives the same image.
    pub(super) fn created(store: &ImageStore, key: Digest, now: &str) -> Result<String, ContentError> {
        if let Some(created) = Self::read(store).created.get(&key) {
            return Ok(created.clone());
        }
        Self::change(store, |cache| _ = cache.created.insert(key, now.to_owned()))?;
        Ok(now.to_owned())
    }
}
