//! The node agent's own settings, by the names of upstream's kubelet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use node::{KubeletSettings, Manifests, PodRules, SettingsError, ThresholdError, VerificationPolicy};

use crate::node_object::{ContainerArgs, NodeObjectArgs};
use crate::reservations::ReservationArgs;

/// How many pods there may be, and when pods and images have to go.
#[derive(Clone, Debug, Args)]
pub struct KubeletArgs {
    /// How many pods the node takes [default: 110]
    #[arg(long, env = "GANTRY_MAX_PODS", value_name = "COUNT")]
    pub max_pods: Option<u32>,
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
    /// The longest that pods get to end for a soft threshold, in seconds [default: 0]
    #[arg(long, env = "GANTRY_EVICTION_MAX_POD_GRACE_PERIOD", value_name = "SECONDS")]
    pub eviction_max_pod_grace_period: Option<u64>,
    /// How long the node says that it is short of something after it last was [default: 5m0s]
    #[arg(
        long,
        env = "GANTRY_EVICTION_PRESSURE_TRANSITION_PERIOD",
        value_name = "TIME",
        value_parser = time
    )]
    pub eviction_pressure_transition_period: Option<Duration>,
    /// How full the disk is, in percent, when unused images are removed [default: 85]
    #[arg(
        long,
        env = "GANTRY_IMAGE_GC_HIGH_THRESHOLD",
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub image_gc_high_threshold: Option<u8>,
    /// And how full it is when no more are [default: 80]
    #[arg(
        long,
        env = "GANTRY_IMAGE_GC_LOW_THRESHOLD",
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub image_gc_low_threshold: Option<u8>,
    /// Images that have been here for less stay [default: 2m0s]
    #[arg(long, env = "GANTRY_MINIMUM_IMAGE_TTL_DURATION", value_name = "TIME", value_parser = time)]
    pub minimum_image_ttl_duration: Option<Duration>,
    /// Images that have been unused for longer go; 0s: never [default: 0s]
    #[arg(long, env = "GANTRY_MAXIMUM_IMAGE_TTL_DURATION", value_name = "TIME", value_parser = time)]
    pub maximum_image_ttl_duration: Option<Duration>,
    /// A KubeletConfiguration with any of the agent's settings; flags overrule it
    #[arg(long, env = "GANTRY_NODE_CONFIG", value_name = "FILE")]
    pub node_config: Option<PathBuf>,
    /// More of them, *.conf, each laid over what is said so far
    #[arg(long, env = "GANTRY_NODE_CONFIG_DIR", value_name = "DIR")]
    pub node_config_dir: Option<PathBuf>,
    /// Pods that the node runs by itself: a folder of manifests, or one
    #[arg(long, env = "GANTRY_POD_MANIFEST_PATH", value_name = "PATH")]
    pub pod_manifest_path: Option<PathBuf>,
    /// Where more manifests are to be had
    #[arg(long, env = "GANTRY_MANIFEST_URL", value_name = "URL")]
    pub manifest_url: Option<String>,
    /// What is said when asking there: Name:value
    #[arg(long, env = "GANTRY_MANIFEST_URL_HEADER", value_name = "HEADER", value_delimiter = ',')]
    pub manifest_url_header: Vec<String>,
    /// How long pods get to end when the node goes down; 0s: the node does not wait [default: 0s]
    #[arg(long, env = "GANTRY_SHUTDOWN_GRACE_PERIOD", value_name = "TIME", value_parser = time)]
    pub shutdown_grace_period: Option<Duration>,
    /// What critical pods get of that, after all others [default: 0s]
    #[arg(long, env = "GANTRY_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS", value_name = "TIME", value_parser = time)]
    pub shutdown_grace_period_critical_pods: Option<Duration>,
    /// Take SIGTERM as word that the node goes down, and end its pods first
    #[arg(long, env = "GANTRY_SHUTDOWN_ON_SIGTERM")]
    pub shutdown_on_sigterm: bool,
    /// Run pods by another container runtime than the built-in one: unix:///run/containerd/containerd.sock
    #[arg(long, env = "GANTRY_CONTAINER_RUNTIME_ENDPOINT", value_name = "URL")]
    pub container_runtime_endpoint: Option<String>,
    /// Where its images are, if elsewhere
    #[arg(long, env = "GANTRY_IMAGE_SERVICE_ENDPOINT", value_name = "URL")]
    pub image_service_endpoint: Option<String>,
    /// An OCI runtime that RuntimeClasses may name as their handler: runc=/usr/sbin/runc; may be repeated
    #[arg(long, env = "GANTRY_RUNTIME_HANDLER", value_name = "NAME=PATH", value_delimiter = ',', value_parser = handler)]
    pub runtime_handler: Vec<(String, PathBuf)>,
    /// Sysctls that pods may set besides the safe ones: kernel.msg*,net.core.somaxconn,…
    #[arg(long, env = "GANTRY_ALLOWED_UNSAFE_SYSCTLS", value_name = "NAMES", value_delimiter = ',', value_parser = sysctl)]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whose credentials are asked for images that are on the node already: NeverVerify, NeverVerifyPreloadedImages,
    /// NeverVerifyAllowlistedImages or AlwaysVerify [default: NeverVerifyPreloadedImages]
    #[arg(
        long,
        env = "GANTRY_IMAGE_PULL_CREDENTIALS_VERIFICATION_POLICY",
        value_name = "POLICY",
        value_parser = VerificationPolicy::named
    )]
    pub image_pull_credentials_verification_policy: Option<VerificationPolicy>,
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
    #[command(flatten)]
    pub containers: ContainerArgs,
    #[command(flatten)]
    pub object: NodeObjectArgs,
    #[command(flatten)]
    pub reservations: ReservationArgs,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "give a number, 1 or more".into())
}

