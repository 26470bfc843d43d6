use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// Knows which named parts are not ready yet.
///
/// A part takes a token before it starts and drops it when it is ready; a token lost with a dead task counts
/// as ready, so a part that fails must also fail the process.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<BTreeSet<String>>>);

/// Held by a part that is not ready yet; dropped when it is.
#[derive(Debug)]
#[must_use = "dropping the token says that the part is ready"]
pub struct ReadinessToken {
    name: String,
    waiting: Arc<watch::Sender<BTreeSet<String>>>,
}

impl Readiness {
    /// Nothing to wait for yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }

    /// Takes a token for the part `name`.
    pub fn token(&self, name: &str) -> ReadinessToken {
        self.0.send_modify(|waiting| {
            waiting.insert(name.to_owned());
        });
        ReadinessToken { name: name.to_owned(), waiting: self.0.clone() }
    }

    /// The parts that are not ready, in alphabetical order.
    pub fn waiting(&self) -> Vec<String> {
        self.0.borrow().iter().cloned().collect()
    }

    /// Resolves when no token is held.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(BTreeSet::is_empty).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ReadinessToken {
    fn drop(&mut self) {
        self.waiting.send_modify(|waiting| {
            waiting.remove(&self.name);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_token_is_dropped() {
        let readiness = Readiness::new();
        let (store, api) = (readiness.token("store"), readiness.token("api"));
        assert_eq!(readiness.waiting(), ["api", "store"]);
        drop(store);
        assert_eq!(readiness.waiting(), ["api"]);
        drop(api);
        readiness.ready().await;
    }
}
