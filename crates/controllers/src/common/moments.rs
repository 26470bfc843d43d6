//! How much time has passed since moments that objects name, whatever is done to the clock meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A moment that nobody has asked for in so long is forgotten.
const KEPT: Duration = Duration::from_secs(3600);

/// Moments that somebody waits on. The wall clock tells how long ago one was when it is first asked for; from then on
/// only time that really passes counts. So a clock that is set back makes nobody wait until it comes to the same time
/// again, and one that is set forward ends nobody's time early.
#[derive(Default)]
pub(crate) struct Moments(Mutex<HashMap<Timestamp, Seen>>);

struct Seen {
    /// What had passed when it was first asked for.
    passed: Duration,
    at: Instant,
    asked: Instant,
}

impl Moments {
    /// How long ago `moment` is, if the clock shows `now`.
    pub(crate) fn passed(&self, moment: Timestamp, now: Timestamp) -> Duration {
        let (mut seen, at) = (self.0.lock(), Instant::now());
        if !seen.contains_key(&moment) {
            seen.retain(|_, seen| at.duration_since(seen.asked) < KEPT);
        }
        let passed = || Duration::try_from(now.duration_since(moment)).unwrap_or_default();
        let of = seen.entry(moment).or_insert_with(|| Seen { passed: passed(), at, asked: at });
        of.asked = at;
        of.passed + at.duration_since(of.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_that_passes_counts() {
        let (moments, second) = (Moments::default(), Duration::from_secs(1));
        assert_eq!(moments.passed(at(-5), at(0)), 5 * second);
        tokio::time::advance(10 * second).await;
        for shown in [10, -3600, 3600] {
            assert_eq!(moments.passed(at(-5), at(shown)), 15 * second, "{shown}");
        }
        // A moment in the future has not passed at all.
        assert_eq!(moments.passed(at(100), at(0)), Duration::ZERO);
        tokio::time::advance(KEPT).await;
        moments.passed(at(1), at(1));
        assert_eq!(moments.0.lock().len(), 1);
    }
}
