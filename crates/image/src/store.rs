use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::content::{Content, ContentError, io_error, replace_file};
use crate::digest::Digest;
use crate::image::{Image, LoadError, Loaded};
use crate::index::{self, Index, IndexError, Record, Stamp};
use crate::lease::Locks;
use crate::pull::Downloads;
use crate::reference::{Reference, ReferenceError};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::unpack::Limits;

/// The images of a machine: blobs, unpacked layers and names under one data directory.
///
/// Clones share everything. Several processes may use one data directory at the same time.
#[derive(Clone, Debug)]
pub struct ImageStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    content: Content,
    snapshots: Snapshots,
    locks: Locks,
    index_path: PathBuf,
    holds: PathBuf,
    cache: Mutex<Cache>,
    downloads: Downloads,
}

#[derive(Debug, Default)]
struct Cache {
    stamp: Option<Stamp>,
    index: Arc<Index>,
    loaded: HashMap<Digest, Arc<Loaded>>,
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A blob or directory could not be used.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A layer could not be unpacked.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The names could not be read or written.
    #[error("{0}")]
    Index(String),
    /// A manifest or configuration is unusable.
    #[error("{0}")]
    Image(String),
    /// The name is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No image has this name or identifier.
    #[error("no such image: {0}")]
    NotFound(String),
    /// A tag is needed, a digest was given.
    #[error("cannot tag as {0}: a digest cannot be chosen")]
    NotTaggable(Box<Reference>),
    /// A hold's name would not be a file name.
    #[error("invalid name {0:?} for a hold: use letters, digits, '.', '_' and '-'")]
    HoldName(String),
    /// Images are being added at this moment.
    #[error("images are being pulled, imported or built; try again when that is done")]
    Busy,
}

impl From<IndexError> for StoreError {
    fn from(e: IndexError) -> Self {
        match e {
            IndexError::Content(e) => Self::Content(e),
            other => Self::Index(other.to_string()),
        }
    }
}

impl From<LoadError> for StoreError {
    fn from(e: LoadError) -> Self {
        match e {
            LoadError::Content(e) => Self::Content(e),
            other => Self::Image(other.to_string()),
        }
    }
}

/// What [`ImageStore::remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that exist no more.
    pub untagged: Vec<String>,
    /// The image that exists no more, if its last name went.
    pub deleted: Option<Digest>,
}

/// What [`ImageStore::gc`] freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// How many blobs were removed.
    pub blobs: usize,
    /// How many bytes these had.
    pub bytes: u64,
    /// How many unpacked layers were removed.
    pub layers: usize,
}

#[derive(Serialize, Deserialize)]
struct Hold {
    manifest: Digest,
    id: Digest,
}

/// A file that is still being written after this time is nobody's.
const UNFINISHED: std::time::Duration = std::time::Duration::from_secs(60);

