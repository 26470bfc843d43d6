use std::time::Duration;

/// How autoscalers work. The names are those of kube-controller-manager's flags, `--horizontal-pod-autoscaler-…`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoscalingSettings {
    /// How often each is looked at (`sync-period`).
    pub sync_period: Duration,
    /// How far measurements may stray before anything is done about it (`tolerance`).
    pub tolerance: f64,
    /// For how long a larger wish holds against a smaller one, where an autoscaler does not say
    /// (`downscale-stabilization`).
    pub downscale_stabilization: Duration,
    /// For how long after its start a pod's CPU use may be that of its start (`cpu-initialization-period`).
    pub cpu_initialization: Duration,
    /// For how long after its start a pod that is not ready may never have been (`initial-readiness-delay`).
    pub initial_readiness_delay: Duration,
}

impl Default for AutoscalingSettings {
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            tolerance: 0.1,
            downscale_stabilization: Duration::from_secs(300),
            cpu_initialization: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
        }
    }
}
