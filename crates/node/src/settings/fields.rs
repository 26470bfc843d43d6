//! The fields of a `KubeletConfiguration` that the agent honours: one row each, which reads it, shows it and says where it
//! goes. Who adds a setting adds a field to [`KubeletSettings`] and a row here.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use types::Quantity;

use super::registration::{Taint, taints};
use super::{Authorization, KubeletSettings, shown_time};
use crate::eviction::{default_texts, duration};
use crate::memory::Amounts;
use crate::pulls::VerificationPolicy;
use crate::shutdown::Share;
use crate::topology::{CpuSet, TopologyPolicy, TopologyScope};

/// What reading a value says when it has another type than expected: Go's name of the one that is.
type Read = Result<(), &'static str>;

/// One field.
pub(super) struct Field {
    /// Its path in the file.
    pub(super) name: &'static str,
    /// Puts a value into the settings.
    pub(super) set: fn(&mut KubeletSettings, &Value) -> Read,
    /// As `/configz` shows it; null for what is not said.
    pub(super) show: fn(&KubeletSettings) -> Value,
}

/// A row of the table: the name, how a value is read, where it is kept, and how it is shown.
macro_rules! field {
    ($name:literal, $read:expr, $($place:ident).+, $show:expr) => {
        Field {
            name: $name,
            set: |settings, value| {
                settings.$($place).+ = $read(value)?;
                Ok(())
            },
            show: |settings| $show(&settings.$($place).+),
        }
    };
}

