mod client;
mod error;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use oci_client::Client;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::digest::Digest;
use crate::image::{Image, LARGEST_DOCUMENT, LoadError, digest_of, layers_of, parse_manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{ImageStore, StoreError};
pub use error::PullError;

const MANIFEST_TYPES: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// As many as Docker and containerd fetch at a time.
const PARALLEL_LAYERS: usize = 3;

/// How to prove to a registry who is asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// A user's name and password, exchanged for a token if the registry wants one.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that the registry takes as it is.
    Bearer(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// How to reach a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// HTTPS; for a registry on this machine's loopback addresses HTTP if it speaks no TLS, as Docker does.
    #[default]
    Auto,
    /// HTTPS only.
    Https,
    /// HTTP only, for registries that are declared insecure.
    Http,
}

/// What differs from one registry to another.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// How to reach the registry.
    pub scheme: Scheme,
    /// Certificates in PEM of authorities that are trusted beside the system's.
    pub extra_ca: Vec<Vec<u8>>,
    /// Take any certificate. Content is still verified by digest, but a tag may be anybody's.
    pub skip_tls_verify: bool,
    /// Which image of a multi-platform index to take.
    pub platform: Platform,
    /// Ask the registry also for what is here: it may not let everybody have it.
    pub always_ask: bool,
}

/// One download of a blob at a time, however many images share it.
#[derive(Debug, Default)]
pub(crate) struct Downloads(Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>);

impl Downloads {
    fn lock(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        self.0.lock().entry(digest).or_default().clone()
    }

    fn done(&self, digest: Digest) {
        let mut all = self.0.lock();
        if all.get(&digest).is_some_and(|lock| Arc::strong_count(lock) <= 2) {
            all.remove(&digest);
        }
    }
}

impl ImageStore {
    /// Fetches an image by tag or digest, verifies every digest and size, unpacks its layers and gives it its name.
    ///
    /// What is already there is not fetched again; an image that is pinned by digest and complete needs no registry
    /// at all. Dropping the future ends the download.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<Auth>,
        options: PullOptions,
    ) -> Result<Image, PullError> {
        // In a task of its own: a panic while reading a registry's answer is this pull's failure and nobody else's.
        let mut task = JoinSet::new();
        let pull = Pull { store: self.clone(), reference: reference.clone(), auth, options };
        task.spawn(pull.run());
        match task.join_next().await {
            Some(Ok(result)) => result,
            _ => Err(PullError::Panicked { reference: Box::new(reference.clone()) }),
        }
    }
}

struct Pull {
    store: ImageStore,
    reference: Reference,
    auth: Option<Auth>,
    options: PullOptions,
}

impl Pull {
    async fn run(self) -> Result<Image, PullError> {
        if self.reference.digest().is_some()
            && !self.options.always_ask
            && let Some(image) = self.store.resolve(&self.reference.to_string())
            && let Ok(image) = self.unpack(image).await
        {
            return Ok(image);
        }
        let local = |source| PullError::Store { reference: self.boxed(), source };
        let store = self.store.clone();
        let lease = blocking(move || store.locks().ingest()).await.map_err(|e| local(e.into()))?;

        let (client, bytes) = self.manifest_over_any_scheme().await?;
        let pinned = self.check_pin(&bytes)?;
        let bytes = match self.index(&bytes)? {
            None => bytes,
            Some(index) => {
                let chosen =
                    self.options.platform.choose(&index).map_err(|available| PullError::NoPlatform {
                        reference: self.boxed(),
                        platform: self.options.platform.clone(),
                        available: available.join(", "),
                    })?;
                let digest = digest_of(chosen, "manifest").map_err(|e| self.malformed(e))?;
                let bytes = self.manifest(&client, &self.reference.pinned(digest)).await?;
                verify(&self.reference, digest, &bytes)?;
                bytes
            }
        };
        let manifest_digest = Digest::of(&bytes);
        let manifest = parse_manifest(&manifest_digest, &bytes).map_err(|e| self.malformed(e))?;
        self.fetch_content(&client, &manifest_digest, &manifest).await?;

        let (name, pin) = (self.reference.tagged(), format!("{}@{pinned}", self.reference.name()));
        let store = self.store.clone();
        let image = blocking(move || {
            let manifest = store.content().put(&bytes)?;
            // Layers first: a name is given only to an image that can be run.
            let image = store.prepare(&manifest)?;
            store.snapshots().ensure(store.content(), &image.layers)?;
            let image = store.register(manifest, name, [pin])?;
            drop(lease);
            Ok(image)
        })
        .await
        .map_err(local)?;
        Ok(image)
    }

    async fn unpack(&self, image: Image) -> Result<Image, StoreError> {
        let store = self.store.clone();
        blocking(move || store.layer_dirs(&image).map(|_| image)).await
    }

