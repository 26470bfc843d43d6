//! When too little is left, and what follows from it: pure (kubernetes/kubernetes,
//! `pkg/kubelet/eviction/eviction_manager.go`, `synchronize`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::Timestamp;

use super::threshold::{Pressure, Resource, Signal, Threshold};

/// What there is of something, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) available: u64,
    pub(crate) capacity: u64,
}

pub(crate) type Observations = BTreeMap<Signal, Observed>;

/// What is remembered from one look to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    /// Since when each threshold (by its place) has been passed.
    since: BTreeMap<usize, Timestamp>,
    /// When each pressure was last seen.
    seen: BTreeMap<Pressure, Timestamp>,
    /// The thresholds that pods must go for until enough is left again.
    met: BTreeSet<usize>,
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) pressures: BTreeSet<Pressure>,
    /// The threshold to make room for, by its place.
    pub(crate) reclaim: Option<usize>,
    /// Something is nearly used up: look again soon.
    pub(crate) near: bool,
}

fn passed(threshold: &Threshold, observed: &Observed, with_reclaim: bool) -> bool {
    let mut least = threshold.least(observed.capacity);
    if let Some(reclaim) = threshold.reclaim.filter(|_| with_reclaim) {
        least = least.saturating_add(reclaim.of(observed.capacity));
    }
    observed.available < least
}

/// One look. `transition` is how long a pressure is told of after it was last seen.
pub(crate) fn step(
    thresholds: &[Threshold],
    state: &State,
    observations: &Observations,
    transition: Duration,
    now: Timestamp,
) -> (State, Verdict) {
    let elapsed = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    let on: BTreeSet<usize> = thresholds
        .iter()
        .enumerate()
        .filter(|(place, threshold)| {
            let observed = observations.get(&threshold.signal);
            observed.is_some_and(|o| passed(threshold, o, state.met.contains(place)))
        })
        .map(|(place, _)| place)
        .collect();
    let since: BTreeMap<usize, Timestamp> =
        on.iter().map(|place| (*place, state.since.get(place).copied().unwrap_or(now))).collect();
    let mut seen = state.seen.clone();
    let current: BTreeSet<Pressure> = on.iter().map(|place| thresholds[*place].signal.pressure()).collect();
    for pressure in &current {
        seen.insert(*pressure, now);
    }
    seen.retain(|pressure, at| current.contains(pressure) || elapsed(*at) < transition);
    let met: BTreeSet<usize> = since
        .iter()
        .filter(|(place, since)| elapsed(**since) >= thresholds[**place].grace)
        .map(|(place, _)| *place)
        .collect();
    // Memory first: it leaves least time.
    let reclaim = met
        .iter()
        .copied()
        .min_by_key(|place| (thresholds[*place].signal.resource() != Resource::Memory, *place));
    let near = thresholds.iter().any(|threshold| {
        let observed = observations.get(&threshold.signal);
        observed.is_some_and(|o| o.available < threshold.least(o.capacity).saturating_mul(2))
    });
    let verdict = Verdict { pressures: seen.keys().copied().collect(), reclaim, near };
    (State { since, seen, met }, verdict)
}

#[cfg(test)]
mod tests {
    use super::super::threshold::Amount;
    use super::*;
    use proptest::prelude::*;

    const TRANSITION: Duration = Duration::from_secs(300);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn threshold(signal: Signal, least: u64, grace: u64, reclaim: u64) -> Threshold {
        Threshold {
            signal,
            value: Amount::Absolute(least),
            most: None,
            grace: Duration::from_secs(grace),
            reclaim: (reclaim > 0).then_some(Amount::Absolute(reclaim)),
        }
    }

    fn left(memory: u64, disk: u64) -> Observations {
        let observed = |available| Observed { available, capacity: 1000 };
        [(Signal::MemoryAvailable, observed(memory)), (Signal::NodeFsAvailable, observed(disk))].into()
    }

