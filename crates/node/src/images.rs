//! Images for containers: what is there, what must be pulled, and the patience with what cannot be.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use image::{Image, ImageStore, PullOptions, Reference, StoreError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::cri::Cri;
use crate::engine::{Engine, EngineError};
use crate::error::NodeError;
use crate::keyring::{Key, Keyring};
use crate::pulls::Pulls;
use crate::settings::KubeletSettings;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(300);

/// Gets images; remembers failures so that a registry is not asked too often.
#[derive(Clone)]
pub(crate) struct Images {
    store: Store,
    /// By pod and image: another pod may have better keys.
    failed: Arc<Mutex<HashMap<(String, String), Failure>>>,
    pulls: Arc<Pulls>,
    /// So many are pulled at once.
    turns: Option<Arc<Semaphore>>,
}

/// Whose images they are.
#[derive(Clone)]
enum Store {
    BuiltIn(ImageStore),
    Cri(Cri),
}

/// What somebody asks for.
pub(crate) struct Ask<'a> {
    /// The pod's UID.
    pub(crate) uid: &'a str,
    pub(crate) name: &'a str,
    /// `Always`, `IfNotPresent` or `Never`.
    pub(crate) policy: &'a str,
}

struct Failure {
    backoff: Backoff,
    until: Instant,
    message: String,
}

/// An image that is there, and whether it had to be fetched.
pub(crate) struct Found {
    pub(crate) image: Image,
    pub(crate) pulled: bool,
}

impl Images {
    pub(crate) fn new(engine: &Engine, settings: &KubeletSettings, data_dir: &Path) -> Self {
        let store = match engine {
            Engine::BuiltIn(own) => Store::BuiltIn(own.images.clone()),
            Engine::Cri(cri) => Store::Cri(cri.clone()),
        };
        let policy = settings.image_pull_credentials_verification_policy;
        let listed = settings.preloaded_images_verification_allowlist.clone();
        let at_once =
            if settings.serialize_image_pulls { Some(1) } else { settings.max_parallel_image_pulls };
        Self {
            store,
            failed: Arc::default(),
            pulls: Arc::new(Pulls::new(data_dir, policy, listed)),
            turns: at_once.map(|most| Arc::new(Semaphore::new(most.max(1)))),
        }
    }

    /// A pod that is gone asks for nothing any more.
    pub(crate) fn forget(&self, uid: &str) {
        self.failed.lock().retain(|(pod, _), _| pod != uid);
    }

    /// An image that is here.
    async fn here(&self, name: &str) -> Result<Option<Image>, NodeError> {
        match &self.store {
            Store::BuiltIn(store) => Ok(store.resolve(name)),
            Store::Cri(cri) => cri.image(name).await.map_err(|error| NodeError::Image {
                reason: "ImageInspectError",
                message: format!("Failed to inspect image {name:?}: {error}"),
            }),
        }
    }

    /// The unpacked layers of an image, which stay as long as `owner` does. Another runtime unpacks by itself.
    pub(crate) async fn layers(&self, image: &Image, owner: &str) -> Result<Vec<PathBuf>, String> {
        let Store::BuiltIn(store) = &self.store else { return Ok(Vec::new()) };
        let (store, image, owner) = (store.clone(), image.clone(), owner.to_owned());
        let unpacked = tokio::task::spawn_blocking(move || {
            store.hold(&image, &owner)?;
            store.layer_dirs(&image)
        });
        unpacked.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    /// An owner is gone.
    pub(crate) fn release(&self, owner: &str) -> Result<(), StoreError> {
        match &self.store {
            Store::BuiltIn(store) => store.release(owner),
            Store::Cri(_) => Ok(()),
        }
    }

    /// All images, and which of them are what these containers call theirs.
    pub(crate) async fn list(
        &self,
        named: HashSet<String>,
    ) -> Result<(Vec<Image>, HashSet<String>), NodeError> {
        match &self.store {
            Store::BuiltIn(store) => {
                let listing = store.clone();
                let images = tokio::task::spawn_blocking(move || listing.list()).await.unwrap_or_default();
                let used = named.iter().filter_map(|name| Some(store.resolve(name)?.id.to_string()));
                Ok((images, used.collect()))
            }
            Store::Cri(cri) => {
                let (images, used) =
                    futures::try_join!(cri.list_images(), cri.images_in_use()).map_err(EngineError::from)?;
                let is_used = |image: &&Image| {
                    let id = image.id.to_string();
                    let mut called = image.names.iter().chain(&image.digests).chain([&id]);
                    called.any(|name| used.contains(name)) || used.contains(&image.id.hex())
                };
                let used = images.iter().filter(is_used).map(|image| image.id.to_string()).collect();
                Ok((images, used))
            }
        }
    }

    /// Removes images with all their names; gives those that are gone.
    pub(crate) async fn remove(&self, ids: Vec<String>) -> Vec<String> {
        let failed = |id: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(image = id, %error, "cannot remove an image");
        };
        match &self.store {
            Store::BuiltIn(store) => {
                let store = store.clone();
                let removed = tokio::task::spawn_blocking(move || {
                    let remove = |id: &String| store.remove(id).inspect_err(|e| failed(id, e)).is_ok();
                    let gone: Vec<String> = ids.into_iter().filter(remove).collect();
                    // Somebody who pulls at this moment has the next turn cleaned up for him.
                    if let Err(error) = store.gc() {
                        tracing::info!(%error, "the content of removed images stays for now");
                    }
                    gone
                });
                removed.await.unwrap_or_default()
            }
            Store::Cri(cri) => {
                let mut gone = Vec::new();
                for id in ids {
                    match cri.remove_image(&id).await {
                        Ok(()) => gone.push(id),
                        Err(error) => failed(&id, &error),
                    }
                }
                gone
            }
        }
    }