/// Reads a handler of RuntimeClasses: `name=/path`.
pub fn handler(text: &str) -> Result<(String, PathBuf), String> {
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

/// Settings of the agent that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error("cannot read the node's configuration {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the node's configuration {path} is no YAML: {why}")]
    Yaml { path: PathBuf, why: String },
    #[error("the node's configuration {path} cannot be used: {source}")]
    Settings { path: PathBuf, source: SettingsError },
    #[error("--manifest-url-header {0:?} is not of the form Name:value")]
    Header(String),
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    #[error(transparent)]
    Together(SettingsError),
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    KubeletSettings::duration(text).ok_or_else(|| "give a time such as 1m30s".into())
}

impl KubeletArgs {
    /// The settings, if they can be used together: the built-in ones, over them what the files say, over that the flags.
    pub fn settings(&self) -> Result<KubeletSettings, KubeletError> {
        let read =
            |text: &Option<String>, sign| -> Result<Option<BTreeMap<String, String>>, ThresholdError> {
                text.as_deref().map(|text| node::statements(text, sign)).transpose()
            };
        let mut settings = self.of_files()?;
        let (low, high) = (self.image_gc_low_threshold, self.image_gc_high_threshold);
        set(&mut settings.max_pods, self.max_pods);
        if let Some(hard) = read(&self.eviction_hard, '<')? {
            settings.eviction_hard = Some(hard);
        }
        set(&mut settings.eviction_soft, read(&self.eviction_soft, '<')?);
        set(&mut settings.eviction_soft_grace_period, read(&self.eviction_soft_grace_period, '=')?);
        set(&mut settings.eviction_minimum_reclaim, read(&self.eviction_minimum_reclaim, '=')?);
        set(&mut settings.eviction_pressure_transition_period, self.eviction_pressure_transition_period);
        set(&mut settings.eviction_max_pod_grace_period, self.eviction_max_pod_grace_period);
        set(&mut settings.image_gc_high_threshold_percent, high);
        set(&mut settings.image_gc_low_threshold_percent, low);
        if high.is_some() && low.is_none() {
            let most = settings.image_gc_high_threshold_percent;
            settings.image_gc_low_threshold_percent = settings.image_gc_low_threshold_percent.min(most);
        }
        set(&mut settings.image_minimum_gc_age, self.minimum_image_ttl_duration);
        set(&mut settings.image_maximum_gc_age, self.maximum_image_ttl_duration);
        if self.pod_manifest_path.is_some() {
            settings.static_pod_path.clone_from(&self.pod_manifest_path);
        }
        if self.manifest_url.is_some() {
            settings.static_pod_url.clone_from(&self.manifest_url);
        }
        for header in &self.manifest_url_header {
            let (name, value) = header.split_once(':').ok_or_else(|| KubeletError::Header(header.clone()))?;
            let values = settings.static_pod_url_header.entry(name.trim().to_owned()).or_default();
            values.push(value.trim().to_owned());
        }
        for (place, said) in [
            (&mut settings.container_runtime_endpoint, &self.container_runtime_endpoint),
            (&mut settings.image_service_endpoint, &self.image_service_endpoint),
        ] {
            if said.is_some() {
                place.clone_from(said);
            }
        }
        settings.runtime_handlers.extend(self.runtime_handler.iter().cloned());
        if !self.allowed_unsafe_sysctls.is_empty() {
            settings.allowed_unsafe_sysctls.clone_from(&self.allowed_unsafe_sysctls);
        }
        let policy = self.image_pull_credentials_verification_policy;
        set(&mut settings.image_pull_credentials_verification_policy, policy);
        if !self.preloaded_images_verification_allowlist.is_empty() {
            let allowed = &self.preloaded_images_verification_allowlist;
            settings.preloaded_images_verification_allowlist.clone_from(allowed);
        }
        settings.serialize_image_pulls |= self.serialize_image_pulls;
        if self.max_parallel_image_pulls.is_some() {
            settings.max_parallel_image_pulls = self.max_parallel_image_pulls;
        }
        self.containers.apply(&mut settings.containers);
        self.object.apply(&mut settings.registration);
        self.reservations.apply(&mut settings.reservations);
        set(&mut settings.shutdown.grace_period, self.shutdown_grace_period);
        let critical = self.shutdown_grace_period_critical_pods;
        set(&mut settings.shutdown.grace_period_critical_pods, critical);
        settings.check().map_err(KubeletError::Together)?;
        Ok(settings)
    }

