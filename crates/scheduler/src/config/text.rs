//! The file as it is written (kubernetes/kubernetes, `staging/src/k8s.io/kube-scheduler/config/v1/types.go`).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::plugins::PluginsText;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConfigText {
    pub(super) parallelism: i64,
    pub(super) leader_election: LeaderElectionText,
    pub(super) client_connection: ClientConnectionText,
    pub(super) percentage_of_nodes_to_score: Option<i64>,
    pub(super) pod_initial_backoff_seconds: i64,
    pub(super) pod_max_backoff_seconds: i64,
    pub(super) profiles: Vec<ProfileText>,
    pub(super) extenders: Vec<ExtenderText>,
}

impl Default for ConfigText {
    fn default() -> Self {
        Self {
            parallelism: 16,
            leader_election: LeaderElectionText::default(),
            client_connection: ClientConnectionText::default(),
            percentage_of_nodes_to_score: None,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            profiles: Vec::new(),
            extenders: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LeaderElectionText {
    pub(super) leader_elect: bool,
    pub(super) lease_duration: String,
    pub(super) renew_deadline: String,
    pub(super) retry_period: String,
    pub(super) resource_lock: String,
}

impl Default for LeaderElectionText {
    fn default() -> Self {
        Self {
            leader_elect: true,
            lease_duration: "15s".into(),
            renew_deadline: "10s".into(),
            retry_period: "2s".into(),
            resource_lock: "leases".into(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClientConnectionText {
    pub(super) burst: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProfileText {
    pub(super) scheduler_name: Option<String>,
    pub(super) percentage_of_nodes_to_score: Option<i64>,
    pub(super) plugins: PluginsText,
    pub(super) plugin_config: Vec<PluginConfigText>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PluginConfigText {
    pub(super) name: String,
    pub(super) args: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ExtenderText {
    pub(super) url_prefix: String,
    pub(super) filter_verb: String,
    pub(super) preempt_verb: String,
    pub(super) prioritize_verb: String,
    pub(super) weight: i64,
    pub(super) bind_verb: String,
    pub(super) tls_config: Option<TlsText>,
    pub(super) http_timeout: String,
    pub(super) node_cache_capable: bool,
    pub(super) managed_resources: Vec<ManagedText>,
    pub(super) ignorable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TlsText {
    pub(super) insecure: bool,
    pub(super) server_name: String,
    pub(super) cert_file: String,
    pub(super) key_file: String,
    pub(super) ca_file: String,
    pub(super) cert_data: String,
    pub(super) key_data: String,
    pub(super) ca_data: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ManagedText {
    pub(super) name: String,
    pub(super) ignored_by_scheduler: bool,
}

/// A duration as Go writes it: `1h2m3.5s`. Nothing is none at all.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    if rest == "0" || rest.is_empty() {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, seconds) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += number * seconds;
        rest = &rest[unit.len()..];
    }
    Duration::try_from_secs_f64(total).ok()
}