pub(super) const FIELDS: &[Field] = &[
    field!("staticPodPath", path, static_pod_path, show_path),
    field!("staticPodURL", maybe_text, static_pod_url, |url: &Option<String>| json!(url)),
    field!("staticPodURLHeader", headers, static_pod_url_header, |all: &BTreeMap<String, Vec<String>>| {
        // Their values may be secrets.
        all.keys().map(|name| (name.clone(), json!(["<masked>"]))).collect::<serde_json::Map<_, _>>().into()
    }),
    field!("fileCheckFrequency", time, file_check_frequency, show_time),
    field!("httpCheckFrequency", time, http_check_frequency, show_time),
    field!("rotateCertificates", truth, rotate_certificates, |yes: &bool| json!(yes)),
    field!("serverTLSBootstrap", truth, server_tls_bootstrap, |yes: &bool| json!(yes)),
    field!("authentication.anonymous.enabled", truth, anonymous, |yes: &bool| json!(yes)),
    field!("authentication.x509.clientCAFile", path, client_ca_file, show_path),
    field!("authorization.mode", mode, authorization, |mode: &Authorization| json!(mode.name())),
    field!("evictionHard", maybe_texts, eviction_hard, |hard: &Option<BTreeMap<String, String>>| {
        json!(hard.clone().unwrap_or_else(default_texts))
    }),
    field!("evictionSoft", texts, eviction_soft, |soft: &BTreeMap<String, String>| json!(soft)),
    field!(
        "evictionSoftGracePeriod",
        texts,
        eviction_soft_grace_period,
        |t: &BTreeMap<String, String>| json!(t)
    ),
    field!("evictionMinimumReclaim", texts, eviction_minimum_reclaim, |t: &BTreeMap<String, String>| json!(
        t
    )),
    field!("evictionPressureTransitionPeriod", time, eviction_pressure_transition_period, show_time),
    field!("evictionMaxPodGracePeriod", seconds, eviction_max_pod_grace_period, |s: &u64| json!(s)),
    field!("imageGCHighThresholdPercent", percent, image_gc_high_threshold_percent, |p: &u8| json!(p)),
    field!("imageGCLowThresholdPercent", percent, image_gc_low_threshold_percent, |p: &u8| json!(p)),
    field!("imageMinimumGCAge", time, image_minimum_gc_age, show_time),
    field!("imageMaximumGCAge", time, image_maximum_gc_age, show_time),
    field!("shutdownGracePeriod", time, shutdown.grace_period, show_time),
    field!("shutdownGracePeriodCriticalPods", time, shutdown.grace_period_critical_pods, show_time),
    field!("shutdownGracePeriodByPodPriority", shares, shutdown.grace_period_by_pod_priority, |all: &Vec<
        Share,
    >| {
        let one = |s: &Share| json!({"priority": s.priority, "shutdownGracePeriodSeconds": s.seconds});
        all.iter().map(one).collect::<Value>()
    }),
    field!("allowedUnsafeSysctls", list, allowed_unsafe_sysctls, show_list),
    field!(
        "imagePullCredentialsVerificationPolicy",
        verification,
        image_pull_credentials_verification_policy,
        |policy: &VerificationPolicy| json!(policy.name())
    ),
    field!("preloadedImagesVerificationAllowlist", list, preloaded_images_verification_allowlist, show_list),
    field!("serializeImagePulls", truth, serialize_image_pulls, |yes: &bool| json!(yes)),
    field!("maxParallelImagePulls", pulls, max_parallel_image_pulls, |n: &Option<usize>| json!(n)),
    field!("containerRuntimeEndpoint", maybe_text, container_runtime_endpoint, |e: &Option<String>| json!(e)),
    field!("imageServiceEndpoint", maybe_text, image_service_endpoint, |e: &Option<String>| json!(e)),
    field!("containerLogMaxSize", amount, containers.log_max_size, |bytes: &u64| json!(bytes.to_string())),
    field!("containerLogMaxFiles", count, containers.log_max_files, |n: &u32| json!(n)),
    field!("crashLoopBackOff.maxContainerRestartPeriod", time, containers.max_restart_period, show_time),
    field!("seccompDefault", truth, containers.seccomp_default, |yes: &bool| json!(yes)),
    field!(
        "singleProcessOOMKill",
        maybe_truth,
        containers.single_process_oom_kill,
        |yes: &Option<bool>| json!(yes)
    ),
    field!("cpuCFSQuota", truth, containers.cpu_cfs_quota, |yes: &bool| json!(yes)),
    field!("resolvConf", path, containers.resolv_conf, show_path),
    field!("registerWithTaints", taints, registration.taints, |all: &Vec<Taint>| {
        if all.is_empty() { Value::Null } else { json!(all) }
    }),
    field!("providerID", maybe_text, registration.provider_id, |id: &Option<String>| json!(id)),
    field!("nodeStatusMaxImages", most_images, registration.status_max_images, |most: &Option<usize>| json!(
        most.map_or(-1, |n| n as i64)
    )),
    field!("nodeLeaseDurationSeconds", count, registration.lease_duration_seconds, |n: &u32| json!(n)),
    field!("maxPods", count, max_pods, |n: &u32| json!(n)),
    field!("kubeReserved", texts, reservations.kube_reserved, show_texts),
    field!("systemReserved", texts, reservations.system_reserved, show_texts),
    field!(
        "kubeReservedCgroup",
        maybe_text,
        reservations.kube_reserved_cgroup,
        |path: &Option<String>| json!(path)
    ),
    field!("systemReservedCgroup", maybe_text, reservations.system_reserved_cgroup, |path: &Option<
        String,
    >| json!(path)),
    field!("enforceNodeAllocatable", list, reservations.enforce_node_allocatable, show_list),
    field!("podPidsLimit", whole, reservations.pod_pids_limit, |limit: &i64| json!(limit)),
    field!("cpuManagerPolicy", text, managers.cpu_manager_policy, |name: &String| json!(name)),
    field!("cpuManagerPolicyOptions", texts, managers.cpu_manager_policy_options, show_texts),
    field!("reservedSystemCPUs", cpus, managers.reserved_system_cpus, |cpus: &CpuSet| {
        if cpus.is_empty() { Value::Null } else { json!(cpus.to_string()) }
    }),
    field!("topologyManagerPolicy", topology, managers.topology_manager_policy, |p: &TopologyPolicy| json!(
        p.name()
    )),
    field!("topologyManagerScope", scope, managers.topology_manager_scope, |s: &TopologyScope| json!(
        s.name()
    )),
    field!("topologyManagerPolicyOptions", texts, managers.topology_manager_policy_options, show_texts),
    field!("memoryManagerPolicy", text, managers.memory_manager_policy, |name: &String| json!(name)),
    field!("reservedMemory", reserved_memory, managers.reserved_memory, show_reserved_memory),
];