    /// What the files say.
    fn of_files(&self) -> Result<KubeletSettings, KubeletError> {
        let mut paths: Vec<PathBuf> = self.node_config.iter().cloned().collect();
        if let Some(folder) = &self.node_config_dir {
            let failed = |source| KubeletError::File { path: folder.clone(), source };
            let mut dropped: Vec<PathBuf> = std::fs::read_dir(folder)
                .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
                .map_err(failed)?;
            dropped.retain(|path| path.extension().is_some_and(|ending| ending == "conf") && path.is_file());
            dropped.sort_unstable();
            paths.extend(dropped);
        }
        let mut settings = KubeletSettings::default();
        let mut documents = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| KubeletError::File { path: path.clone(), source })?;
            let document = serde_norway::from_str(&text)
                .map_err(|e| KubeletError::Yaml { path: path.clone(), why: e.to_string() })?;
            documents.push(document);
            // All up to this one, so that the one that is wrong is named.
            settings = KubeletSettings::default();
            let idle = settings.read(&documents).map_err(|source| {
                let path = path.clone();
                KubeletError::Settings { path, source }
            })?;
            if !idle.is_empty() {
                let fields = idle.join(", ");
                tracing::warn!(path = %path.display(), fields, "the agent does nothing with these settings");
            }
        }
        Ok(settings)
    }

    /// What the node runs by itself; `rules` are the API's for pods.
    pub fn manifests(&self, rules: Arc<dyn PodRules>) -> Result<Option<Manifests>, KubeletError> {
        let settings = self.settings()?;
        if settings.static_pod_path.is_none() && settings.static_pod_url.is_none() {
            return Ok(None);
        }
        let headers = settings.static_pod_url_header.into_iter();
        Ok(Some(Manifests {
            path: settings.static_pod_path,
            file_check_frequency: settings.file_check_frequency,
            url: settings.static_pod_url,
            url_headers: headers.flat_map(|(n, all)| all.into_iter().map(move |v| (n.clone(), v))).collect(),
            http_check_frequency: settings.http_check_frequency,
            rules,
        }))
    }
}

