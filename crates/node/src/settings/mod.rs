//! The agent's settings, by the names of upstream's `KubeletConfiguration` (kubernetes/kubernetes,
//! `staging/src/k8s.io/kubelet/config/v1beta1/types.go`): `fields.rs` has one row for each, `file.rs` reads files.

mod containers;
mod fields;
mod file;
mod registration;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

pub use containers::ContainerSettings;
pub use file::SettingsError;
pub use registration::{RegistrationSettings, Taint, parse_taint};

use crate::eviction::{Threshold, ThresholdError, default_thresholds, duration, parse_thresholds};
use crate::managers::ManagerSettings;
use crate::pulls::VerificationPolicy;
use crate::reservations::ReservationSettings;
use crate::shutdown::ShutdownSettings;

/// Who says what clients of the agent's server may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Nobody: whoever is known may do everything.
    AlwaysAllow,
    /// The API.
    Webhook,
}

impl Authorization {
    fn name(self) -> &'static str {
        match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::Webhook => "Webhook",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::AlwaysAllow, Self::Webhook].into_iter().find(|mode| mode.name() == name)
    }
}

/// A time as Go writes it, such as `1m30s`.
pub(crate) fn shown_time(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds == 0 && time.subsec_millis() > 0 {
        return format!("{}ms", time.subsec_millis());
    }
    format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
        .trim_start_matches("0h")
        .trim_start_matches("0m")
        .to_owned()
}

/// The agent's settings, by the names of upstream's `KubeletConfiguration`.
#[derive(Clone, Debug)]
pub struct KubeletSettings {
    /// How many pods the node takes.
    pub max_pods: u32,
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
    /// Manifests of pods that the node runs by itself: a folder, or one file.
    pub static_pod_path: Option<PathBuf>,
    /// Where more of them are to be had.
    pub static_pod_url: Option<String>,
    /// What is said when asking there.
    pub static_pod_url_header: BTreeMap<String, Vec<String>>,
    /// How often the folder is looked at although nothing is heard of it.
    pub file_check_frequency: Duration,
    /// How often the URL is asked.
    pub http_check_frequency: Duration,
    /// How long pods get to end when the node goes down.
    pub shutdown: ShutdownSettings,
    /// Whether the agent asks for another certificate before the one that it shows the API ends.
    pub rotate_certificates: bool,
    /// Whether the agent's server shows a certificate that the cluster has signed.
    pub server_tls_bootstrap: bool,
    /// Whether the agent's server takes clients whom nobody knows.
    pub anonymous: bool,
    /// Whose certificates of clients the agent's server takes, PEM; instead of the cluster's.
    pub client_ca_file: Option<PathBuf>,
    /// Who says what the clients of the agent's server may do.
    pub authorization: Authorization,
    /// How containers are run.
    pub containers: ContainerSettings,
    /// What the node says of itself.
    pub registration: RegistrationSettings,
    /// What of the node is not the pods'.
    pub reservations: ReservationSettings,
    /// How devices, CPUs and memory are given out.
    pub managers: ManagerSettings,
    /// Another container runtime than the built-in one: `unix:///run/containerd/containerd.sock`.
    pub container_runtime_endpoint: Option<String>,
    /// Where its images are, if elsewhere.
    pub image_service_endpoint: Option<String>,
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
            max_pods: 110,
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
            static_pod_path: None,
            static_pod_url: None,
            static_pod_url_header: BTreeMap::new(),
            file_check_frequency: Duration::from_secs(20),
            http_check_frequency: Duration::from_secs(20),
            shutdown: ShutdownSettings::default(),
            rotate_certificates: false,
            server_tls_bootstrap: false,
            anonymous: false,
            client_ca_file: None,
            authorization: Authorization::Webhook,
            containers: ContainerSettings::default(),
            registration: RegistrationSettings::default(),
            reservations: ReservationSettings::default(),
            managers: ManagerSettings::default(),
            container_runtime_endpoint: None,
            image_service_endpoint: None,
            runtime_handlers: BTreeMap::new(),
            allowed_unsafe_sysctls: Vec::new(),
            image_pull_credentials_verification_policy: VerificationPolicy::default(),
            preloaded_images_verification_allowlist: Vec::new(),
            serialize_image_pulls: false,
            max_parallel_image_pulls: None,
        }
    }
}

