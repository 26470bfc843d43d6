//! Images for containers: what is there, what must be pulled, and the patience with what cannot be.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use image::{Image, ImageStore, PullError, PullOptions, Reference};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::NodeError;
use crate::keyring::{Key, Keyring};
use crate::pulls::Pulls;
use crate::settings::KubeletSettings;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(300);

/// Gets images; remembers failures so that a registry is not asked too often.
#[derive(Clone)]
pub(crate) struct Images {
    store: ImageStore,
    /// By pod and image: another pod may have better keys.
    failed: Arc<Mutex<HashMap<(String, String), Failure>>>,
    pulls: Arc<Pulls>,
    /// So many are pulled at once.
    turns: Option<Arc<Semaphore>>,
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
    pub(crate) fn new(store: ImageStore, settings: &KubeletSettings, data_dir: &Path) -> Self {
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

    pub(crate) fn store(&self) -> &ImageStore {
        &self.store
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
        let here = self.store.resolve(name);
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
        match self.pull_with(reference, ring.keys(reference), always_ask).await {
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
        reference: &Reference,
        keys: Vec<Key>,
        always_ask: bool,
    ) -> Result<(Image, Option<Key>), PullError> {
        let mut keys = keys.into_iter();
        let mut key = keys.next();
        loop {
            let auth = key.as_ref().map(|key| key.auth.clone());
            let options = PullOptions { always_ask, ..PullOptions::default() };
            match self.store.pull(reference, auth, options).await {
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
