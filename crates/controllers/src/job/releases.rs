use std::collections::{HashMap, HashSet};

use client::Key;
use parking_lot::Mutex;

/// The pods whose finalizer was taken off and which the cache does not show without it yet: to count by the finalizer
/// would count them twice (kubernetes/kubernetes, `pkg/controller/job/tracking_utils.go`,
/// `uidTrackingExpectations`).
#[derive(Default)]
pub(super) struct Releases(Mutex<HashMap<Key, HashSet<String>>>);

impl Releases {
    /// The UIDs. To be asked for before the pods are looked at.
    pub(super) fn of(&self, job: &Key) -> HashSet<String> {
        self.0.lock().get(job).cloned().unwrap_or_default()
    }

    /// These are about to lose their finalizer.
    pub(super) fn expect(&self, job: &Key, uids: impl Iterator<Item = String>) {
        self.0.lock().entry(job.clone()).or_default().extend(uids);
    }

    /// The pod has none any more, or keeps it after all.
    pub(super) fn seen(&self, job: &Key, uid: &str) {
        let mut all = self.0.lock();
        let Some(expected) = all.get_mut(job) else { return };
        expected.remove(uid);
        if expected.is_empty() {
            all.remove(job);
        }
    }

    /// The job is gone.
    pub(super) fn forget(&self, job: &Key) {
        self.0.lock().remove(job);
    }
}
