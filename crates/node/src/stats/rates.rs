//! How fast CPU time goes by, out of two looks at how much there was.

use std::collections::HashMap;

use base::Timestamp;

/// Two looks that are nearer to each other say too little.
const LEAST_NS: i128 = 5_000_000_000;

/// One look: when, and how many nanoseconds of CPU time each had used.
#[derive(Clone, Debug, Default)]
struct Look {
    at: Option<Timestamp>,
    used: HashMap<String, u64>,
}

/// The last two looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    before: Look,
    last: Look,
}

impl Rates {
    /// Takes note of a look.
    pub(super) fn note(&mut self, at: Timestamp, used: HashMap<String, u64>) {
        let far = |from: &Look| from.at.is_none_or(|from| at.duration_since(from).as_nanos() >= LEAST_NS);
        let look = Look { at: Some(at), used };
        // The older one stays until the newer one is far enough from what comes.
        if far(&self.last) {
            self.before = std::mem::replace(&mut self.last, look);
        }
    }

    /// Nanoseconds of CPU time in each second, for somebody who has used so much by now.
    pub(super) fn of(&self, id: &str, now: Timestamp, used: u64) -> Option<u64> {
        [&self.last, &self.before].into_iter().find_map(|look| {
            let elapsed = now.duration_since(look.at?).as_nanos();
            if elapsed < LEAST_NS {
                return None;
            }
            let more = used.checked_sub(*look.used.get(id)?)?;
            u64::try_from(i128::from(more) * 1_000_000_000 / elapsed).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn used(ns: u64) -> HashMap<String, u64> {
        [("a".to_owned(), ns)].into()
    }

    #[test]
    fn over_the_time_between_two_looks() {
        let mut rates = Rates::default();
        assert_eq!(rates.of("a", at(0), 0), None);
        rates.note(at(0), used(1_000_000_000));
        assert_eq!(rates.of("a", at(1), 2_000_000_000), None);
        assert_eq!(rates.of("a", at(10), 6_000_000_000), Some(500_000_000));
        assert_eq!(rates.of("b", at(10), 6_000_000_000), None);
        rates.note(at(10), used(6_000_000_000));
        // One moment later the longer look counts.
        assert_eq!(rates.of("a", at(11), 6_500_000_000), Some(500_000_000));
        // Looks that are near to each other do not push the useful ones out.
        rates.note(at(11), used(6_500_000_000));
        rates.note(at(12), used(7_000_000_000));
        assert_eq!(rates.of("a", at(16), 9_000_000_000), Some(500_000_000));
        // Who began anew has no rate.
        assert_eq!(rates.of("a", at(20), 10), None);
    }
}
