//! Which pods end when: pure (kubernetes/kubernetes, `pkg/kubelet/nodeshutdown/nodeshutdown_manager.go`, `migrateConfig`,
//! `groupByPriority`).

use std::time::Duration;

/// From this priority on a pod is critical (`pkg/apis/scheduling/types.go`, `SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;

/// The time that pods of a priority get to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From this priority on, up to the next share's.
    pub priority: i32,
    /// So many seconds.
    pub seconds: u64,
}

/// How long pods get, by the names of upstream's `KubeletConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// For all pods together; zero means that the node does not wait.
    pub grace_period: Duration,
    /// What critical pods get of it, after all others.
    pub grace_period_critical_pods: Duration,
    /// Instead of both.
    pub grace_period_by_pod_priority: Vec<Share>,
}

impl ShutdownSettings {
    /// What is wrong with them together, as upstream words it (`ValidateKubeletConfiguration`).
    pub fn faults(&self) -> Vec<String> {
        let shown = crate::settings::shown_time;
        let (whole, critical) = (self.grace_period, self.grace_period_critical_pods);
        let short = |time: Duration| !time.is_zero() && time < Duration::from_secs(1);
        let mut faults = Vec::new();
        if critical > whole {
            faults.push(format!(
                "invalid configuration: shutdownGracePeriodCriticalPods {} must be <= shutdownGracePeriod {}",
                shown(critical),
                shown(whole)
            ));
        }
        for (name, time) in [("shutdownGracePeriod", whole), ("shutdownGracePeriodCriticalPods", critical)] {
            if short(time) {
                faults.push(format!(
                    "invalid configuration: {name} {} must be either zero or otherwise >= 1 sec",
                    shown(time)
                ));
            }
        }
        let periods = [whole, critical].iter().any(|time| !time.is_zero());
        if periods && !self.grace_period_by_pod_priority.is_empty() {
            faults.push("invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time".to_owned());
        }
        faults
    }

    /// Each priority's share, from the lowest; none if the node does not wait.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let mut shares = self.grace_period_by_pod_priority.clone();
        if shares.is_empty() && !self.grace_period.is_zero() {
            let critical = self.grace_period_critical_pods.min(self.grace_period);
            shares = vec![
                Share { priority: 0, seconds: (self.grace_period - critical).as_secs() },
                Share { priority: CRITICAL, seconds: critical.as_secs() },
            ];
        }
        shares.sort_by_key(|share| share.priority);
        shares
    }
}

/// Puts pods, each with its priority, into the groups that they end in, the first first. Those below the lowest share
/// belong to it. Groups without pods are left out: nobody waits for them.
pub(super) fn groups<T>(shares: &[Share], pods: Vec<(i32, T)>) -> Vec<(Share, Vec<T>)> {
    let mut groups: Vec<(Share, Vec<T>)> = shares.iter().map(|share| (*share, Vec::new())).collect();
    for (priority, pod) in pods {
        let place = shares.partition_point(|share| share.priority <= priority).saturating_sub(1);
        if let Some((_, group)) = groups.get_mut(place) {
            group.push(pod);
        }
    }
    groups.retain(|(_, pods)| !pods.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(whole: u64, critical: u64) -> ShutdownSettings {
        ShutdownSettings {
            grace_period: Duration::from_secs(whole),
            grace_period_critical_pods: Duration::from_secs(critical),
            grace_period_by_pod_priority: Vec::new(),
        }
    }

    fn share(priority: i32, seconds: u64) -> Share {
        Share { priority, seconds }
    }

    #[test]
    fn two_periods_are_two_shares() {
        assert_eq!(seconds(30, 10).shares(), [share(0, 20), share(CRITICAL, 10)]);
        assert_eq!(seconds(30, 0).shares(), [share(0, 30), share(CRITICAL, 0)]);
        assert_eq!(seconds(0, 0).shares(), []);
        let own = ShutdownSettings {
            grace_period_by_pod_priority: vec![share(1000, 5), share(-5, 2)],
            ..ShutdownSettings::default()
        };
        assert_eq!(own.shares(), [share(-5, 2), share(1000, 5)]);
    }

    #[test]
    fn periods_must_fit_together() {
        assert_eq!(seconds(30, 10).faults(), [""; 0]);
        assert_eq!(
            seconds(10, 30).faults(),
            ["invalid configuration: shutdownGracePeriodCriticalPods 30s must be <= shutdownGracePeriod 10s"]
        );
        let mut both = seconds(10, 0);
        both.grace_period_by_pod_priority = vec![share(0, 1)];
        assert!(both.faults()[0].contains("Cannot specify both"));
        let mut short = seconds(0, 0);
        short.grace_period = Duration::from_millis(500);
        assert_eq!(
            short.faults(),
            ["invalid configuration: shutdownGracePeriod 500ms must be either zero or otherwise >= 1 sec"]
        );
    }

    #[test]
    fn pods_go_by_priority() {
        let shares = [share(0, 10), share(1000, 20), share(CRITICAL, 30)];
        let pods = vec![(-7, "low"), (0, "plain"), (999, "more"), (1000, "much"), (i32::MAX, "most")];
        assert_eq!(
            groups(&shares, pods),
            [(shares[0], vec!["low", "plain", "more"]), (shares[1], vec!["much"]), (shares[2], vec!["most"])]
        );
        assert_eq!(groups(&shares, vec![(5, "x")]), [(shares[0], vec!["x"])]);
    }

    proptest! {
        #[test]
        fn everybody_goes_once_and_in_order(
            shares in prop::collection::vec((-5i32..5, 0u64..9), 1..5),
            pods in prop::collection::vec(-8i32..8, 0..20),
        ) {
            let settings = ShutdownSettings {
                grace_period_by_pod_priority:
                    shares.iter().map(|(priority, seconds)| share(*priority, *seconds)).collect(),
                ..ShutdownSettings::default()
            };
            let groups = groups(&settings.shares(), pods.iter().map(|p| (*p, *p)).collect());
            let mut went: Vec<i32> = groups.iter().flat_map(|(_, pods)| pods.clone()).collect();
            for pair in groups.windows(2) {
                prop_assert!(pair[0].1.iter().max() < pair[1].1.iter().min());
            }
            went.sort_unstable();
            let mut all = pods;
            all.sort_unstable();
            prop_assert_eq!(went, all);
        }
    }
}
