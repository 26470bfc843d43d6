//! What people are told.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use client::{EventKind, Key, reference};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::State;

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saying {
    pub(super) kind: EventKind,
    pub(super) reason: &'static str,
    pub(super) message: Cow<'static, str>,
}

const fn warning(reason: &'static str, message: &'static str) -> Saying {
    Saying { kind: EventKind::Warning, reason, message: Cow::Borrowed(message) }
}

const fn normal(reason: &'static str, message: &'static str) -> Saying {
    Saying { kind: EventKind::Normal, reason, message: Cow::Borrowed(message) }
}

pub(super) const LOST_REFERENCE: Saying =
    warning("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
pub(super) const LOST_VOLUME: Saying =
    warning("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
pub(super) const MISBOUND: Saying =
    warning("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly");
pub(super) const NOTHING_AVAILABLE: Saying =
    normal("FailedBinding", "no persistent volumes available for this claim and no storage class is set");
/// Nothing here can empty a volume.
pub(super) const NO_RECYCLER: Saying =
    warning("VolumeFailedRecycle", "No recycler plugin found for the volume!");

pub(super) fn misfit(volume: &str, why: &str) -> Saying {
    let message = format!("Cannot bind to requested volume {volume:?}: {why}").into();
    Saying { message, ..warning("VolumeMismatch", "") }
}

pub(super) fn taken(volume: &str) -> Saying {
    let message = format!("volume {volume:?} already bound to a different claim.").into();
    Saying { message, ..warning("FailedBinding", "") }
}

pub(super) fn no_class(class: &str) -> Saying {
    let message = format!("storageclass.storage.k8s.io {class:?} not found").into();
    Saying { message, ..warning("ProvisioningFailed", "") }
}

pub(super) fn no_plugin(provisioner: &str) -> Saying {
    let message = format!("no volume plugin matched name: {provisioner}").into();
    Saying { message, ..warning("ProvisioningFailed", "") }
}

pub(super) fn no_deleter(volume: &str) -> Saying {
    let message = format!(
        "error getting deleter volume plugin for volume {volume:?}: no deletable volume plugin matched"
    );
    Saying { message: message.into(), ..warning("VolumeFailedDelete", "") }
}

pub(super) fn unknown_policy() -> Saying {
    warning("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy")
}

pub(super) fn waiting_for(provisioner: &str) -> Saying {
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    Saying { message: message.into(), ..normal("ExternalProvisioning", "") }
}

/// A claim waits for its first pod, or for that one's node.
pub(super) fn delayed(pods: &[String]) -> Saying {
    let message = match pods {
        [] => {
            return normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding");
        }
        [pod] => format!("waiting for pod {pod} to be scheduled"),
        pods => format!("waiting for pods {} to be scheduled", pods.join(",")),
    };
    Saying { message: message.into(), ..normal("WaitForPodScheduled", "") }
}

/// What was said of each claim last, and when.
pub(super) struct Said {
    all: Mutex<HashMap<Key, (Saying, Instant)>>,
    /// After so long the same is said again. Upstream looks at everything as often.
    again: Duration,
}

impl Said {
    pub(super) fn new(again: Duration) -> Self {
        Self { all: Mutex::default(), again }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.all.lock().remove(key);
    }

    /// Whether it is worth saying: many changes make us look, and few have anything to do with it.
    fn is_news(&self, key: Key, saying: &Saying) -> bool {
        let mut all = self.all.lock();
        let news = all.get(&key).is_none_or(|(last, at)| last != saying || at.elapsed() >= self.again);
        if news {
            all.insert(key, (saying.clone(), Instant::now()));
        }
        news
    }
}

impl State {
    pub(super) fn say(&self, claim: &PersistentVolumeClaim, saying: Saying) {
        if self.said.is_news(Key::of(claim), &saying) {
            self.recorder.say(reference(claim), saying.kind, saying.reason, saying.message);
        }
    }

    pub(super) fn say_of_volume(&self, volume: &PersistentVolume, saying: Saying) {
        self.recorder.say(reference(volume), saying.kind, saying.reason, saying.message);
    }

    pub(super) fn say_mismatch(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let (volume_name, claim_name) = (name(&volume.metadata.name), name(&claim.metadata.name));
        let of_volume = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim_name:?} due to incompatible \
             volumeMode."
        );
        let of_claim = format!(
            "Cannot bind PersistentVolume {volume_name:?} to requested PersistentVolumeClaim due to incompatible \
             volumeMode."
        );
        self.say_of_volume(volume, Saying { message: of_volume.into(), ..warning("VolumeMismatch", "") });
        self.say(claim, Saying { message: of_claim.into(), ..warning("VolumeMismatch", "") });
    }
}