    /// Looks at these seconds, with so much memory and disk left; what each look says.
    fn looks(thresholds: &[Threshold], looks: &[(i64, u64, u64)]) -> Vec<(Vec<&'static str>, Option<usize>)> {
        let mut state = State::default();
        let mut told = Vec::new();
        for (second, memory, disk) in looks {
            let (next, verdict) = step(thresholds, &state, &left(*memory, *disk), TRANSITION, at(*second));
            state = next;
            told.push((verdict.pressures.iter().map(|p| p.name()).collect(), verdict.reclaim));
        }
        told
    }

    #[test]
    fn hard_at_once_and_pressure_lasts() {
        let hard = [threshold(Signal::MemoryAvailable, 100, 0, 0)];
        let told =
            looks(&hard, &[(0, 100, 500), (10, 99, 500), (20, 200, 500), (309, 200, 500), (310, 200, 500)]);
        let memory = vec!["MemoryPressure"];
        assert_eq!(told[0], (vec![], None));
        assert_eq!(told[1], (memory.clone(), Some(0)));
        assert_eq!(told[2], (memory.clone(), None));
        assert_eq!(told[3], (memory, None));
        assert_eq!(told[4], (vec![], None));
    }

    #[test]
    fn soft_only_after_its_grace() {
        let soft = [threshold(Signal::NodeFsAvailable, 100, 60, 0)];
        let told = looks(&soft, &[(0, 500, 50), (59, 500, 50), (60, 500, 50), (70, 500, 500), (80, 500, 50)]);
        let reclaims: Vec<_> = told.iter().map(|(_, reclaim)| *reclaim).collect();
        assert_eq!(reclaims, [None, None, Some(0), None, None]);
        assert!(told.iter().all(|(pressures, _)| *pressures == ["DiskPressure"]));
    }

    #[test]
    fn enough_is_enough_and_a_little_more() {
        let hard = [threshold(Signal::NodeFsAvailable, 100, 0, 50)];
        let told = looks(&hard, &[(0, 0, 120), (1, 0, 99), (2, 0, 149), (3, 0, 150), (4, 0, 120)]);
        let reclaims: Vec<_> = told.iter().map(|(_, reclaim)| *reclaim).collect();
        assert_eq!(reclaims, [None, Some(0), Some(0), None, None]);
    }

    #[test]
    fn memory_goes_first() {
        let hard =
            [threshold(Signal::NodeFsAvailable, 100, 0, 0), threshold(Signal::MemoryAvailable, 100, 0, 0)];
        assert_eq!(looks(&hard, &[(0, 1, 1)])[0], (vec!["MemoryPressure", "DiskPressure"], Some(1)));
    }

    proptest! {
        /// Whatever is seen: nobody goes while everything is plentiful, nobody before a grace is over, and a pressure
        /// that is there is told.
        #[test]
        fn holds_for_any_course(course in prop::collection::vec((1i64..40, 0u64..300, 0u64..300), 1..40)) {
            let all = [
                threshold(Signal::MemoryAvailable, 100, 0, 20),
                threshold(Signal::NodeFsAvailable, 100, 30, 0),
            ];
            let (mut state, mut now, mut low_since) = (State::default(), 0, None);
            for (wait, memory, disk) in course {
                now += wait;
                let (next, verdict) = step(&all, &state, &left(memory, disk), TRANSITION, at(now));
                state = next;
                if disk >= 100 { low_since = None } else if low_since.is_none() { low_since = Some(now) }
                prop_assert_eq!(memory < 100, verdict.pressures.contains(&Pressure::Memory) && memory < 100);
                if memory >= 120 && disk >= 100 { prop_assert_eq!(verdict.reclaim, None); }
                if memory < 100 { prop_assert_eq!(verdict.reclaim, Some(0)); }
                if verdict.reclaim == Some(1) { prop_assert!(now - low_since.unwrap() >= 30); }
                if memory < 100 || disk < 100 { prop_assert!(verdict.near); }
            }
        }
    }
}
