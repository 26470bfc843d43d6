//! The node agent's own settings, by the names of upstream's kubelet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use node::{KubeletSettings, ThresholdError, VerificationPolicy};

/// When pods and images have to go.
#[derive(Clone, Debug, Args)]
pub struct KubeletArgs {
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
    /// An OCI runtime that RuntimeClasses may name as their handler: runc=/usr/sbin/runc; may be repeated
    #[arg(long, env = "GANTRY_RUNTIME_HANDLER", value_name = "NAME=PATH", value_delimiter = ',', value_parser = handler)]
    pub runtime_handler: Vec<(String, PathBuf)>,
    /// Sysctls that pods may set besides the safe ones: kernel.msg*,net.core.somaxconn,…
    #[arg(long, env = "GANTRY_ALLOWED_UNSAFE_SYSCTLS", value_name = "NAMES", value_delimiter = ',', value_parser = sysctl)]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whose credentials are asked for images that are on the node already: NeverVerify, NeverVerifyPreloadedImages,
    /// NeverVerifyAllowlistedImages or AlwaysVerify
    #[arg(
        long,
        env = "GANTRY_IMAGE_PULL_CREDENTIALS_VERIFICATION_POLICY",
        value_name = "POLICY",
        default_value = "NeverVerifyPreloadedImages",
        value_parser = VerificationPolicy::named
    )]
    pub image_pull_credentials_verification_policy: VerificationPolicy,
    /// Images for which NeverVerifyAllowlistedImages asks nobody: registry.example.com/team/*,…
    #[arg(
        long,
        env = "GANTRY_PRELOADED_IMAGES_VERIFICATION_ALLOWLIST",
        value_name = "IMAGES",
        value_delimiter = ','
    )]
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// Pull one image after the other
    #[arg(long, env = "GANTRY_SERIALIZE_IMAGE_PULLS")]
    pub serialize_image_pulls: bool,
    /// The most images that are pulled at once [default: no limit]
    #[arg(long, env = "GANTRY_MAX_PARALLEL_IMAGE_PULLS", value_name = "NUMBER", value_parser = at_least_one)]
    pub max_parallel_image_pulls: Option<usize>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "give a number, 1 or more".into())
}

fn handler(text: &str) -> Result<(String, PathBuf), String> {
    let fine = |name: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !name.is_empty()
            && name.len() < 64
            && name.chars().all(inner)
            && !name.starts_with('-')
            && !name.ends_with('-')
    };
    match text.split_once('=') {
        Some((name, path)) if fine(name) && path.starts_with('/') => Ok((name.to_owned(), path.into())),
        _ => Err("give a lower-case name and an absolute path, such as runc=/usr/sbin/runc".into()),
    }
}

fn sysctl(text: &str) -> Result<String, String> {
    KubeletSettings::check_sysctls(&[text.to_owned()]).map(|()| text.to_owned())
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
            runtime_handlers: self.runtime_handler.iter().cloned().collect(),
            allowed_unsafe_sysctls: self.allowed_unsafe_sysctls.clone(),
            image_pull_credentials_verification_policy: self.image_pull_credentials_verification_policy,
            preloaded_images_verification_allowlist: self.preloaded_images_verification_allowlist.clone(),
            serialize_image_pulls: self.serialize_image_pulls,
            max_parallel_image_pulls: self.max_parallel_image_pulls,
        };
        settings.check()?;
        Ok(settings)
    }
}
