use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Answers that hold for a while, by what was asked.
pub(crate) struct Answers<T>(Mutex<HashMap<String, (Instant, T)>>);

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Beyond so many, the oldest questions are forgotten (all that have ended, or else everything).
const MOST: usize = 8192;
/// Longer questions are asked each time.
const MOST_BYTES: usize = 10_000;

impl<T: Clone> Answers<T> {
    pub(crate) fn get(&self, question: &str) -> Option<T> {
        let known = self.0.lock();
        known.get(question).filter(|(end, _)| *end > Instant::now()).map(|(_, answer)| answer.clone())
    }

    pub(crate) fn put(&self, question: String, answer: T, hold: Duration) {
        if hold.is_zero() || question.len() > MOST_BYTES {
            return;
        }
        let mut known = self.0.lock();
        if known.len() >= MOST {
            let now = Instant::now();
            known.retain(|_, (end, _)| *end > now);
            if known.len() >= MOST {
                known.clear();
            }
        }
        known.insert(question, (Instant::now() + hold, answer));
    }
}