impl ImageStore {
    /// Opens the store under `data_dir`, making `content/` and `snapshots/` if they are not there.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(data_dir, Limits::default())
    }

    /// Like [`ImageStore::open`], with other limits for what one layer may unpack to.
    pub fn open_with(data_dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let dir = data_dir.join("content");
        let content = Content::open(&dir)?;
        let snapshots = Snapshots::open(&data_dir.join("snapshots"), limits)?;
        let holds = dir.join("holds");
        std::fs::create_dir_all(&holds).map_err(io_error("create", &holds))?;
        let store = Self(Arc::new(Inner {
            content,
            snapshots,
            locks: Locks::new(&dir),
            index_path: dir.join("index.json"),
            dir,
            holds,
            cache: Mutex::default(),
            downloads: Downloads::default(),
        }));
        // A damaged index is found now, not at the first pull.
        store.index()?;
        if let Some(_alone) = store.locks().collect()? {
            store.content().clear_incoming();
            store.snapshots().clear_incoming();
        }
        store.clear_unfinished_holds();
        Ok(store)
    }

    /// Holds that somebody was writing when he was killed. Who writes one now is done long before it is as old as that.
    fn clear_unfinished_holds(&self) {
        let entries = std::fs::read_dir(&self.0.holds).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".")) {
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|at| at.elapsed());
            if matches!(age, Ok(Ok(age)) if age >= UNFINISHED) {
                // A file that stays does no harm.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Where blobs and what belongs to them are kept.
    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub(crate) fn content(&self) -> &Content {
        &self.0.content
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    pub(crate) fn downloads(&self) -> &Downloads {
        &self.0.downloads
    }

    pub(crate) fn locks(&self) -> &Locks {
        &self.0.locks
    }

    /// Finds an image by tag, by digest, by image id, or by the beginning of an image id, as Docker does: names are
    /// completed (`nginx` is `docker.io/library/nginx:latest`) and win over identifiers.
    pub fn resolve(&self, reference: &str) -> Option<Image> {
        let index = self.readable_index()?;
        let record = find(&index, reference)?;
        self.image(record)
    }

    /// All images, sorted by id.
    pub fn list(&self) -> Vec<Image> {
        let Some(index) = self.readable_index() else { return Vec::new() };
        let mut images: Vec<Image> = index.images.iter().filter_map(|record| self.image(record)).collect();
        images.sort_by_key(|image| image.id);
        images
    }

    /// Gives the image `source` the further name `target`, which another image may lose by it.
    pub fn tag(&self, source: &str, target: &str) -> Result<Image, StoreError> {
        let target: Reference = target.parse()?;
        let Some(name) = target.tagged().filter(|_| target.digest().is_none()) else {
            return Err(StoreError::NotTaggable(Box::new(target)));
        };
        let id = self.change_index(|index| {
            let id = find(index, source).ok_or_else(|| StoreError::NotFound(source.to_owned()))?.id;
            index.name(id, &name);
            Ok(id)
        })?;
        self.by_id(&id)
    }

    /// Removes a name, or with an image id the image and all its names. An image without a name goes with its last
    /// one. Blobs and layers stay until [`ImageStore::gc`].
    pub fn remove(&self, reference: &str) -> Result<Removed, StoreError> {
        self.change_index(|index| {
            let missing = || StoreError::NotFound(reference.to_owned());
            let record = find(index, reference).ok_or_else(missing)?;
            let id = record.id;
            let record = index.images.iter_mut().find(|record| record.id == id).ok_or_else(missing)?;
            let mut removed = Removed::default();
            match named(record, reference) {
                Some(name) => {
                    record.names.remove(&name);
                    record.digests.remove(&name);
                    removed.untagged.push(name);
                    // Digests of a repository whose last tag goes say nothing any more.
                    if record.names.is_empty() {
                        removed.untagged.extend(std::mem::take(&mut record.digests));
                    }
                }
                None => {
                    removed.untagged.extend(std::mem::take(&mut record.names));
                    removed.untagged.extend(std::mem::take(&mut record.digests));
                }
            }
            if record.names.is_empty() && record.digests.is_empty() {
                removed.deleted = Some(id);
                index.images.retain(|record| record.id != id);
            }
            Ok(removed)
        })
    }

    /// The unpacked directories of the image's layers, the TOP one first, as overlayfs wants its `lowerdir`s.
    /// Unpacks what is not there yet; blocks while it does.
    pub fn layer_dirs(&self, image: &Image) -> Result<Vec<PathBuf>, StoreError> {
        // Without missing layers this costs one look at each directory.
        if image.layers.iter().all(|layer| self.snapshots().path(&layer.chain_id).is_dir()) {
            return Ok(image
                .layers
                .iter()
                .rev()
                .map(|layer| self.snapshots().path(&layer.chain_id))
                .collect());
        }
        let _lease = self.locks().ingest()?;
        Ok(self.snapshots().ensure(self.content(), &image.layers)?)
    }

    /// Keeps the content and the layers of an image, named or not, until [`ImageStore::release`] with the same
    /// `owner`; a container calls this with its own identifier. A hold survives restarts.
    pub fn hold(&self, image: &Image, owner: &str) -> Result<(), StoreError> {
        let path = self.hold_path(owner)?;
        let bytes = serde_json::to_vec(&Hold { manifest: image.manifest, id: image.id })
            .map_err(|e| StoreError::Index(e.to_string()))?;
        Ok(replace_file(&path, &bytes)?)
    }

    /// Ends a hold; without one nothing happens.
    pub fn release(&self, owner: &str) -> Result<(), StoreError> {
        let path = self.hold_path(owner)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove hold", &path)(e).into())
            }
            _ => Ok(()),
        }
    }

    /// Removes blobs and unpacked layers that no named image and no hold needs.
    pub fn gc(&self) -> Result<GcReport, StoreError> {
        let Some(_alone) = self.locks().collect()? else { return Err(StoreError::Busy) };
        let index = self.index()?;
        let mut manifests: BTreeSet<Digest> = index.images.iter().map(|record| record.manifest).collect();
        manifests.extend(self.held()?);
        let (mut blobs, mut layers) = (HashSet::new(), HashSet::new());
        for manifest in manifests {
            // An image whose content cannot be read might come back when its disk does: free nothing then.
            let loaded = match self.load(&manifest) {
                Err(StoreError::Content(ContentError::Io { source, .. }))
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                other => other?,
            };
            blobs.extend([manifest, loaded.id]);
            blobs.extend(loaded.layers.iter().map(|layer| layer.digest));
            layers.extend(loaded.layers.iter().map(|layer| layer.chain_id));
        }
        let mut report = GcReport::default();
        for chain_id in self.snapshots().list()?.into_iter().filter(|id| !layers.contains(id)) {
            self.snapshots().remove(&chain_id)?;
            report.layers += 1;
        }
        for (digest, size) in self.content().list()?.into_iter().filter(|(digest, _)| !blobs.contains(digest))
        {
            self.content().remove(&digest)?;
            report.blobs += 1;
            report.bytes += size;
        }
        self.content().clear_incoming();
        self.snapshots().clear_incoming();
        self.0.cache.lock().loaded.retain(|manifest, _| blobs.contains(manifest));
        Ok(report)
    }

    /// Makes an image whose content is complete known, under `name` and with `digests`.
    pub(crate) fn register(
        &self,
        manifest: Digest,
        names: impl IntoIterator<Item = String>,
        digests: impl IntoIterator<Item = String>,
    ) -> Result<Image, StoreError> {
        let id = self.load(&manifest)?.id;
        let record = Record {
            manifest,
            id,
            names: names.into_iter().collect(),
            digests: digests.into_iter().collect(),
        };
        self.change_index(|index| {
            index.add(record, |manifest| self.is_complete(manifest));
            Ok(())
        })?;
        self.by_id(&id)
    }

    fn is_complete(&self, manifest: &Digest) -> bool {
        self.load(manifest).is_ok_and(|loaded| {
            loaded.layers.iter().all(|layer| self.content().contains(&layer.digest, layer.size))
        })
    }

    /// An image whose content is complete but that nobody knows yet.
    pub(crate) fn prepare(&self, manifest: &Digest) -> Result<Arc<Loaded>, StoreError> {
        self.load(manifest)
    }

    pub(crate) fn by_id(&self, id: &Digest) -> Result<Image, StoreError> {
        let index = self.index()?;
        let record = index.images.iter().find(|record| record.id == *id);
        let record = record.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        Ok(describe(record, &*self.load(&record.manifest)?))
    }

    fn image(&self, record: &Record) -> Option<Image> {
        match self.load(&record.manifest) {
            Ok(loaded) => Some(describe(record, &loaded)),
            Err(error) => {
                tracing::warn!(%error, image = %record.id, "image is damaged; pull or import it again");
                None
            }
        }
    }

    fn load(&self, manifest: &Digest) -> Result<Arc<Loaded>, StoreError> {
        if let Some(loaded) = self.0.cache.lock().loaded.get(manifest) {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(Loaded::read(self.content(), manifest)?);
        self.0.cache.lock().loaded.insert(*manifest, loaded.clone());
        Ok(loaded)
    }

    fn readable_index(&self) -> Option<Arc<Index>> {
        self.index().inspect_err(|error| tracing::error!(%error, "cannot read the image index")).ok()
    }

    /// The index as it is on the disk, read again only when it has changed.
    fn index(&self) -> Result<Arc<Index>, StoreError> {
        let mut cache = self.0.cache.lock();
        let stamp = index::stamp(&self.0.index_path);
        if cache.stamp != stamp || stamp.is_none() {
            cache.index = Arc::new(index::read(&self.0.index_path)?);
            cache.stamp = stamp;
        }
        Ok(cache.index.clone())
    }

    fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _lock = self.locks().index()?;
        let mut index = index::read(&self.0.index_path)?;
        let result = change(&mut index)?;
        index::write(&self.0.index_path, &index)?;
        Ok(result)
    }

    fn hold_path(&self, owner: &str) -> Result<PathBuf, StoreError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if owner.is_empty() || owner.len() > 200 || owner.starts_with('.') || !owner.bytes().all(allowed) {
            return Err(StoreError::HoldName(owner.to_owned()));
        }
        Ok(self.0.holds.join(owner))
    }

    fn held(&self) -> Result<Vec<Digest>, StoreError> {
        let failed = |e| io_error("list", &self.0.holds)(e);
        let mut manifests = Vec::new();
        for entry in std::fs::read_dir(&self.0.holds).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue; // one that is being written
            }
            let bytes = std::fs::read(entry.path()).map_err(failed)?;
            let hold: Hold = serde_json::from_slice(&bytes)
                .map_err(|e| StoreError::Index(format!("hold {}: {e}", entry.path().display())))?;
            manifests.push(hold.manifest);
        }
        Ok(manifests)
    }
}

