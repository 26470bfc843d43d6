//! Sandboxes: what the containers of a pod share.

use std::collections::BTreeMap;

use super::{ContainerStatus, LinuxContainerResources, LinuxPodSandboxConfig, NamespaceOption};
use crate::wire::{enums, messages};

enums! {
    /// A port's protocol.
    Protocol { Tcp, Udp = 1, Sctp = 2 }

    /// Whether a sandbox can have containers.
    PodSandboxState { Ready, NotReady = 1 }
}

messages! {
    DnsConfig { 1 servers: Vec<String>, 2 searches: Vec<String>, 3 options: Vec<String> }

    PortMapping { 1 protocol: Protocol, 2 container_port: i32, 3 host_port: i32, 4 host_ip: String }

    PodSandboxMetadata { 1 name: String, 2 uid: String, 3 namespace: String, 4 attempt: u32 }

    PodSandboxConfig {
        1 metadata: Option<PodSandboxMetadata>,
        2 hostname: String,
        3 log_directory: String,
        4 dns_config: Option<DnsConfig>,
        5 port_mappings: Vec<PortMapping>,
        6 labels: BTreeMap<String, String>,
        7 annotations: BTreeMap<String, String>,
        8 linux: Option<LinuxPodSandboxConfig>,
    }

    RunPodSandboxRequest { 1 config: Option<PodSandboxConfig>, 2 runtime_handler: String }
    RunPodSandboxResponse { 1 pod_sandbox_id: String }

    StopPodSandboxRequest { 1 pod_sandbox_id: String }
    StopPodSandboxResponse {}

    RemovePodSandboxRequest { 1 pod_sandbox_id: String }
    RemovePodSandboxResponse {}

    PodIp { 1 ip: String }

    PodSandboxNetworkStatus { 1 ip: String, 2 additional_ips: Vec<PodIp> }

    Namespace { 2 options: Option<NamespaceOption> }

    LinuxPodSandboxStatus { 1 namespaces: Option<Namespace> }

    PodSandboxStatus {
        1 id: String,
        2 metadata: Option<PodSandboxMetadata>,
        3 state: PodSandboxState,
        4 created_at: i64,
        5 network: Option<PodSandboxNetworkStatus>,
        6 linux: Option<LinuxPodSandboxStatus>,
        7 labels: BTreeMap<String, String>,
        8 annotations: BTreeMap<String, String>,
        9 runtime_handler: String,
    }

    PodSandboxStatusRequest { 1 pod_sandbox_id: String, 2 verbose: bool }
    PodSandboxStatusResponse {
        1 status: Option<PodSandboxStatus>,
        2 info: BTreeMap<String, String>,
        3 containers_statuses: Vec<ContainerStatus>,
        4 timestamp: i64,
    }

    PodSandboxStateValue { 1 state: PodSandboxState }

    PodSandboxFilter {
        1 id: String,
        2 state: Option<PodSandboxStateValue>,
        3 label_selector: BTreeMap<String, String>,
    }

    PodSandbox {
        1 id: String,
        2 metadata: Option<PodSandboxMetadata>,
        3 state: PodSandboxState,
        4 created_at: i64,
        5 labels: BTreeMap<String, String>,
        6 annotations: BTreeMap<String, String>,
        7 runtime_handler: String,
    }

    ListPodSandboxRequest { 1 filter: Option<PodSandboxFilter> }
    ListPodSandboxResponse { 1 items: Vec<PodSandbox> }

    StreamPodSandboxesRequest { 1 filter: Option<PodSandboxFilter> }
    StreamPodSandboxesResponse { 1 pod_sandboxes: Vec<PodSandbox> }

    PortForwardRequest { 1 pod_sandbox_id: String, 2 port: Vec<i32> }
    PortForwardResponse { 1 url: String }

    UpdatePodSandboxResourcesRequest {
        1 pod_sandbox_id: String,
        2 overhead: Option<LinuxContainerResources>,
        3 resources: Option<LinuxContainerResources>,
    }
    UpdatePodSandboxResourcesResponse {}
}
