//! What sandboxes and containers use, as statistics and as metrics.

use std::collections::BTreeMap;

use super::{ContainerMetadata, PodSandboxMetadata, UInt64Value};
use crate::wire::{enums, messages};

enums! {
    /// Whether a metric may fall.
    MetricType { Counter, Gauge = 1 }
}

messages! {
    FilesystemIdentifier { 1 mountpoint: String }

    FilesystemUsage {
        1 timestamp: i64,
        2 fs_id: Option<FilesystemIdentifier>,
        3 used_bytes: Option<UInt64Value>,
        4 inodes_used: Option<UInt64Value>,
    }

    PsiStats { 1 full: Option<PsiData>, 2 some: Option<PsiData> }

    PsiData { 1 total: u64, 2 avg10: f64, 3 avg60: f64, 4 avg300: f64 }

    CpuUsage {
        1 timestamp: i64,
        2 usage_core_nano_seconds: Option<UInt64Value>,
        3 usage_nano_cores: Option<UInt64Value>,
        4 psi: Option<PsiStats>,
    }

    MemoryUsage {
        1 timestamp: i64,
        2 working_set_bytes: Option<UInt64Value>,
        3 available_bytes: Option<UInt64Value>,
        4 usage_bytes: Option<UInt64Value>,
        5 rss_bytes: Option<UInt64Value>,
        6 page_faults: Option<UInt64Value>,
        7 major_page_faults: Option<UInt64Value>,
        8 psi: Option<PsiStats>,
    }

    IoUsage { 1 timestamp: i64, 2 psi: Option<PsiStats> }

    SwapUsage {
        1 timestamp: i64,
        2 swap_available_bytes: Option<UInt64Value>,
        3 swap_usage_bytes: Option<UInt64Value>,
    }

    NetworkInterfaceUsage {
        1 name: String,
        2 rx_bytes: Option<UInt64Value>,
        3 rx_errors: Option<UInt64Value>,
        4 tx_bytes: Option<UInt64Value>,
        5 tx_errors: Option<UInt64Value>,
    }

    NetworkUsage {
        1 timestamp: i64,
        2 default_interface: Option<NetworkInterfaceUsage>,
        3 interfaces: Vec<NetworkInterfaceUsage>,
    }

    ProcessUsage { 1 timestamp: i64, 2 process_count: Option<UInt64Value> }

    ContainerAttributes {
        1 id: String,
        2 metadata: Option<ContainerMetadata>,
        3 labels: BTreeMap<String, String>,
        4 annotations: BTreeMap<String, String>,
    }

    ContainerStats {
        1 attributes: Option<ContainerAttributes>,
        2 cpu: Option<CpuUsage>,
        3 memory: Option<MemoryUsage>,
        4 writable_layer: Option<FilesystemUsage>,
        5 swap: Option<SwapUsage>,
        6 io: Option<IoUsage>,
    }

    ContainerStatsRequest { 1 container_id: String }
    ContainerStatsResponse { 1 stats: Option<ContainerStats> }

    ContainerStatsFilter { 1 id: String, 2 pod_sandbox_id: String, 3 label_selector: BTreeMap<String, String> }

    ListContainerStatsRequest { 1 filter: Option<ContainerStatsFilter> }
    ListContainerStatsResponse { 1 stats: Vec<ContainerStats> }

    StreamContainerStatsRequest { 1 filter: Option<ContainerStatsFilter> }
    StreamContainerStatsResponse { 1 container_stats: Vec<ContainerStats> }

    PodSandboxAttributes {
        1 id: String,
        2 metadata: Option<PodSandboxMetadata>,
        3 labels: BTreeMap<String, String>,
        4 annotations: BTreeMap<String, String>,
    }

    LinuxPodSandboxStats {
        1 cpu: Option<CpuUsage>,
        2 memory: Option<MemoryUsage>,
        3 network: Option<NetworkUsage>,
        4 process: Option<ProcessUsage>,
        5 containers: Vec<ContainerStats>,
        6 io: Option<IoUsage>,
    }

    PodSandboxStats { 1 attributes: Option<PodSandboxAttributes>, 2 linux: Option<LinuxPodSandboxStats> }

    PodSandboxStatsRequest { 1 pod_sandbox_id: String }
    PodSandboxStatsResponse { 1 stats: Option<PodSandboxStats> }

    PodSandboxStatsFilter { 1 id: String, 2 label_selector: BTreeMap<String, String> }

    ListPodSandboxStatsRequest { 1 filter: Option<PodSandboxStatsFilter> }
    ListPodSandboxStatsResponse { 1 stats: Vec<PodSandboxStats> }

    StreamPodSandboxStatsRequest { 1 filter: Option<PodSandboxStatsFilter> }
    StreamPodSandboxStatsResponse { 1 pod_sandbox_stats: Vec<PodSandboxStats> }

    MetricDescriptor { 1 name: String, 2 help: String, 3 label_keys: Vec<String> }

    ListMetricDescriptorsRequest {}
    ListMetricDescriptorsResponse { 1 descriptors: Vec<MetricDescriptor> }

    Metric {
        1 name: String,
        2 timestamp: i64,
        3 metric_type: MetricType,
        4 label_values: Vec<String>,
        5 value: Option<UInt64Value>,
    }

    ContainerMetrics { 1 container_id: String, 2 metrics: Vec<Metric> }

    PodSandboxMetrics {
        1 pod_sandbox_id: String,
        2 metrics: Vec<Metric>,
        3 container_metrics: Vec<ContainerMetrics>,
    }

    ListPodSandboxMetricsRequest {}
    ListPodSandboxMetricsResponse { 1 pod_metrics: Vec<PodSandboxMetrics> }

    StreamPodSandboxMetricsRequest {}
    StreamPodSandboxMetricsResponse { 1 pod_sandbox_metrics: Vec<PodSandboxMetrics> }
}
