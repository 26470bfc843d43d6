//! Containers, and what is done with them.

use std::collections::BTreeMap;

use super::{
    IdMapping, ImageSpec, LinuxContainerConfig, LinuxContainerResources, LinuxContainerUser,
    PodSandboxConfig, Signal,
};
use crate::wire::{enums, messages};

enums! {
    /// Which mounts are seen on the other side.
    MountPropagation { Private, HostToContainer = 1, Bidirectional = 2 }

    /// What a container is doing.
    ContainerState { Created, Running = 1, Exited = 2, Unknown = 3 }
}

messages! {
    KeyValue { 1 key: String, 2 value: String }

    Mount {
        1 container_path: String,
        2 host_path: String,
        3 readonly: bool,
        4 selinux_relabel: bool,
        5 propagation: MountPropagation,
        6 uid_mappings: Vec<IdMapping>,
        7 gid_mappings: Vec<IdMapping>,
        8 recursive_read_only: bool,
        9 image: Option<ImageSpec>,
        10 image_sub_path: String,
    }

    Device { 1 container_path: String, 2 host_path: String, 3 permissions: String }

    CdiDevice { 1 name: String }

    ContainerMetadata { 1 name: String, 2 attempt: u32 }

    ContainerConfig {
        1 metadata: Option<ContainerMetadata>,
        2 image: Option<ImageSpec>,
        3 command: Vec<String>,
        4 args: Vec<String>,
        5 working_dir: String,
        6 envs: Vec<KeyValue>,
        7 mounts: Vec<Mount>,
        8 devices: Vec<Device>,
        9 labels: BTreeMap<String, String>,
        10 annotations: BTreeMap<String, String>,
        11 log_path: String,
        12 stdin: bool,
        13 stdin_once: bool,
        14 tty: bool,
        15 linux: Option<LinuxContainerConfig>,
        17 cdi_devices: Vec<CdiDevice>,
        18 stop_signal: Signal,
    }

    CreateContainerRequest {
        1 pod_sandbox_id: String,
        2 config: Option<ContainerConfig>,
        3 sandbox_config: Option<PodSandboxConfig>,
    }
    CreateContainerResponse { 1 container_id: String }

    StartContainerRequest { 1 container_id: String }
    StartContainerResponse {}

    StopContainerRequest { 1 container_id: String, 2 timeout: i64 }
    StopContainerResponse {}

    RemoveContainerRequest { 1 container_id: String }
    RemoveContainerResponse {}

    ContainerStateValue { 1 state: ContainerState }

    ContainerFilter {
        1 id: String,
        2 state: Option<ContainerStateValue>,
        3 pod_sandbox_id: String,
        4 label_selector: BTreeMap<String, String>,
    }

    Container {
        1 id: String,
        2 pod_sandbox_id: String,
        3 metadata: Option<ContainerMetadata>,
        4 image: Option<ImageSpec>,
        5 image_ref: String,
        6 state: ContainerState,
        7 created_at: i64,
        8 labels: BTreeMap<String, String>,
        9 annotations: BTreeMap<String, String>,
        10 image_id: String,
    }

    ListContainersRequest { 1 filter: Option<ContainerFilter> }
    ListContainersResponse { 1 containers: Vec<Container> }

    StreamContainersRequest { 1 filter: Option<ContainerFilter> }
    StreamContainersResponse { 1 containers: Vec<Container> }

    ContainerResources { 1 linux: Option<LinuxContainerResources> }

    ContainerUser { 1 linux: Option<LinuxContainerUser> }

    ContainerStatus {
        1 id: String,
        2 metadata: Option<ContainerMetadata>,
        3 state: ContainerState,
        4 created_at: i64,
        5 started_at: i64,
        6 finished_at: i64,
        7 exit_code: i32,
        8 image: Option<ImageSpec>,
        9 image_ref: String,
        10 reason: String,
        11 message: String,
        12 labels: BTreeMap<String, String>,
        13 annotations: BTreeMap<String, String>,
        14 mounts: Vec<Mount>,
        15 log_path: String,
        16 resources: Option<ContainerResources>,
        17 image_id: String,
        18 user: Option<ContainerUser>,
        19 stop_signal: Signal,
    }

    ContainerStatusRequest { 1 container_id: String, 2 verbose: bool }
    ContainerStatusResponse { 1 status: Option<ContainerStatus>, 2 info: BTreeMap<String, String> }

    UpdateContainerResourcesRequest {
        1 container_id: String,
        2 linux: Option<LinuxContainerResources>,
        4 annotations: BTreeMap<String, String>,
    }
    UpdateContainerResourcesResponse {}

    ReopenContainerLogRequest { 1 container_id: String }
    ReopenContainerLogResponse {}

    ExecSyncRequest { 1 container_id: String, 2 cmd: Vec<String>, 3 timeout: i64 }
    ExecSyncResponse { 1 stdout: Vec<u8>, 2 stderr: Vec<u8>, 3 exit_code: i32 }

    ExecRequest {
        1 container_id: String,
        2 cmd: Vec<String>,
        3 tty: bool,
        4 stdin: bool,
        5 stdout: bool,
        6 stderr: bool,
        7 audit_request_id: String,
    }
    ExecResponse { 1 url: String }

    AttachRequest {
        1 container_id: String,
        2 stdin: bool,
        3 tty: bool,
        4 stdout: bool,
        5 stderr: bool,
        6 audit_request_id: String,
    }
    AttachResponse { 1 url: String }

    CheckpointContainerRequest { 1 container_id: String, 2 location: String, 3 timeout: i64 }
    CheckpointContainerResponse {}
}