/// Whether limits are set in a tree of cgroup v2.
fn is_v2() -> bool {
    sys::cgroup::Hierarchies::detect().is_ok_and(|all| all.is_v2())
}

impl KubeletSettings {
    /// Whether the settings can be used together (`pkg/kubelet/apis/config/validation/validation.go`,
    /// `ValidateKubeletConfiguration`).
    ///
    /// # Errors
    /// With all that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        let mut faults = self.shutdown.faults();
        let (high, low) = (self.image_gc_high_threshold_percent, self.image_gc_low_threshold_percent);
        for (name, flag, percent) in [
            ("imageGCHighThresholdPercent", "image-gc-high-threshold", high),
            ("imageGCLowThresholdPercent", "image-gc-low-threshold", low),
        ] {
            if percent > 100 {
                faults.push(format!(
                    "invalid configuration: {name} (--{flag}) {percent} must be between 0 and 100, inclusive"
                ));
            }
        }
        faults.extend(self.endpoint_faults());
        faults.extend(crate::security::check_patterns(&self.allowed_unsafe_sysctls).err());
        if low > high {
            faults.push(format!(
                "invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            ));
        }
        let (least, most) = (self.image_minimum_gc_age, self.image_maximum_gc_age);
        if !most.is_zero() && most <= least {
            faults.push(format!(
                "invalid configuration: imageMaximumGCAge {} must be greater than imageMinimumGCAge {}",
                shown_time(most),
                shown_time(least)
            ));
        }
        faults.extend(self.containers.faults(is_v2()));
        faults.extend(self.registration.faults());
        faults.extend(self.reservations.faults(self.managers.reserved_system_cpus.len()));
        faults.extend(self.thresholds().err().map(|fault| fault.to_string()));
        if faults.is_empty() { Ok(()) } else { Err(SettingsError::Invalid(faults)) }
    }

    /// What is wrong with where the container runtime is said to be.
    fn endpoint_faults(&self) -> Vec<String> {
        let both = [&self.container_runtime_endpoint, &self.image_service_endpoint];
        let mut faults: Vec<String> = both
            .into_iter()
            .flatten()
            .filter_map(|endpoint| crate::cri::check_endpoint(endpoint).err())
            .map(|error| format!("invalid configuration: {error}"))
            .collect();
        match &self.container_runtime_endpoint {
            None if self.image_service_endpoint.is_some() => faults.push(
                "invalid configuration: imageServiceEndpoint (--image-service-endpoint) needs containerRuntimeEndpoint (--container-runtime-endpoint)".into(),
            ),
            Some(_) if !self.runtime_handlers.is_empty() => faults.push(
                "invalid configuration: --runtime-handler names programs of the built-in container runtime; the one at --container-runtime-endpoint has handlers of its own".into(),
            ),
            _ => {}
        }
        faults
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
        file::show(self)
    }

    /// Whether these name sysctls that pods can have for themselves.
    ///
    /// # Errors
    /// A sentence that names the first that does not.
    pub fn check_sysctls(patterns: &[String]) -> Result<(), String> {
        crate::security::check_patterns(patterns)
    }

    /// Reads a time in Go's form, such as `1m30s`.
    pub fn duration(text: &str) -> Option<Duration> {
        duration(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_go_together_is_said_at_once() {
        let settings = KubeletSettings {
            image_gc_high_threshold_percent: 10,
            image_gc_low_threshold_percent: 20,
            image_maximum_gc_age: Duration::from_secs(60),
            eviction_soft: [("memory.available".to_owned(), "1Gi".to_owned())].into(),
            ..KubeletSettings::default()
        };
        let said = settings.check().unwrap_err().to_string();
        for part in [
            "imageGCLowThresholdPercent (--image-gc-low-threshold) 20 must be less than",
            "imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s",
            "grace period must be specified for the soft eviction threshold memory.available",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(KubeletSettings::default().check(), Ok(()));
    }

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