fn describe(record: &Record, loaded: &Loaded) -> Image {
    Image {
        id: loaded.id,
        manifest: record.manifest,
        names: record.names.iter().cloned().collect(),
        digests: record.digests.iter().cloned().collect(),
        config: loaded.config.clone(),
        size: loaded.size,
        layers: loaded.layers.clone(),
    }
}

/// The name or digest of `record` that `reference` means, if it means one and not an identifier.
fn named(record: &Record, reference: &str) -> Option<String> {
    let reference: Reference = reference.parse().ok()?;
    let name = match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.tagged()?,
    };
    (record.names.contains(&name) || record.digests.contains(&name)).then_some(name)
}

fn find<'a>(index: &'a Index, reference: &str) -> Option<&'a Record> {
    if let Ok(digest) = reference.parse::<Digest>() {
        let by_id = index.images.iter().find(|record| record.id == digest);
        return by_id.or_else(|| index.images.iter().find(|record| record.manifest == digest));
    }
    if let Some(record) = index.images.iter().find(|record| named(record, reference).is_some()) {
        return Some(record);
    }
    let prefix = reference.strip_prefix("sha256:").unwrap_or(reference);
    let is_prefix = (4..=64).contains(&prefix.len()) && prefix.bytes().all(|c| c.is_ascii_hexdigit());
    let mut matching = index.images.iter().filter(|record| is_prefix && record.id.hex().starts_with(prefix));
    let first = matching.next()?;
    matching.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
