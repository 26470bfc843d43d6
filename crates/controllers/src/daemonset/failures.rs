use std::collections::HashMap;
use std::time::Duration;

use base::Backoff;
use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(15 * 60);

/// How soon a pod that failed is replaced: a node that rejects a set's pods would do so for ever (kubernetes/kubernetes,
/// `pkg/controller/daemon/daemon_controller.go`, `failedPodsBackoff`).
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<Place, Failed>>);

/// A set's UID, its generation, and a node.
pub(super) type Place = (String, i64, String);

struct Failed {
    backoff: Backoff,
    delay: Duration,
    last: Instant,
}

impl Failures {
    /// Whether a pod that failed there may be deleted now, which counts; else how long that must wait.
    pub(super) fn admit(&self, place: Place) -> Result<(), Duration> {
        let now = Instant::now();
        let mut all = self.0.lock();
        all.retain(|_, failed| now - failed.last < MOST * 2);
        if let Some(failed) = all.get(&place) {
            let left = (failed.last + failed.delay).saturating_duration_since(now);
            if !left.is_zero() {
                return Err(left);
            }
        }
        let failed = all.entry(place).or_insert_with(|| Failed {
            backoff: Backoff::new(FIRST, MOST),
            delay: Duration::ZERO,
            last: now,
        });
        failed.delay = failed.backoff.fail();
        failed.last = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_more_fail_the_longer_the_wait() {
        let failures = Failures::default();
        let admit = |node: &str| failures.admit(("u".into(), 1, node.into()));
        assert_eq!(admit("a"), Ok(()));
        assert_eq!((admit("a"), admit("b")), (Err(Duration::from_secs(1)), Ok(())));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(admit("a"), Ok(()));
        assert_eq!(admit("a"), Err(Duration::from_secs(2)));
        tokio::time::advance(MOST * 2).await;
        assert_eq!(admit("a"), Ok(()));
        assert_eq!(admit("a"), Err(Duration::from_secs(1)));
    }
}