/// What is said counts; the rest stays.
fn set<T>(place: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *place = said;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        kubelet: KubeletArgs,
    }

    fn settings(flags: &[&str]) -> Result<KubeletSettings, KubeletError> {
        Command::parse_from([&["x"], flags].concat()).kubelet.settings()
    }

    #[test]
    fn flags_overrule_drop_ins_and_these_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{head}{text}")).unwrap();
            path.display().to_string()
        };
        let file = write(
            "file",
            "imageGCHighThresholdPercent: 50\nimageGCLowThresholdPercent: 40\nstaticPodPath: /m\n",
        );
        write("10.conf", "imageGCLowThresholdPercent: 30\nevictionMaxPodGracePeriod: 7\n");
        write("15.conf", "containerRuntimeEndpoint: unix:///c.sock\nimageServiceEndpoint: unix:///i.sock\n");
        write("20.conf", "evictionMaxPodGracePeriod: 8\n");
        write("30.not", "rubbish: 1\n");
        let dir = folder.path().display().to_string();
        let flags = ["--node-config", &file, "--node-config-dir", &dir, "--image-gc-high-threshold", "60"];
        let all = settings(&flags).unwrap();
        assert_eq!((all.image_gc_high_threshold_percent, all.image_gc_low_threshold_percent), (60, 30));
        assert_eq!(all.eviction_max_pod_grace_period, 8);
        assert_eq!(all.static_pod_path, Some("/m".into()));
        let endpoints = (all.container_runtime_endpoint.as_deref(), all.image_service_endpoint.as_deref());
        assert_eq!(endpoints, (Some("unix:///c.sock"), Some("unix:///i.sock")));
        write("40.conf", "staticPodPaht: /n\n");
        let fault = settings(&flags).unwrap_err().to_string();
        assert!(fault.contains("40.conf") && fault.contains("unknown field \"staticPodPaht\""), "{fault}");
    }

    #[test]
    fn containers_and_the_nodes_object() {
        let all = settings(&[
            "--container-log-max-size=1Mi",
            "--cpu-cfs-quota=false",
            "--resolv-conf=",
            "--node-labels=disk=ssd,rack=7",
            "--register-with-taints=a=b:NoSchedule,c:NoExecute",
        ]);
        let all = all.unwrap();
        assert_eq!((all.containers.log_max_size, all.containers.cpu_cfs_quota), (1 << 20, false));
        assert_eq!((all.containers.log_max_files, all.containers.resolv_conf), (5, None));
        assert_eq!((all.registration.labels.len(), &*all.registration.labels["rack"]), (2, "7"));
        assert_eq!((all.registration.taints.len(), &*all.registration.taints[1].key), (2, "c"));
        let fault = settings(&["--container-log-max-files=1"]).unwrap_err().to_string();
        assert!(fault.contains("must be greater than 1"), "{fault}");
        let fault = settings(&["--node-labels=node-role.kubernetes.io/x="]).unwrap_err().to_string();
        assert!(fault.contains("must begin with an allowed prefix"), "{fault}");
    }

    #[test]
    fn what_cannot_be_together_is_said() {
        let fault = |flags: &[&str]| settings(flags).unwrap_err().to_string();
        assert!(
            fault(&["--shutdown-grace-period=10s", "--shutdown-grace-period-critical-pods=20s"])
                .contains("shutdownGracePeriodCriticalPods 20s must be <= shutdownGracePeriod 10s")
        );
        assert!(fault(&["--manifest-url-header=x"]).contains("Name:value"));
        assert!(
            fault(&["--kube-reserved=gpu=1", "--enforce-node-allocatable=pods,kube-reserved"])
                .contains("--kube-reserved value failed to parse: cannot reserve \"gpu\" resource")
        );
        let all = settings(&["--system-reserved=cpu=1,pid=100", "--pod-max-pids=-1"]).unwrap();
        assert_eq!(all.reservations.system_reserved["pid"], "100");
        let elsewhere = "--container-runtime-endpoint=unix:///run/c.sock";
        assert!(fault(&[elsewhere, "--runtime-handler=runc=/runc"]).contains("has handlers of its own"));
        assert!(fault(&["--image-service-endpoint=unix:///i"]).contains("needs containerRuntimeEndpoint"));
        assert!(
            fault(&["--container-runtime-endpoint=tcp://x:1"]).contains("give a socket, such as unix:///")
        );
        assert_eq!(settings(&["--image-gc-high-threshold=10"]).unwrap().image_gc_low_threshold_percent, 10);
    }
}
