use std::collections::HashMap;
use std::sync::Arc;

use client::Key;
use kube::Resource;
use parking_lot::Mutex;

/// Objects as we wrote them last, until the cache has them: to decide by an old status would be to do once more what was
/// done already.
pub(crate) struct Written<K>(Mutex<HashMap<Key, Arc<K>>>);

impl<K> Default for Written<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource> Written<K> {
    pub(crate) fn note(&self, key: &Key, object: Arc<K>) {
        self.0.lock().insert(key.clone(), object);
    }

    /// The newer one of what the cache shows and what we wrote.
    pub(crate) fn newest(&self, key: &Key, cached: Arc<K>) -> Arc<K> {
        let mut all = self.0.lock();
        let Some(written) = all.get(key) else { return cached };
        if written.meta().uid == cached.meta().uid && revision(&**written) > revision(&*cached) {
            return written.clone();
        }
        all.remove(key);
        cached
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

fn revision(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::json;

    #[test]
    fn what_was_written_counts_until_the_cache_has_it() {
        let job = |uid: &str, revision: &str| -> Arc<Job> {
            Arc::new(testkit::object(json!({"metadata": {"uid": uid, "resourceVersion": revision}})))
        };
        let (written, key) = (Written::default(), Key::new("n", "a"));
        let newest =
            |uid, revision| written.newest(&key, job(uid, revision)).metadata.resource_version.clone();
        written.note(&key, job("a", "10"));
        assert_eq!(newest("a", "9").as_deref(), Some("10"));
        assert_eq!(newest("a", "11").as_deref(), Some("11"));
        assert_eq!(newest("a", "9").as_deref(), Some("9"));
        written.note(&key, job("a", "10"));
        assert_eq!(newest("b", "9").as_deref(), Some("9"), "another job of the same name");
    }
}
