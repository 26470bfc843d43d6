//! The node agent's own settings, by the names of upstream's kubelet.

use std::collections::BTreeMap;

use clap::Args;
use node::{KubeletSettings, ThresholdError};

/// How many pods there may be, and when pods and images have to go.
#[derive(Clone, Debug, Args)]
pub struct KubeletArgs {
    /// How many pods the node takes
    #[arg(long, env = "GANTRY_MAX_PODS", value_name = "COUNT", default_value_t = 110)]
    pub max_pods: u32,
    /// When pods must go at once: memory.available<100Mi,nodefs.available<10%,…
    /// [default: memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%; of disks never
    /// more than 5Gi]
    #[arg(long, env = "GANTRY_EVICTION_HARD", value_name = "THRESHOLDS")]
    pub eviction_hard: Option<String>,
    /// When pods must go after a while, in the same form
    #[arg(long, env = "GANTRY_EVICTION_SOFT", value_name = "THRESHOLDS")]
    pub eviction_soft: Option<String>,
    /// After how long: memory.available=1m30s,…
    #[arg(long, env = "GANTRY_EVICTION_SOFT_GRACE_PERIOD", value_name = "TIMES")]
    pub eviction_soft_grace_period: Option<String>,
    /// How much more is won than was missing: nodefs.available=500Mi,…
    #[arg(long, env = "GANTRY_EVICTION_MINIMUM_RECLAIM", value_name = "AMOUNTS")]
    pub eviction_minimum_reclaim: Option<String>,
    /// The longest that pods get to end for a soft threshold, in seconds
    #[arg(long, env = "GANTRY_EVICTION_MAX_POD_GRACE_PERIOD", value_name = "SECONDS", default_value_t = 0)]
    pub eviction_max_pod_grace_period: u64,
    /// How long the node says that it is short of something after it last was
    #[arg(
        long,
        env = "GANTRY_EVICTION_PRESSURE_TRANSITION_PERIOD",
        value_name = "TIME",
        default_value = "5m0s",
        value_parser = time
    )]
    pub eviction_pressure_transition_period: std::time::Duration,
    /// How full the disk is, in percent, when unused images are removed
    #[arg(
        long,
        env = "GANTRY_IMAGE_GC_HIGH_THRESHOLD",
        value_name = "PERCENT",
        default_value_t = 85,
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub image_gc_high_threshold: u8,
    /// And how full it is when no more are
    #[arg(
        long,
        env = "GANTRY_IMAGE_GC_LOW_THRESHOLD",
        value_name = "PERCENT",
        default_value_t = 80,
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub image_gc_low_threshold: u8,
    /// Images that have been here for less stay
    #[arg(long, env = "GANTRY_MINIMUM_IMAGE_TTL_DURATION", value_name = "TIME", default_value = "2m0s", value_parser = time)]
    pub minimum_image_ttl_duration: std::time::Duration,
    /// Images that have been unused for longer go; 0s: never
    #[arg(long, env = "GANTRY_MAXIMUM_IMAGE_TTL_DURATION", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub maximum_image_ttl_duration: std::time::Duration,
}

fn time(text: &str) -> Result<std::time::Duration, String> {
    KubeletSettings::duration(text).ok_or_else(|| "give a time such as 1m30s".into())
}

impl KubeletArgs {
    /// The settings, if they can be used together.
    pub fn settings(&self) -> Result<KubeletSettings, ThresholdError> {
        let read = |text: &Option<String>, sign| -> Result<BTreeMap<String, String>, ThresholdError> {
            text.as_deref().map_or(Ok(BTreeMap::new()), |text| node::statements(text, sign))
        };
        let settings = KubeletSettings {
            max_pods: self.max_pods,
            eviction_hard: self.eviction_hard.as_ref().map(|text| node::statements(text, '<')).transpose()?,
            eviction_soft: read(&self.eviction_soft, '<')?,
            eviction_soft_grace_period: read(&self.eviction_soft_grace_period, '=')?,
            eviction_minimum_reclaim: read(&self.eviction_minimum_reclaim, '=')?,
            eviction_pressure_transition_period: self.eviction_pressure_transition_period,
            eviction_max_pod_grace_period: self.eviction_max_pod_grace_period,
            image_gc_high_threshold_percent: self.image_gc_high_threshold,
            image_gc_low_threshold_percent: self.image_gc_low_threshold.min(self.image_gc_high_threshold),
            image_minimum_gc_age: self.minimum_image_ttl_duration,
            image_maximum_gc_age: self.maximum_image_ttl_duration,
            ..KubeletSettings::default()
        };
        settings.check()?;
        Ok(settings)
    }
}