/// Fields that upstream's kubelet knows and this agent does nothing with. Maps stand for all that is in them, except
/// where [`FIELDS`] has something of it.
pub(super) const NOT_HONOURED: &[&str] = &[
    "address",
    "authentication.webhook",
    "authorization.webhook",
    "cgroupDriver",
    "cgroupRoot",
    "cgroupsPerQOS",
    "clusterDNS",
    "clusterDomain",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "contentType",
    "cpuCFSQuotaPeriod",
    "cpuManagerReconcilePeriod",
    "draManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableServer",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "eventBurst",
    "eventRecordQPS",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "hairpinMode",
    "healthzBindAddress",
    "healthzPort",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "oomScoreAdj",
    "podCIDR",
    "podLogsDir",
    "podsPerCore",
    "port",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "registerNode",
    "registryBurst",
    "registryPullQPS",
    "runOnce",
    "runtimeRequestTimeout",
    "showHiddenMetricsForVersion",
    "streamingConnectionIdleTimeout",
    "syncFrequency",
    "systemCgroups",
    "tlsCertFile",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "tlsPrivateKeyFile",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

fn show_path(path: &Option<std::path::PathBuf>) -> Value {
    path.as_ref().map(|path| path.display().to_string()).into()
}

fn show_time(time: &Duration) -> Value {
    shown_time(*time).into()
}

fn text(value: &Value) -> Result<String, &'static str> {
    value.as_str().map(str::to_owned).ok_or("string")
}

fn maybe_text(value: &Value) -> Result<Option<String>, &'static str> {
    text(value).map(|text| Some(text).filter(|text| !text.is_empty()))
}

fn path(value: &Value) -> Result<Option<std::path::PathBuf>, &'static str> {
    maybe_text(value).map(|text| text.map(Into::into))
}

fn truth(value: &Value) -> Result<bool, &'static str> {
    value.as_bool().ok_or("bool")
}

fn maybe_truth(value: &Value) -> Result<Option<bool>, &'static str> {
    truth(value).map(Some)
}

fn amount(value: &Value) -> Result<u64, &'static str> {
    let bytes = value.as_str().and_then(|text| text.parse::<Quantity>().ok()).map(Quantity::units);
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).ok_or("string: an amount such as 10Mi")
}

fn most_images(value: &Value) -> Result<Option<usize>, &'static str> {
    match value.as_i64() {
        Some(-1) => Ok(None),
        Some(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(Some(n as usize)),
        _ => Err("int32, -1 or more"),
    }
}

fn time(value: &Value) -> Result<Duration, &'static str> {
    value.as_str().and_then(duration).ok_or("Duration, such as 1m30s")
}

fn seconds(value: &Value) -> Result<u64, &'static str> {
    value.as_u64().filter(|n| i32::try_from(*n).is_ok()).ok_or("int32 that is not negative")
}

fn whole(value: &Value) -> Result<i64, &'static str> {
    value.as_i64().ok_or("int64")
}

fn percent(value: &Value) -> Result<u8, &'static str> {
    // Whether it is a percentage is for the check to say, in upstream's words.
    value.as_u64().and_then(|n| u8::try_from(n).ok()).ok_or("int32 between 0 and 100")
}

fn texts(value: &Value) -> Result<BTreeMap<String, String>, &'static str> {
    let map = value.as_object().ok_or("map[string]string")?;
    map.iter().map(|(name, value)| Ok((name.clone(), text(value)?))).collect()
}

fn maybe_texts(value: &Value) -> Result<Option<BTreeMap<String, String>>, &'static str> {
    texts(value).map(Some)
}

fn list(value: &Value) -> Result<Vec<String>, &'static str> {
    value.as_array().ok_or("[]string")?.iter().map(text).collect()
}

