//! When a certificate is asked for: pure (`certificate_manager.go`, `nextRotationDeadline`).

use std::time::Duration;

use base::Timestamp;

/// What is to be done about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing for so long.
    Nothing(Duration),
    /// The one that is used speaks for the next.
    Another,
    /// There is none that could speak for anything.
    First,
}

/// After 70 to 90 % of its life another certificate is asked for. `jitter` is between 0 and 1.
pub(super) fn deadline((from, to): (Timestamp, Timestamp), jitter: f64) -> Timestamp {
    let life = to.duration_since(from).as_secs_f64();
    let passed = Duration::try_from_secs_f64(life * (0.7 + 0.2 * jitter.clamp(0.0, 1.0))).unwrap_or_default();
    from.checked_add(passed).unwrap_or(to)
}

/// `good` is when another is to be asked for, and when the one that is used ends.
pub(super) fn need(good: Option<(Timestamp, Timestamp)>, rotate: bool, now: Timestamp) -> Need {
    let Some((deadline, end)) = good else { return Need::First };
    if now >= end {
        return Need::First;
    }
    let until = if rotate { deadline } else { end };
    if now >= until {
        return Need::Another;
    }
    // Rounded up: too early is another round for nothing.
    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    Need::Nothing(wait.max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn life_is_used_by_most() {
        let span = (at(1000), at(2000));
        assert_eq!(deadline(span, 0.0), at(1700));
        assert_eq!(deadline(span, 1.0), at(1900));
        assert_eq!(deadline((at(5), at(5)), 0.5), at(5));
    }

    #[test]
    fn who_speaks_for_the_next() {
        let good = Some((at(1700), at(2000)));
        assert_eq!(need(None, true, at(0)), Need::First);
        assert_eq!(need(good, true, at(1000)), Need::Nothing(Duration::from_secs(700)));
        assert_eq!(need(good, true, at(1700)), Need::Another);
        assert_eq!(need(good, true, at(2000)), Need::First);
        // Without rotation nothing happens until it has ended.
        assert_eq!(need(good, false, at(1700)), Need::Nothing(Duration::from_secs(300)));
        assert_eq!(need(good, false, at(2000)), Need::First);
    }

    proptest! {
        #[test]
        fn always_within_its_life(from in 0i64..1_000_000, life in 1i64..1_000_000, jitter in 0.0f64..1.0) {
            let when = deadline((at(from), at(from + life)), jitter);
            prop_assert!(when >= at(from) && when < at(from + life));
        }
    }
}
