//! Changes that are gathered before something is written.

use std::collections::HashMap;
use std::time::Duration;

use client::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Since when something is to be written for whom.
pub(super) struct Batch {
    period: Duration,
    begun: Mutex<HashMap<Key, Instant>>,
}

impl Batch {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, begun: Mutex::default() }
    }

    /// Nothing is to be written any more.
    pub(super) fn forget(&self, key: &Key) {
        self.begun.lock().remove(key);
    }

    /// Something is to be written: how long that still waits for more; none if it does not.
    pub(super) fn left(&self, key: &Key) -> Option<Duration> {
        if self.period.is_zero() {
            return None;
        }
        let mut begun = self.begun.lock();
        let since = *begun.entry(key.clone()).or_insert_with(Instant::now);
        Some(self.period.saturating_sub(since.elapsed())).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_change_begins_a_time_that_later_ones_do_not_lengthen() {
        let (batch, key) = (Batch::new(Duration::from_secs(4)), Key::new("n", "a"));
        assert_eq!(batch.left(&key), Some(Duration::from_secs(4)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(batch.left(&key), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(batch.left(&key), None);
        batch.forget(&key);
        assert_eq!(batch.left(&key), Some(Duration::from_secs(4)));
        assert_eq!(Batch::new(Duration::ZERO).left(&key), None);
    }
}