    /// Where images lie, if not with everything else of the node's.
    pub(crate) async fn folder(&self) -> Option<PathBuf> {
        match &self.store {
            Store::BuiltIn(_) => None,
            Store::Cri(cri) => cri.image_folder().await,
        }
    }

    /// An image, pulled if the policy and what is there demand it. `keys` is asked for credentials if they matter,
    /// `pulling` is called before a pull.
    pub(crate) async fn get<F>(
        &self,
        ask: Ask<'_>,
        keys: impl FnOnce() -> F,
        pulling: impl FnOnce(),
    ) -> Result<Found, NodeError>
    where
        F: Future<Output = Keyring>,
    {
        let Ask { name, policy, .. } = ask;
        let reference: Reference = name.parse().map_err(|e| NodeError::Image {
            reason: "InvalidImageName",
            message: format!(
                "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {e}"
            ),
        })?;
        let here = self.here(name).await?;
        let asks = |image: &Image| policy != "Always" && self.pulls.asks(&reference, image);
        let mut keys = Some(keys);
        let (mut ring, mut withheld) = (None, false);
        if let Some(image) = here.as_ref().filter(|image| asks(image))
            && let Some(keys) = keys.take()
        {
            let own = keys().await;
            // Then it is as if it were not here: a pull shows whether the pod may have it.
            withheld = !self.pulls.allows(&reference, image, &own);
            ring = Some(own);
        }
        match (policy, here) {
            ("Never" | "IfNotPresent", Some(image)) if !withheld => Ok(Found { image, pulled: false }),
            ("Never", _) => Err(NodeError::Image {
                reason: "ErrImageNeverPull",
                message: format!("Container image {name:?} is not present with pull policy of Never"),
            }),
            (_, here) => {
                self.wait_after_failure(&ask)?;
                let ring = match (ring, keys) {
                    (Some(ring), _) => ring,
                    (None, Some(keys)) => keys().await,
                    (None, None) => Keyring::default(),
                };
                pulling();
                match self.pull(&ask, &reference, &ring, withheld).await {
                    Ok(image) => Ok(Found { image, pulled: true }),
                    // An image that was built or imported here has no registry to ask: what is there is the newest.
                    Err(error) => match here.filter(|image| self.pulls.is_preloaded(image)) {
                        Some(image) => Ok(Found { image, pulled: false }),
                        None => Err(error),
                    },
                }
            }
        }
    }

    fn wait_after_failure(&self, ask: &Ask<'_>) -> Result<(), NodeError> {
        let failed = self.failed.lock();
        match failed.get(&key(ask)).filter(|f| f.until > Instant::now()) {
            None => Ok(()),
            Some(failure) => Err(NodeError::Image {
                reason: "ImagePullBackOff",
                message: format!("Back-off pulling image {:?}: ErrImagePull: {}", ask.name, failure.message),
            }),
        }
    }

    /// `always_ask`: what is here may be withheld from this pod, so that only the registry can allow it.
    async fn pull(
        &self,
        ask: &Ask<'_>,
        reference: &Reference,
        ring: &Keyring,
        always_ask: bool,
    ) -> Result<Image, NodeError> {
        // Nobody closes it.
        let _turn = match &self.turns {
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        match self.pull_with(ask.name, reference, ring.keys(reference), always_ask).await {
            Ok((image, with)) => {
                self.failed.lock().remove(&key(ask));
                self.pulls.pulled(reference, &image, with.as_ref());
                Ok(image)
            }
            Err(error) => {
                let message = format!("failed to pull image {:?}: {error}", ask.name);
                let mut failed = self.failed.lock();
                let failure = failed.entry(key(ask)).or_insert_with(|| Failure {
                    backoff: Backoff::new(FIRST, MOST),
                    until: Instant::now(),
                    message: String::new(),
                });
                failure.until = Instant::now() + failure.backoff.fail();
                failure.message.clone_from(&message);
                Err(NodeError::Image { reason: "ErrImagePull", message })
            }
        }
    }

    /// Tries one key after the other; nobody in particular if there is none. Gives the one that was good.
    async fn pull_with(
        &self,
        name: &str,
        reference: &Reference,
        keys: Vec<Key>,
        always_ask: bool,
    ) -> Result<(Image, Option<Key>), String> {
        let mut keys = keys.into_iter();
        let mut key = keys.next();
        loop {
            let auth = key.as_ref().map(|key| key.auth.clone());
            let pulled = match &self.store {
                Store::BuiltIn(store) => {
                    let options = PullOptions { always_ask, ..PullOptions::default() };
                    store.pull(reference, auth, options).await.map_err(|e| e.to_string())
                }
                Store::Cri(cri) => cri.pull(name, auth.as_ref()).await.map_err(|e| e.to_string()),
            };
            match pulled {
                Ok(image) => return Ok((image, key)),
                Err(error) => match keys.next() {
                    Some(next) => key = Some(next),
                    None => return Err(error),
                },
            }
        }
    }
}

fn key(ask: &Ask<'_>) -> (String, String) {
    (ask.uid.to_owned(), ask.name.to_owned())
}
