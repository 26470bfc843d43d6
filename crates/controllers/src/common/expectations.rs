use std::collections::{HashMap, HashSet};
use std::time::Duration;

use client::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this long, what was expected is taken to have been missed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What an owner has done to its pods and the cache has not shown yet: while something is missing, counting pods
/// would be wrong, so nothing is created or deleted (kubernetes/kubernetes, `pkg/controller/controller_utils.go`,
/// `UIDTrackingControllerExpectations`).
#[derive(Default)]
pub(crate) struct Expectations(Mutex<HashMap<Key, Expected>>);

struct Expected {
    creations: usize,
    /// UIDs.
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether the cache shows everything that was done.
    pub(crate) fn are_met(&self, owner: &Key) -> bool {
        let mut expected = self.0.lock();
        let Some(e) = expected.get(owner) else { return true };
        let met = (e.creations == 0 && e.deletions.is_empty()) || e.since.elapsed() > PATIENCE;
        if met {
            expected.remove(owner);
        }
        met
    }

    /// So many pods are about to be created, and these deleted.
    pub(crate) fn expect(&self, owner: &Key, creations: usize, deletions: impl Iterator<Item = String>) {
        let expected = Expected { creations, deletions: deletions.collect(), since: Instant::now() };
        self.0.lock().insert(owner.clone(), expected);
    }

    /// A pod came, or will not.
    pub(crate) fn created(&self, owner: &Key) {
        if let Some(e) = self.0.lock().get_mut(owner) {
            e.creations = e.creations.saturating_sub(1);
        }
    }

    /// A pod is going, or stays after all.
    pub(crate) fn deleted(&self, owner: &Key, uid: &str) {
        if let Some(e) = self.0.lock().get_mut(owner) {
            e.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.0.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn are_met_when_all_was_seen_or_after_a_long_time() {
        let (expectations, key) = (Expectations::default(), Key::new("n", "x"));
        assert!(expectations.are_met(&key));
        expectations.expect(&key, 2, ["u".to_owned()].into_iter());
        expectations.created(&key);
        expectations.created(&key);
        assert!(!expectations.are_met(&key));
        expectations.deleted(&key, "other");
        assert!(!expectations.are_met(&key));
        expectations.deleted(&key, "u");
        assert!(expectations.are_met(&key));
        expectations.expect(&key, 1, std::iter::empty());
        tokio::time::advance(PATIENCE * 2).await;
        assert!(expectations.are_met(&key));
    }
}
