//! What is remembered from one look to the next. None of it decides what is attached: that is in the API.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::plan::{Want, is_attached};
use crate::common::expectations::PATIENCE;

/// By node, and by attachment.
#[derive(Default)]
pub(super) struct Memory {
    seen: Mutex<HashMap<String, HashMap<String, Seen>>>,
    /// Attachments that were made and that the cache does not show yet, of volumes that only one node may have.
    made: Mutex<HashMap<String, Made>>,
}

#[derive(Default)]
struct Seen {
    /// Since when nobody has needed it.
    unwanted: Option<Instant>,
    /// Since when its driver has had it to attach.
    attaching: Option<Instant>,
    /// What people were told of it.
    told: HashSet<String>,
    deleting: Option<Deleting>,
}

struct Deleting {
    uid: Option<String>,
    /// The server has said that it is.
    sure: bool,
}

struct Made {
    volume: String,
    node: String,
    since: Instant,
}

impl Memory {
    /// Forgets what is over, and notes the time of what begins.
    pub(super) fn refresh(&self, node: &str, wants: &BTreeMap<String, Want>, here: &[Arc<VolumeAttachment>]) {
        let mut nodes = self.seen.lock();
        let seen = nodes.entry(node.to_owned()).or_default();
        let now = Instant::now();
        let there: HashMap<String, &VolumeAttachment> = here.iter().map(|a| (a.name_any(), &**a)).collect();
        seen.retain(|name, _| wants.contains_key(name) || there.contains_key(name));
        for (_, seen) in seen.iter_mut().filter(|(name, _)| !there.contains_key(*name)) {
            (seen.unwanted, seen.attaching, seen.deleting) = (None, None, None);
        }
        for (name, attachment) in there {
            let wanted = wants.contains_key(&name);
            let seen = seen.entry(name).or_default();
            seen.unwanted = (!wanted).then(|| seen.unwanted.unwrap_or(now));
            seen.attaching = (!is_attached(attachment)).then(|| seen.attaching.unwrap_or(now));
            if is_attached(attachment) {
                seen.told.clear();
            }
            if seen.deleting.as_ref().is_some_and(|deleting| deleting.uid != attachment.metadata.uid) {
                seen.deleting = None;
            }
        }
        if seen.is_empty() {
            nodes.remove(node);
        }
    }

    fn with<T>(&self, node: &str, attachment: &str, get: impl FnOnce(&Seen) -> T) -> Option<T> {
        self.seen.lock().get(node)?.get(attachment).map(get)
    }

    fn since(&self, node: &str, attachment: &str, what: impl FnOnce(&Seen) -> Option<Instant>) -> Duration {
        self.with(node, attachment, what).flatten().map(|at| at.elapsed()).unwrap_or_default()
    }

    /// How long nobody has needed an attachment.
    pub(super) fn unwanted(&self, node: &str, attachment: &str) -> Duration {
        self.since(node, attachment, |seen| seen.unwanted)
    }

    /// How long the driver has had an attachment to attach.
    pub(super) fn attaching(&self, node: &str, attachment: &str) -> Duration {
        self.since(node, attachment, |seen| seen.attaching)
    }

    /// Whether people are told something of an attachment for the first time.
    pub(super) fn first(&self, node: &str, attachment: &str, what: String) -> bool {
        let mut nodes = self.seen.lock();
        nodes.entry(node.to_owned()).or_default().entry(attachment.to_owned()).or_default().told.insert(what)
    }

    /// The server is asked to delete an attachment, or has said that it does. From the first on it is not safe to use.
    pub(super) fn deletes(&self, node: &str, attachment: &VolumeAttachment, sure: bool) {
        let uid = attachment.metadata.uid.clone();
        let mut nodes = self.seen.lock();
        let seen = nodes.entry(node.to_owned()).or_default().entry(attachment.name_any()).or_default();
        seen.deleting = Some(Deleting { uid, sure });
    }

    /// Whether an attachment is being deleted, and whether that is sure; none if it is not.
    pub(super) fn is_deleting(&self, node: &str, attachment: &str) -> Option<bool> {
        self.with(node, attachment, |seen| seen.deleting.as_ref().map(|d| d.sure)).flatten()
    }

    /// Notes that an attachment is about to be made, unless another node has the volume: `elsewhere` says so of the cache,
    /// and is asked while nobody else can reserve.
    pub(super) fn reserve(
        &self,
        (node, volume): (&str, &str),
        attachment: &str,
        elsewhere: impl FnOnce() -> bool,
    ) -> bool {
        let mut made = self.made.lock();
        made.retain(|_, made| made.since.elapsed() < PATIENCE);
        if made.values().any(|made| made.volume == volume && made.node != node) || elsewhere() {
            return false;
        }
        let since = Instant::now();
        made.insert(attachment.to_owned(), Made { volume: volume.to_owned(), node: node.to_owned(), since });
        true
    }

    /// The nodes for which a volume was reserved.
    pub(super) fn reserved_by(&self, volume: &str) -> Vec<String> {
        self.made.lock().values().filter(|made| made.volume == volume).map(|made| made.node.clone()).collect()
    }

    /// The cache shows an attachment by now, or it was not made.
    pub(super) fn release(&self, attachment: &str) {
        self.made.lock().remove(attachment);
    }
}