fn show_list(list: &Vec<String>) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn verification(value: &Value) -> Result<VerificationPolicy, &'static str> {
    let named = value.as_str().and_then(|name| VerificationPolicy::named(name).ok());
    named.ok_or("ImagePullCredentialsVerificationPolicy")
}

fn pulls(value: &Value) -> Result<Option<usize>, &'static str> {
    let count = count(value)?;
    Ok(Some(count as usize).filter(|n| *n > 0))
}

fn show_texts(texts: &BTreeMap<String, String>) -> Value {
    if texts.is_empty() { Value::Null } else { json!(texts) }
}

fn count(value: &Value) -> Result<u32, &'static str> {
    seconds(value).and_then(|n| u32::try_from(n).map_err(|_| "int32 that is not negative"))
}

fn cpus(value: &Value) -> Result<CpuSet, &'static str> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or("string: CPUs such as 0-1,8")
}

fn topology(value: &Value) -> Result<TopologyPolicy, &'static str> {
    let policy = value.as_str().and_then(TopologyPolicy::parse);
    policy.ok_or("string: none, best-effort, restricted or single-numa-node")
}

fn scope(value: &Value) -> Result<TopologyScope, &'static str> {
    value.as_str().and_then(TopologyScope::parse).ok_or("string: container or pod")
}

/// `[{numaNode: 0, limits: {memory: 1Gi}}]`.
fn reserved_memory(value: &Value) -> Result<BTreeMap<usize, Amounts>, &'static str> {
    const FORM: &str = "[]MemoryReservation";
    let amounts = |limits: &Value| -> Option<Amounts> {
        let one = |(name, amount): (&String, &Value)| {
            let bytes = amount.as_str()?.parse::<Quantity>().ok()?.units();
            Some((name.clone(), u64::try_from(bytes).ok()?))
        };
        limits.as_object()?.iter().map(one).collect()
    };
    let one = |entry: &Value| -> Option<(usize, Amounts)> {
        let node = entry["numaNode"].as_u64().and_then(|n| usize::try_from(n).ok())?;
        Some((node, amounts(&entry["limits"])?))
    };
    value.as_array().ok_or(FORM)?.iter().map(|entry| one(entry).ok_or(FORM)).collect()
}

fn show_reserved_memory(all: &BTreeMap<usize, Amounts>) -> Value {
    let one = |(node, amounts): (&usize, &Amounts)| {
        let limits: BTreeMap<&String, String> = amounts.iter().map(|(n, a)| (n, a.to_string())).collect();
        json!({"numaNode": node, "limits": limits})
    };
    if all.is_empty() { Value::Null } else { all.iter().map(one).collect() }
}

fn headers(value: &Value) -> Result<BTreeMap<String, Vec<String>>, &'static str> {
    let map = value.as_object().ok_or("map[string][]string")?;
    let values = |list: &Value| -> Result<Vec<String>, &'static str> {
        list.as_array().ok_or("[]string")?.iter().map(text).collect()
    };
    map.iter().map(|(name, list)| Ok((name.clone(), values(list)?))).collect()
}

fn mode(value: &Value) -> Result<Authorization, &'static str> {
    let name = value.as_str().ok_or("string")?;
    Authorization::of(name).ok_or("KubeletAuthorizationMode: AlwaysAllow or Webhook")
}

fn shares(value: &Value) -> Result<Vec<Share>, &'static str> {
    const FORM: &str = "[]ShutdownGracePeriodByPodPriority";
    let one = |share: &Value| -> Option<Share> {
        let map = share.as_object()?;
        if map.keys().any(|name| !matches!(name.as_str(), "priority" | "shutdownGracePeriodSeconds")) {
            return None;
        }
        let number = |name: &str| map.get(name).map_or(Some(0), Value::as_i64);
        Some(Share {
            priority: number("priority")?.try_into().ok()?,
            seconds: number("shutdownGracePeriodSeconds")?.try_into().ok()?,
        })
    };
    value.as_array().ok_or(FORM)?.iter().map(|share| one(share).ok_or(FORM)).collect()
}
