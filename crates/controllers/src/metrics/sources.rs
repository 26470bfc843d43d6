use std::collections::BTreeMap;
use std::sync::Arc;

use base::Drain;
use base::metrics::Page;
use parking_lot::Mutex;

/// Caches that are looked at when somebody asks. In one process there may be several, in tests at least.
pub(super) struct Sources<T: Send + Sync + 'static>(Mutex<Vec<Arc<T>>>);

impl<T: Send + Sync + 'static> Sources<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One more, until the drain starts.
    pub(super) fn add(&'static self, drain: &Drain, source: T) {
        let source = Arc::new(source);
        self.0.lock().push(source.clone());
        let end = drain.clone();
        drain.spawn(async move {
            end.started().await;
            self.0.lock().retain(|known| !Arc::ptr_eq(known, &source));
        });
    }

    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.0.lock().clone()
    }
}

/// How many there are, by their labels.
pub(super) type Tally = BTreeMap<String, u64>;

pub(super) fn tally(page: &mut Page, name: &str, help: &str, all: &Tally) {
    page.family(name, "gauge", help);
    all.iter().for_each(|(labels, count)| page.sample(labels, *count as f64));
}
