use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::pulls::VerificationPolicy;

use crate::eviction::{
    Threshold, ThresholdError, default_texts, default_thresholds, duration, parse_thresholds,
};

/// The agent's settings, by the names of upstream's `KubeletConfiguration`.
#[derive(Clone, Debug)]
pub struct KubeletSettings {
    /// When pods must go at once: signal and what must be left. Nothing said means the built-in thresholds.
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// When pods must go after a while.
    pub eviction_soft: BTreeMap<String, String>,
    /// After how long, by signal.
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    /// How much more is to be won than was missing, by signal.
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    /// How long the node says that it is short of something after it was last so.
    pub eviction_pressure_transition_period: Duration,
    /// The longest that pods get to end for a soft threshold, in seconds.
    pub eviction_max_pod_grace_period: u64,
    /// Images are removed when their file system is as full as this.
    pub image_gc_high_threshold_percent: u8,
    /// And until it is as full as that.
    pub image_gc_low_threshold_percent: u8,
    /// Images that have been unused for less stay.
    pub image_minimum_gc_age: Duration,
    /// Images that have been unused for longer go, however much room there is; zero means never.
    pub image_maximum_gc_age: Duration,
    /// OCI runtimes by the names that RuntimeClasses call them.
    pub runtime_handlers: BTreeMap<String, PathBuf>,
    /// Sysctls that pods may set besides the safe ones; `*` at the end stands for anything.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whose credentials are asked for images that are here already.
    pub image_pull_credentials_verification_policy: VerificationPolicy,
    /// Images for which they are not asked, whatever else holds.
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// Images are pulled one after the other.
    pub serialize_image_pulls: bool,
    /// So many are pulled at once, if that is limited.
    pub max_parallel_image_pulls: Option<usize>,
}

impl Default for KubeletSettings {
    fn default() -> Self {
        Self {
            eviction_hard: None,
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_minimum_reclaim: BTreeMap::new(),
            eviction_pressure_transition_period: Duration::from_secs(300),
            eviction_max_pod_grace_period: 0,
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_minimum_gc_age: Duration::from_secs(120),
            image_maximum_gc_age: Duration::ZERO,
            runtime_handlers: BTreeMap::new(),
            allowed_unsafe_sysctls: Vec::new(),
            image_pull_credentials_verification_policy: VerificationPolicy::default(),
            preloaded_images_verification_allowlist: Vec::new(),
            serialize_image_pulls: false,
            max_parallel_image_pulls: None,
        }
    }
}

impl KubeletSettings {
    /// Whether the settings can be used together.
    ///
    /// # Errors
    /// At the first that cannot.
    pub fn check(&self) -> Result<(), ThresholdError> {
        self.thresholds().map(drop)
    }

    /// The thresholds of eviction.
    pub(crate) fn thresholds(&self) -> Result<Vec<Threshold>, ThresholdError> {
        let (soft, grace, reclaim) =
            (&self.eviction_soft, &self.eviction_soft_grace_period, &self.eviction_minimum_reclaim);
        match &self.eviction_hard {
            Some(hard) => parse_thresholds(hard, soft, grace, reclaim),
            None => {
                let mut all = default_thresholds();
                all.extend(parse_thresholds(&BTreeMap::new(), soft, grace, reclaim)?);
                Ok(all)
            }
        }
    }

    /// As `/configz` shows them.
    pub(crate) fn shown(&self) -> Value {
        let time = |time: Duration| {
            let seconds = time.as_secs();
            format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
                .trim_start_matches("0h")
                .trim_start_matches("0m")
                .to_owned()
        };
        json!({
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "evictionHard": self.eviction_hard.clone().unwrap_or_else(default_texts),
            "evictionSoft": self.eviction_soft,
            "evictionSoftGracePeriod": self.eviction_soft_grace_period,
            "evictionMinimumReclaim": self.eviction_minimum_reclaim,
            "evictionPressureTransitionPeriod": time(self.eviction_pressure_transition_period),
            "evictionMaxPodGracePeriod": self.eviction_max_pod_grace_period,
            "imageGCHighThresholdPercent": self.image_gc_high_threshold_percent,
            "imageGCLowThresholdPercent": self.image_gc_low_threshold_percent,
            "imageMinimumGCAge": time(self.image_minimum_gc_age),
            "imageMaximumGCAge": time(self.image_maximum_gc_age),
            "allowedUnsafeSysctls": self.allowed_unsafe_sysctls,
            "imagePullCredentialsVerificationPolicy": self.image_pull_credentials_verification_policy.name(),
            "preloadedImagesVerificationAllowlist": self.preloaded_images_verification_allowlist,
            "serializeImagePulls": self.serialize_image_pulls,
            "maxParallelImagePulls": self.max_parallel_image_pulls,
            "authentication": {"x509": {}, "webhook": {"enabled": false}, "anonymous": {"enabled": false}},
            "authorization": {"mode": "Webhook"},
        })
    }

    /// Reads a time in Go's form, such as `1m30s`.
    pub fn duration(text: &str) -> Option<Duration> {
        duration(text)
    }

    /// Whether these name sysctls that pods can have for themselves.
    ///
    /// # Errors
    /// A sentence that names the first that does not.
    pub fn check_sysctls(patterns: &[String]) -> Result<(), String> {
        crate::security::check_patterns(patterns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_upstreams() {
        let shown = KubeletSettings::default().shown();
        assert_eq!(shown["evictionHard"]["nodefs.inodesFree"], "5%");
        assert_eq!(
            (&shown["evictionPressureTransitionPeriod"], &shown["imageMinimumGCAge"]),
            (&json!("5m0s"), &json!("2m0s"))
        );
        assert_eq!(shown["imageMaximumGCAge"], "0s");
        let settings = KubeletSettings { eviction_hard: Some(BTreeMap::new()), ..KubeletSettings::default() };
        assert!(settings.thresholds().unwrap().is_empty());
        assert_eq!(KubeletSettings::default().thresholds().unwrap().len(), 4);
    }
}
