//! The runtime as a whole: who it is, how it is, and what happens in it.

use std::collections::BTreeMap;

use super::{ContainerStatus, PodSandboxStatus};
use crate::wire::{enums, messages};

enums! {
    /// What happened to a container.
    ContainerEventType { Created, Started = 1, Stopped = 2, Deleted = 3 }

    /// Who makes the cgroups.
    CgroupDriver { Systemd, Cgroupfs = 1 }
}

messages! {
    VersionRequest { 1 version: String }
    VersionResponse {
        1 version: String,
        2 runtime_name: String,
        3 runtime_version: String,
        4 runtime_api_version: String,
    }

    NetworkConfig { 1 pod_cidr: String }

    /// What the kubelet wants of a runtime.
    RuntimeConfig { 1 network_config: Option<NetworkConfig> }

    UpdateRuntimeConfigRequest { 1 runtime_config: Option<RuntimeConfig> }
    UpdateRuntimeConfigResponse {}

    RuntimeCondition { 1 r#type: String, 2 status: bool, 3 reason: String, 4 message: String }

    RuntimeStatus { 1 conditions: Vec<RuntimeCondition> }

    RuntimeHandlerFeatures { 1 recursive_read_only_mounts: bool, 2 user_namespaces: bool }

    RuntimeHandler { 1 name: String, 2 features: Option<RuntimeHandlerFeatures> }

    RuntimeFeatures { 1 supplemental_groups_policy: bool, 2 user_namespaces_host_network: bool }

    StatusRequest { 1 verbose: bool }
    StatusResponse {
        1 status: Option<RuntimeStatus>,
        2 info: BTreeMap<String, String>,
        3 runtime_handlers: Vec<RuntimeHandler>,
        4 features: Option<RuntimeFeatures>,
    }

    /// What a runtime wants of the kubelet.
    RuntimeConfigRequest {}
    RuntimeConfigResponse { 1 linux: Option<LinuxRuntimeConfiguration> }

    LinuxRuntimeConfiguration { 1 cgroup_driver: CgroupDriver }

    GetEventsRequest {}
    ContainerEventResponse {
        1 container_id: String,
        2 container_event_type: ContainerEventType,
        3 created_at: i64,
        4 pod_sandbox_status: Option<PodSandboxStatus>,
        5 containers_statuses: Vec<ContainerStatus>,
    }
}
