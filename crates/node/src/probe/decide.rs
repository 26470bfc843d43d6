//! When a probe runs next, and what its results mean: pure (kubernetes/kubernetes, `pkg/kubelet/prober/worker.go`,
//! `doProbe`).
//!
//! ```text
//!              initial delay        failures in a row ≥ threshold
//! started ───► (unknown) ─────────► failed ──► liveness, startup: held until the container is replaced
//!                  │  ▲                │
//!                  └──┴── passed ◄─────┘ readiness only
//! ```

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As events begin.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// How often, how long, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
}

impl Rules {
    pub(crate) fn of(probe: &Probe) -> Self {
        let number = |given: Option<i32>, default: u32| match given.and_then(|n| u32::try_from(n).ok()) {
            None | Some(0) => default,
            Some(n) => n,
        };
        let seconds = |given, default| Duration::from_secs(number(given, default).into());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: number(probe.success_threshold, 1),
            failures: number(probe.failure_threshold, 3),
        }
    }
}

/// What has been seen so far of one run of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What holds: none until a threshold is reached for the first time.
    pub(crate) verdict: Option<bool>,
    last: Option<bool>,
    in_a_row: u32,
}

impl Seen {
    /// Before the first probe; `verdict` is what an earlier agent found.
    pub(crate) fn before(verdict: Option<bool>) -> Self {
        Self { verdict, ..Self::default() }
    }
}

/// When to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    After(Duration),
    /// When the container has started up.
    WhenStarted,
    /// It is known what can be known of this run.
    Never,
}

/// Decides from how long the container runs and how long ago it was probed.
pub(crate) fn due(
    kind: Kind,
    seen: &Seen,
    rules: &Rules,
    started: Option<bool>,
    running: Duration,
    since_last: Option<Duration>,
) -> Due {
    let over = match kind {
        Kind::Startup => seen.verdict.is_some(),
        Kind::Liveness => seen.verdict == Some(false),
        Kind::Readiness => false,
    };
    if over {
        return Due::Never;
    }
    if kind != Kind::Startup && started != Some(true) {
        return Due::WhenStarted;
    }
    let wait = match since_last {
        None => rules.initial_delay.saturating_sub(running),
        Some(since) => rules.period.saturating_sub(since),
    };
    if wait.is_zero() { Due::Now } else { Due::After(wait) }
}

/// Takes one more result into account.
pub(crate) fn step(seen: Seen, rules: &Rules, passed: bool) -> Seen {
    let in_a_row = if seen.last == Some(passed) { seen.in_a_row.saturating_add(1) } else { 1 };
    let threshold = if passed { rules.successes } else { rules.failures };
    let verdict = if in_a_row >= threshold { Some(passed) } else { seen.verdict };
    Seen { verdict, last: Some(passed), in_a_row }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(probe: serde_json::Value) -> Rules {
        Rules::of(&serde_json::from_value(probe).unwrap())
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn defaults_are_upstreams() {
        let rules = rules(json!({}));
        assert_eq!((rules.initial_delay, rules.period, rules.timeout), (Duration::ZERO, 10 * S, S));
        assert_eq!((rules.successes, rules.failures), (1, 3));
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let rules = rules(json!({"successThreshold": 2, "failureThreshold": 3}));
        let after = |results: &[bool]| {
            results.iter().fold(Seen::default(), |seen, passed| step(seen, &rules, *passed)).verdict
        };
        assert_eq!(after(&[true]), None);
        assert_eq!(after(&[true, true]), Some(true));
        assert_eq!(after(&[false, false, true, false, false]), None);
        assert_eq!(after(&[true, true, false, false]), Some(true));
        assert_eq!(after(&[true, true, false, false, false]), Some(false));
        assert_eq!(after(&[true, true, false, false, false, true]), Some(false));
        assert_eq!(after(&[true, true, false, false, false, true, true]), Some(true));
    }

    #[test]
    fn probes_wait_for_their_time() {
        let rules = rules(json!({"initialDelaySeconds": 5, "periodSeconds": 10}));
        let fresh = Seen::default();
        let at = |kind, seen: Seen, started, running, last: Option<u32>| {
            due(kind, &seen, &rules, started, running * S, last.map(|l| l * S))
        };
        assert_eq!(at(Kind::Readiness, fresh, Some(true), 2, None), Due::After(3 * S));
        assert_eq!(at(Kind::Readiness, fresh, Some(true), 6, None), Due::Now);
        assert_eq!(at(Kind::Readiness, fresh, Some(true), 60, Some(4)), Due::After(6 * S));
        assert_eq!(at(Kind::Readiness, fresh, None, 60, None), Due::WhenStarted);
        assert_eq!(at(Kind::Startup, fresh, None, 60, Some(10)), Due::Now);
        assert_eq!(at(Kind::Startup, Seen::before(Some(true)), Some(true), 60, None), Due::Never);
        assert_eq!(at(Kind::Liveness, Seen::before(Some(false)), Some(true), 60, None), Due::Never);
        assert_eq!(at(Kind::Readiness, Seen::before(Some(false)), Some(true), 60, Some(10)), Due::Now);
    }
}