    async fn manifest_over_any_scheme(&self) -> Result<(Client, Vec<u8>), PullError> {
        let mut result = None;
        for scheme in client::schemes(&self.reference, self.options.scheme) {
            let client = client::connect(&self.reference, &self.options, scheme)?;
            match self.manifest(&client, &self.reference).await {
                Ok(bytes) => return Ok((client, bytes)),
                // The first failure says why the safer way did not work.
                Err(e @ PullError::Unreachable { .. }) => _ = result.get_or_insert(e),
                Err(e) => return Err(e),
            }
        }
        Err(result.unwrap_or_else(|| PullError::Panicked { reference: self.boxed() }))
    }

    async fn manifest(&self, client: &Client, reference: &Reference) -> Result<Vec<u8>, PullError> {
        let auth = client::auth(self.auth.as_ref());
        let failed = |e| PullError::from_registry(&self.reference, "manifest", e);
        // Explicitly, because the client would go on without a token and report what it then meets.
        client.auth(&reference.to_oci(), &auth, oci_client::RegistryOperation::Pull).await.map_err(failed)?;
        let (bytes, _) =
            client.pull_manifest_raw(&reference.to_oci(), &auth, MANIFEST_TYPES).await.map_err(failed)?;
        if bytes.len() as u64 > LARGEST_DOCUMENT {
            return Err(PullError::Malformed {
                reference: self.boxed(),
                problem: format!("manifest has {} bytes, more than {LARGEST_DOCUMENT}", bytes.len()),
            });
        }
        Ok(bytes.to_vec())
    }

    /// The digest of what the reference names, compared with the one it asks for.
    fn check_pin(&self, bytes: &[u8]) -> Result<Digest, PullError> {
        match self.reference.digest() {
            Some(expected) => verify(&self.reference, *expected, bytes).map(|()| *expected),
            None => Ok(Digest::of(bytes)),
        }
    }

    fn index(&self, bytes: &[u8]) -> Result<Option<ImageIndex>, PullError> {
        let malformed = |e: serde_json::Error| PullError::Malformed {
            reference: self.boxed(),
            problem: format!("manifest: {e}"),
        };
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        if value.get("manifests").is_none() {
            return Ok(None);
        }
        serde_json::from_value(value).map(Some).map_err(malformed)
    }

    async fn fetch_content(
        &self,
        client: &Client,
        digest: &Digest,
        manifest: &ImageManifest,
    ) -> Result<(), PullError> {
        let config_digest = self.fetch(client, manifest.config(), LARGEST_DOCUMENT).await?;
        let config = self.store.content().read(&config_digest, LARGEST_DOCUMENT);
        let config = config.map_err(|e| PullError::Store { reference: self.boxed(), source: e.into() })?;
        let config: ImageConfiguration =
            serde_json::from_slice(&config).map_err(|e| PullError::Malformed {
                reference: self.boxed(),
                problem: format!("image configuration {config_digest}: {e}"),
            })?;
        // Says so before gigabytes have come if the layers cannot be used.
        layers_of(digest, manifest, &config).map_err(|e| self.malformed(e))?;
        let mut waiting = manifest.layers().iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < PARALLEL_LAYERS
                && let Some(layer) = waiting.next()
            {
                running.push(self.fetch(client, layer, u64::MAX));
            }
            match running.next().await {
                None => return Ok(()),
                Some(result) => _ = result?,
            }
        }
    }

    async fn fetch(&self, client: &Client, blob: &Descriptor, limit: u64) -> Result<Digest, PullError> {
        let digest = digest_of(blob, "blob").map_err(|e| self.malformed(e))?;
        let size = blob.size();
        if size > limit {
            let problem = format!("blob {digest} has {size} bytes, more than {limit}");
            return Err(PullError::Malformed { reference: self.boxed(), problem });
        }
        let lock = self.store.downloads().lock(digest);
        let guard = lock.lock().await;
        let result = if self.store.content().contains(&digest, size) {
            Ok(())
        } else {
            client::download(&self.store, client, &self.reference, digest, size).await
        };
        drop(guard);
        self.store.downloads().done(digest);
        result.map(|()| digest)
    }

    fn boxed(&self) -> Box<Reference> {
        Box::new(self.reference.clone())
    }

    fn malformed(&self, e: LoadError) -> PullError {
        PullError::Malformed { reference: self.boxed(), problem: e.to_string() }
    }
}

fn verify(reference: &Reference, expected: Digest, bytes: &[u8]) -> Result<(), PullError> {
    let actual = Digest::of(bytes);
    if actual == expected {
        return Ok(());
    }
    Err(PullError::Digest { reference: Box::new(reference.clone()), what: "manifest", expected, actual })
}

/// Runs what waits for the disk where it may wait.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
