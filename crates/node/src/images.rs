//! Images for containers: what is there, what must be pulled, and the patience with what cannot be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use image::{Auth, Image, ImageStore, PullError, PullOptions, Reference};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::NodeError;
use crate::keyring::Keyring;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(300);

/// Gets images; remembers failures so that a registry is not asked too often.
#[derive(Clone)]
pub(crate) struct Images {
    store: ImageStore,
    failed: Arc<Mutex<HashMap<String, Failure>>>,
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
    pub(crate) fn new(store: ImageStore) -> Self {
        Self { store, failed: Arc::default() }
    }

    pub(crate) fn store(&self) -> &ImageStore {
        &self.store
    }

    /// The image called `name`, pulled if `policy` and what is there demand it; `keys` is asked for credentials then.
    pub(crate) async fn get<F>(
        &self,
        name: &str,
        policy: &str,
        keys: impl FnOnce() -> F,
    ) -> Result<Found, NodeError>
    where
        F: Future<Output = Keyring>,
    {
        let reference: Reference = name.parse().map_err(|e| NodeError::Image {
            reason: "InvalidImageName",
            message: format!(
                "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {e}"
            ),
        })?;
        let here = self.store.resolve(name);
        match (policy, here) {
            ("Never", None) => Err(NodeError::Image {
                reason: "ErrImageNeverPull",
                message: format!("Container image {name:?} is not present with pull policy of Never"),
            }),
            ("Never" | "IfNotPresent", Some(image)) => Ok(Found { image, pulled: false }),
            (_, here) => match self.pull(name, &reference, keys).await {
                Ok(image) => Ok(Found { image, pulled: true }),
                // An image that was built or imported here has no registry to ask: what is there is the newest.
                Err(error) => here.map(|image| Found { image, pulled: false }).ok_or(error),
            },
        }
    }

    async fn pull<F>(
        &self,
        name: &str,
        reference: &Reference,
        keys: impl FnOnce() -> F,
    ) -> Result<Image, NodeError>
    where
        F: Future<Output = Keyring>,
    {
        if let Some(failure) = self.failed.lock().get(name).filter(|f| f.until > Instant::now()) {
            return Err(NodeError::Image {
                reason: "ImagePullBackOff",
                message: format!("Back-off pulling image {name:?}: ErrImagePull: {}", failure.message),
            });
        }
        match self.pull_with(reference, keys().await.lookup(reference)).await {
            Ok(image) => {
                self.failed.lock().remove(name);
                Ok(image)
            }
            Err(error) => {
                let message = format!("failed to pull image {name:?}: {error}");
                let mut failed = self.failed.lock();
                let failure = failed.entry(name.to_owned()).or_insert_with(|| Failure {
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

    /// Tries one credential after the other; nobody in particular if there is none.
    async fn pull_with(&self, reference: &Reference, auths: Vec<Auth>) -> Result<Image, PullError> {
        let mut auths = auths.into_iter();
        let mut outcome = self.store.pull(reference, auths.next(), PullOptions::default()).await;
        for auth in auths {
            if outcome.is_ok() {
                break;
            }
            outcome = self.store.pull(reference, Some(auth), PullOptions::default()).await;
        }
        outcome
    }
}
